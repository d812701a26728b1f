"""Statistics of files that a table has already, from their rows: for files that came without any, or when other columns are
to have some. The files stay; the log says more of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from deltaduck import parquet, scan, skip_index
from deltaduck.changes import INDEXED
from deltaduck.operations.alter import begin
from deltaduck.operations.files import add_again, committed_files
from deltaduck.protocol import stats
from deltaduck.protocol.measures import Measure, stats_sql
from deltaduck.protocol.schema import DataType, Struct, logical_leaves, quote
from deltaduck.snapshot import Snapshot

if TYPE_CHECKING:
    from deltaduck.transaction import Transaction


def recompute(tx: Transaction, table: str) -> dict[str, int]:
    """Stage the statistics of all files that the table has at the transaction's begin, of the columns that its properties name.

    Rows that a deletion vector hides count: what bounds them bounds the others."""
    change = begin(tx, table)
    before, adds = committed_files(tx, change)
    if not adds.num_rows:
        return {"num_files": 0}
    con: Any = tx.lake.con.cursor()
    texts = _stats(con, change.after, adds.append_column("version", before["version"]))
    index = skip_index.described(con, texts, adds["partition_values"], change.skip)
    columns = {name: adds[name] for name in adds.column_names if name not in INDEXED} | {"stats": texts}
    columns |= {name: index[name] for name in skip_index.names(change.skip)}
    add_again(change, pa.table(columns), before)
    if change.base is not None:
        change.operation, change.parameters = "COMPUTE STATS", {}
    return {"num_files": adds.num_rows}


def _stats(con: Any, table: Snapshot, files: pa.Table) -> pa.ChunkedArray:
    """The ``stats`` of every file."""
    whole = files.drop_columns([name for name in files.column_names if name.startswith("dv_")])
    rows = scan.scan_sql(con, table, whole, "CAST(file_index AS BIGINT) AS dl_file")
    try:
        return measured(con, table.schema, table.partition_columns, table.configuration, f"({rows})", files)
    except duckdb.Error as e:
        raise parquet.translate(e, table.location) from e


def measured(
    con: Any, schema: Struct, partition_columns: Sequence[str], configuration: Mapping[str, str], rows: str, files: pa.Table
) -> pa.ChunkedArray:
    """The ``stats`` of files (dv_id), whose rows a FROM item answers with the file's place in dl_file."""
    names = dict(logical_leaves(schema))
    leaves = [
        (path, kind) for path, kind in stats.indexed_leaves(schema, partition_columns, configuration) if isinstance(kind, str)
    ]  # fmt: skip
    items = [item for i, (path, kind) in enumerate(leaves) for item in _items(i, ".".join(map(quote, names[path])), kind)]
    measures = [Measure(path, kind, *(f"m{i}_{what}" for what in WHATS)) for i, (path, kind) in enumerate(leaves)]
    aggregates = f"SELECT {', '.join(['dl_file', 'count(*) AS dl_count', *items])} FROM {rows} GROUP BY dl_file"
    said = stats_sql("coalesce(dl_count, 0)", measures, "coalesce(dv_id, '') <> ''")
    con.register("dl_told", files.select(["dv_id"]).append_column("dl_file", pa.array(range(files.num_rows), pa.int64())))
    try:
        told = con.sql(f"SELECT {said} AS stats FROM dl_told LEFT JOIN ({aggregates}) USING (dl_file) ORDER BY dl_file")
        return told.to_arrow_table()["stats"]
    finally:
        con.unregister("dl_told")


WHATS = ("nulls", "low", "high", "nan")


def _items(i: int, column: str, kind: DataType) -> list[str]:
    """SQL: how many NULLs, the least and the greatest value, and whether there is a NaN."""
    low, high = (f"{f}({column})" if stats.has_bounds(kind) else "NULL" for f in ("min", "max"))
    nan = f"coalesce(bool_or(isnan({column})), false)" if kind in ("float", "double") else "false"
    return [f"{sql} AS m{i}_{what}" for what, sql in zip(WHATS, (f"count(*) - count({column})", low, high, nan), strict=True)]
