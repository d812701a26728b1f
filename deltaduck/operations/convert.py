"""A directory of Parquet files becomes a table of the lake, in place: footers are read, rows are not."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import duckdb

from deltaduck import parquet, storage
from deltaduck.catalog.base import now_ms
from deltaduck.errors import SchemaMismatchError, StorageError, TableExistsError
from deltaduck.operations.create import create
from deltaduck.protocol import stats
from deltaduck.protocol.schema import DataType, Field, Struct, from_duckdb, literal, quote, to_duckdb

if TYPE_CHECKING:
    from deltaduck.transaction import Transaction

# The footers, read once: per file and leaf column the rows and bounds of each row group.
FOOTERS = """
    CREATE OR REPLACE TEMP TABLE dl_footers AS
    SELECT file_name, row_group_id, row_group_num_rows, path_in_schema, stats_min_value, stats_max_value, stats_null_count
    FROM parquet_metadata({files})
"""
COUNTS = """
    SELECT file_name, CAST(sum(n) AS BIGINT)
    FROM (SELECT DISTINCT file_name, row_group_id, row_group_num_rows AS n FROM dl_footers) GROUP BY file_name
"""
# Per file and leaf column: the bounds over its row groups, compared as what they are.
BOUNDS = """
    SELECT file_name, path_in_schema, sum(stats_null_count) AS nulls, {low} AS low, {high} AS high,
           count(*) = count(stats_null_count) AS is_known, count(*) = count(stats_min_value) AS is_bounded
    FROM dl_footers WHERE path_in_schema IN ({paths}) GROUP BY ALL
"""
# The first file of each schema that the files have.
SCHEMAS = """
    SELECT min(file_name) AS first_file FROM (
        SELECT file_name,
               string_agg(concat_ws(' ', name, type, converted_type, logical_type, num_children, scale, precision), ',') AS layout
        FROM parquet_schema({files}) GROUP BY file_name)
    GROUP BY layout ORDER BY first_file
"""


def convert(
    tx: Transaction, directory: str, name: str | None = None, *,
    partition_by: Sequence[str] | Mapping[str, str] | None = None, configuration: Mapping[str, str] | None = None,
    description: str | None = None,
) -> dict[str, int]:  # fmt: skip
    """Stage a table made of the Parquet files below a directory, which stay where they are.

    partition_by: the partition columns of a Hive layout (``day=2024-01-01/``), with their SQL types where a mapping says so;
    found in the directories' names when not told. Names that begin with _ or . are not data.
    """
    root = storage.normalize(directory, tx.lake.catalog.access)
    name = name or os.path.basename(root)
    if tx.find(name) is not None:
        raise TableExistsError(f"table {name!r} exists already: give another name")
    found = {path: size for path, (size, _) in sorted(storage.list_files(root).items()) if _is_data(path)}
    if not found:
        raise StorageError(f"there are no Parquet files below {root}: nothing to convert")
    con: Any = tx.lake.con.cursor()
    place = storage.readable(con, root, plain=False)
    files = [f"{place}/{path}" for path in found]
    values = [_directory_values(path) for path in found]
    parts = _partitions(values, partition_by, root)
    schema, is_uniform = _schema(con, files, parts, partition_by)
    change = create(tx, name, schema, list(parts), configuration, description, root)
    target = change.target()
    con.execute(FOOTERS.format(files=_list(files)))
    counts = dict(con.execute(COUNTS).fetchall())
    said = _statistics(con, stats.indexed_leaves(schema, parts, target.configuration))
    rows = [
        {
            "path": path, "count": counts.get(f, 0), "file_size_bytes": size, "column_statistics": said.get(f, {}),
            "partition_keys": {p: _value(v.get(p)) for p in parts},
        }
        for (path, size), f, v in zip(found.items(), files, values, strict=True)
    ]  # fmt: skip
    con.execute("DROP TABLE dl_footers")
    tx.add(change, parquet.adds_of(rows, target, now_ms()), [])
    change.foreign_files = not is_uniform
    change.operation = "CONVERT"
    change.parameters |= {"numFiles": str(len(files)), "collectStats": "true"}
    return {"num_files": len(files), "num_rows": sum(counts.values())}


def _is_data(path: str) -> bool:
    *directories, name = path.split("/")
    hidden = any(d.startswith((".", "_")) and "=" not in d for d in directories)
    return name.endswith(".parquet") and not name.startswith((".", "_")) and not hidden


def _directory_values(path: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in os.path.dirname(path).split("/") if "=" in part)


def _partitions(values: Sequence[Mapping[str, str]], partition_by: Any, root: str) -> list[str]:
    wanted = list(values[0]) if partition_by is None else [partition_by] if isinstance(partition_by, str) else list(partition_by)
    for v in values:
        if list(v) != wanted:
            raise SchemaMismatchError(
                f"the directories below {root} are partitioned by {', '.join(v) or 'nothing'} and by "
                f"{', '.join(wanted) or 'nothing'}: all files need the same partition columns"
            )
    return wanted


def _schema(con: Any, files: Sequence[str], parts: Sequence[str], partition_by: Any) -> tuple[Struct, bool]:
    """The files' columns, all of them nullable, then the partition columns; and whether every file has just these."""
    hive = "true, hive_types_autocast=true" if parts else "false"
    if isinstance(partition_by, Mapping):
        hive = "true, hive_types={" + ", ".join(f"{literal(k)}: {v}" for k, v in partition_by.items()) + "}"
    try:
        firsts = [name for (name,) in con.execute(SCHEMAS.format(files=_list(files))).fetchall()]
        asked = files if parts else firsts  # what type a directory's value has, all of them say
        relation = con.sql(f"FROM read_parquet({_list(asked)}, union_by_name=true, hive_partitioning={hive})")
    except duckdb.Error as e:
        raise parquet.translate(e, os.path.dirname(files[0])) from e
    fields = [Field(n, from_duckdb(t, n)) for n, t in zip(relation.columns, relation.types, strict=True)]
    data = [f for f in fields if f.name not in parts]
    same = all(duckdb.sqltype(to_duckdb(f.type)) == t for f, t in zip(fields, relation.types, strict=True) if f in data)
    return Struct(tuple(data + [f for f in fields if f.name in parts])), same and len(firsts) == 1


def _statistics(con: Any, leaves: Sequence[tuple[tuple[str, ...], DataType]]) -> dict[str, dict[str, dict[str, str]]]:
    """What COPY ... RETURN_STATS says of a file that it writes, from the footers of these."""
    by_type: dict[str, list[tuple[str, ...]]] = {}
    for path, type_ in leaves:
        if isinstance(type_, str) and type_ not in ("float", "double"):  # a footer says nothing of NaN
            by_type.setdefault(to_duckdb(type_), []).append(path)
    found: dict[str, dict[str, dict[str, str]]] = {}
    for kind, paths in by_type.items():
        names = {", ".join(p): ".".join(map(quote, p)) for p in paths}
        low, high = (f"CAST({f}(TRY_CAST(stats_{f}_value AS {kind})) AS VARCHAR)" for f in ("min", "max"))
        query = BOUNDS.format(low=low, high=high, paths=", ".join(map(literal, names)))
        for file, path, nulls, least, most, is_known, is_bounded in con.execute(query).fetchall():
            if is_known:
                bounds = {"min": least, "max": most} if is_bounded and least is not None and most is not None else {}
                found.setdefault(file, {})[names[path]] = {"null_count": str(int(nulls)), **bounds}
    return found


def _value(text: str | None) -> str | None:
    """A partition's value from a directory's name."""
    if text is None or text == "__HIVE_DEFAULT_PARTITION__":
        return None
    return unquote(text)


def _list(files: Sequence[str]) -> str:
    return "[" + ", ".join(map(literal, files)) + "]"
