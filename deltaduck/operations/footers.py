"""What the footers of Parquet files say of their rows: add actions of files that somebody else wrote, all at once, in SQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote as quote_path

import pyarrow as pa

from deltaduck import scan, skip_index
from deltaduck.errors import SchemaMismatchError
from deltaduck.parquet import ADD_SCHEMA, Target
from deltaduck.protocol import partitions, stats
from deltaduck.protocol.measures import Measure, stats_sql
from deltaduck.protocol.schema import Field, leaves, literal, quote, to_duckdb

SCHEMAS = """
    CREATE OR REPLACE TEMP TABLE dl_schemas AS
    SELECT file_name, name, type, converted_type, logical_type, num_children, scale, precision, duckdb_type, column_id
    FROM parquet_schema({files})
"""
# The first file of each schema that the files have.
FIRSTS = """
    SELECT min(file_name) AS first_file FROM (
        SELECT file_name, string_agg(
            concat_ws(' ', name, type, converted_type, logical_type, num_children, scale, precision), ',' ORDER BY column_id
        ) AS layout
        FROM dl_schemas GROUP BY file_name)
    GROUP BY layout ORDER BY first_file
"""
# Per row group and leaf column: rows, NULLs, bounds as text, and the column's type in that file. A footer numbers the leaves of
# its schema.
FOOTERS = """
    CREATE OR REPLACE TEMP TABLE dl_footers AS
    SELECT m.file_name, m.row_group_num_rows AS rows, m.column_id, m.path_in_schema AS path, m.stats_null_count AS nulls,
           m.stats_min_value AS low, m.stats_max_value AS high, l.duckdb_type AS kind
    FROM parquet_metadata({files}) m JOIN (
        SELECT file_name, duckdb_type, row_number() OVER (PARTITION BY file_name ORDER BY column_id) - 1 AS leaf
        FROM dl_schemas WHERE coalesce(num_children, 0) = 0
    ) l ON l.file_name = m.file_name AND l.leaf = m.column_id
"""


def layouts(con: Any, files: Sequence[str]) -> list[str]:
    """Read the files' schemas; a file of each kind."""
    con.execute(SCHEMAS.format(files=scan.list_sql(files)))
    return [name for (name,) in con.execute(FIRSTS).fetchall()]


def require_values(con: Any, parts: Sequence[Field], paths: Sequence[str], values: Mapping[str, Sequence[str | None]]) -> None:
    """SchemaMismatchError for a directory whose value is none of its column's type, or one that the log cannot write."""
    for f in parts:
        value = _value("text", f)
        outside = f" OR year({value}) NOT BETWEEN 1 AND 9999" if f.type in ("date", "timestamp", "timestamp_ntz") else ""
        con.register("dl_values", pa.table({"path": paths, "text": pa.array(values[f.name], pa.string())}))
        query = f"SELECT path, text FROM dl_values WHERE text <> '' AND ({value} IS NULL{outside}) ORDER BY path LIMIT 1"
        for path, text in con.execute(query).fetchall():
            raise SchemaMismatchError(
                f"{path}: {text!r} is no {to_duckdb(f.type)} of the years 1 to 9999, for partition column {f.name!r}: "
                "say another type for it, such as VARCHAR"
            )


def adds(
    con: Any, target: Target, found: Mapping[str, int], names: Sequence[str], values: Mapping[str, Sequence[str | None]],
    now_ms: int,
) -> pa.Table:  # fmt: skip
    """Add actions and skip index values of files whose schemas were read.

    found: path and size of each; names: what DuckDB calls them; values: those of each partition column, one per file."""
    parts = [f for f in map(target.schema.get, target.partition_columns) if f is not None]
    listed = {
        "dl_place": pa.array(range(len(found)), pa.int64()), "file_name": pa.array(names, pa.string()),
        "path": pa.array([quote_path(path, safe="/=") for path in found], pa.string()),
        "size": pa.array(found.values(), pa.int64()),
        **{f"dl_part_{i}": pa.array(values[f.name], pa.string()) for i, f in enumerate(parts)},
    }  # fmt: skip
    con.execute(FOOTERS.format(files=scan.list_sql(names)))
    con.register("dl_files_found", pa.table(listed))
    try:
        told = con.sql(_query(target, parts)).to_arrow_table()
    finally:
        con.unregister("dl_files_found")
        con.execute("DROP TABLE dl_footers; DROP TABLE dl_schemas")
    index = skip_index.described(con, told["stats"], told["partition_values"], target.skip)
    n = told.num_rows
    columns = {name: told[name] for name in ("path", "partition_values", "size", "stats")} | {
        "modification_time": pa.repeat(pa.scalar(now_ms, pa.int64()), n), "data_change": pa.repeat(True, n),
    }  # fmt: skip
    columns |= {name: index[name] for name in skip_index.names(target.skip)}
    return pa.table({name: columns[name].cast(ADD_SCHEMA.field(name).type) for name in ADD_SCHEMA.names} | columns)


def _value(text: str, f: Field) -> str:
    return f"TRY({partitions.deserialize(text, f.type)})"


def _query(target: Target, parts: Sequence[Field]) -> str:
    indexed = stats.indexed_leaves(target.schema, target.partition_columns, target.configuration)
    by_name = Counter(", ".join(path) for path, _ in leaves(target.schema))  # as parquet_metadata spells paths
    measured = [(", ".join(path), path, kind) for path, kind in indexed if isinstance(kind, str)]
    measured = [m for m in measured if by_name[m[0]] == 1]
    measures = [Measure(path, kind, f"m{i}_nulls", f"m{i}_low", f"m{i}_high") for i, (_, path, kind) in enumerate(measured)]
    items = [item for i, (name, _, kind) in enumerate(measured) for item in _items(i, name, kind)]
    values = ", ".join(
        f"{quote(f.physical_name)} := {partitions.serialize(_value(f'dl_part_{i}', f), f.type)}" for i, f in enumerate(parts)
    )
    return f"""
        SELECT path, size, {f"CAST(to_json(struct_pack({values})) AS VARCHAR)" if parts else "'{}'"} AS partition_values,
               {stats_sql("coalesce(dl_count, 0)", measures)} AS stats
        FROM dl_files_found LEFT JOIN (
            SELECT {", ".join(["file_name", "CAST(sum(rows) FILTER (column_id = 0) AS BIGINT) AS dl_count", *items])}
            FROM dl_footers GROUP BY file_name
        ) USING (file_name) ORDER BY dl_place
    """


def _items(i: int, name: str, kind: str) -> list[str]:
    """SQL: how many NULLs, the least and the greatest value; NULL where some row group does not say."""
    here = f"FILTER (path = {literal(name)})"
    found = [f"CASE WHEN bool_and(nulls IS NOT NULL) {here} THEN CAST(sum(nulls) {here} AS BIGINT) END AS m{i}_nulls"]
    bounded = stats.has_bounds(kind) and kind not in ("float", "double")  # a footer does not say whether it hides a NaN
    for end, f in (("low", "min"), ("high", "max")):
        value = f"TRY_CAST({end} AS {to_duckdb(kind)})"
        known = f"bool_and({value} IS NOT NULL{_in_order(kind)}) {here}"
        found.append(f"{f'CASE WHEN {known} THEN {f}({value}) {here} END' if bounded else 'NULL'} AS m{i}_{end}")
    return found


def _in_order(kind: str) -> str:
    """SQL: and does a file's column have values in the order that they have as values of the table's type?"""
    only = {"string": "VARCHAR", "timestamp": "TIMESTAMP WITH TIME ZONE"}.get(kind)
    return f" AND kind = {literal(only)}" if only else ""
