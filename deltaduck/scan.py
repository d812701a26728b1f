"""Files of a snapshot → SQL that DuckDB scans.

Partition values come from the log: a list beside the file list, looked up by DuckDB's file_index. Column names and types
come from the table's schema: a file that lacks a column answers NULL.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from deltaduck import deletions, file_values, storage
from deltaduck.errors import LogCorruptError
from deltaduck.protocol import mapping, partitions, row_tracking, widening
from deltaduck.protocol.schema import Struct, literal, quote, to_duckdb, uses
from deltaduck.snapshot import Snapshot

# DuckDB 1.5 compares in the type that a file has: 1 > 0.6 is false in a file of whole numbers, whose column is a double now.
COMPARES_AS_STORED = int(duckdb.__version__.split(".")[0]) < 2


def scan_sql(
    connection: Any, snapshot: Snapshot, files: pa.Table, extra: str = "", *, only: str | None = None,
    stored: Mapping[str, str] | None = None,
) -> str:  # fmt: skip
    """A query for the rows of `files` that no deletion vector hides.

    extra: further select items, over file_index (0-based, in the order of `files`), file_row_number and filename.
    only: a file of rows as `deletions` writes them, to which the result is limited, whatever the vectors say.
    stored: name → DuckDB type of columns that the files hold beside the table's, for `extra`.
    """
    if files.num_rows == 0:
        return empty_sql(snapshot.schema, dict.fromkeys(re.findall(r" AS (\w+)(?=,|$)", extra), "BIGINT"))
    paths, values = _lists(connection, snapshot, files)
    names: file_values.Names = {}
    instants, uniform = "timestamp", is_uniform(snapshot, files) and not stored
    if not uniform:
        instants = file_values.instants_in_files(connection, paths, snapshot.schema.without(snapshot.partition_columns))
    if mapping.mode(snapshot.configuration) == "id" and not uniform:
        names = file_values.names_by_id(
            connection, paths, snapshot.schema.without(snapshot.partition_columns), columns=bool(stored)
        )
    select = []
    for i, f in enumerate(snapshot.schema):
        if f.name in values:
            value = partitions.typed(f"({values[f.name]})[CAST(file_index AS BIGINT) + 1]", f.type)
        else:
            value = quote(column_alias(snapshot.schema, i))
            value = file_values.logical(file_values.member("", f, names, value), f.type, names, instants)
            if COMPARES_AS_STORED and widening.is_widened(Struct((f,))):  # no filter is pushed below this
                value = f"CASE WHEN file_index >= 0 THEN {value} END"
        select.append(f"{value} AS {quote(f.name)}")
    held = snapshot if instants == "timestamp" else replace(snapshot, schema=file_values.held(snapshot.schema, instants))
    source = read_parquet(paths, held, uniform=uniform, stored=stored or {}, names=names)
    if (rows := only or deletions.of(snapshot.location, files)) is not None:
        listed = f"(SELECT dl_file, dl_row FROM read_parquet({literal(rows)})) dl_listed"
        source += f" {'SEMI' if only else 'ANTI'} JOIN {listed} ON file_index = dl_file AND file_row_number = dl_row"
    return f"SELECT {', '.join([*select, extra] if extra else select)} FROM {source}"


METADATA = "STRUCT(file_path VARCHAR, row_index BIGINT, row_id BIGINT, row_commit_version BIGINT)"


def metadata_sql(connection: Any, snapshot: Snapshot, files: pa.Table) -> str:
    """The same query, with a column ``_metadata`` as Spark has it: file_path, row_index, and where the table tracks rows
    row_id and row_commit_version. https://github.com/delta-io/delta/blob/master/PROTOCOL.md#row-tracking"""
    if files.num_rows == 0:
        return empty_sql(snapshot.schema, {"_metadata": METADATA})
    row_id, row_version, stored = _tracked(snapshot, files)
    item = (
        "struct_pack(file_path := filename, row_index := CAST(file_row_number AS BIGINT), "
        f"row_id := {row_id}, row_commit_version := {row_version}) AS _metadata"
    )
    return scan_sql(connection, snapshot, files, item, stored=stored)


def identity_sql(snapshot: Snapshot, files: pa.Table) -> tuple[str, dict[str, str]]:
    """(select items, stored columns) for `scan_sql`: dl_row_id and dl_row_version of a table that tracks rows; else nothing."""
    if not row_tracking.columns(snapshot.configuration):
        return "", {}
    row_id, row_version, stored = _tracked(snapshot, files)
    return f", {row_id} AS dl_row_id, {row_version} AS dl_row_version", stored


def _tracked(snapshot: Snapshot, files: pa.Table) -> tuple[str, str, dict[str, str]]:
    """(SQL of a row's id, of the version that last changed it, the columns in which rows take them along)."""
    kept = [snapshot.configuration.get(key) for key in (row_tracking.ROW_ID, row_tracking.ROW_COMMIT_VERSION)]
    base, since = (
        of_file(files[name].to_pylist() if name in files.column_names else [None] * files.num_rows)
        for name in ("base_row_id", "default_row_commit_version")
    )
    values = (f"{base} + CAST(file_row_number AS BIGINT)", since)
    row_id, row_version = (
        f"coalesce({quote(column)}, {value})" if column else value for column, value in zip(kept, values, strict=True)
    )
    return row_id, row_version, {column: "BIGINT" for column in kept if column}


def of_file(values: Sequence[int | None]) -> str:
    """SQL: the value that belongs to the file of a row."""
    return f"{list_sql(values, 'BIGINT')}[CAST(file_index AS BIGINT) + 1]"


def list_sql(values: Sequence[Any], kind: str = "VARCHAR") -> str:
    """SQL: a constant list."""
    return _folded(json.dumps(values, ensure_ascii=False), kind)


def _folded(text: str, kind: str = "VARCHAR") -> str:
    """The same from JSON, which DuckDB makes a list when it binds: a list literal of many members takes it ten times as long."""
    return f"from_json({literal(text)}, '[\"{kind}\"]')"


def empty_sql(schema: Struct, types: Mapping[str, str] | None = None) -> str:
    """A query of the schema's columns, and of further ones by name and DuckDB type, without rows."""
    if not schema.fields:
        raise LogCorruptError("the table has no columns yet, and a query needs one")
    wanted = {quote(f.name): to_duckdb(f.type) for f in schema} | dict(types or {})
    return f"SELECT {', '.join(f'CAST(NULL AS {kind}) AS {name}' for name, kind in wanted.items())} WHERE false"


def _lists(connection: Any, snapshot: Snapshot, files: pa.Table) -> tuple[str, dict[str, str]]:
    """SQL constants: the list of file names, and for each partition column the list of the log's strings."""
    parts = [f for f in snapshot.schema if f.name in snapshot.partition_columns]
    place, prefix = _places(connection, snapshot.location, files["path"])
    spelt = pc.any(pc.match_substring_regex(files["path"], "^/|[%:]")).as_py()  # in another way than as names below the root
    items = [full_path("path", place, prefix)] * spelt + [
        partitions.in_utc(partition_value(f.physical_name), f.type) for f in parts
    ]
    texts = _read_lists(connection, files, items) if items else []
    if not spelt:
        paths = pc.binary_join_element_wise(f"{place}/", files["path"], "")
        texts.insert(0, json.dumps(paths.to_pylist(), ensure_ascii=False))
    paths, *values = map(_folded, texts)
    return paths, dict(zip([f.name for f in parts], values, strict=True))


def _read_lists(connection: Any, files: pa.Table, items: Sequence[str]) -> list[str]:
    """What SQL makes of each file, as JSON lists in the order of the files."""
    # file_index counts in the order of the list, and threads may read an Arrow table's chunks in any
    lists = ", ".join(f"CAST(to_json(list({item} ORDER BY dl_place)) AS VARCHAR)" for item in items)
    places = pa.array(range(files.num_rows), pa.int64())
    connection.register("dl_scan_files", files.select(["path", "partition_values"]).append_column("dl_place", places))
    try:
        (row,) = connection.execute(f"SELECT {lists} FROM dl_scan_files").fetchall()
    finally:
        connection.unregister("dl_scan_files")
    return list(row)


def _places(connection: Any, location: str, paths: Any) -> tuple[str, str]:
    """How DuckDB names the table's place, and what it wants before the URL of another."""
    special = r"[*\[\]\\?#]|%(3F|2A|5B|5D|5C|23)"  # what httpfs does not take for a part of a name
    plain = not storage.is_remote(location) or not pc.any(pc.match_substring_regex(paths, special, ignore_case=True)).as_py()
    elsewhere = pc.any(pc.match_substring(paths, "://")).as_py() and any(map(storage.is_remote, paths.to_pylist()))
    prefix = storage.engine_prefix(connection, location) if elsewhere else ""
    return storage.readable(connection, location, plain=plain), prefix


def partition_value(column: str) -> str:
    """SQL: the log's string of a partition column, from `partition_values`."""
    return f"from_json(partition_values, '\"MAP(VARCHAR,VARCHAR)\"')[{literal(column)}]"


def read_parquet(paths: str, snapshot: Snapshot, *, uniform: bool, stored: Mapping[str, str], names: file_values.Names) -> str:
    """The table function call that reads the data columns of `paths`."""
    mapped = len(snapshot.schema.fields) > len(snapshot.partition_columns)  # of no columns DuckDB makes no map
    if not mapped or (uniform and not _shadows(snapshot.schema)):  # the files' own schema is the table's: no cost of mapping
        return f"read_parquet({paths}, hive_partitioning=false)"
    return f"read_parquet({paths}, {options(snapshot.schema)}, schema={schema_map(snapshot, stored, names)})"


def options(schema: Struct) -> str:
    """How read_parquet takes files that others wrote. Old writers do not mark text as such, and DuckDB would escape its bytes."""
    unmarked = uses(schema, "string") and not (uses(schema, "binary") or uses(schema, "variant"))
    return "hive_partitioning=false" + (", binary_as_string=true" if unmarked else "")


def _shadows(schema: Struct) -> bool:
    """Has a column the name of a virtual column of read_parquet?"""
    return any(f.physical_name.lower() in ("filename", "file_index", "file_row_number") for f in schema)


def column_alias(schema: Struct, position: int) -> str:
    """What `read_parquet` calls a column: its own name, or a number where that would hide a virtual column."""
    return f"dl_column_{position}" if _shadows(schema) else schema.fields[position].physical_name


def schema_map(snapshot: Snapshot, stored: Mapping[str, str] | None = None, names: file_values.Names | None = None) -> str:
    """The data columns by name, or by field id where the table is mapped so: DuckDB casts where a file differs, and answers
    NULL where it lacks one. stored: columns that have a name only; names: see `file_values.names_by_id`."""
    columns = [(i, f) for i, f in enumerate(snapshot.schema) if f.name not in snapshot.partition_columns]
    aliases = {f.physical_name: column_alias(snapshot.schema, i) for i, f in columns}
    if mapping.mode(snapshot.configuration) == "id" and not stored:
        kinds = [(str(mapping.number_of(f)), f.physical_name, file_values.type_in_files(f.type, names or {})) for _, f in columns]
    else:
        found = file_values.type_in_files(Struct(tuple(f for _, f in columns)), names or {})
        kinds = [(literal(f.name), f.name, f.type) for f in found]  # type: ignore[union-attr]
    entries = [_entry(key, aliases.get(name, name), to_duckdb(kind)) for key, name, kind in kinds]
    entries += [_entry(literal(name), name, kind) for name, kind in (stored or {}).items()]
    return "MAP {" + ", ".join(entries) + "}"


def _entry(key: str, name: str, kind: str) -> str:
    return f"{key}: {{name: {literal(name)}, type: {literal(kind)}, default_value: NULL}}"


def is_uniform(snapshot: Snapshot, files: pa.Table) -> bool:
    """Do all files hold exactly the columns that this snapshot's schema says?"""
    if snapshot.version < snapshot.uniform_since:
        return False
    return all(v is None or v >= snapshot.uniform_since for v in (files["version"][0].as_py(), files["version"][-1].as_py()))


def full_path(path: str, location: str, prefix: str = "") -> str:
    """SQL: the absolute name of the log's path; a leading / or scheme says that it is absolute already.

    prefix: what DuckDB wants before a URL.
    """
    decoded = f"url_decode({path})"
    top = "/".join(location.split("/")[:3]) if storage.is_remote(location) else ""
    return (
        f"CASE WHEN starts_with({path}, '/') THEN {literal(top)} || {decoded} WHEN starts_with({path}, 'file:/') "
        f"THEN regexp_replace({decoded}, '^file:/*', '/') "
        f"WHEN contains({path}, '://') THEN {literal(prefix)} || {decoded} ELSE {literal(location + '/')} || {decoded} END"
    )
