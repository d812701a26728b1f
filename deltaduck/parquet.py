"""Rows → Parquet files → add actions. DuckDB writes the files and says what is in them; SQL makes that the log's."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from deltaduck import skip_index, storage
from deltaduck.casts import NOT_NULL_MARK
from deltaduck.errors import (
    ConstraintViolationError,
    DeltaduckError,
    LogCorruptError,
    QueryError,
    SchemaMismatchError,
    StorageError,
)
from deltaduck.protocol import partitions, stats
from deltaduck.protocol.features import size_bytes
from deltaduck.protocol.schema import Struct, literal, quote
from deltaduck.protocol.stats import SkipColumn

TARGET_FILE_SIZE = 256 << 20


def write_files(
    connection: Any,
    from_sql: str,
    columns: Sequence[tuple[str, str]],
    *,
    location: str,
    schema: Struct,
    partition_columns: Sequence[str],
    configuration: Mapping[str, str],
    skip: Sequence[SkipColumn],
    now_ms: int,
    data_change: bool = True,
) -> pa.Table:
    """Write the rows of a FROM item, and answer one row per file: its add action and its skip index values.

    columns: (name, SQL) in the table's order, of exactly the table's types. The files are durable on return, and
    nothing refers to them yet.
    """
    copy = _copy_statement(from_sql, columns, location, schema, partition_columns, configuration)
    try:
        written = connection.sql(copy).to_arrow_table()
    except duckdb.Error as e:
        raise translate(e, location) from e
    names = written.column("filename").to_pylist()
    try:
        storage.persist(names)
        return _adds(connection, written, location, schema, partition_columns, configuration, skip, now_ms, data_change)
    except BaseException:
        storage.remove(names)
        raise


def _copy_statement(
    from_sql: str,
    columns: Sequence[tuple[str, str]],
    location: str,
    schema: Struct,
    partition_columns: Sequence[str],
    configuration: Mapping[str, str],
) -> str:
    parts = set(partition_columns)
    select = []
    for name, sql in columns:
        f = schema.get(name)
        assert f is not None
        select.append(f"{partitions.serialize(sql, f.type) if name in parts else sql} AS {quote(f.physical_name)}")
    codec = configuration.get("delta.parquet.compression.codec", "snappy").lower()
    options = ["FORMAT parquet", "RETURN_STATS", "APPEND", f"COMPRESSION {codec}", "FILENAME_PATTERN 'part-{uuid}'"]
    if partition_columns:
        options.append(f"PARTITION_BY ({', '.join(quote(p) for p in partition_columns)})")
    else:
        options.append(f"FILE_SIZE_BYTES {size_bytes(configuration, 'delta.targetFileSize', TARGET_FILE_SIZE)}")
    return f"COPY (SELECT {', '.join(select)} FROM {from_sql}) TO {literal(location)} ({', '.join(options)})"


def _adds(
    connection: Any,
    written: pa.Table,
    location: str,
    schema: Struct,
    partition_columns: Sequence[str],
    configuration: Mapping[str, str],
    skip: Sequence[SkipColumn],
    now_ms: int,
    data_change: bool,
) -> pa.Table:
    members = [(json.dumps(p, ensure_ascii=False) + ":", f"to_json(partition_keys[{literal(p)}])") for p in partition_columns]
    values = " || ',' || ".join(f"{literal(key)} || coalesce(CAST({value} AS VARCHAR), 'null')" for key, value in members)
    partition_values = f"'{{' || {values} || '}}'" if partition_columns else "'{}'"
    leaves = stats.indexed_leaves(schema, partition_columns, configuration)
    relative = f"substr(filename, {len(location) + 2})"
    encoded = f"replace(replace(url_encode({relative}), '%2F', '/'), '%3D', '=')"
    adds = (
        f"SELECT {encoded} AS path, {partition_values} AS partition_values, CAST(file_size_bytes AS BIGINT) AS size, "
        f"CAST({now_ms} AS BIGINT) AS modification_time, {data_change} AS data_change, {stats.stats_json(leaves)} AS stats, "
        "true AS exact_max FROM dl_written_files WHERE count > 0"
    )
    keep = "path, partition_values, size, modification_time, data_change, stats"
    columns = ["filename", "count", "file_size_bytes", "column_statistics", "partition_keys"]
    connection.register("dl_written_files", written.select(columns))
    try:
        table = connection.sql(skip_index.values_sql(skip, f"({adds})", keep)).to_arrow_table()
    finally:
        connection.unregister("dl_written_files")
    if table.num_rows < written.num_rows:  # a source without rows leaves a file without rows
        empty = [f for f, n in zip(written["filename"].to_pylist(), written["count"].to_pylist(), strict=True) if n == 0]
        storage.remove(empty)
    return table


def translate(error: duckdb.Error, where: str) -> DeltaduckError:
    """What a DuckDB error means to someone who reads or writes a table."""
    text = str(error)
    first = text.splitlines()[0] if text else type(error).__name__
    if NOT_NULL_MARK in text:
        return ConstraintViolationError(
            text[text.index(NOT_NULL_MARK) + len(NOT_NULL_MARK) :].splitlines()[0] + "; nothing was written"
        )
    if isinstance(error, duckdb.ConversionException | duckdb.OutOfRangeException):
        return SchemaMismatchError(f"a value does not fit its column: {first}; nothing was written")
    if "No space left" in text or "Permission denied" in text or "Read-only file system" in text:
        return StorageError(f"cannot write below {where}: {first}; nothing was committed")
    if isinstance(error, duckdb.IOException) and "No files found" in text:
        return LogCorruptError(f"a data file below {where} is missing: {first}")
    if "Parquet" in text or "magic bytes" in text or "too small to be a Parquet file" in text:
        return LogCorruptError(f"a data file below {where} cannot be read: {first}")
    if isinstance(error, duckdb.IOException):
        return StorageError(f"{where}: {first}")
    return QueryError(text.strip() or type(error).__name__)


def absolute(location: str, path: str) -> str:
    """Where the data file of a log's (decoded) path lies."""
    return path if os.path.isabs(path) else f"{location}/{path}"
