"""Small files become large ones, rows that are asked for together lie together. The rows themselves stay what they are.

A compaction changes no data (dataChange is false), so nobody who appends, or deletes other rows, is in its way or it in theirs:
groups of which somebody took a file in the meantime are left out. Much work is committed as it goes: when it is interrupted, what
was committed stays, and the next OPTIMIZE goes on with the rest.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from deltaduck import identity, storage
from deltaduck.changes import Change
from deltaduck.errors import CommitConflictError
from deltaduck.operations import change_data, regroup
from deltaduck.operations.alter import begin
from deltaduck.operations.regroup import Group, Task
from deltaduck.snapshot import KEY, Snapshot

if TYPE_CHECKING:
    from deltaduck.lake import Lake
    from deltaduck.transaction import Transaction

Tell = Callable[["Transaction"], None]

BATCH_SIZE, BATCH_FILES = 10 << 30, 50_000  # bytes, and files, that one commit takes out: when there are more, another follows
WRITE_SIZE = 1 << 30  # bytes that are written at once where commits are asked for by time
ATTEMPTS = 10


def compact(
    lake: Lake, table: str, where: str | None = None, target_size: int | None = None, tell: Tell | None = None,
    interval: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Put small files together, and commit; deltalake's metrics. tell: what else each commit is told. interval: the seconds
    between two commits, at least; 0 is one for every file that is written. Without it, size says when a commit is due."""
    return _commit(lake, table, Task(where, target_size), tell, interval)


def z_order(
    lake: Lake, table: str, columns: Sequence[str], where: str | None = None, target_size: int | None = None,
    tell: Tell | None = None, interval: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Sort rows so that those near each other in all `columns` lie in the same files, and commit, whole partitions at a time;
    deltalake's metrics."""
    return _commit(lake, table, Task(where, target_size, columns), tell, interval)


def cluster(
    lake: Lake, table: str, target_size: int | None = None, tell: Tell | None = None, *, full: bool = False
) -> dict[str, Any]:
    """Sort rows by the columns that the table is clustered by, and commit: those of files that are not sorted yet, or small,
    or of all files. deltalake's metrics."""
    return _commit(lake, table, Task(None, target_size, full=full), tell)


def stage(
    tx: Transaction, table: str, where: str | None = None, target_size: int | None = None,
    columns: Sequence[str] | None = None, *, full: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """The same inside of a transaction: one commit."""
    task = Task(where, target_size, columns, full)
    change = begin(tx, table)
    change_data.tell_staged(tx, change)
    considered, writes = regroup.writes(tx.lake, tx, change, task, BATCH_SIZE)
    done: list[Group] = []
    for groups in writes:
        for group in groups:
            tx.remove(change, group.removes, data_change=False)
            tx.add(change, group.adds, group.files)
        done += groups
    _describe(change, task)
    return _metrics(change.after, considered, done, task)


def _commit(lake: Lake, table: str, task: Task, tell: Tell | None, interval: float | None = None) -> dict[str, Any]:
    at_once = BATCH_SIZE if interval is None else min(int(interval), 1) * WRITE_SIZE
    considered = 0
    done: list[Group] = []
    for _ in range(ATTEMPTS):
        tx, change = _begun(lake, table, tell)
        read = change.after
        files, writes = regroup.writes(lake, tx, change, task, at_once)
        considered = max(considered, files)
        for number, groups in enumerate(_batches(writes, interval)):
            committed = _committed((tx, change) if number == 0 else None, lake, read, groups, task, tell)
            if committed is None:
                break
            done += committed
        else:
            return _metrics(read, considered, done, task)
    raise CommitConflictError(
        table, read.version, lake.table(table).version(), f"its schema was changed {ATTEMPTS} times meanwhile"
    )


def _batches(writes: Iterator[list[Group]], interval: float | None) -> Iterator[list[Group]]:
    """What goes into each commit. When a write fails, the files go that were written since the last."""
    pending: list[Group] = []
    files = size = 0
    since = time.monotonic()
    try:
        for groups in writes:
            pending += groups
            files += sum(g.removes.num_rows for g in groups)
            size += sum(pc.sum(g.removes["size"]).as_py() or 0 for g in groups)
            if files >= BATCH_FILES or size >= BATCH_SIZE or (interval is not None and time.monotonic() - since >= interval):
                batch, pending = pending, []
                yield batch
                files, size, since = 0, 0, time.monotonic()
    except BaseException:
        _forget(pending)
        raise
    if pending:
        yield pending


def _committed(
    begun: tuple[Transaction, Change] | None, lake: Lake, read: Snapshot, groups: list[Group], task: Task, tell: Tell | None
) -> list[Group] | None:
    """Commit groups, and answer those that were: all of whose files were still there. None where the table is by now one whose
    files would be written otherwise. begun: the transaction that wrote them, for a first attempt."""
    mine, conflict = groups, None
    try:
        for _ in range(ATTEMPTS):
            if begun is None:
                begun = _begun(lake, read.name, tell)
                if _is_other(begun[1].after, read):
                    return None
                mine = _still_there(*begun, mine)
            (tx, change), begun = begun, None
            for group in mine:
                tx.remove(change, group.removes, data_change=False)
                tx.add(change, group.adds, [])
            _describe(change, task)
            tried, mine = mine, []  # from now on they may be committed, whatever is raised
            try:
                tx.commit()
            except CommitConflictError as e:
                mine, conflict = tried, e
            else:
                return tried
    finally:
        _forget(mine)
    assert conflict is not None
    raise conflict


def _begun(lake: Lake, table: str, tell: Tell | None) -> tuple[Transaction, Change]:
    tx = lake.begin()
    change = begin(tx, table)
    if tell is not None:
        tell(tx)
    return tx, change


def _is_other(now: Snapshot, then: Snapshot) -> bool:
    """Would the files be written otherwise now?"""
    return (identity.unmarked(now.schema), now.partition_columns, now.table_id) != (
        identity.unmarked(then.schema), then.partition_columns, then.table_id,
    )  # fmt: skip


def _still_there(tx: Transaction, change: Change, groups: Sequence[Group]) -> list[Group]:
    """The groups whose files are all live; what was written for the others goes."""
    live = tx.files(change).select(KEY)
    kept: list[Group] = []
    others: list[Group] = []
    for group in groups:
        found = group.removes.select(KEY).join(live, KEY, join_type="inner").num_rows
        (kept if found == group.removes.num_rows else others).append(group)
    _forget(others)
    return kept


def _forget(groups: Sequence[Group]) -> None:
    storage.remove([name for group in groups for name in group.files])


# --- what is said of it


def _describe(change: Change, task: Task) -> None:
    if change.base is not None and (change.adds or change.removes):
        change.operation = "OPTIMIZE"
        partitions = json.dumps([task.where] if task.where else [])
        change.parameters = {"predicate": partitions, "zOrderBy": json.dumps(list(task.columns or []))}
        if task.target_size is not None:
            change.parameters["targetSize"] = str(task.target_size)


def _metrics(table: Snapshot, considered: int, groups: Sequence[Group], task: Task) -> dict[str, Any]:
    added = [g.adds["size"] for g in groups]
    removed = [g.removes["size"] for g in groups]
    return {
        "numFilesAdded": sum(map(len, added)), "numFilesRemoved": sum(map(len, removed)),
        "filesAdded": _sizes(added), "filesRemoved": _sizes(removed),
        "partitionsOptimized": len({v for g in groups for v in g.removes["partition_values"].to_pylist()[:1]}),
        "numBatches": len(groups), "totalConsideredFiles": considered,
        "totalFilesSkipped": considered - sum(map(len, removed)),
        "preserveInsertionOrder": task.columns is None and not table.partition_columns,
    }  # fmt: skip


def _sizes(sizes: Sequence[pa.ChunkedArray]) -> dict[str, Any]:
    every = pa.chunked_array([c for s in sizes for c in s.chunks], pa.int64())
    if not len(every):
        return {"avg": 0.0, "max": 0, "min": 0, "totalFiles": 0, "totalSize": 0}
    found = pc.min_max(every).as_py()
    return {
        "avg": pc.mean(every).as_py(), "max": found["max"], "min": found["min"],
        "totalFiles": len(every), "totalSize": pc.sum(every).as_py(),
    }  # fmt: skip
