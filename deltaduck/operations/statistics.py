"""Statistics of files that a table has already, from their rows: for files that came without any, or when other columns are
to have some. The files stay; the log says more of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa

from deltaduck import deletions, parquet, scan
from deltaduck.operations.alter import begin
from deltaduck.operations.files import add_again, committed_files
from deltaduck.protocol import stats
from deltaduck.protocol.schema import DataType, logical_leaves, quote
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
    found = _measured(tx.lake.con.cursor(), change.after, adds.append_column("version", before["version"]))
    files = [
        {
            "path": unquote(path), "count": count, "file_size_bytes": size, "column_statistics": statistics,
            "partition_keys": json.loads(values),
        }
        for path, size, values, (count, statistics) in zip(
            *(adds[name].to_pylist() for name in ("path", "size", "partition_values")), found, strict=True
        )
    ]  # fmt: skip
    new = parquet.adds_of(files, change.target(), 0)
    texts = [
        deletions.loosened(text) if vector else text
        for text, vector in zip(new["stats"].to_pylist(), adds["dv_id"].to_pylist(), strict=True)
    ]
    new = new.set_column(new.column_names.index("stats"), "stats", pa.array(texts, pa.string()))
    index = [name for c in change.skip if not c.is_partition for name, _ in c.definitions()]
    columns = {name: adds[name] for name in adds.column_names}
    columns |= {name: new[name] for name in ("stats", "num_records", *index)}
    add_again(change, pa.table(columns), before)
    if change.base is not None:
        change.operation, change.parameters = "COMPUTE STATS", {}
    return {"num_files": adds.num_rows}


def _measured(con: Any, table: Snapshot, files: pa.Table) -> list[tuple[int, dict[str, dict[str, str]]]]:
    """(how many rows, what COPY ... RETURN_STATS would say of each column) of every file."""
    rest = table.schema.without(table.partition_columns)
    names = dict(logical_leaves(rest))
    leaves = [
        (path, kind) for path, kind in stats.indexed_leaves(table.schema, table.partition_columns, table.configuration)
        if isinstance(kind, str)
    ]  # fmt: skip
    items = [item for path, kind in leaves for item in _items(".".join(map(quote, names[path])), kind)]
    whole = files.drop_columns([name for name in files.column_names if name.startswith("dv_")])
    rows = scan.scan_sql(con, table, whole, "CAST(file_index AS BIGINT) AS dl_file")
    try:
        answers = con.execute(f"SELECT {', '.join(['dl_file', 'count(*)', *items])} FROM ({rows}) GROUP BY dl_file").fetchall()
    except duckdb.Error as e:
        raise parquet.translate(e, table.location) from e
    by_file = {file: (count, _said(leaves, values)) for file, count, *values in answers}
    return [by_file.get(i, (0, {})) for i in range(files.num_rows)]


def _items(column: str, kind: DataType) -> list[str]:
    """SQL: how many NULLs, the least and the greatest value as text, and whether there is a NaN."""
    low, high = (f"CAST({f}({column}) AS VARCHAR)" if stats.has_bounds(kind) else "NULL" for f in ("min", "max"))
    return [f"count(*) - count({column})", low, high, f"bool_or(isnan({column}))" if kind in ("float", "double") else "false"]


def _said(leaves: Sequence[tuple[tuple[str, ...], DataType]], values: Sequence[Any]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for (path, _), nulls, low, high, nan in zip(leaves, *(values[i::4] for i in range(4)), strict=True):
        bounds: Mapping[str, str] = {} if low is None else {"min": low, "max": high}
        found[".".join(map(quote, path))] = {"null_count": str(nulls), "has_nan": "true" if nan else "false", **bounds}
    return found
