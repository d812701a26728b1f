"""What a user hands in as rows, as something DuckDB can select from."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from deltaduck.errors import QueryError, SchemaMismatchError
from deltaduck.protocol.schema import (
    Array,
    DataType,
    Field,
    Map,
    Struct,
    check_names,
    check_typed,
    from_duckdb,
    quote,
    with_nullability,
)

_sources: dict[pa.Schema, tuple[list[str], list[Any]]] = {}  # what DuckDB makes of an Arrow schema
_names = (f"dl_frame_{n}" for n in itertools.count())


@dataclass
class Source:
    """Rows to write: a FROM item on a DuckDB connection, or a frame that is none yet, and the columns it has."""

    connection: Any
    item: str | None
    columns: list[str]
    types: list[Any]  # DuckDBPyType; Delta's own where there are untyped NULLs, which DuckDB 1.5 would call INTEGER
    arrow: pa.Schema | None = None  # NOT NULL marks, when the frame has any
    frame: Any = None

    @property
    def from_sql(self) -> str:
        """The FROM item; a frame is registered for it, which takes longer than naming it in a local variable."""
        if self.item is None:
            self.item = next(_names)
            self.connection.register(self.item, self.frame)
        return self.item

    def schema(self) -> Struct:
        """The Delta schema that a table made of these rows gets."""
        schema = self.offered()
        check_typed(schema)
        check_names(schema)
        return with_nullability(schema, self.arrow) if self.arrow is not None else schema

    def given(self, *, lenient: bool = False) -> dict[str, DataType | None]:
        """The Delta type of every column; void where there are only untyped NULLs. lenient: None for a type that Delta lacks:
        DuckDB may know what it becomes in a column."""
        return {n: _delta_type(t, n, lenient) for n, t in zip(self.columns, self.types, strict=True)}

    def offered(self) -> Struct:
        """The columns, all nullable: what may be added to a table."""
        return Struct(tuple(Field(n, t) for n, t in self.given().items() if t is not None))


def _delta_type(kind: Any, column: str, lenient: bool) -> DataType | None:
    if isinstance(kind, str | Struct | Array | Map):
        return kind
    try:
        return from_duckdb(kind, column)
    except SchemaMismatchError:
        if lenient:
            return None
        raise


def open_frame(connection: Any, frame: Any) -> Source:
    """Make `frame` readable on `connection`: pyarrow, Polars (lazy too), pandas, a DuckDB relation, anything that
    speaks the Arrow C stream or array, record batches, or rows as dicts. Streams stay streams.

    SchemaMismatchError when it is no frame.
    """
    try:
        data, arrow = _as_arrow(frame)
    except (pa.ArrowException, TypeError, ValueError) as e:
        raise SchemaMismatchError(f"a {type(frame).__name__} cannot be read as rows: {e}") from e
    schema = getattr(data, "schema", None)
    _check_columns(schema)
    known = _sources.get(schema.remove_metadata()) if isinstance(schema, pa.Schema) else None
    if known is not None:
        return Source(connection, None, *known, arrow, data)
    name = next(_names)
    try:
        connection.register(name, data)
        source = from_query(connection, f"SELECT * FROM {name}", arrow)
    except (duckdb.NotImplementedException, duckdb.InvalidInputException) as e:
        raise SchemaMismatchError(_unreadable(connection, schema)) from e
    if isinstance(schema, pa.Schema):
        if len(_sources) > 1000:
            _sources.clear()
        source.types = [
            _untyped(from_duckdb(t, f.name), f.type) if "null" in str(f.type) else t
            for f, t in zip(schema, source.types, strict=True)
        ]
        _sources[schema.remove_metadata()] = (source.columns, source.types)
    return source


def _check_columns(schema: Any) -> None:
    """SchemaMismatchError for columns whose names DuckDB would change."""
    names = schema.names if isinstance(schema, pa.Schema) else []
    if "" in names:
        raise SchemaMismatchError("a column has an empty name: give it one")
    if twice := sorted({n for n in names if names.count(n) > 1}) if len({*names}) < len(names) else []:
        raise SchemaMismatchError(f"columns {', '.join(map(repr, twice))} stand more than once in the rows: rename them")


def _unreadable(connection: Any, schema: Any) -> str:
    """Why DuckDB takes no frame of this Arrow schema."""
    if not isinstance(schema, pa.Schema) or not len(schema):
        return "a frame needs at least one column"
    for f in schema:
        try:
            connection.from_arrow(pa.schema([f]).empty_table())
        except duckdb.Error:
            return f"column {f.name!r} is of type {f.type}, which Delta does not have: cast it"
    return f"a frame cannot be read: {schema}"


def _untyped(type_: DataType, arrow: pa.DataType) -> DataType:
    """The type, void wherever Arrow has only nulls."""
    if pa.types.is_null(arrow):
        return "void"
    match type_:
        case Struct(fields) if pa.types.is_struct(arrow):
            return Struct(tuple(replace(f, type=_untyped(f.type, arrow.field(f.name).type)) for f in fields))
        case Array(element, contains_null) if pa.types.is_nested(arrow) and not pa.types.is_map(arrow):
            return Array(_untyped(element, arrow.value_type), contains_null)
        case Map(key, value, contains_null) if pa.types.is_map(arrow):
            return Map(_untyped(key, arrow.key_type), _untyped(value, arrow.item_type), contains_null)
    return type_


def fetched(frame: Any) -> Any:
    """A DuckDB relation's rows: it may be of the connection that is to read them, which cannot do both at once."""
    return frame.to_arrow_table() if type(frame).__name__ == "DuckDBPyRelation" else frame


def release(source: Source) -> None:
    """Let go of the frame that a source was made of."""
    if source.item is not None:
        source.connection.unregister(source.item.removeprefix("(SELECT * FROM ").removesuffix(")"))


def from_query(connection: Any, query: str, arrow: pa.Schema | None = None, *, named: bool = True) -> Source:
    """The rows of a query on `connection`. named: does every column need a name of its own?"""
    relation = connection.sql(query)
    if relation is None:
        raise QueryError("the statement returns no rows to write: give a SELECT")
    columns = list(relation.columns)
    if named and len({c.lower() for c in columns}) < len(columns):
        twice = sorted({c for c in columns if [x.lower() for x in columns].count(c.lower()) > 1})
        raise SchemaMismatchError(f"columns {', '.join(map(repr, twice))} stand more than once in the rows: rename them")
    return Source(connection, f"({query})", columns, list(relation.types), arrow)


def is_frame(value: Any) -> bool:
    """Is it something that a FROM clause may name?"""
    kind = f"{type(value).__module__.split('.')[0]}.{type(value).__name__}"
    return isinstance(value, pa.Table | pa.RecordBatchReader | pa.RecordBatch) or kind in (
        "polars.LazyFrame", "polars.DataFrame", "pandas.DataFrame",
    ) or kind.endswith("DuckDBPyRelation")  # fmt: skip


def _as_arrow(frame: Any) -> tuple[Any, pa.Schema | None]:
    if isinstance(frame, pa.RecordBatchReader):
        return frame, frame.schema
    if isinstance(frame, pa.Table):
        return _from_the_start(frame), frame.schema
    if isinstance(frame, pa.RecordBatch):
        return _from_the_start(pa.Table.from_batches([frame])), frame.schema
    kind = f"{type(frame).__module__.split('.')[0]}.{type(frame).__name__}"
    if kind == "polars.LazyFrame":
        return _polars_batches(frame), None
    if kind == "polars.DataFrame":
        if objects := [name for name, dtype in frame.schema.items() if str(dtype) == "Object"]:
            raise SchemaMismatchError(f"column {objects[0]!r} holds Python objects, which have no type in Delta: cast it")
        return frame.to_arrow(), None
    if kind == "pandas.DataFrame":
        return _from_pandas(frame), None
    if kind.endswith("DuckDBPyRelation"):
        return frame.to_arrow_reader(), None
    if hasattr(frame, "__arrow_c_stream__"):
        reader = pa.RecordBatchReader.from_stream(frame)
        return reader, reader.schema
    if hasattr(frame, "__arrow_c_array__"):
        batch = pa.record_batch(frame)
        return _from_the_start(pa.Table.from_batches([batch])), batch.schema
    if isinstance(frame, list | tuple) and frame and all(hasattr(batch, "__arrow_c_array__") for batch in frame):
        first, *rest = (pa.record_batch(batch) for batch in frame)
        return _from_the_start(pa.Table.from_batches([first, *rest], first.schema)), first.schema
    if isinstance(frame, dict) and frame:
        return pa.table(frame), None
    if isinstance(frame, list) and frame and all(isinstance(row, dict) for row in frame):
        return pa.table({name: [row.get(name) for row in frame] for name in dict.fromkeys(n for row in frame for n in row)}), None
    raise SchemaMismatchError(
        f"cannot write a {type(frame).__name__}: give a pyarrow, Polars or pandas frame, a DuckDB relation, "
        "a SQL string, a list of dicts, or one of Arrow record batches"
    )


def _from_the_start(table: pa.Table) -> pa.Table:
    """DuckDB does not read nested columns of a slice: they are copied."""
    nested = (column for column in table.columns if pa.types.is_nested(column.type))
    sliced = any(chunk.offset for column in nested for chunk in column.chunks)
    return table.take(np.arange(table.num_rows)) if sliced else table


def _from_pandas(frame: Any) -> pa.Table:
    """With those levels of its index that have a name, as columns at the end."""
    if not all(isinstance(c, str) for c in frame.columns):
        frame = frame.rename(columns=str)
    table = pa.Table.from_pandas(frame, preserve_index=any(frame.index.names))
    return table.drop_columns([n for n in table.column_names[len(frame.columns) :] if n not in frame.index.names])


def _polars_batches(frame: Any) -> pa.RecordBatchReader:
    """Stream a LazyFrame, so that more than memory can be written."""
    batches: Iterator[Any] = iter(frame.collect_batches(chunk_size=122_880))
    first = next(batches, None)
    if first is None:
        return frame.collect().to_arrow().to_reader()
    head = first.to_arrow()
    tables = itertools.chain([head], (batch.to_arrow() for batch in batches))
    return pa.RecordBatchReader.from_batches(head.schema, (b for table in tables for b in table.cast(head.schema).to_batches()))


def columns_sql(names: list[str]) -> str:
    return ", ".join(quote(n) for n in names)
