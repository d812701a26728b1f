"""Files of a table written anew, group by group: small ones together, or rows sorted. Which files make a group is worked out in
SQL, and a group takes the place of its files, or not at all."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from deltaduck import clustering, deletions, many_files, parquet, scan, storage
from deltaduck.catalog.base import now_ms
from deltaduck.changes import Change
from deltaduck.errors import SchemaMismatchError
from deltaduck.parquet import TARGET_FILE_SIZE, Target
from deltaduck.protocol import partitions, row_tracking
from deltaduck.protocol.features import size_bytes
from deltaduck.protocol.schema import Field, quote
from deltaduck.snapshot import Snapshot

if TYPE_CHECKING:
    from deltaduck.lake import Lake
    from deltaduck.transaction import Transaction

FULL = 0.75  # of the target size: a file of at least this is left as it is
TINY, TINY_COUNT, TINY_TOTAL = 256 << 10, 64, 256 << 20  # bytes of a file on average, files, bytes of all

# Files of one partition, in the order they came, in bins of about the target size; a bin of one file is no work.
PLAN = """
    WITH small AS (
        SELECT *, CAST(floor((sum(size) OVER (PARTITION BY partition_values ORDER BY place) - 1) / {target}) AS BIGINT) AS bin
        FROM dl_optimize_files WHERE size < {full} OR dv_id <> ''
    )
    SELECT bin, partition_values, list(place ORDER BY place) AS places, sum(size) AS bytes FROM small
    GROUP BY ALL HAVING count(*) > 1 OR bool_or(dv_id <> '') ORDER BY bin, min(place)
"""


Bins = list[tuple[str, list[int]]]  # (partition values, places in a table of files) each; one of each partition at most


@dataclass(frozen=True)
class Task:
    """What is asked for: of which partitions, files of which size, sorted by what, or all files sorted anew by what they
    are clustered by."""

    where: str | None = None
    target_size: int | None = None
    columns: Sequence[str] | None = None
    full: bool = False


@dataclass
class Group:
    """Files that are exchanged for others, or not at all: rows of `Reader.visible`, and of `parquet.write_files`."""

    removes: pa.Table
    adds: pa.Table
    files: list[str]

    def __post_init__(self) -> None:
        position = self.adds.column_names.index("data_change")
        self.adds = self.adds.set_column(position, "data_change", pa.array([False] * self.adds.num_rows, pa.bool_()))


def writes(lake: Lake, tx: Transaction, change: Change, task: Task, at_once: int) -> tuple[int, Iterator[list[Group]]]:
    """How many files there are, and the groups of them that are to be written anew: each list is written when it is asked for,
    and takes in about `at_once` bytes or a single group."""
    table = change.after
    target = task.target_size or size_bytes(table.configuration, "delta.targetFileSize", TARGET_FILE_SIZE)
    con: Any = lake.con.cursor()
    files = tx.files(change)  # not as read: who moves rows about does not care for what they say
    if task.where is not None:
        files = _matching(con, table, files, task.where)
    by = clustering.names(clustering.current(lake.catalog, change), table.schema)
    if task.full and not by:
        raise SchemaMismatchError(f"OPTIMIZE {table.name} FULL: the table is not clustered: ALTER TABLE ... CLUSTER BY first")
    if by:
        if task.columns is not None:
            raise SchemaMismatchError(f"table {table.name!r} is clustered by {', '.join(by)}: OPTIMIZE it without ZORDER BY")
        chosen = clustering.pending(files, int(target * FULL), full=task.full)
        sorted_groups = _sorted_groups(con, change, chosen, target, by)
        return files.num_rows, ([replace(g, adds=clustering.marked(g.adds))] for g in sorted_groups)
    if task.columns is not None:
        if not task.columns:
            raise SchemaMismatchError("ZORDER BY needs a column")
        return files.num_rows, ([g] for g in _sorted_groups(con, change, files, target, task.columns))
    return files.num_rows, (_together(con, change, files, bins) for bins in _plan(con, files, target, at_once))


def _together(con: Any, change: Change, files: pa.Table, bins: Bins) -> list[Group]:
    """Write the files of each bin together, in one go."""
    table = change.after
    place = replace(change.target(), splits=False, hidden=row_tracking.columns(table.configuration))
    mine = _some(files, sorted(p for _, places in bins for p in places))
    names = _columns(table, table.schema.fields)
    if _are_tiny(table, mine):
        with many_files.engine(con) as engine:
            threads = many_files.threads(engine)
            share = -(-mine.num_rows // threads)
            runs = [mine.slice(start, share) for start in range(0, mine.num_rows, share)]
            try:
                source = many_files.gathered(engine, [_in_order(engine, table, run) for run in runs])
            except duckdb.Error as e:
                raise parquet.translate(e, table.location) from e
            if (rows := pc.sum(mine["num_records"]).as_py()) is not None:
                place = parquet.by_all_threads(place, rows, threads)
            adds, written = parquet.write_files(engine, f"{source} AS dl_rows", names, place, now_ms(), None)
    else:
        source = _rows(con, table, mine)
        adds, written = parquet.write_files(con, f"({source}) AS dl_rows", names, place, now_ms(), None)
    return _grouped(bins, files, adds, written)


def _rows(con: Any, table: Snapshot, files: pa.Table) -> str:
    """The rows of files, with what makes them the same rows elsewhere where the table tracks that."""
    more, stored = scan.identity_sql(table, files)
    return scan.scan_sql(con, table, files, more.removeprefix(", "), stored=stored)


def _in_order(con: Any, table: Snapshot, files: pa.Table) -> str:
    """The same, in the order in which one thread reads them, which a join with what is deleted may change."""
    if deletions.of(table.location, files) is None:
        return _rows(con, table, files)
    return f"{_rows(con, table, files)} ORDER BY file_index, file_row_number"


def _columns(table: Snapshot, fields: Sequence[Field]) -> list[tuple[str, str]]:
    tracked = row_tracking.columns(table.configuration)
    kept = [(f.name, name) for f, name in zip(tracked, ("dl_row_id", "dl_row_version"), strict=False)]
    return [(f.name, quote(f.name)) for f in fields] + kept


def _are_tiny(table: Snapshot, files: pa.Table) -> bool:
    """Does it cost more to open these files than to read and sort their rows?"""
    size = pc.sum(files["size"]).as_py() or 0
    small = files.num_rows >= TINY_COUNT and size < min(TINY * files.num_rows, TINY_TOTAL)
    return small and not (storage.is_remote(table.location) or pc.any(pc.match_substring(files["path"], "://")).as_py())


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


def _plan(con: Any, files: pa.Table, target: int, at_once: int) -> list[Bins]:
    """What is written at once: the first bin of every partition, then the second of each that has one, ...; but no more than
    about so many bytes."""
    dv = files["dv_id"] if "dv_id" in files.column_names else pa.array([""] * files.num_rows, pa.string())
    shown = files.select(["partition_values", "size"]).append_column("place", pa.array(range(files.num_rows), pa.int64()))
    con.register("dl_optimize_files", shown.append_column("dv_id", dv))
    try:
        rows = con.execute(PLAN.format(target=target, full=int(target * FULL))).fetchall()
    finally:
        con.unregister("dl_optimize_files")
    writes: list[Bins] = []
    last, room = None, 0
    for number, values, places, size in rows:
        if number != last or size > room:
            writes.append([])
            last, room = number, at_once
        writes[-1].append((values, places))
        room -= size
    return writes


def _grouped(batch: Bins, files: pa.Table, adds: pa.Table, written: list[str]) -> list[Group]:
    """What was written of a batch, bin by bin: each bin is a partition of its own."""
    if len(batch) == 1:
        return [Group(_some(files, batch[0][1]), adds, written)]
    made: dict[str, list[int]] = {}
    for i, values in enumerate(adds["partition_values"].to_pylist()):
        made.setdefault(_key(values), []).append(i)
    groups = []
    for values, places in batch:
        mine = made.get(_key(values), [])
        groups.append(Group(_some(files, places), adds.take(pa.array(mine, pa.int64())), [written[i] for i in mine]))
    return groups


def _some(files: pa.Table, places: Sequence[int]) -> pa.Table:
    """The files at these places, which rise: all of a stretch, mostly."""
    first, count = places[0], len(places)
    return files.slice(first, count) if places[-1] - first + 1 == count else files.take(pa.array(places))


def _key(values: str) -> str:
    """Partition values in one spelling, whoever wrote them."""
    return json.dumps({k: v or None for k, v in json.loads(values).items()}, sort_keys=True)


# --- sorted


def _sorted_groups(con: Any, change: Change, files: pa.Table, target: int, columns: Sequence[str]) -> Iterator[Group]:
    """Every partition's rows sorted along the curve, in files of the target size."""
    table = change.after
    expressions = [_z_column(table, c) for c in columns]
    data = [f for f in table.schema if f.name not in table.partition_columns]
    names = _columns(table, data)
    for places in _by_partition(files):
        mine = files.take(places)
        directory, place = _partition_place(change.target(), mine["path"][0].as_py(), target)
        source = f"({_rows(con, table, mine)}) AS dl_rows"
        adds, written = parquet.write_files(con, f"{_sorted(source, expressions)} AS dl_rows", names, place, now_ms(), None)
        adds = parquet.in_partition(adds, change.target(), directory, mine["partition_values"][0].as_py())
        yield Group(mine, adds, written)


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
