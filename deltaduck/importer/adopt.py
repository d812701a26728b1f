"""Commits of somebody else under numbers that ours had: theirs come in as they are published, ours follow them.

Others have seen theirs, and ours nobody but who reads the catalog; so theirs keep their numbers. What was acknowledged stays
committed, and conflicts are asked for as if ours had come later.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote as quote_path

from deltaduck import snapshot as snapshots
from deltaduck import storage
from deltaduck.catalog import Catalog
from deltaduck.catalog.base import now_ms
from deltaduck.errors import CommitConflictError, LogCorruptError, MirrorError
from deltaduck.importer import Job, replay
from deltaduck.importer.segment import Segment, segments
from deltaduck.protocol.deletion_vectors import DeletionVector
from deltaduck.protocol.features import writer_features
from deltaduck.snapshot import Snapshot

LOG = (
    "dl_table_versions", "dl_add_files", "dl_remove_files", "dl_metadata_updates", "dl_protocol_updates", "dl_txn_actions",
    "dl_domain_metadata", "dl_cdc_files", "dl_other_actions", "dl_mirror_status",
)  # fmt: skip


@dataclass(frozen=True)
class Adopted:
    """What came in: the first and last version of somebody else's. moved: old number → new number of ours."""

    table: str
    versions: tuple[int, int]
    moved: dict[int, int]

    def __str__(self) -> str:
        ours = ", ".join(f"{old} is now {new}" for old, new in self.moved.items())
        first, last = self.versions
        theirs = f"version {first} of" if first == last else f"versions {first} to {last} of"
        return f"{self.table!r}: adopted {theirs} somebody else" + (f"; of ours, {ours}" if ours else "")


def adopt(catalog: Catalog, table: str, diverged: int | None) -> Adopted | None:
    """Import what somebody else committed to a table, from version `diverged` on, where ours would have been published, or
    else after our last version; None when there is nothing.

    MirrorError when ours cannot follow theirs; CommitConflictError when ours went on meanwhile. Nothing has changed then.
    """
    head = snapshots.load(catalog, table)
    first = head.version + 1 if diverged is None else diverged
    if first == 0:
        raise _refusal(head, "its very first version was written by somebody else")
    files = storage.list_log(head.location) or {}
    try:
        found = [c for c in segments(files)[0].commits if c[0] >= first]
    except LogCorruptError as e:
        raise _refusal(head, str(e)) from e
    if not found:
        return None
    if found[0][0] != first:
        raise _refusal(head, f"version {first} of the log is not there any more")
    base = snapshots.load(catalog, table, first - 1)
    segment = Segment(-1, (), tuple(found), -1, found[-1][0])
    before = catalog.arrow("file_keys_at", table_id=base.table_id, version=base.version)
    try:
        con = replay.replay(head.location, segment, files, before)
    except LogCorruptError as e:
        raise _refusal(head, str(e)) from e
    try:
        _require_files(con, head)
        with catalog.transaction():
            ((version, _, _),) = catalog.rows("table_state", table_id=head.table_id)
            if version != head.version:
                raise CommitConflictError(head.name, head.version, version, "it was committed to while the log was read")
            moved = _exchange(catalog, con, head, base, segment, files)
    finally:
        con.close()
        for known in (catalog.definitions, catalog.scans):
            known.clear()
    return Adopted(head.name, (first, segment.latest), moved)


def _require_files(con: Any, head: Snapshot) -> None:
    """MirrorError when files are missing that theirs added: nobody could read the table any more."""
    named = replay.rows(con, "replay_new_files").read_all().to_pylist()
    vectors = [DeletionVector(row["dv_storage_type"], row["path"], None, 0, 0).path for row in named if row["dv_storage_type"]]
    paths = [row["path"] for row in named if not row["dv_storage_type"]]
    missing = storage.missing(head.location, [*paths, *(quote_path(path, safe="/:") for path in vectors if path)])
    if missing:
        raise _refusal(head, f"{len(missing)} files that they name are not there, such as {min(missing)}")


def _exchange(catalog: Catalog, con: Any, head: Snapshot, base: Snapshot, segment: Segment, files: Any) -> dict[int, int]:
    """Theirs in, ours behind them, inside of a transaction; how ours are numbered now."""
    first, shift = base.version + 1, segment.latest - base.version
    scope = {"table_id": head.table_id, "first": first}
    ours = catalog.rows("unpublished_commits", **scope)
    if ours:
        if "rowTracking" in writer_features(head.protocol):
            raise _refusal(head, "it tracks rows, and both sides gave out the same row ids")
        _move(catalog, scope, shift)
        with catalog.staged("dl_staged_ends", replay.rows(con, "replay_ended_files").read_all()):
            ((path,),) = catalog.rows("ends_twice", table_id=head.table_id)
        if path is not None:
            raise _refusal(head, f"both sides took out {path}")
    catalog.run("set_version", table_id=head.table_id, version=base.version, commit_ms=base.commit_ms)
    job = Job(catalog, head.name, head.location, files, base, lambda what, done, total: None, [])
    job.load(con, segment, job.described(con, segment))
    if not ours:
        return {}
    level = head.configuration.get("delta.isolationLevel", "WriteSerializable")
    reasons = catalog.rows(
        "adoption_conflict", table_id=head.table_id, theirs=first, ours=first + shift, serializable=level == "Serializable"
    )
    if reasons:
        version, reason = reasons[0]
        who = f"version {version}, theirs," if version < first + shift else f"version {version - shift}, ours,"
        raise _refusal(head, f"{who} {reason}")
    ((_, _, their_ms),) = catalog.rows("table_state", table_id=head.table_id)
    last, last_ms = _renumber(catalog, head.table_id, ours, first, shift, their_ms)
    moved = {version: version + shift for version, *_ in ours}
    _state_it(catalog, head, last + 1, max(last_ms + 1, now_ms()), (first, segment.latest), moved)
    return moved


def _move(catalog: Catalog, scope: dict[str, int], shift: int) -> None:
    for name in ("aside", "behind"):
        for table in LOG:
            catalog.execute(catalog.sql(name).format(table=table), {**scope, "shift": shift})
        catalog.execute(catalog.sql(name + "_skip").format(table_id=scope["table_id"]), {**scope, "shift": shift})
    for name in ("shift_ends", "shift_indexed"):
        catalog.run(name, **scope, shift=shift)


def _renumber(
    catalog: Catalog, table_id: int, ours: Sequence[tuple[Any, ...]], first: int, shift: int, their_ms: int
) -> tuple[int, int]:
    """What our commits say of versions and times, under their new numbers; the last of them, and its time."""
    later = max(their_ms + 1 - ours[0][1], 0)
    for version, commit_ms, read_version, text in ours:
        info = json.loads(text) if text else None
        if read_version is not None and read_version >= first:
            read_version += shift
            if info is not None:
                info["readVersion"] = read_version
        if info is not None and "inCommitTimestamp" in info:
            info["inCommitTimestamp"] += later
        catalog.run(
            "move_commit", table_id=table_id, version=version + shift, commit_ms=commit_ms + later, read_version=read_version,
            commit_info=None if info is None else _json(info), later=later,
        )  # fmt: skip
    catalog.run("owe_again", table_id=table_id, version=first + shift)
    return ours[-1][0] + shift, ours[-1][1] + later


def _state_it(
    catalog: Catalog, head: Snapshot, version: int, commit_ms: int, theirs: tuple[int, int], moved: dict[int, int]
) -> None:
    """A commit that says what happened. Its metadata, which changes nothing, is in the way of whoever has read the table under
    the old numbers and would commit what he made of that."""
    scope = {"table_id": head.table_id, "version": version}
    parameters = {"versions": _json(theirs), "moved": _json({str(old): new for old, new in moved.items()})}
    commit_id = str(uuid.uuid4())
    in_commit_ms = commit_ms if head.configuration.get("delta.enableInCommitTimestamps", "false").lower() == "true" else None
    info = {
        "inCommitTimestamp": in_commit_ms, "timestamp": commit_ms, "operation": "ADOPT",
        "operationParameters": parameters, "readVersion": version - 1,
        "isolationLevel": "Serializable", "isBlindAppend": False, "txnId": commit_id,
    }  # fmt: skip
    catalog.run("restate_metadata", **scope, metadata_version=head.metadata_version)
    catalog.run(
        "insert_version", **scope, commit_ms=commit_ms, commit_id=commit_id, read_version=version - 1,
        commit_info=_json({k: v for k, v in info.items() if v is not None}), in_commit_timestamp=in_commit_ms,
        operation="ADOPT", operation_parameters=_json(parameters), operation_metrics="{}", isolation_level="Serializable",
        is_blind_append=False, engine_info=None, user_name=None, user_metadata=None,
    )  # fmt: skip
    catalog.run("insert_outbox", **scope, is_checkpoint=False)
    catalog.run("set_version", **scope, commit_ms=commit_ms)
    catalog.run("restated", **scope)


def _refusal(head: Snapshot, reason: str) -> MirrorError:
    return MirrorError(
        f"table {head.name!r} cannot adopt what somebody else wrote to {head.location}: {reason}. Nothing was changed. To keep "
        f"theirs, save what ours added (lake.sql with AT (VERSION => {head.version})) elsewhere, take their log with "
        f"lake.import_table({str(head.location)!r}, {head.name!r}, force=True), and write it again; to keep ours, take their "
        "commits out of _delta_log as docs/operations.md says"
    )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
