"""Small files become large ones, rows that are asked for together lie together. The rows themselves stay what they are.

Which files go together is worked out in SQL. A compaction changes no data (dataChange is false), so nobody who appends, or
deletes other rows, is in its way or it in theirs: groups of which somebody took a file in the meantime are left out.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from deltaduck import clustering, identity, parquet, scan, storage
from deltaduck.catalog.base import now_ms
from deltaduck.changes import Change
from deltaduck.errors import CommitConflictError, SchemaMismatchError
from deltaduck.operations import change_data
from deltaduck.operations.alter import begin
from deltaduck.parquet import TARGET_FILE_SIZE, Target
from deltaduck.protocol import partitions, row_tracking
from deltaduck.protocol.features import size_bytes
from deltaduck.protocol.schema import Field, quote
from deltaduck.snapshot import Snapshot

if TYPE_CHECKING:
    from deltaduck.lake import Lake
    from deltaduck.transaction import Transaction

Tell = Callable[["Transaction"], None]

FULL = 0.75  # of the target size: a file of at least this is left as it is
ATTEMPTS = 10
TINY, TINY_COUNT, TINY_TOTAL = 256 << 10, 64, 256 << 20  # bytes of a file on average, files, bytes of all

# Files of one partition, in the order they came, in bins of about the target size; a bin of one file is no work.
PLAN = """
    WITH small AS (
        SELECT *, CAST(floor((sum(size) OVER (PARTITION BY partition_values ORDER BY place) - 1) / {target}) AS BIGINT) AS bin
        FROM dl_optimize_files WHERE size < {full} OR dv_id <> ''
    )
    SELECT bin, partition_values, list(place ORDER BY place) AS places FROM small
    GROUP BY ALL HAVING count(*) > 1 OR bool_or(dv_id <> '') ORDER BY bin, min(place)
"""


@dataclass
class Group:
    """Files that are exchanged for others, or not at all: rows of `Reader.visible`, and of `parquet.write_files`."""

    removes: pa.Table
    adds: pa.Table
    files: list[str]

    def __post_init__(self) -> None:
        position = self.adds.column_names.index("data_change")
        self.adds = self.adds.set_column(position, "data_change", pa.array([False] * self.adds.num_rows, pa.bool_()))


def compact(
    lake: Lake, table: str, where: str | None = None, target_size: int | None = None, tell: Tell | None = None
) -> dict[str, Any]:
    """Put small files together, and commit; deltalake's metrics. tell: what else the commit is told."""
    return _commit(lake, table, where, target_size, None, tell)


def z_order(
    lake: Lake, table: str, columns: Sequence[str], where: str | None = None, target_size: int | None = None,
    tell: Tell | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Sort rows so that those near each other in all `columns` lie in the same files, and commit; deltalake's metrics."""
    return _commit(lake, table, where, target_size, columns, tell)


def cluster(
    lake: Lake, table: str, target_size: int | None = None, tell: Tell | None = None, *, full: bool = False
) -> dict[str, Any]:
    """Sort rows by the columns that the table is clustered by, and commit: those of files that are not sorted yet, or small,
    or of all files. deltalake's metrics."""
    return _commit(lake, table, None, target_size, None, tell, full=full)


def stage(
    tx: Transaction, table: str, where: str | None = None, target_size: int | None = None,
    columns: Sequence[str] | None = None, *, full: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """The same inside of a transaction."""
    change = begin(tx, table)
    change_data.tell_staged(tx, change)
    considered, groups = _write(tx.lake, tx, change, where, target_size, columns, full=full)
    for group in groups:
        tx.remove(change, group.removes, data_change=False)
        tx.add(change, group.adds, group.files)
    _describe(change, where, columns, target_size)
    return _metrics(change, considered, groups, columns)


def _commit(
    lake: Lake, table: str, where: str | None, target_size: int | None, columns: Sequence[str] | None, tell: Tell | None,
    *, full: bool = False,
) -> dict[str, Any]:  # fmt: skip
    tx, change = _begun(lake, table, tell)
    read = change.after
    considered, groups = _write(lake, tx, change, where, target_size, columns, full=full)
    try:
        for attempt in range(ATTEMPTS):
            for group in groups:
                tx.remove(change, group.removes, data_change=False)
                tx.add(change, group.adds, [])
            _describe(change, where, columns, target_size)
            try:
                tx.commit()
            except CommitConflictError:
                tx, change = _begun(lake, table, tell)
                if _is_other(change.after, read) or attempt == ATTEMPTS - 1:
                    raise
                groups = _still_there(tx, change, groups)
            else:
                done, groups = groups, []
                return _metrics(change, considered, done, columns)
    finally:
        storage.remove([name for group in groups for name in group.files])
    raise AssertionError("unreachable")


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
    keys = ["version", "action_order"]
    live = tx.files(change).select(keys)
    kept = []
    for group in groups:
        if group.removes.select(keys).join(live, keys, join_type="inner").num_rows == group.removes.num_rows:
            kept.append(group)
        else:
            storage.remove(group.files)
    return kept


def _write(
    lake: Lake, tx: Transaction, change: Change, where: str | None, target_size: int | None, columns: Sequence[str] | None,
    *, full: bool = False,
) -> tuple[int, list[Group]]:  # fmt: skip
    """How many files there are, and the groups of them that were written anew."""
    table = change.after
    target = target_size or size_bytes(table.configuration, "delta.targetFileSize", TARGET_FILE_SIZE)
    con: Any = lake.con.cursor()
    files = tx.files(change)  # not as read: who moves rows about does not care for what they say
    if where is not None:
        files = _matching(con, table, files, where)
    by = clustering.names(clustering.current(lake.catalog, change), table.schema)
    if full and not by:
        raise SchemaMismatchError(f"OPTIMIZE {table.name} FULL: the table is not clustered: ALTER TABLE ... CLUSTER BY first")
    if by:
        if columns is not None:
            raise SchemaMismatchError(f"table {table.name!r} is clustered by {', '.join(by)}: OPTIMIZE it without ZORDER BY")
        chosen = clustering.pending(lake.catalog, change, files, int(target * FULL), full=full)
        sorted_groups = _sorted_groups(con, change, chosen, target, by)
        return files.num_rows, [replace(g, adds=clustering.marked(g.adds)) for g in sorted_groups]
    if columns is not None:
        if not columns:
            raise SchemaMismatchError("ZORDER BY needs a column")
        return files.num_rows, _sorted_groups(con, change, files, target, columns)
    groups: list[Group] = []
    for batch in _plan(con, files, target):  # the first bin of every partition, then the second of each that has one, ...
        place = replace(change.target(), splits=False, hidden=row_tracking.columns(table.configuration))
        mine = files.take(pa.array(sorted(p for _, places in batch for p in places)))
        names = _columns(table, table.schema.fields)
        if _are_tiny(table, mine):
            with _engine_for_tiny_files(con) as engine:
                source = _rows(engine, table, mine, "file_index AS dl_file", "file_row_number AS dl_row")
                ordered = f"(SELECT * FROM ({source}) ORDER BY dl_file, dl_row) AS dl_rows"
                adds, written = parquet.write_files(engine, ordered, names, place, now_ms(), None)
        else:
            source = _rows(con, table, mine)
            adds, written = parquet.write_files(con, f"({source}) AS dl_rows", names, place, now_ms(), None)
        groups += _grouped(batch, files, adds, written)
    return files.num_rows, groups


def _rows(con: Any, table: Snapshot, files: pa.Table, *items: str) -> str:
    """The rows of files, with what makes them the same rows elsewhere where the table tracks that, and further items."""
    more, stored = scan.identity_sql(table, files)
    return scan.scan_sql(con, table, files, (", ".join(items) + more).removeprefix(", "), stored=stored)


def _columns(table: Snapshot, fields: Sequence[Field]) -> list[tuple[str, str]]:
    tracked = row_tracking.columns(table.configuration)
    kept = [(f.name, name) for f, name in zip(tracked, ("dl_row_id", "dl_row_version"), strict=False)]
    return [(f.name, quote(f.name)) for f in fields] + kept


def _are_tiny(table: Snapshot, files: pa.Table) -> bool:
    """Does it cost more to open these files than to read and sort their rows?"""
    size = pc.sum(files["size"]).as_py() or 0
    small = files.num_rows >= TINY_COUNT and size < min(TINY * files.num_rows, TINY_TOTAL)
    return small and not (storage.is_remote(table.location) or pc.any(pc.match_substring(files["path"], "://")).as_py())


@contextmanager
def _engine_for_tiny_files(con: Any) -> Iterator[Any]:
    """A DuckDB of its own, without what costs it twice the time here: to keep what it has read of each file, and to keep the
    order of rows that come from many files. `con` says how much memory it may have, and where it spills."""
    ((memory, spill, threads),) = con.execute(
        "SELECT current_setting('memory_limit'), current_setting('temp_directory'), current_setting('threads')"
    ).fetchall()
    settings = {"memory_limit": memory, "temp_directory": spill, "threads": threads}
    engine = duckdb.connect(config={**settings, "preserve_insertion_order": False, "enable_external_file_cache": False})
    try:
        yield engine
    finally:
        engine.close()


def _matching(con: Any, table: Snapshot, files: pa.Table, where: str) -> pa.Table:
    """The files of the partitions that match a predicate on partition columns: whole files do, or do not."""
    parts = [f for f in table.schema if f.name in table.partition_columns]
    columns = [f"{partitions.deserialize(scan.partition_value(f.physical_name), f.type)} AS {quote(f.name)}" for f in parts]
    shown = files.select(["partition_values"]).append_column("dl_place", pa.array(range(files.num_rows), pa.int64()))
    con.register("dl_optimize_files", shown)
    try:
        rows = con.execute(
            f"SELECT dl_place FROM (SELECT {', '.join(['dl_place', *columns])} FROM dl_optimize_files) AS {quote(table.name)} "
            f"WHERE {where} ORDER BY dl_place"
        ).fetchall()
    except duckdb.BinderException as e:
        raise SchemaMismatchError(
            f"OPTIMIZE {table.name} WHERE takes partition columns ({', '.join(table.partition_columns) or 'it has none'}): "
            f"{str(e).splitlines()[0]}"
        ) from e
    except duckdb.Error as e:
        raise parquet.translate(e, table.location) from e
    finally:
        con.unregister("dl_optimize_files")
    return files.take(pa.array([place for (place,) in rows], pa.int64()))


def _plan(con: Any, files: pa.Table, target: int) -> list[list[tuple[str, list[int]]]]:
    """Batches of bins, one of each partition at most: (partition values, places in `files`) each."""
    dv = files["dv_id"] if "dv_id" in files.column_names else pa.array([""] * files.num_rows, pa.string())
    shown = files.select(["partition_values", "size"]).append_column("place", pa.array(range(files.num_rows), pa.int64()))
    con.register("dl_optimize_files", shown.append_column("dv_id", dv))
    try:
        rows = con.execute(PLAN.format(target=target, full=int(target * FULL))).fetchall()
    finally:
        con.unregister("dl_optimize_files")
    batches: dict[int, list[tuple[str, list[int]]]] = {}
    for number, values, places in rows:
        batches.setdefault(number, []).append((values, places))
    return list(batches.values())


def _grouped(batch: list[tuple[str, list[int]]], files: pa.Table, adds: pa.Table, written: list[str]) -> list[Group]:
    """What was written of a batch, bin by bin: each bin is a partition of its own."""
    if len(batch) == 1:
        return [Group(files.take(pa.array(batch[0][1])), adds, written)]
    made: dict[str, list[int]] = {}
    for i, values in enumerate(adds["partition_values"].to_pylist()):
        made.setdefault(_key(values), []).append(i)
    groups = []
    for values, places in batch:
        mine = made.get(_key(values), [])
        groups.append(Group(files.take(pa.array(places)), adds.take(pa.array(mine, pa.int64())), [written[i] for i in mine]))
    return groups


def _key(values: str) -> str:
    """Partition values in one spelling, whoever wrote them."""
    return json.dumps({k: v or None for k, v in json.loads(values).items()}, sort_keys=True)


# --- Z-order


def _sorted_groups(con: Any, change: Change, files: pa.Table, target: int, columns: Sequence[str]) -> list[Group]:
    """Every partition's rows sorted along the curve, in files of the target size."""
    table = change.after
    expressions = [_z_column(table, c) for c in columns]
    data = [f for f in table.schema if f.name not in table.partition_columns]
    names = _columns(table, data)
    groups: list[Group] = []
    for places in _by_partition(files):
        mine = files.take(places)
        directory, place = _partition_place(change.target(), mine["path"][0].as_py(), target)
        source = f"({_rows(con, table, mine)}) AS dl_rows"
        try:
            adds, written = parquet.write_files(con, f"{_sorted(source, expressions)} AS dl_rows", names, place, now_ms(), None)
        except BaseException:
            storage.remove([name for g in groups for name in g.files])
            raise
        groups.append(
            Group(mine, parquet.in_partition(adds, change.target(), directory, mine["partition_values"][0].as_py()), written)
        )
    return groups


def _partition_place(target: Target, sibling: str, size: int) -> tuple[str, Target]:
    """(directory, as the log spells it; where files go) of a partition, beside a file that it has: rows that are written as
    one partition keep their order, and are cut into files by size."""
    directory = "" if sibling.startswith("/") or ":" in sibling else posixpath.dirname(sibling)
    location = storage.join(target.location, unquote(directory)) if directory else target.location
    schema = target.schema.without(target.partition_columns)
    skip = [c for c in target.skip if not c.is_partition]
    return directory, Target(
        location,
        schema,
        (),
        {**target.configuration, "delta.targetFileSize": str(size)},
        skip,
        target.copy_options,
        hidden=row_tracking.columns(target.configuration),
    )


def _by_partition(files: pa.Table) -> list[pa.Array]:
    """Places of the files of each partition."""
    if not files.num_rows:
        return []
    keyed = files.select(["partition_values"]).append_column("place", pa.array(range(files.num_rows), pa.int64()))
    grouped = keyed.group_by("partition_values", use_threads=False).aggregate([("place", "list")])
    return [pa.array(sorted(places.as_py()), pa.int64()) for places in grouped["place_list"]]


def _z_column(table: Snapshot, name: str) -> str:
    parts = name.split(".")
    f = table.schema.get(name) or table.schema.get(parts[0])
    if f is None:
        raise SchemaMismatchError(
            f"ZORDER BY: table {table.name!r} has no column {name!r}; it has {', '.join(table.schema.names)}"
        )
    if f.name in table.partition_columns:
        raise SchemaMismatchError(f"ZORDER BY: {name!r} is a partition column: its files hold one value of it already")
    inner = [] if table.schema.get(name) is not None else parts[1:]
    return ".".join(quote(p) for p in [f.name, *inner])


def _sorted(source: str, expressions: Sequence[str]) -> str:
    """A FROM item: the rows along the Z-curve of the columns' ranks, so that every column counts the same whatever its
    values. Ranks are 0 to 2^bits - 1, equal for equal values; the bits of all of them in turn are the place on the curve."""
    bits = min(16, 62 // len(expressions))
    top = (1 << bits) - 1
    ranks = [
        f"(rank() OVER (ORDER BY {column}) - 1) * {top} // count(*) OVER () AS dl_rank_{i}"
        for i, column in enumerate(expressions)
    ]
    terms = [f"(((dl_rank_{i} >> {b}) & 1) << {b * len(expressions) + i})" for i in range(len(expressions)) for b in range(bits)]
    return f"(SELECT * FROM (SELECT *, {', '.join(ranks)} FROM {source}) ORDER BY {' + '.join(terms)})"


# --- what is said of it


def _describe(change: Change, where: str | None, columns: Sequence[str] | None, target_size: int | None) -> None:
    if change.base is not None and (change.adds or change.removes):
        change.operation = "OPTIMIZE"
        change.parameters = {"predicate": json.dumps([where] if where else []), "zOrderBy": json.dumps(list(columns or []))}
        if target_size is not None:
            change.parameters["targetSize"] = str(target_size)


def _metrics(change: Change, considered: int, groups: Sequence[Group], columns: Sequence[str] | None) -> dict[str, Any]:
    added = [g.adds["size"] for g in groups]
    removed = [g.removes["size"] for g in groups]
    return {
        "numFilesAdded": sum(map(len, added)), "numFilesRemoved": sum(map(len, removed)),
        "filesAdded": _sizes(added), "filesRemoved": _sizes(removed),
        "partitionsOptimized": len({v for g in groups for v in g.removes["partition_values"].to_pylist()[:1]}),
        "numBatches": len(groups), "totalConsideredFiles": considered,
        "totalFilesSkipped": considered - sum(map(len, removed)),
        "preserveInsertionOrder": columns is None and not change.after.partition_columns,
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
