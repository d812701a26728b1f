"""What a commit, its files and what follows it are told, in the ``deltalake`` package's words.

Its own objects will do in the place of these: only attributes are read. What cannot be honoured is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from deltaduck.changes import Change
from deltaduck.errors import UnsupportedFeatureError

OWN_INFO = (
    "timestamp", "operation", "operationParameters", "operationMetrics", "readVersion", "isolationLevel", "isBlindAppend",
    "engineInfo", "txnId", "inCommitTimestamp",
)  # fmt: skip
CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "BROTLI", "ZSTD", "LZ4_RAW")
ONLY_LEVEL = {"GZIP": "6", "BROTLI": "1"}  # what an object that was given no level says
VECTOR = 2048  # rows: DuckDB's row groups are multiples of it


class AppTransaction(NamedTuple):
    """The version that an application has reached with a commit (the ``deltalake`` package calls it Transaction)."""

    app_id: str
    version: int
    last_updated: int | None = None


@dataclass
class CommitProperties:
    """custom_metadata: further members of the commitInfo. app_transactions: recorded with the commit.

    max_commit_retries is accepted for its signature: a commit here waits for its turn and never races for a version.
    """

    custom_metadata: Mapping[str, Any] | None = None
    max_commit_retries: int | None = None
    app_transactions: Sequence[AppTransaction] | None = None


@dataclass
class PostCommitHookProperties:
    """create_checkpoint: may one follow, when its turn has come? cleanup_expired_logs: only False can be had."""

    create_checkpoint: bool = True
    cleanup_expired_logs: bool | None = None


@dataclass
class WriterProperties:
    """How Parquet is written. max_row_group_size, compression and compression_level (of ZSTD) can be chosen."""

    data_page_size_limit: int | None = None
    dictionary_page_size_limit: int | None = None
    data_page_row_count_limit: int | None = None
    write_batch_size: int | None = None
    max_row_group_size: int | None = None
    compression: str | None = None
    compression_level: int | None = None
    statistics_truncate_length: int | None = None
    default_column_properties: Any = None
    column_properties: Mapping[str, Any] | None = None


def describe(change: Change, name: str | None, commit_properties: Any, post_commithook_properties: Any) -> None:
    """Put into a staged change the name in its metadata, what its commit is to say, and what may follow it."""
    if name not in (None, change.after.metadata_name):
        if change.base is not None:
            raise UnsupportedFeatureError(f"table {change.name!r} exists: its name is not changed by a write: {name!r}")
        change.after = replace(change.after, metadata_name=name)
    if post_commithook_properties is not None:
        if getattr(post_commithook_properties, "cleanup_expired_logs", None):
            raise UnsupportedFeatureError(
                "post_commithook_properties: cleanup_expired_logs=True cannot be honoured; leave it out"
            )
        change.checkpoint = bool(getattr(post_commithook_properties, "create_checkpoint", True))
    if commit_properties is None:
        return
    info = dict(getattr(commit_properties, "custom_metadata", None) or {})
    if taken := sorted(set(info) & set(OWN_INFO)):
        raise UnsupportedFeatureError(
            f"commit_properties: custom_metadata cannot set {', '.join(taken)}: every commit says its own"
        )
    text = info.pop("userMetadata", change.user_metadata)
    if text is not None and not isinstance(text, str):
        raise UnsupportedFeatureError(f"commit_properties: userMetadata is text, not {type(text).__name__}")
    try:
        change.info = json.loads(json.dumps(info, allow_nan=False))
    except (TypeError, ValueError) as e:
        raise UnsupportedFeatureError(f"commit_properties: custom_metadata cannot be written as JSON: {e}") from e
    change.user_metadata = text
    for transaction in getattr(commit_properties, "app_transactions", None) or ():
        change.app_transactions[str(transaction.app_id)] = int(transaction.version)


def copy_options(writer_properties: Any, target_file_size: int | None = None) -> dict[str, str | int]:
    """Options of DuckDB's COPY."""
    options: dict[str, str | int] = {}
    if target_file_size is not None:
        if target_file_size < 1:
            raise UnsupportedFeatureError(f"target_file_size is {target_file_size}: it is a number of bytes, 1 or more")
        options["FILE_SIZE_BYTES"] = target_file_size
    given = {k: v for k, v in vars(writer_properties).items() if v is not None} if writer_properties is not None else {}
    codec, level = given.pop("compression", None), given.pop("compression_level", None)
    rows = given.pop("max_row_group_size", None)
    if given:
        raise UnsupportedFeatureError(
            f"writer_properties: {', '.join(sorted(given))} cannot be honoured; "
            "max_row_group_size, compression and compression_level can"
        )
    if codec is not None or level is not None:
        options |= _compression(str(codec or ""), level)
    if rows is not None:
        if rows < VECTOR:
            raise UnsupportedFeatureError(f"writer_properties: max_row_group_size is {rows}; {VECTOR} is the least")
        options["ROW_GROUP_SIZE"] = rows // VECTOR * VECTOR
    return options


def _compression(text: str, level: int | None) -> dict[str, str | int]:
    found = re.fullmatch(r"(\w+)(?:\((\d+)\))?", text.upper())
    codec = found[1] if found else ""
    if found is None or codec not in CODECS:
        raise UnsupportedFeatureError(f"writer_properties: compression is {text!r}; it is one of {', '.join(CODECS)}")
    wanted = str(level) if level is not None else found[2]
    if codec == "ZSTD":
        return {"COMPRESSION": "zstd"} | ({} if wanted is None else {"COMPRESSION_LEVEL": int(wanted)})
    if wanted not in (None, ONLY_LEVEL.get(codec)):
        raise UnsupportedFeatureError(f"writer_properties: compression_level of {codec} cannot be honoured; that of ZSTD can")
    return {"COMPRESSION": codec.lower()}
