"""Fitting incoming rows to a table: which types may go where, and the SQL that takes them there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from deltaduck.errors import SchemaMismatchError
from deltaduck.protocol import widening
from deltaduck.protocol.schema import Array, DataType, Field, Map, Struct, decimal_of, literal, quote, to_duckdb
from deltaduck.rules import is_filled

_INTEGERS = {"byte": 3, "short": 5, "integer": 10, "long": 19}  # decimal digits each needs


def projection(given: Mapping[str, DataType | None], target: Struct, *, lenient: bool = False) -> list[tuple[str, str]]:
    """(column, SQL) of every target column, over a source whose columns are matched by name, case-insensitively.

    A source type of void is an untyped NULL, None is one that Delta lacks. Columns that the source lacks are left out: they are
    generated, or have their default, or NULL. SchemaMismatchError names every column that does not fit. lenient: let DuckDB
    cast what it can, as INSERT does.
    """
    by_key = {name.lower(): (name, type_) for name, type_ in given.items()}
    problems = [f"column {n!r} is not in the table" for n in given if target.get(n) is None]
    out = []
    for f in target:
        found = by_key.get(f.name.lower())
        if found is None:
            if not (f.nullable or is_filled(f)):
                problems.append(f"column {f.name!r} is NOT NULL and is missing")
            continue
        name, type_ = found
        if not lenient and type_ is not None and (why := misfit(type_, f.type, f.name)):
            problems.append(why)
            continue
        out.append((f.name, convert(quote(name), type_, f.type)))
    if problems:
        raise SchemaMismatchError("; ".join(problems))
    return out


def misfit(given: DataType, wanted: DataType, column: str) -> str | None:
    """Why values of type `given` may not go into a column of type `wanted`; None when they may.

    Whole numbers go into any whole-number column (a value out of range is an error when it comes), into decimals
    wide enough and into floats; nothing is rounded, parsed or cut silently.
    """
    match given, wanted:
        case "void", _:
            return None
        case Struct(), Struct():
            for child in given:
                target = wanted.get(child.name)
                if target is None:
                    return f"field {column + '.' + child.name!r} is not in the table"
                if why := misfit(child.type, target.type, f"{column}.{child.name}"):
                    return why
            missing = [f.name for f in wanted if given.get(f.name) is None and not f.nullable]
            return f"field {column + '.' + missing[0]!r} is NOT NULL and is missing" if missing else None
        case Array(element), Array(target_element):
            return misfit(element, target_element, f"{column}.element")
        case Map(key, value), Map(target_key, target_value):
            return misfit(key, target_key, f"{column}.key") or misfit(value, target_value, f"{column}.value")
        case str(), str() if _fits(given, wanted):
            return None
    return f"column {column!r} is {to_duckdb(wanted)} in the table and {to_duckdb(given)} in the rows: cast it"


def _fits(given: str, wanted: str) -> bool:
    if given == wanted or (given in _INTEGERS and wanted in _INTEGERS):
        return True
    if {given, wanted} <= {"float", "double"}:
        return True
    if (to := decimal_of(wanted)) is not None:
        if given in _INTEGERS:
            return True
        source = decimal_of(given)
        return source is not None and source[1] <= to[1]
    if wanted in ("float", "double"):
        return given in _INTEGERS or decimal_of(given) is not None
    return given == "date" and wanted == "timestamp_ntz"


def convert(value: str, given: DataType | None, wanted: DataType) -> str:
    """SQL: `value` of type `given` as type `wanted`; struct fields are matched by name, where there is one in both."""
    if given == wanted:
        return value
    if given == "void" and not isinstance(wanted, str):  # DuckDB 1.5 has a number there; it is asked, for it may be an error()
        return f"CASE WHEN {value} IS NULL THEN CAST(NULL AS {to_duckdb(wanted)}) END"
    match given, wanted:
        case Struct(), Struct() if not _same_layout(given, wanted) and any(wanted.get(f.name) is not None for f in given):
            members = []
            for f in wanted:
                child = given.get(f.name)
                inner = (
                    f"CAST(NULL AS {to_duckdb(f.type)})"
                    if child is None
                    else convert(f"struct_extract({value}, {literal(child.name)})", child.type, f.type)
                )
                members.append(f"{quote(f.name)} := {inner}")
            return f"CASE WHEN {value} IS NOT NULL THEN struct_pack({', '.join(members)}) END"
        case Array(element), Array(target) if not _same_layout(element, target):
            return f"list_transform({value}, lambda dl_x: {convert('dl_x', element, target)})"
    return f"CAST({value} AS {to_duckdb(wanted)})"


def _same_layout(given: DataType, wanted: DataType) -> bool:
    match given, wanted:
        case Struct(a), Struct(b):
            return [f.name for f in a] == [f.name for f in b] and all(
                _same_layout(x.type, y.type) for x, y in zip(a, b, strict=True)
            )
        case Array(a), Array(b):
            return _same_layout(a, b)
        case Map(_, a), Map(_, b):
            return _same_layout(a, b)
    return isinstance(given, str) and isinstance(wanted, str)


def merged(table: Struct, rows: Struct, *, widen: bool = False) -> Struct:
    """The table's schema with the new columns and struct fields of `rows` added at the end, nullable.

    widen: columns of numbers and dates take the wider type that the rows have."""
    fields = []
    for f in table:
        other = rows.get(f.name)
        if other is not None and isinstance(f.type, Struct) and isinstance(other.type, Struct):
            f = replace(f, type=merged(f.type, other.type, widen=widen))
        elif widen and other is not None and widening.follows(f.type, other.type):
            f = widening.recorded(f, (), str(other.type), (f.name,))
        fields.append(f)
    new = [Field(f.name, f.type) for f in rows if table.get(f.name) is None]
    return Struct((*fields, *new))
