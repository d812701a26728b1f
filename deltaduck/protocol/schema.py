"""Delta schemas, and their types in DuckDB and Arrow.

A type is a primitive's name (``"long"``, ``"decimal(10,2)"``), a Struct, an Array or a Map.
Protocol: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#schema-serialization-format
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

import pyarrow as pa
import pyarrow.compute as pc

from deltaduck.errors import LogCorruptError, SchemaMismatchError, UnsupportedFeatureError

DataType = Union[str, "Struct", "Array", "Map"]


@dataclass(frozen=True)
class Field:
    """One column or struct member."""

    name: str
    type: DataType
    nullable: bool = True
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def physical_name(self) -> str:
        """The name in data files and statistics (column mapping)."""
        return str(self.metadata.get("delta.columnMapping.physicalName", self.name))

    def to_json(self) -> str:
        """The field as a ``schemaString`` has it."""
        return json.dumps(_member(self), ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class Struct:
    fields: tuple[Field, ...]

    @property
    def names(self) -> list[str]:
        return [f.name for f in self.fields]

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields)

    def get(self, name: str) -> Field | None:
        """The field of that name; Delta's column names are case-insensitive."""
        key = name.lower()
        return next((f for f in self.fields if f.name.lower() == key), None)

    def without(self, names: Sequence[str]) -> Struct:
        drop = {n.lower() for n in names}
        return Struct(tuple(f for f in self.fields if f.name.lower() not in drop))


@dataclass(frozen=True)
class Array:
    element: DataType
    contains_null: bool = True


@dataclass(frozen=True)
class Map:
    key: DataType
    value: DataType
    value_contains_null: bool = True


_DUCKDB = {
    "string": "VARCHAR", "long": "BIGINT", "integer": "INTEGER", "short": "SMALLINT", "byte": "TINYINT",
    "float": "FLOAT", "double": "DOUBLE", "boolean": "BOOLEAN", "binary": "BLOB", "date": "DATE",
    "timestamp": "TIMESTAMP WITH TIME ZONE", "timestamp_ntz": "TIMESTAMP", "void": '"NULL"', "variant": "VARIANT",
}  # fmt: skip

# DuckDB type ids (DuckDBPyType.id) to Delta; types that Delta lacks go to the narrowest that holds them.
_FROM_DUCKDB = {
    "boolean": "boolean", "tinyint": "byte", "smallint": "short", "integer": "integer", "bigint": "long",
    "utinyint": "short", "usmallint": "integer", "uinteger": "long", "ubigint": "decimal(20,0)",
    "hugeint": "decimal(38,0)", "uhugeint": "decimal(38,0)", "float": "float", "double": "double",
    "varchar": "string", "json": "string", "uuid": "string", "enum": "string", "blob": "binary", "date": "date",
    "timestamp": "timestamp_ntz", "timestamp_s": "timestamp_ntz", "timestamp_ms": "timestamp_ntz",
    "timestamp_ns": "timestamp_ntz", "timestamp with time zone": "timestamp", "timestamptz": "timestamp",
    "timestamptz_ns": "timestamp",
}  # fmt: skip

_ARROW: dict[str, pa.DataType] = {
    "string": pa.string(), "long": pa.int64(), "integer": pa.int32(), "short": pa.int16(), "byte": pa.int8(),
    "float": pa.float32(), "double": pa.float64(), "boolean": pa.bool_(), "binary": pa.binary(),
    "date": pa.date32(), "timestamp": pa.timestamp("us", tz="UTC"), "timestamp_ntz": pa.timestamp("us"), "void": pa.null(),
    "variant": pa.struct({"metadata": pa.binary(), "value": pa.binary()}),
}  # fmt: skip

_DECIMAL = re.compile(r"decimal\(\s*(\d+)\s*,\s*(-?\d+)\s*\)")


def decimal_of(type_name: str) -> tuple[int, int] | None:
    """(precision, scale) when the primitive is a decimal."""
    if type_name == "decimal":
        return 10, 0
    match = _DECIMAL.fullmatch(type_name)
    return (int(match[1]), int(match[2])) if match else None


def number_text(value: str, type_: DataType) -> str:
    """SQL: a number as JSON has it. DuckDB leaves out the zero before the point where a decimal has no digits there."""
    text, decimal = f"CAST({value} AS VARCHAR)", decimal_of(type_) if isinstance(type_, str) else None
    return f"regexp_replace({text}, '^(-?)[.]', '\\10.')" if decimal and decimal[0] == decimal[1] else text


def parse_schema(text: str) -> Struct:
    """Read a ``schemaString``; LogCorruptError when it is not one."""
    try:
        tree = json.loads(text)
        if "\\u" in text:  # half of a surrogate pair is no text, and would break whoever takes it for a name
            json.dumps(tree, ensure_ascii=False).encode()
        parsed = _parse(tree, 0)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise LogCorruptError(f"the schema in the log cannot be read: {type(e).__name__}: {e}") from e
    if not isinstance(parsed, Struct):
        raise LogCorruptError("the schema in the log is not a struct")
    return parsed


def _parse(node: Any, depth: int) -> DataType:
    if depth > 200:
        raise LogCorruptError("the schema in the log is nested more than 200 levels deep")
    if isinstance(node, str):
        return node
    kind = node["type"]
    if kind == "struct":
        return Struct(
            tuple(
                Field(str(f["name"]), _parse(f["type"], depth + 1), bool(f.get("nullable", True)), dict(f.get("metadata") or {}))
                for f in node["fields"]
            )
        )
    if kind == "array":
        return Array(_parse(node["elementType"], depth + 1), bool(node.get("containsNull", True)))
    if kind == "map":
        return Map(
            _parse(node["keyType"], depth + 1),
            _parse(node["valueType"], depth + 1),
            bool(node.get("valueContainsNull", True)),
        )
    raise LogCorruptError(f"the schema in the log has the unknown type {kind!r}")


def to_json(type_: DataType) -> str:
    """The ``schemaString`` of a type."""
    return json.dumps(_jsonable(type_), ensure_ascii=False, separators=(",", ":"))


def _member(f: Field) -> dict[str, Any]:
    return {"name": f.name, "type": _jsonable(f.type), "nullable": f.nullable, "metadata": dict(f.metadata)}


def _jsonable(type_: DataType) -> Any:
    match type_:
        case Struct(fields):
            return {"type": "struct", "fields": [_member(f) for f in fields]}
        case Array(element, contains_null):
            return {"type": "array", "elementType": _jsonable(element), "containsNull": contains_null}
        case Map(key, value, contains_null):
            return {
                "type": "map",
                "keyType": _jsonable(key),
                "valueType": _jsonable(value),
                "valueContainsNull": contains_null,
            }
        case _:
            return type_


def quote(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def to_duckdb(type_: DataType) -> str:
    """The DuckDB type, as SQL text."""
    match type_:
        case Struct(fields):
            return "STRUCT(" + ", ".join(f"{quote(f.name)} {to_duckdb(f.type)}" for f in fields) + ")"
        case Array(element, _):
            return to_duckdb(element) + "[]"
        case Map(key, value, _):
            return f"MAP({to_duckdb(key)}, {to_duckdb(value)})"
    if decimal := decimal_of(type_):
        return f"DECIMAL({decimal[0]},{decimal[1]})"
    try:
        return _DUCKDB[type_]
    except KeyError:
        raise LogCorruptError(f"the schema in the log has the unknown type {type_!r}") from None


def from_duckdb(type_: Any, column: str) -> DataType:
    """The Delta type of a DuckDBPyType, void for one of untyped NULLs; SchemaMismatchError names `column` when Delta has none."""
    kind = type_.id
    if kind == "struct":
        return Struct(tuple(Field(n, from_duckdb(t, f"{column}.{n}")) for n, t in type_.children))
    if kind in ("list", "array"):
        return Array(from_duckdb(dict(type_.children)["child"], f"{column}.element"))
    if kind == "map":
        parts = dict(type_.children)
        return Map(from_duckdb(parts["key"], f"{column}.key"), from_duckdb(parts["value"], f"{column}.value"))
    if kind == "decimal":
        parts = dict(type_.children)
        return f"decimal({parts['precision']},{parts['scale']})"
    if str(type_) == '"NULL"' or kind in ("sqlnull", "null"):
        return "void"
    try:
        return _FROM_DUCKDB[kind]
    except KeyError:
        raise SchemaMismatchError(
            f"column {column!r} is of type {type_}, which Delta does not have: cast it (for a TIME, to VARCHAR, say)"
        ) from None


def check_typed(type_: DataType, column: str = "") -> None:
    """SchemaMismatchError for a new column of which nothing says its type, or the type of something in it."""
    match type_:
        case "void":
            raise SchemaMismatchError(f"column {column!r} holds only NULLs, so its type is unknown: cast it to the type you mean")
        case Struct(fields):
            for f in fields:
                check_typed(f.type, f"{column}.{f.name}" if column else f.name)
        case Array(element, _):
            check_typed(element, f"{column}.element")
        case Map(key, value, _):
            check_typed(key, f"{column}.key")
            check_typed(value, f"{column}.value")


def to_arrow(type_: DataType) -> pa.DataType:
    match type_:
        case Struct(fields):
            return pa.struct([_arrow_field(f) for f in fields])
        case Array(element, contains_null):
            return pa.list_(pa.field("element", to_arrow(element), nullable=contains_null))
        case Map(key, value, contains_null):
            return pa.map_(to_arrow(key), pa.field("value", to_arrow(value), nullable=contains_null))
    if decimal := decimal_of(type_):
        return pa.decimal128(*decimal)
    if type_ not in _ARROW:
        raise SchemaMismatchError(f"{type_!r} is no type of Delta's: it is decimal(p,s) or one of {', '.join(_ARROW)}")
    return _ARROW[type_]


def _arrow_field(f: Field) -> pa.Field:
    return pa.field(f.name, to_arrow(f.type), nullable=f.nullable)


def arrow_schema(schema: Struct) -> pa.Schema:
    """The Arrow schema that ``to_arrow`` answers with."""
    return pa.schema([_arrow_field(f) for f in schema])


def conformed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows of other names and types under a schema. Where a struct is NULL, so is a member that must have a value: that fits.

    ValueError for a NULL elsewhere, where the schema has none."""
    loose = with_optional_members(schema)
    rows = rows.cast(loose)
    if loose == schema:
        return rows
    pairs = zip(rows.columns, schema, strict=True)
    return pa.Table.from_arrays([pa.chunked_array([_fitted(c, f) for c in a.chunks], f.type) for a, f in pairs], schema=schema)


def with_optional_members(schema: pa.Schema) -> pa.Schema:
    """The schema, whose columns' members may all be NULL: what pyarrow casts rows to where a struct is NULL."""
    return pa.schema([f.with_type(_optional(f.type)) for f in schema])


def _fitted(a: pa.Array, f: pa.Field) -> pa.Array:
    """The array as a field has it: members that must have a value do not say any more that they have none."""
    kind, validity = f.type, a.buffers()[0] if f.nullable else None
    if pa.types.is_struct(kind):
        for i, member in enumerate(kind):
            if not member.nullable and pc.any(pc.and_(a.field(i).is_null(), a.is_valid())).as_py():
                raise ValueError(f"{member.name} is NULL")
        members = [_fitted(a.field(i), member) for i, member in enumerate(kind)]
        return pa.StructArray.from_arrays(members, fields=list(kind), mask=a.is_null() if f.nullable else None)
    if pa.types.is_map(kind) or pa.types.is_list(kind):
        if pa.types.is_map(kind):
            entries = pa.StructArray.from_arrays([a.keys, _full(a.items, kind.item_field)], names=["key", "value"])
            inner = _fitted(entries, pa.field("entries", pa.struct([kind.key_field, kind.item_field]), nullable=False))
        else:
            inner = _fitted(_full(a.values, kind.value_field), kind.value_field)
        return pa.Array.from_buffers(kind, len(a), [validity, a.buffers()[1]], offset=a.offset, children=[inner])
    if f.nullable or not a.null_count:
        return a
    return pa.Array.from_buffers(kind, len(a), [None, *a.buffers()[1:]], offset=a.offset)


def _full(a: pa.Array, f: pa.Field) -> pa.Array:
    """What a list or a map holds. ValueError for a NULL where there is to be none."""
    if a.null_count and not f.nullable:
        raise ValueError(f"{f.name} is NULL")
    return a


def _optional(type_: pa.DataType) -> pa.DataType:
    """The type, whose members may all be NULL."""
    if pa.types.is_struct(type_):
        return pa.struct([pa.field(f.name, _optional(f.type)) for f in type_])
    if pa.types.is_map(type_):
        return pa.map_(_optional(type_.key_type), type_.item_field.with_type(_optional(type_.item_type)).with_nullable(True))
    if pa.types.is_list(type_):
        return pa.list_(type_.value_field.with_type(_optional(type_.value_type)).with_nullable(True))
    return type_


def with_nullability(schema: Struct, arrow: pa.Schema) -> Struct:
    """`schema` with the NOT NULL marks of the Arrow schema it came from (top level and nested structs)."""
    return Struct(tuple(_mark(f, arrow.field(f.name)) for f in schema))


def _mark(f: Field, arrow: pa.Field) -> Field:
    type_ = f.type
    if isinstance(type_, Struct) and pa.types.is_struct(arrow.type):
        type_ = Struct(tuple(_mark(child, arrow.type.field(child.name)) for child in type_))
    return Field(f.name, type_, arrow.nullable, f.metadata)


def check_names(schema: Struct) -> None:
    """SchemaMismatchError for no columns, empty names and names that differ in case only."""
    if not schema.fields:
        raise SchemaMismatchError("a table, and a struct in it, needs at least one column")
    seen: dict[str, str] = {}
    for f in schema:
        if not f.name:
            raise SchemaMismatchError("a column has an empty name: give it one")
        if (other := seen.setdefault(f.name.lower(), f.name)) is not f.name:
            raise SchemaMismatchError(f"columns {other!r} and {f.name!r} differ in case only: rename one of them")
        if isinstance(f.type, Struct):
            check_names(f.type)


def physical(type_: DataType) -> DataType:
    """The type with the names of the data files."""
    match type_:
        case Struct(fields):
            return Struct(tuple(Field(f.physical_name, physical(f.type), f.nullable) for f in fields))
        case Array(element, contains_null):
            return Array(physical(element), contains_null)
        case Map(key, value, contains_null):
            return Map(physical(key), physical(value), contains_null)
    return type_


def loosened(schema: Struct) -> Struct:
    """The schema without NOT NULL, and with whole numbers in place of void: what holds whatever is found in files."""
    return Struct(tuple(Field(f.name, _loosened(f.type)) for f in schema))


def _loosened(type_: DataType) -> DataType:
    match type_:
        case Struct():
            return loosened(type_)
        case Array(element, _):
            return Array(_loosened(element))
        case Map(key, value, _):
            return Map(_loosened(key), _loosened(value))
    return "integer" if type_ == "void" else type_


def uses(type_: DataType, primitive: str) -> bool:
    """Does the type hold that primitive anywhere?"""
    match type_:
        case Struct(fields):
            return any(uses(f.type, primitive) for f in fields)
        case Array(element, _):
            return uses(element, primitive)
        case Map(key, value, _):
            return uses(key, primitive) or uses(value, primitive)
    return type_ == primitive


def unmapped(type_: DataType) -> DataType:
    """The type of a table without column mapping: names that a former mapping left behind mean nothing."""
    match type_:
        case Struct(fields):
            keys = ("delta.columnMapping.physicalName", "delta.columnMapping.id")
            return Struct(
                tuple(
                    Field(f.name, unmapped(f.type), f.nullable, {k: v for k, v in f.metadata.items() if k not in keys})
                    for f in fields
                )
            )
        case Array(element, contains_null):
            return Array(unmapped(element), contains_null)
        case Map(key, value, contains_null):
            return Map(unmapped(key), unmapped(value), contains_null)
    return type_


_WHOLE = ("byte", "short", "integer", "long")


def widens(old: str, new: str) -> bool:
    """May a column's type change so, for readers? https://github.com/delta-io/delta/blob/master/PROTOCOL.md#type-widening"""
    if old in _WHOLE and new in _WHOLE:
        return _WHOLE.index(old) <= _WHOLE.index(new)
    to = decimal_of(new)
    if to is not None:
        have = (10 if old != "long" else 20, 0) if old in _WHOLE else decimal_of(old)
        return have is not None and to[1] >= have[1] and to[0] - to[1] >= have[0] - have[1]
    return (old, new) in (("float", "double"), ("date", "timestamp_ntz")) or (new == "double" and old in _WHOLE[:3])


_DIGITS = {"byte": 3, "short": 5, "integer": 10, "long": 19}


def _holds(new: str, old: str) -> bool:
    """Has a type every value of another? Some writers made a byte a decimal(4,1), which the protocol has no widening for."""
    to, digits = decimal_of(new), _DIGITS.get(old)
    return widens(old, new) or (to is not None and digits is not None and to[0] - to[1] >= digits)


def check_type_changes(type_: DataType) -> None:
    """UnsupportedFeatureError when a column had a type some value of which its present one does not hold."""
    match type_:
        case Struct(fields):
            for f in fields:
                check_type_changes(f.type)
                changes = f.metadata.get("delta.typeChanges") or ()
                if not isinstance(changes, list | tuple) or not all(isinstance(change, Mapping) for change in changes):
                    raise LogCorruptError(f"the type changes of column {f.name!r} cannot be read")
                for change in changes:
                    if not _holds(str(change.get("toType")), str(change.get("fromType"))):
                        raise UnsupportedFeatureError(
                            f"column {f.name!r} changed from {change.get('fromType')} to {change.get('toType')}, which is no "
                            "widening that the protocol knows"
                        )
        case Array(element, _):
            check_type_changes(element)
        case Map(key, value, _):
            check_type_changes(key)
            check_type_changes(value)


def logical_leaves(
    schema: Struct, physical: tuple[str, ...] = (), logical: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """(physical path, path by the schema's own names) of every leaf column."""
    for f in schema:
        stored, named = (*physical, f.physical_name), (*logical, f.name)
        if isinstance(f.type, Struct):
            yield from logical_leaves(f.type, stored, named)
        else:
            yield stored, named


def has_required(type_: DataType) -> bool:
    """Is any column, or member of a struct at any depth, NOT NULL?"""
    match type_:
        case Struct(fields):
            return any(not f.nullable or has_required(f.type) for f in fields)
        case Array(element, _):
            return has_required(element)
        case Map(key, value, _):
            return has_required(key) or has_required(value)
    return False


def leaves(schema: Struct, parents: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], DataType]]:
    """(physical path, type) of every leaf column; arrays and maps count as one leaf."""
    for f in schema:
        path = (*parents, f.physical_name)
        if isinstance(f.type, Struct):
            yield from leaves(f.type, path)
        else:
            yield path, f.type
