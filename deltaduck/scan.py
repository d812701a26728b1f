"""Files of a snapshot → SQL that DuckDB scans.

Partition values come from the log: a list beside the file list, looked up by DuckDB's file_index. Column names and types
come from the table's schema: a file that lacks a column answers NULL.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from deltaduck.protocol import partitions
from deltaduck.protocol.schema import Field, Struct, literal, quote, to_duckdb
from deltaduck.snapshot import Snapshot

_numbers = itertools.count()
INLINE = 32  # files that are written into the SQL; longer lists go into a variable of the connection


def empty_sql(schema: Struct) -> str:
    """A query of the schema's columns without rows."""
    return "SELECT " + ", ".join(f"CAST(NULL AS {to_duckdb(f.type)}) AS {quote(f.name)}" for f in schema) + " WHERE false"


def scan_sql(
    connection: Any, snapshot: Snapshot, files: pa.Table, extra: str = "", *, inline: bool = False
) -> tuple[str, list[str]]:
    """A query for the rows of `files`, and the connection's variables that it needs (see `release`).

    extra: further select items, over file_index (0-based, in the order of `files`), file_row_number and filename.
    inline: write the file list into the SQL however long it is, for use on another connection.
    """
    if files.num_rows == 0:
        empty = empty_sql(snapshot.schema)
        return (empty.replace(" WHERE false", f", {_null_extra(extra)} WHERE false") if extra else empty), []
    variables: list[str] = []

    def constant(values: Sequence[str | None] | pa.ChunkedArray, sql_type: str) -> str:
        if inline or files.num_rows <= INLINE:
            rows = values.to_pylist() if isinstance(values, pa.ChunkedArray) else values
            return "[" + ", ".join("NULL" if v is None else literal(v) for v in rows) + f"]::{sql_type}[]"
        name = f"dl_scan_{next(_numbers)}"
        variables.append(name)
        connection.register("dl_scan_values", pa.table({"v": values, "n": pa.array(range(files.num_rows), pa.int64())}))
        connection.execute(f"SET VARIABLE {name} = (SELECT list(v ORDER BY n)::{sql_type}[] FROM dl_scan_values)")
        connection.unregister("dl_scan_values")
        return f"getvariable('{name}')" if sql_type == "VARCHAR" else f"getvariable('{name}')::{sql_type}[]"

    paths = constant(file_names(connection, snapshot.location, files), "VARCHAR")
    parts = partition_values(connection, snapshot, files)
    select = []
    for i, f in enumerate(snapshot.schema):
        value = (
            _partition_item(f, constant(parts[f.name], "VARCHAR")) if f.name in parts else quote(column_alias(snapshot.schema, i))
        )
        select.append(f"{value} AS {quote(f.name)}")
    if extra:
        select.append(extra)
    source = read_parquet(paths, snapshot, uniform=is_uniform(snapshot, files))
    return f"SELECT {', '.join(select)} FROM {source}", variables


def _partition_item(f: Field, values: str) -> str:
    return partitions.deserialize(f"({values})[CAST(file_index AS BIGINT) + 1]", f.type)


def _null_extra(extra: str) -> str:
    return ", ".join(f"NULL AS {item.rsplit(' AS ', 1)[-1]}" for item in extra.split(", "))


def read_parquet(paths: str, snapshot: Snapshot, *, uniform: bool) -> str:
    """The table function call that reads the data columns of `paths`."""
    if uniform and not _shadows(snapshot.schema):  # the files' own schema is the table's: nothing to map, and no cost of mapping
        return f"read_parquet({paths}, hive_partitioning=false)"
    return f"read_parquet({paths}, hive_partitioning=false, schema={schema_map(snapshot)})"


def _shadows(schema: Struct) -> bool:
    """Has a column the name of a virtual column of read_parquet?"""
    return any(f.physical_name.lower() in ("filename", "file_index", "file_row_number") for f in schema)


def column_alias(schema: Struct, position: int) -> str:
    """What `read_parquet` calls a column: its own name, or a number where that would hide a virtual column."""
    return f"dl_column_{position}" if _shadows(schema) else schema.fields[position].physical_name


def schema_map(snapshot: Snapshot) -> str:
    """The data columns by name: DuckDB casts where a file differs, and answers NULL where it lacks one."""
    entries = [
        f"{literal(f.physical_name)}: {{name: {literal(column_alias(snapshot.schema, i))}, "
        f"type: {literal(to_duckdb(f.type))}, default_value: NULL}}"
        for i, f in enumerate(snapshot.schema)
        if f.name not in snapshot.partition_columns
    ]
    return "MAP {" + ", ".join(entries) + "}"


def is_uniform(snapshot: Snapshot, files: pa.Table) -> bool:
    """Do all files hold exactly the columns that this snapshot's schema says?"""
    if snapshot.version < snapshot.uniform_since:
        return False
    return all(v is None or v >= snapshot.uniform_since for v in (files["version"][0].as_py(), files["version"][-1].as_py()))


def file_names(connection: Any, location: str, files: pa.Table) -> pa.ChunkedArray:
    """Where the files lie: the log's paths decoded, and made absolute."""
    return decode(connection, files.select(["path"]), f"{full_path('path', location)} AS v")


def full_path(path: str, location: str) -> str:
    """SQL: the absolute name of the log's path; a leading / or scheme says that it is absolute already."""
    decoded = f"url_decode({path})"
    return (
        f"CASE WHEN starts_with({path}, '/') THEN {decoded} WHEN starts_with({path}, 'file:/') "
        f"THEN regexp_replace({decoded}, '^file:/*', '/') ELSE {literal(location + '/')} || {decoded} END"
    )


def partition_values(connection: Any, snapshot: Snapshot, files: pa.Table) -> dict[str, pa.ChunkedArray]:
    """The log's string of every partition column, per file."""
    out = {}
    for name in snapshot.partition_columns:
        f = snapshot.schema.get(name)
        assert f is not None
        item = f"from_json(partition_values, '\"MAP(VARCHAR,VARCHAR)\"')[{literal(f.physical_name)}] AS v"
        out[f.name] = decode(connection, files.select(["partition_values"]), item)
    return out


def decode(connection: Any, rows: pa.Table, item: str) -> pa.ChunkedArray:
    """One SQL expression over every row of an Arrow table, in order."""
    connection.register("dl_scan_rows", rows)
    try:
        return connection.sql(f"SELECT {item} FROM dl_scan_rows").to_arrow_table().column("v")
    finally:
        connection.unregister("dl_scan_rows")


def release(connection: Any, relation: Any, variables: Sequence[str]) -> None:
    """Forget the variables of a scan when its relation goes."""
    if variables:
        weakref.finalize(relation, _forget, weakref.ref(connection), tuple(variables)).atexit = False


def forget(connection: Any, variables: Sequence[str]) -> None:
    """Forget the variables of a scan that has run."""
    for name in variables:
        connection.execute(f"RESET VARIABLE {name}")


def _forget(connection: Any, variables: Sequence[str]) -> None:
    live = connection()
    if live is not None:
        _pending.setdefault(id(live), []).extend(variables)


# a finalizer may run in the middle of another statement, so variables are dropped before the next one
_pending: dict[int, list[str]] = {}


def drop_forgotten(connection: Any) -> None:
    """Drop the variables of scans whose relations are gone."""
    forget(connection, _pending.pop(id(connection), ()))
