"""Rows → Parquet files → add actions. DuckDB writes the files and says what is in them; SQL makes that the log's."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote as quote_path

import duckdb
import pyarrow as pa

from deltaduck import rules as table_rules
from deltaduck import small_files, storage
from deltaduck.errors import (
    DeltaduckError,
    LogCorruptError,
    QueryError,
    SchemaMismatchError,
    StorageError,
    UnsupportedFeatureError,
)
from deltaduck.protocol import mapping, partitions, stats
from deltaduck.protocol.features import PARQUET_FORMAT, size_bytes
from deltaduck.protocol.schema import Field, Struct, literal, quote, uses
from deltaduck.protocol.stats import SkipColumn
from deltaduck.rules import Rule

TARGET_FILE_SIZE = 256 << 20
ROW_GROUP, LEAST_ROW_GROUP = 122_880, 20_480  # rows: what DuckDB writes, and what is still worth reading at once
NOT_IN_V2 = ("float", "double", "integer", "date")
ADD_SCHEMA = pa.schema(
    {
        "path": pa.string(), "partition_values": pa.string(), "size": pa.int64(), "modification_time": pa.int64(),
        "data_change": pa.bool_(), "stats": pa.string(), "num_records": pa.int64(),
    }
)  # fmt: skip
ARROW_INDEX = {"BIGINT": pa.int64(), "DOUBLE PRECISION": pa.float64(), "TEXT": pa.string()}


@dataclass(frozen=True)
class Target:
    """Where files go, and what they are to hold."""

    location: str
    schema: Struct
    partition_columns: Sequence[str]
    configuration: Mapping[str, str]
    skip: Sequence[SkipColumn]
    copy_options: Mapping[str, str | int] = field(default_factory=dict)  # COPY's own, over what the properties say
    hidden: Sequence[Field] = ()  # columns that the files hold beside the table's, without statistics
    splits: bool = True  # into files of the target size; rows that are not split keep their order
    begin: str = "part-"  # what names of files begin with

    @property
    def partition_keys(self) -> list[str]:
        """The partition columns by the names that files and the log have."""
        return [f.physical_name for f in map(self.schema.get, self.partition_columns) if f is not None]

    @property
    def stored(self) -> Struct:
        """All columns that the files hold."""
        return Struct((*self.schema.fields, *self.hidden)) if self.hidden else self.schema


def row_group(rows: int, threads: int) -> int:
    """How many of so many rows make a row group that gives every thread something to write, as one writes a whole group."""
    return ROW_GROUP if threads == 1 else min(ROW_GROUP, max(LEAST_ROW_GROUP, -(-rows // (2 * threads))))


def by_all_threads(target: Target, rows: int, threads: int) -> Target:
    """The same target, for so many rows: in row groups that give every thread something to write."""
    size = row_group(rows, threads)
    if target.partition_columns or "ROW_GROUP_SIZE" in target.copy_options or size == ROW_GROUP:
        return target
    return replace(target, copy_options={**target.copy_options, "ROW_GROUP_SIZE": size})


def version(target: Target) -> str:
    """What COPY calls a version of Parquet. V2 writes whole numbers as differences and texts after their lengths: smaller, and
    read up to three times as fast. The pages are those of the first version.

    Not where V2 would write what others do not read: FLOAT and DOUBLE as streams of bytes, which Spark refuses; differences of
    INTEGER and DATE that have more than their 32 bits, which Arrow and delta-rs do.
    https://github.com/delta-io/delta/blob/master/PROTOCOL.md#table-properties
    """
    wanted = target.configuration.get(PARQUET_FORMAT, "").startswith("2.")
    return "V2" if wanted and not any(uses(target.stored, kind) for kind in NOT_IN_V2) else "V1"


def write_files(
    connection: Any, from_sql: str, columns: Sequence[tuple[str, str]], target: Target, now_ms: int,
    rules: Sequence[Rule] | None = (), dl_frame: Any = None,
) -> tuple[pa.Table, list[str]]:  # fmt: skip
    """Write the rows of a FROM item: one row per file with its add action and skip index values, and the files' names.

    columns: (name, SQL) of exactly the table's types; those left out are generated, or have their default, or NULL.
    rules: what the rows must satisfy beside the table's own rules; None for rows that the table holds already.
    dl_frame: rows for a FROM item of that name, which DuckDB finds in this function's variables.
    The files are durable on return, and nothing refers to them yet.
    """
    counted: list[tuple[Rule, str]] = []
    given = from_sql
    if rules is not None:
        from_sql, columns, counted = table_rules.guarded(from_sql, columns, target.stored, target.configuration, rules)
    prefix = f"{target.begin}{uuid.uuid4().hex[:8]}-"
    place = storage.writable(connection, target.location)
    codec = target.configuration.get("delta.parquet.compression.codec", "snappy").lower()
    as_given = (
        from_sql is given
        and not (target.partition_columns or target.copy_options)
        and version(target) == "V1"
        and all(sql == quote(name) for name, sql in columns)
    )
    try:
        if as_given and small_files.fits(dl_frame, target.schema, codec):
            name = f"{prefix}{uuid.uuid4()}.parquet"
            data, row = small_files.write(dl_frame, target.schema, codec)
            storage.create(target.location, name, data)
            rows = [{**row, "filename": f"{place}/{name}"}]
        else:
            result = connection.execute(_copy_statement(from_sql, columns, target, place, codec, prefix))
            names = [c[0] for c in result.description]
            rows = [dict(zip(names, row, strict=True)) for row in result.fetchall()]
    except (duckdb.Error, OSError, StorageError) as e:
        storage.remove_begun(target.location, prefix)
        if isinstance(e, StorageError):
            raise
        raise table_rules.explained(connection, e, counted, dl_frame) or translate(e, target.location) from e
    for row in rows:
        row["path"] = row["filename"][len(place) + 1 :]
    files = [storage.join(target.location, row["path"]) for row in rows]
    try:
        storage.remove([name for name, row in zip(files, rows, strict=True) if not row["count"]])  # a source without rows
        files = [name for name, row in zip(files, rows, strict=True) if row["count"]]
        rows = [row for row in rows if row["count"]]
        storage.persist(files)
        return adds_of(rows, target, now_ms), files
    except BaseException:
        storage.remove(files)
        raise


def _copy_statement(
    from_sql: str, columns: Sequence[tuple[str, str]], target: Target, place: str, codec: str, prefix: str
) -> str:
    parts = set(target.partition_columns)
    select = []
    for name, sql in columns:
        f = target.stored.get(name)
        assert f is not None
        value = partitions.serialize(sql, f.type) if name in parts else mapping.stored(sql, f.type)
        select.append(f"{value} AS {quote(f.physical_name)}")
    options = ["FORMAT parquet", "RETURN_STATS"]
    choices: dict[str, str | int] = {"COMPRESSION": codec, "PARQUET_VERSION": version(target)}
    if not parts and not target.splits:
        place += f"/{prefix}{uuid.uuid4()}.parquet"
    else:
        options += ["APPEND", f"FILENAME_PATTERN '{prefix}{{uuid}}'"]
    if parts:
        options.append(f"PARTITION_BY ({', '.join(map(quote, target.partition_keys))})")
    elif target.splits:
        choices["FILE_SIZE_BYTES"] = size_bytes(target.configuration, "delta.targetFileSize", TARGET_FILE_SIZE)
    if mapping.mode(target.configuration) != "none":
        options.append(f"FIELD_IDS {mapping.field_ids(target.schema.without(target.partition_columns))}")
    options += [f"{name} {value}" for name, value in (choices | dict(target.copy_options)).items()]
    return f"COPY (SELECT {', '.join(select)} FROM {from_sql}) TO {literal(place)} ({', '.join(options)})"


def adds_of(written: Sequence[Mapping[str, Any]], target: Target, now_ms: int) -> pa.Table:
    """Add actions and skip index values of files, from what COPY ... RETURN_STATS says of each."""
    leaves = stats.indexed_leaves(target.schema, target.partition_columns, target.configuration)
    columns: dict[str, list[Any]] = {name: [] for name in ADD_SCHEMA.names}
    index: dict[str, list[Any]] = {name: [] for c in target.skip for name, _ in c.definitions()}
    values: list[dict[str, str | None]] = []
    for file in written:
        text, bounds = stats.file_stats(file["count"], file["column_statistics"], leaves)
        parts = {p: (file["partition_keys"] or {}).get(p) for p in target.partition_keys}
        row = (
            quote_path(file["path"], safe="/="),
            json.dumps(parts, ensure_ascii=False, separators=(",", ":")),
            file["file_size_bytes"], now_ms, True, text, file["count"],
        )  # fmt: skip
        for name, value in zip(ADD_SCHEMA.names, row, strict=True):
            columns[name].append(value)
        values.append(parts)
        for c in target.skip:
            if not c.is_partition:
                for name, value in zip((c.min, c.max, c.nulls), bounds.get(c.path, (None, None, None)), strict=True):
                    index[name].append(value)
    for c in target.skip:
        if c.is_partition:
            index[c.value] = [_partition_index_value(c, parts[c.path[0]]) for parts in values]
    kinds = {name: ARROW_INDEX[kind] for c in target.skip for name, kind in c.definitions()}
    arrays = {name: pa.array(columns[name], ADD_SCHEMA.field(name).type) for name in ADD_SCHEMA.names}
    return pa.table(arrays | {name: pa.array(index[name], kind) for name, kind in kinds.items()})


def in_partition(adds: pa.Table, target: Target, directory: str, values: str) -> pa.Table:
    """Adds of files that were written as one partition, in its directory, as adds of the partitioned table.

    directory: as the log spells it, relative to the table's root; values: the partition's, as JSON."""
    n, parts = adds.num_rows, json.loads(values)
    columns = {name: adds[name] for name in adds.column_names}
    columns["partition_values"] = pa.array([values] * n, pa.string())
    if directory:
        columns["path"] = pa.array([f"{directory}/{path}" for path in adds["path"].to_pylist()], pa.string())
    for c in target.skip:
        if c.is_partition:
            kind = ARROW_INDEX[c.definitions()[0][1]]
            columns[c.value] = pa.array([_partition_index_value(c, parts[c.path[0]])] * n, kind)
    return pa.table(columns)


def _partition_index_value(column: SkipColumn, text: str | None) -> Any:
    value = stats.partition_index_value(text, column.type)
    if value is None and text is not None:
        raise SchemaMismatchError(f"partition column {column.path[0]!r}: {text!r} is outside of the years 1 to 9999")
    return value


def translate(error: duckdb.Error | OSError, where: str) -> DeltaduckError:
    """What an error of DuckDB or of the file system means to someone who reads or writes a table."""
    text = str(error)
    first = text.splitlines()[0] if text else type(error).__name__
    if (said := storage.complaint(text)) is not None:
        text = first = said
    if "Values were not provided for the following" in text or "Unexpected prepared parameter" in text:
        return QueryError("the statement has parameters without values: give params, a list for ? and $1, or a dict for $name")
    if "CSV Error" in first:  # the line, and what is wrong with it, follow
        first = " ".join(text.split("\n\n", maxsplit=1)[0].splitlines())
    if isinstance(error, duckdb.ConversionException | duckdb.OutOfRangeException):
        return SchemaMismatchError(f"a value cannot be converted: {first}")
    if "combine FILE_SIZE_BYTES and PARTITION_BY" in text:
        return UnsupportedFeatureError("target_file_size cannot be honoured for a partitioned table by DuckDB 1.5; 2.0 can")
    if "No space left" in text or "Permission denied" in text or "Read-only file system" in text:
        return StorageError(f"cannot write below {where}: {first}; nothing was committed")
    if "No files found" in text or (isinstance(error, duckdb.HTTPException) and "HTTP 404" in text):
        return LogCorruptError(f"a data file below {where} is missing: {first}")
    if said is not None:
        return StorageError(said)
    if "Parquet" in text or "magic bytes" in text or "too small to be a Parquet file" in text:
        return LogCorruptError(f"a data file below {where} cannot be read: {first}")
    if isinstance(error, duckdb.IOException | OSError):
        return StorageError(f"{where}: {first}")
    said, _, line = text.partition("\n\nLINE ")
    said = _OUR_NAMES.sub("", said if _OURS.search(line) else text)  # what is of our making says nothing to others
    return QueryError(said.strip() or type(error).__name__)


_OURS = re.compile(r"dl_|_partitioning=|from_json\(|read_parquet\(|AS found\(|deltaduck_source")
_OUR_NAMES = re.compile(r"\s*Candidate bindings: [^\n]*\bdl_[^\n]*")
