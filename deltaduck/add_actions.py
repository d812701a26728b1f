"""The live files of a snapshot in the shapes of the ``deltalake`` package: names, partitions, add actions, a dataset."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import and_, or_
from typing import Any
from urllib.parse import quote as quote_path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pa_fs

from deltaduck import deletions, scan, storage
from deltaduck.errors import QueryError, UnsupportedFeatureError
from deltaduck.protocol import partitions, stats
from deltaduck.protocol.schema import DataType, Struct, decimal_of, literal, quote, to_arrow, to_duckdb, uses
from deltaduck.snapshot import Snapshot

OPERATORS = {"=": "=", "==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">=", "in": "IN", "not in": "NOT IN"}
EXACT_DECIMAL = 15  # digits that a JSON number keeps on its way


def file_uris(con: Any, snapshot: Snapshot, files: pa.Table) -> list[str]:
    """The absolute name of every file."""
    return _column(con, files, scan.full_path("path", snapshot.location)).to_pylist()  # type: ignore[no-any-return]


def partition_values(snapshot: Snapshot, files: pa.Table) -> list[dict[str, str | None]]:
    """Every combination of partition values that files have, as the log's strings."""
    columns = [(f.name, f.physical_name) for f in map(snapshot.schema.get, snapshot.partition_columns) if f is not None]
    found = [json.loads(text) for text in pc.unique(files["partition_values"]).to_pylist()] if columns else []
    return [{name: values.get(physical) or None for name, physical in columns} for values in found]


def add_actions(con: Any, snapshot: Snapshot, files: pa.Table, *, flatten: bool) -> pa.Table:
    """A row per file: path, size_bytes, modification_time, num_records, null_count, min, max, partition.

    The last four are structs over the columns, or, when flattened, a column each, such as ``min.address.city``.
    """
    wanted = list(_wanted(snapshot))
    base = [
        ("path", "path", pa.string()), ("size_bytes", "size", pa.int64()),
        ("modification_time", "modification_time", pa.int64()), ("num_records", "num_records", pa.int64()),
    ]  # fmt: skip
    items = [f"{sql} AS {quote(name)}" for name, sql, _ in base] + [f"{sql} AS c{i}" for i, (_, sql, _) in enumerate(wanted)]
    rows = _query(con, files, f"SELECT {', '.join(items)} FROM dl_actions ORDER BY dl_place")
    table = rows.select([name for name, _, _ in base]).cast(pa.schema([(name, kind) for name, _, kind in base]))
    leaves = [(path, rows[f"c{i}"].cast(kind)) for i, (path, _, kind) in enumerate(wanted)]
    if flatten:
        return pa.table({**dict(zip(table.column_names, table.columns, strict=True)), **{".".join(p): c for p, c in leaves}})
    for name in dict.fromkeys(path[0] for path, _ in leaves):
        children = [(path[1:], column.combine_chunks()) for path, column in leaves if path[0] == name]
        table = table.append_column(name, _nested(children))
    return table


def dataset(
    con: Any, snapshot: Snapshot, files: pa.Table, schema: pa.Schema, filesystem: Any = None, read_options: Any = None
) -> Any:
    """A pyarrow dataset of the files, each with what its partition values and statistics guarantee of its rows."""
    import pyarrow.dataset as ds  # half a second, for pandas

    if not is_plain(snapshot, files):
        raise UnsupportedFeatureError(
            f"table {snapshot.name!r} uses column mapping, deletion vectors or variants, which a pyarrow dataset cannot read: "
            "use to_arrow(), to_polars() or lake.sql"
        )
    names = _column(con, files, scan.full_path("path", snapshot.location)).to_pylist()
    if filesystem is None and any(map(storage.is_remote, names)):
        raise UnsupportedFeatureError(
            f"table {snapshot.name!r} is on an object store: a pyarrow dataset needs filesystem=, one that is rooted at the "
            "table; to_arrow(), to_polars() and lake.sql need none"
        )
    if filesystem is None:
        filesystem = pa_fs.LocalFileSystem()
    else:  # rooted at the table
        names = [name.removeprefix(snapshot.location + "/") for name in names]
    pre_buffer = ds.ParquetFragmentScanOptions(pre_buffer=True)
    if read_options is None:  # what Spark writes would run over in nanoseconds
        read_options = ds.ParquetReadOptions(coerce_int96_timestamp_unit="us")
    form = ds.ParquetFileFormat(read_options=read_options, default_fragment_scan_options=pre_buffer)
    guarantees = _guarantees(snapshot, add_actions(con, snapshot, files, flatten=True))
    fragments = [
        form.make_fragment(name, filesystem=filesystem, partition_expression=guarantee)
        for name, guarantee in zip(names, guarantees, strict=True)
    ]
    return ds.FileSystemDataset(fragments, schema, form, filesystem)


def is_plain(snapshot: Snapshot, files: pa.Table) -> bool:
    """Are a table's rows simply those of its files, under their own names?"""
    plain = not snapshot.is_mapped and not uses(snapshot.schema, "variant")
    return plain and files["dv_storage_type"].null_count == files.num_rows


def selection_vectors(con: Any, snapshot: Snapshot, files: pa.Table) -> pa.RecordBatchReader:
    """Of each file with deleted rows, its URI and, row by row, whether the row is still there."""
    files = files.filter(pc.is_valid(files["dv_storage_type"]))
    found: dict[str, list[Any]] = {"filepath": list(map(as_uri, file_uris(con, snapshot, files))), "selection_vector": []}
    for rows, count in zip(deletions.vectors(snapshot.location, files), files["num_records"].to_pylist(), strict=True):
        keep = np.ones(max(count or 0, int(rows.max()) + 1), bool)
        keep[rows] = False
        found["selection_vector"].append(keep.tolist())
    mask = pa.list_(pa.field("item", pa.bool_(), nullable=False))
    kinds = {"filepath": pa.large_string(), "selection_vector": mask}
    schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in kinds.items()])
    return pa.table(found, schema).to_reader()


def predicate_of(filters: Any, snapshot: Snapshot) -> str | None:
    """SQL of a filter: SQL itself, a list of (column, operator, value), all of which must hold, or a list of such lists."""
    if filters is None or isinstance(filters, str):
        return filters
    groups = list(filters)
    if groups and all(isinstance(item, tuple) for item in groups):
        groups = [groups]
    if not groups:
        return None
    if not all(isinstance(group, list) and group and all(isinstance(item, tuple) for item in group) for group in groups):
        raise QueryError("filters are a list of (column, operator, value) tuples, all of which hold, or a list of such lists")
    return " OR ".join("(" + " AND ".join(_comparison(snapshot, *item) for item in group) + ")" for group in groups)


def _comparison(snapshot: Snapshot, column: str, operator: str, value: Any) -> str:
    f = snapshot.schema.get(column)
    if f is None:
        raise QueryError(f"table {snapshot.name!r} has no column {column!r}; it has {', '.join(snapshot.schema.names)}")
    sql = OPERATORS.get(str(operator).lower())
    if sql is None:
        raise QueryError(f"the operator {operator!r} is unknown; it is one of {', '.join(OPERATORS)}")
    values = list(value) if sql.endswith("IN") else [value]
    known = [v for v in values if v is not None and not (v == "" and f.name in snapshot.partition_columns)]
    null = f"{quote(f.name)} IS {'NOT ' if sql in ('<>', 'NOT IN') else ''}NULL"
    if not known:
        return null if values else ("false" if sql == "IN" else "true")
    each = {"IN": "=", "NOT IN": "<>"}.get(sql, sql)
    compared = [f"{quote(f.name)} {each} CAST({literal(_text(v))} AS {to_duckdb(f.type)})" for v in known]
    compared += [null] if len(known) < len(values) else []
    return f"({(' AND ' if sql == 'NOT IN' else ' OR ').join(compared)})"


def _text(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case dt.datetime():
            return value.isoformat(sep=" ")
        case dt.date():
            return value.isoformat()
        case bytes():
            return "".join(f"\\x{byte:02X}" for byte in value)
    return str(value)


def as_uri(path: str) -> str:
    return path if storage.is_remote(path) else "file://" + quote_path(path, safe="/=:@!$&'()*+,;~")


# --- inside


def _query(con: Any, files: pa.Table, sql: str) -> pa.Table:
    """Rows of a query over the files, which have a number there: threads may read an Arrow table's chunks in any order."""
    con.register("dl_actions", files.append_column("dl_place", pa.array(range(files.num_rows), pa.int64())))
    try:
        return con.sql(sql).to_arrow_table()
    finally:
        con.unregister("dl_actions")


def _column(con: Any, files: pa.Table, sql: str) -> pa.ChunkedArray:
    return _query(con, files, f"SELECT {sql} AS value FROM dl_actions ORDER BY dl_place")["value"]


def _wanted(snapshot: Snapshot) -> Iterator[tuple[tuple[str, ...], str, pa.DataType]]:
    """(path of the answer's column, SQL, Arrow type) of what statistics and partition values say."""
    indexed = {path for path, _ in stats.indexed_leaves(snapshot.schema, snapshot.partition_columns, snapshot.configuration)}
    leaves = list(_leaves(snapshot.schema.without(snapshot.partition_columns)))
    leaves = [(names, physical, kind) for names, physical, kind in leaves if physical in indexed]
    for names, physical, _ in leaves:
        yield ("null_count", *names), _said("nullCount", physical, "BIGINT"), pa.int64()
    for answer, member in (("min", "minValues"), ("max", "maxValues")):
        for names, physical, kind in leaves:
            if isinstance(kind, str) and kind not in ("binary", "variant"):
                yield (answer, *names), _said(member, physical, to_duckdb(kind)), to_arrow(kind)
    for f in map(snapshot.schema.get, snapshot.partition_columns):
        if f is not None:
            value = partitions.deserialize(scan.partition_value(f.physical_name), f.type)
            yield ("partition", f.name), value, to_arrow(f.type)


def _leaves(
    schema: Struct, names: tuple[str, ...] = (), physical: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], DataType]]:
    for f in schema:
        if isinstance(f.type, Struct):
            yield from _leaves(f.type, (*names, f.name), (*physical, f.physical_name))
        else:
            yield (*names, f.name), (*physical, f.physical_name), f.type


def _said(member: str, path: Sequence[str], kind: str) -> str:
    """SQL: what the statistics say of a leaf; NULL when they do not, or when it is no such value."""
    pointer = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in (member, *path))
    return f"TRY_CAST(json_extract_string(stats, {literal(pointer)}) AS {kind})"


def _nested(leaves: Sequence[tuple[tuple[str, ...], pa.Array]], *, inner: bool = False) -> pa.StructArray:
    """A struct of columns by path; an inner one without any value is null."""
    children: dict[str, pa.Array] = {}
    for name in dict.fromkeys(path[0] for path, _ in leaves):
        below = [(path[1:], column) for path, column in leaves if path[0] == name]
        children[name] = _nested(below, inner=True) if below[0][0] else below[0][1]
    empty = reduce(pc.and_, (pc.is_null(child) for child in children.values())) if inner else None
    return pa.StructArray.from_arrays(list(children.values()), list(children), mask=empty)


def _guarantees(snapshot: Snapshot, actions: pa.Table) -> list[pc.Expression]:
    """For each file, an expression that all its rows satisfy."""
    columns = {name: actions[name].combine_chunks() for name in actions.column_names}
    bounded = []
    for f in snapshot.schema.without(snapshot.partition_columns):
        if f"null_count.{f.name}" not in columns or not isinstance(f.type, str):
            continue
        low, high = columns.get(f"min.{f.name}"), columns.get(f"max.{f.name}")
        digits = decimal_of(f.type)
        if f.type in ("float", "double") or (digits and digits[0] > EXACT_DECIMAL):
            low = high = None  # NaN is outside of any bounds
        elif high is not None and f.type.startswith("timestamp"):
            high = pc.add(high, pa.scalar(1000, pa.duration("us")))  # statistics may have cut the milliseconds off
        bounded.append((pc.field(f.name), columns[f"null_count.{f.name}"], low, high))
    keys = [(pc.field(name), columns[f"partition.{name}"]) for name in snapshot.partition_columns]
    rows = columns["num_records"]
    found = []
    for i in range(actions.num_rows):
        facts = [field == column[i] if column[i].is_valid else field.is_null() for field, column in keys]
        for field, nulls, low, high in bounded:
            ends = (None if end is None else end[i] for end in (low, high))
            facts += _facts(field, nulls[i].as_py(), rows[i].as_py(), *ends)
        found.append(reduce(and_, facts) if facts else pc.scalar(True))
    return found


def _facts(field: pc.Expression, nulls: int | None, rows: int | None, low: Any, high: Any) -> list[pc.Expression]:
    if nulls is not None and nulls == rows:
        return [field.is_null()]
    bounds = [field >= low] if low is not None and low.is_valid else []
    bounds += [field <= high] if high is not None and high.is_valid else []
    if nulls == 0:
        return [field.is_valid(), *bounds]
    return [or_(bound, field.is_null()) for bound in bounds]
