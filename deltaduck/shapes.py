"""What a table says of itself, in the shapes of the ``deltalake`` package."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from deltaduck.listing import Listing, utc
from deltaduck.protocol.schema import Field, Struct, arrow_schema, parse_schema, to_json


class Schema:
    """The columns of a table. Whatever a ``pyarrow.Schema`` answers, this answers too, and Arrow takes it for one."""

    def __init__(self, fields: Struct | Iterable[Field]) -> None:
        self.struct = fields if isinstance(fields, Struct) else Struct(tuple(fields))
        self._arrow = arrow_schema(self.struct)

    @classmethod
    def from_json(cls, text: str) -> Schema:
        return cls(parse_schema(text))

    @property
    def fields(self) -> list[Field]:
        """The columns as the log has them: name, Delta type, nullable, metadata."""
        return list(self.struct.fields)

    def to_json(self) -> str:
        """The log's ``schemaString``."""
        return to_json(self.struct)

    def to_arrow(self, as_large_types: bool = False) -> pa.Schema:
        return pa.schema([f.with_type(_large(f.type)) for f in self._arrow]) if as_large_types else self._arrow

    def __arrow_c_schema__(self) -> object:
        return self._arrow.__arrow_c_schema__()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._arrow, name)

    def __iter__(self) -> Iterator[pa.Field]:
        return iter(self._arrow)

    def __len__(self) -> int:
        return len(self._arrow)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Schema):
            return self.struct == other.struct
        return isinstance(other, pa.Schema) and bool(self._arrow.equals(other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._arrow)


def _large(kind: pa.DataType) -> pa.DataType:
    """The type with 64-bit offsets, all through."""
    if pa.types.is_string(kind):
        return pa.large_string()
    if pa.types.is_binary(kind):
        return pa.large_binary()
    if pa.types.is_list(kind):
        return pa.large_list(kind.value_field.with_type(_large(kind.value_type)))
    if pa.types.is_map(kind):
        return pa.map_(_large(kind.key_type), kind.item_field.with_type(_large(kind.item_type)))
    if pa.types.is_struct(kind):
        return pa.struct([f.with_type(_large(f.type)) for f in kind])
    return kind


class Metadata(NamedTuple):
    """The table's metadata; created_time is in milliseconds since the epoch."""

    id: str
    name: str | None
    description: str | None
    partition_columns: list[str]
    created_time: int | None
    configuration: dict[str, str]


class ProtocolVersions(NamedTuple):
    min_reader_version: int
    min_writer_version: int
    writer_features: list[str] | None
    reader_features: list[str] | None


class DeltaTableConfig(NamedTuple):
    """How a table was opened. All are accepted and change nothing: the catalog answers what is asked, when it is asked."""

    without_files: bool = False
    log_buffer_size: int | None = None
    skip_stats: bool = False


class Commit(dict[str, Any]):
    """A commit's commitInfo, and its version: keys are the log's, times milliseconds since the epoch.

    ``commit["operation_metrics"]`` will do for ``commit["operationMetrics"]``; what this commit does not say is None then.
    ``commit["commit_id"]`` is equal across the tables of one commit, ``commit["committed"]`` its time, a datetime in UTC.
    """

    def __init__(self, version: int, commit_ms: int, commit_id: str, text: str | None) -> None:
        """text: the commitInfo, as JSON."""
        info: Mapping[str, Any] = json.loads(text) if text else {}
        super().__init__({"timestamp": commit_ms, **info, "version": version})
        self._beside = {"commit_id": commit_id, "committed": utc(commit_ms)}

    def __missing__(self, key: str) -> Any:
        if key in self._beside:
            return self._beside[key]
        if key not in History.COLUMNS:
            raise KeyError(key)
        return self.get(re.sub(r"_(\w)", lambda m: m[1].upper(), key), {} if key in History.OBJECTS else None)


class History(Listing):
    """Commits, newest first. It prints as a table and goes to Arrow with names and times for people."""

    OBJECTS = ("operation_parameters", "operation_metrics")
    COLUMNS = (
        "version", "timestamp", "operation", *OBJECTS, "read_version", "isolation_level", "is_blind_append", "engine_info",
        "user_name", "user_metadata", "commit_id",
    )  # fmt: skip

    def __init__(self, commits: list[tuple[int, int, str, str | None]]) -> None:
        """commits: (version, time in ms, commit id, commitInfo as JSON)."""
        super().__init__(self.COLUMNS, [])
        self += [Commit(*row) for row in commits]

    def rows(self, columns: Any = None) -> list[list[Any]]:
        names = columns or self.columns
        return [[row["committed" if c == "timestamp" else c] for c in names] for row in self]


@dataclass(frozen=True)
class AddAction:
    """A Parquet file for ``DeltaTable.create_write_transaction``: path (URL-encoded) below the table, size in bytes, partition
    values as the log has them, modification time in ms, whether it brings rows that are new, statistics as JSON."""

    path: str
    size: int
    partition_values: Mapping[str, str | None]
    modification_time: int
    data_change: bool
    stats: str


@dataclass(frozen=True)
class RemoveAction:
    """A file that ``DeltaTable.create_write_transaction`` is to take out; the catalog knows all of it but its path."""

    path: str
    data_change: bool = True
    deletion_timestamp: int | None = None
    size: int | None = None
    partition_values: Mapping[str, str | None] | None = None
