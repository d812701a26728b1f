"""A directory of Parquet files becomes a table of the lake, in place: footers are read, rows are not."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import duckdb
import pyarrow.compute as pc

from deltaduck import many_files, parquet, scan, storage
from deltaduck.catalog.base import now_ms
from deltaduck.errors import SchemaMismatchError, StorageError, TableExistsError, UnsupportedFeatureError
from deltaduck.operations import footers
from deltaduck.operations.create import create
from deltaduck.protocol import mapping
from deltaduck.protocol.schema import Field, Struct, from_duckdb, literal, to_duckdb

if TYPE_CHECKING:
    from deltaduck.transaction import Transaction


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
    if mapping.mode(configuration or {}) != "none":
        raise UnsupportedFeatureError(
            f"the files below {root} have the names of their columns: convert them without column mapping, "
            f"then ALTER TABLE {name} SET TBLPROPERTIES ('{mapping.MODE}' = 'name')"
        )
    found = {path: size for path, (size, _) in sorted(storage.list_files(root).items()) if _is_data(path)}
    if not found:
        raise StorageError(f"there are no Parquet files below {root}: nothing to convert")
    values = [_directory_values(path) for path in found]
    parts = _partitions(values, partition_by, root)
    by_column = {p: [_value(v[p]) for v in values] for p in parts}
    con: Any = tx.lake.con.cursor()
    try:
        with nullcontext(con) if storage.is_remote(root) else many_files.engine(con) as engine:
            place = storage.readable(engine, root, plain=False)
            files = [f"{place}/{path}" for path in found]
            schema, is_uniform = _schema(engine, files, parts, partition_by)
            footers.require_values(engine, [f for f in schema if f.name in parts], list(found), by_column)
            change = create(tx, name, schema, list(parts), configuration, description, root)
            adds = footers.adds(engine, change.target(), found, files, by_column, now_ms())
    except duckdb.Error as e:
        raise parquet.translate(e, root) from e
    tx.add(change, adds, [])
    change.foreign_files = not is_uniform
    change.operation = "CONVERT"
    change.parameters |= {"numFiles": str(len(files)), "collectStats": "true"}
    return {"num_files": len(files), "num_rows": pc.sum(adds["num_records"]).as_py()}


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
    firsts = footers.layouts(con, files)
    asked = files if parts else firsts  # what type a directory's value has, all of them say
    relation = con.sql(f"FROM read_parquet({scan.list_sql(asked)}, union_by_name=true, hive_partitioning={hive})")
    fields = [Field(n, from_duckdb(t, n)) for n, t in zip(relation.columns, relation.types, strict=True)]
    data = [f for f in fields if f.name not in parts]
    same = all(duckdb.sqltype(to_duckdb(f.type)) == t for f, t in zip(fields, relation.types, strict=True) if f in data)
    return Struct(tuple(data + [f for f in fields if f.name in parts])), same and len(firsts) == 1


def _value(text: str | None) -> str | None:
    """A partition's value from a directory's name."""
    if text is None or text == "__HIVE_DEFAULT_PARTITION__":
        return None
    return unquote(text)
