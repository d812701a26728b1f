"""Type widening: a column takes a type that holds every value of the one before; files keep theirs, and the schema says what
they may have.

Protocol: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#type-widening
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from deltaduck.errors import SchemaMismatchError, UnsupportedFeatureError
from deltaduck.protocol.schema import Array, DataType, Field, Map, Struct, decimal_of, to_duckdb, widens

PROPERTY = "delta.enableTypeWidening"
CHANGES = "delta.typeChanges"
_WHOLE = ("byte", "short", "integer", "long")


def is_on(configuration: Mapping[str, str]) -> bool:
    return configuration.get(PROPERTY, "false").lower() == "true"


def require(table: str, configuration: Mapping[str, str]) -> None:
    """UnsupportedFeatureError when a table's types may not change, and how they may."""
    if not is_on(configuration):
        raise UnsupportedFeatureError(
            f"table {table!r}: ALTER COLUMN ... TYPE needs type widening: ALTER TABLE {table} SET TBLPROPERTIES "
            f"('{PROPERTY}' = 'true') first. Readers must know it then; the files stay as they are"
        )


def widened(schema: Struct, path: Sequence[str], new: str) -> Struct:
    """The schema with another type of a column, of a field, or of a member (element, key, value). SchemaMismatchError when
    the protocol has no such widening."""
    if schema.get(path[0]) is None:
        raise SchemaMismatchError(f"there is no column {path[0]!r}: it is one of {', '.join(schema.names)}")
    return Struct(tuple(recorded(f, path[1:], new, path) if f.name.lower() == path[0].lower() else f for f in schema))


def recorded(f: Field, rest: Sequence[str], new: str, path: Sequence[str]) -> Field:
    """A field with another type, of itself or of what `rest` leads to, and the record of what it had."""
    type_, changes = _inside(f.type, rest, new, path, ())
    if not changes:
        return replace(f, type=type_)
    return replace(f, type=type_, metadata={**f.metadata, CHANGES: [*f.metadata.get(CHANGES, ()), *changes]})


def _inside(
    type_: DataType, rest: Sequence[str], new: str, path: Sequence[str], members: tuple[str, ...]
) -> tuple[DataType, list[dict[str, str]]]:
    """members: how the value is reached from the field that records the change."""
    where = rest[0].lower() if rest else ""
    match type_:
        case str() if not rest:
            if type_ == new:
                return type_, []
            if not widens(type_, new):
                raise SchemaMismatchError(
                    f"column {'.'.join(path)!r} is {to_duckdb(type_)}, which cannot become {to_duckdb(new)} by type widening: "
                    f"{_says(type_)}; CREATE TABLE ... AS SELECT with a CAST makes another table"
                )
            return new, [{"fromType": type_, "toType": new} | ({"fieldPath": ".".join(members)} if members else {})]
        case Struct() if rest and type_.get(rest[0]) is not None:
            return Struct(tuple(recorded(f, rest[1:], new, path) if f.name.lower() == where else f for f in type_)), []
        case Array(element, contains_null) if where == "element":
            element, changes = _inside(element, rest[1:], new, path, (*members, where))
            return Array(element, contains_null), changes
        case Map(key, value, contains_null) if where in ("key", "value"):
            inner, changes = _inside(key if where == "key" else value, rest[1:], new, path, (*members, where))
            return (Map(inner, value, contains_null) if where == "key" else Map(key, inner, contains_null)), changes
    what = f"has no {rest[0]!r} in it" if rest else "is no plain value: name a field, element, key or value of it"
    raise SchemaMismatchError(f"column {'.'.join(path[: len(path) - len(rest)])!r} {what}")


def _says(type_: str) -> str:
    wider = [t for t in (*_WHOLE, "float", "double", "timestamp_ntz") if t != type_ and widens(type_, t)]
    shown = [to_duckdb(t) for t in wider]
    if type_ in _WHOLE or decimal_of(type_):
        shown.append("a DECIMAL with as many digits before the point, and behind it, or more")
    return f"it can become {', '.join(shown)}" if shown else "it has no wider type"


def follows(table: DataType, rows: DataType) -> bool:
    """Does a column of the table become what rows have, unasked? Numbers stay what they are: whole, decimal or float."""
    if not isinstance(table, str) or not isinstance(rows, str) or table == rows or not widens(table, rows):
        return False
    kinds = [("whole" if t in _WHOLE else "decimal" if decimal_of(t) else "other") for t in (table, rows)]
    return kinds[0] == kinds[1]


def is_widened(type_: DataType) -> bool:
    """Has a column in it another type now than it had in older files?"""
    match type_:
        case Struct(fields):
            return any(bool(_changes(f)) or is_widened(f.type) for f in fields)
        case Array(element, _):
            return is_widened(element)
        case Map(key, value, _):
            return is_widened(key) or is_widened(value)
    return False


def once_float(schema: Struct, parents: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Physical paths of columns, some of whose files hold floats and say so in decimal digits that stand for a float."""
    for f in schema:
        path = (*parents, f.physical_name)
        if isinstance(f.type, Struct):
            yield from once_float(f.type, path)
        elif f.type == "double" and any(change.get("fromType") == "float" for change in _changes(f)):
            yield path


def _changes(f: Field) -> list[Mapping[str, Any]]:
    return list(f.metadata.get(CHANGES) or ())
