"""The skip index: ``dl_skip_<table_id>``, one row per file with typed min, max, null count and partition values.

It is derived from the ``stats`` and ``partition_values`` of ``dl_add_files`` and can be rebuilt at any time. A row stands at the
place of an add, (version, action_order); adds of the same file after it, whose deletion vectors grow, say which one that is.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa

from deltaduck.catalog import Catalog
from deltaduck.protocol import stats
from deltaduck.protocol.schema import Struct, literal, widens
from deltaduck.protocol.stats import SkipColumn
from deltaduck.protocol.widening import once_float
from deltaduck.snapshot import KEY, Snapshot

ENGINE = "deltaduck"  # engineInfo of files whose float maxima are known to have no NaN above them


def plan(found: Sequence[SkipColumn], wanted: Sequence[tuple[tuple[str, ...], str, bool]]) -> list[SkipColumn]:
    """The wanted columns: ordinals of columns that stay stay, new ones get numbers never used before them."""
    known = {(c.path, c.type, c.is_partition): c for c in found}
    free = max((c.ordinal for c in found), default=-1) + 1
    out = []
    for key in wanted:
        if key not in known:
            known[key] = SkipColumn(free, *key)
            free += 1
        out.append(known[key])
    return out


def create(catalog: Catalog, table_id: int, columns: Sequence[SkipColumn]) -> None:
    """Make the index of a new table."""
    create_table(catalog, table_id, columns)
    _record(catalog, table_id, columns)


def create_table(catalog: Catalog, table_id: int, columns: Sequence[SkipColumn]) -> None:
    """The table of an index, without the record of what it holds."""
    keys = ["version BIGINT NOT NULL", "action_order BIGINT NOT NULL", "num_records BIGINT"]
    definitions = [f"{name} {catalog.index_types.get(kind, kind)}" for c in columns for name, kind in c.definitions()]
    catalog.execute(f"CREATE TABLE dl_skip_{table_id} ({', '.join(keys + definitions)})")


def redefine(catalog: Catalog, table_id: int, columns: Sequence[SkipColumn]) -> None:
    """Index more columns: rows that exist have NULL, which is 'unknown', in new ones. Those no longer wanted stay,
    for the versions that had them."""
    found = stats.recorded(catalog.rows("skip_columns", table_id=table_id))
    new = [c for c in columns if c.ordinal not in {c.ordinal for c in found}]
    for c in new:
        for name, kind in c.definitions():
            catalog.execute(f"ALTER TABLE dl_skip_{table_id} ADD COLUMN {name} {catalog.index_types.get(kind, kind)}")
    carried = [pair for c in new for old in _narrower(c, found)[-1:] for pair in stats.carried(old, c)]
    if carried:
        catalog.execute(f"UPDATE dl_skip_{table_id} SET {', '.join(f'{name} = {sql}' for name, sql in carried)}")
    _record(catalog, table_id, new)


def _narrower(column: SkipColumn, found: Sequence[SkipColumn]) -> list[SkipColumn]:
    """The same column, when it had a type that this one widens."""
    return [c for c in found if (c.path, c.is_partition) == (column.path, column.is_partition) and widens(c.type, column.type)]


def drop(catalog: Catalog, table_id: int) -> None:
    catalog.execute(f"DROP TABLE IF EXISTS dl_skip_{table_id}")
    catalog.run("delete_skip_columns", table_id=table_id)


def _record(catalog: Catalog, table_id: int, columns: Sequence[SkipColumn]) -> None:
    for c in columns:
        catalog.run(
            "insert_skip_column", table_id=table_id, ordinal=c.ordinal,
            column_path=json.dumps(c.path, ensure_ascii=False), delta_type=c.type, is_partition=c.is_partition,
        )  # fmt: skip


def add(catalog: Catalog, table_id: int, columns: Sequence[SkipColumn], adds: pa.Table) -> None:
    """Index adds by the values that they have; a column that came after a file is unknown there."""
    for name in {*names(columns)} - {*adds.column_names}:
        adds = adds.append_column(name, pa.nulls(adds.num_rows))
    catalog.ingest(f"dl_skip_{table_id}", adds.select([*names(columns), *KEY]))


def values_sql(columns: Sequence[SkipColumn], floats: Collection[tuple[str, ...]], source: str, keep: str) -> str:
    """SQL: `keep` and the index columns, over a FROM item with stats, partition_values and exact_max."""
    items = ", ".join([keep, 's."numRecords" AS num_records', *stats.skip_row(columns, floats)])
    return (
        f"SELECT {items} FROM ("
        f"SELECT *, from_json(CASE WHEN json_valid(stats) THEN stats END, {literal(stats.stats_structure(columns))}) AS s, "
        f"from_json(partition_values, {literal(stats.partition_structure(columns))}) AS p FROM {source})"
    )


def names(columns: Sequence[SkipColumn]) -> list[str]:
    """The index's own column names, without its key."""
    return ["num_records", *(name for c in columns for name, _ in c.definitions())]


def sources(catalog: Catalog, table_id: int, which: str = "TRUE") -> pa.Table:
    """The adds that rows of the index are derived from, by the places of these rows: all, of which many may be of one file, or
    those that `which` picks in SQL."""
    return catalog.fetch_arrow(catalog.sql("skip_sources").format(kept=which), {"table_id": table_id, "ours": ENGINE + "%"})


def rebuild(catalog: Catalog, engine: Any, snapshot: Snapshot) -> int:
    """Derive the whole index anew from the log's statistics; how many rows it has."""
    columns = plan([], stats.skip_columns(snapshot.schema, snapshot.partition_columns, snapshot.configuration))
    with catalog.transaction():
        catalog.run("forget_indexed", table_id=snapshot.table_id)
        rows = derive(engine, sources(catalog, snapshot.table_id, "a.indexed_version IS NULL"), columns, snapshot.schema)
        drop(catalog, snapshot.table_id)
        create(catalog, snapshot.table_id, columns)
        catalog.ingest(f"dl_skip_{snapshot.table_id}", rows)
    catalog.definitions.clear()
    catalog.scans.clear()
    return int(rows.num_rows)


def derive(engine: Any, adds: pa.Table, columns: Sequence[SkipColumn], schema: Struct) -> pa.Table:
    """Index rows of adds (version, action_order, stats, partition_values, exact_max)."""
    floats = frozenset(once_float(schema))
    engine.register("dl_skip_sources", adds)
    try:
        return engine.sql(values_sql(columns, floats, "dl_skip_sources", "version, action_order")).to_arrow_table()
    finally:
        engine.unregister("dl_skip_sources")


def described(engine: Any, texts: pa.ChunkedArray, partition_values: pa.ChunkedArray, columns: Sequence[SkipColumn]) -> pa.Table:
    """Index values of files of ours, in their order, from what the log is about to say of them."""
    rows = pa.table({"stats": texts, "partition_values": partition_values, "exact_max": pa.repeat(True, len(texts))})
    rows = rows.append_column("dl_place", pa.array(range(len(texts)), pa.int64()))
    engine.register("dl_described", rows)
    try:
        return engine.sql(f"{values_sql(columns, (), 'dl_described', 'dl_place')} ORDER BY dl_place").to_arrow_table()
    finally:
        engine.unregister("dl_described")
