"""Two commits that hide different rows of one file: the later one's deletion vector takes in the earlier one's.

Without that, whoever changes any row of a file would be in the way of everybody else who does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deltaduck import deletions, storage
from deltaduck.changes import Change
from deltaduck.errors import CommitConflictError
from deltaduck.protocol.deletion_vectors import DeletionVector, file_of
from deltaduck.snapshot import KEY

LOST = pa.schema(
    {
        "removed_version": pa.int64(),
        "version": pa.int64(),
        "action_order": pa.int64(),
        "path": pa.string(),
        "num_records": pa.int64(),
    }
)
VECTOR = pa.schema(
    {
        "dv_storage_type": pa.string(), "dv_path_or_inline_dv": pa.string(), "dv_offset": pa.int64(),
        "dv_size_in_bytes": pa.int64(), "dv_cardinality": pa.int64(),
    }
)  # fmt: skip
LIVE = pa.schema({**dict.fromkeys(KEY, pa.int64()), "dv_id": pa.string()} | {f.name: f.type for f in VECTOR})


def lost_files(rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    """The rows of ``conflicting_own``."""
    schema = pa.schema([*LOST, *VECTOR, *(pa.field(f"live_{f.name}", f.type) for f in LIVE)])
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.table([pa.array(values, f.type) for values, f in zip(columns, schema, strict=True)], schema=schema)


def first_beyond_repair(change: Change, lost: pa.Table) -> int | None:
    """The version that took out a file which this change does not merely hide rows of, or that is no longer there."""
    marked = _marked(change, lost)
    if marked is None:
        return pc.min(lost["removed_version"]).as_py()  # type: ignore[no-any-return]
    fine = pc.and_(pc.is_in(lost["path"], marked["path"].combine_chunks()), pc.is_valid(lost["live_version"]))
    return pc.min(lost.filter(pc.invert(fine))["removed_version"]).as_py()  # type: ignore[no-any-return]


def follow(change: Change, lost: pa.Table, actual: int) -> None:
    """Let the vectors of the change hide what the live ones hide too. CommitConflictError where both hide a row anew."""
    base, marked = change.base, _marked(change, lost)
    assert base is not None
    assert marked is not None
    lost, marked = lost.sort_by("path"), marked.sort_by("path")
    location = change.after.location
    live = lost.select([f"live_{name}" for name in VECTOR.names]).rename_columns(VECTOR.names)
    three = zip(*(deletions.vectors(location, files) for files in (lost, marked, live)), strict=True)
    united = []
    for (before, ours, theirs), path in zip(three, lost["path"].to_pylist(), strict=True):
        if len(np.setdiff1d(before, theirs)) or len(np.intersect1d(np.setdiff1d(ours, before), np.setdiff1d(theirs, before))):
            raise CommitConflictError(base.name, base.version, actual, f"rows of {path} that this commit changes were changed")
        united.append(np.union1d(ours, theirs))
    some_left = [n is None or len(rows) < n for rows, n in zip(united, lost["num_records"].to_pylist(), strict=True)]
    name, content, vectors = file_of([rows for rows, left in zip(united, some_left, strict=True) if left])
    if vectors:
        storage.put_if_absent(location, name, content)
        change.written.append(storage.join(location, name))
    _restage(change, lost, marked.filter(pa.array(some_left, pa.bool_())), vectors)
    _forget(change, marked)


def _marked(change: Change, lost: pa.Table) -> pa.Table | None:
    """This change's adds of those files under vectors of its own."""
    added = change.added_files()
    if added is None or "dv_storage_type" not in added.column_names:
        return None
    mine = pc.and_(pc.is_in(added["path"], lost["path"].combine_chunks()), pc.is_valid(added["dv_storage_type"]))
    return added.filter(mine)


def _restage(change: Change, lost: pa.Table, marked: pa.Table, vectors: Sequence[DeletionVector]) -> None:
    removes = change.removed_files()
    assert removes is not None
    kept = removes.join(lost.select(KEY), KEY, join_type="left anti").select(removes.column_names)
    live = removes.join(lost.select(KEY), KEY, join_type="left semi").sort_by("path")  # the same files, as they are now
    for name in LIVE.names:
        live = live.set_column(live.column_names.index(name), name, lost[f"live_{name}"])
    change.removes = [kept, live]
    paths = lost["path"].combine_chunks()
    change.adds = [t for t in (a.filter(pc.invert(pc.is_in(a["path"], paths))) for a in change.adds) if t.num_rows]
    if vectors:
        change.adds.append(deletions.with_vectors(marked, vectors))


def _forget(change: Change, marked: pa.Table) -> None:
    """Delete the vectors' file that this change wrote before, once nothing of it is used."""
    added = change.added_files()
    used = added["dv_path_or_inline_dv"] if added is not None and "dv_path_or_inline_dv" in added.column_names else pa.nulls(0)
    unused = {*marked["dv_path_or_inline_dv"].to_pylist()} - {*used.to_pylist()}
    paths = {DeletionVector("u", text, None, 0, 0).path for text in unused}
    storage.remove([storage.join(change.after.location, path) for path in paths if path is not None])
