"""Column mapping: a column has a number, and a name in the data files that never changes, so that the name that people see
can, and so that what is dropped never comes back under a new column of the same name.

Protocol: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#column-mapping
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from deltaduck.errors import LogCorruptError, UnsupportedFeatureError
from deltaduck.protocol.schema import Array, DataType, Field, Map, Struct, physical, quote, to_duckdb, unmapped

MODE = "delta.columnMapping.mode"
MAX_ID = "delta.columnMapping.maxColumnId"
ID = "delta.columnMapping.id"
PHYSICAL_NAME = "delta.columnMapping.physicalName"
MODES = ("none", "name", "id")


def mode(configuration: Mapping[str, str]) -> str:
    """none, name or id."""
    return configuration.get(MODE, "none").lower()


def number_of(f: Field) -> int:
    """A field's id. LogCorruptError when it has none, in a table whose columns are mapped."""
    value = f.metadata.get(ID)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise LogCorruptError(f"column {f.name!r} has no id, and the table's columns are mapped")
    return value


def _highest(configuration: Mapping[str, str]) -> int:
    text = configuration.get(MAX_ID, "0")
    if not re.fullmatch(r"\d{1,10}", text):
        raise LogCorruptError(f"the table property {MAX_ID} is {text!r}, which is no number of a column")
    return int(text)


def assigned(schema: Struct, configuration: Mapping[str, str], *, keep_names: bool = False) -> tuple[Struct, Mapping[str, str]]:
    """The schema, each field of which has a number and a name in the data files, and the configuration that counts them.

    keep_names: fields get the names that they have, since files that exist are written so. Without mapping: the schema
    as a table without mapping has it.
    """
    if mode(configuration) == "none":
        return Struct(unmapped(schema).fields), configuration  # type: ignore[union-attr]
    highest = max([_highest(configuration), *(number_of(f) for f in _fields(schema) if ID in f.metadata)])

    def number(f: Field) -> Field:
        nonlocal highest
        metadata = dict(f.metadata)
        if ID not in metadata:
            highest += 1
            metadata[ID] = highest
        metadata.setdefault(PHYSICAL_NAME, f.name if keep_names else f"col-{uuid.uuid4()}")
        return replace(f, metadata=metadata)

    found = _each(schema, number)
    assert isinstance(found, Struct)
    return found, {**configuration, MAX_ID: str(highest)}


def counted(configuration: Mapping[str, str], since: Mapping[str, str]) -> Mapping[str, str]:
    """An older configuration, which gives no number away a second time that has been given since."""
    if MAX_ID not in since:
        return configuration
    return {**configuration, MAX_ID: str(max(map(_highest, (configuration, since))))}


def kept(schema: Struct, old: Struct) -> Struct:
    """The schema, whose columns are those of the old one where name and type are the same."""

    def keep(f: Field) -> Field:
        was = old.get(f.name)
        if was is None or was.type != f.type:
            return f
        return replace(f, metadata={**f.metadata, **{k: v for k, v in was.metadata.items() if k in (ID, PHYSICAL_NAME)}})

    return Struct(tuple(keep(f) for f in schema))


def check_change(table: str, old: Mapping[str, str], new: Mapping[str, str]) -> None:
    """UnsupportedFeatureError for a change of mode that would leave files unreadable."""
    before, after = mode(old), mode(new)
    if before != after and (before, after) != ("none", "name"):
        raise UnsupportedFeatureError(
            f"table {table!r} has {MODE} = {before}, which cannot become {after}: its files are written so. What can be is none "
            "to name; for anything else, CREATE TABLE ... AS SELECT"
        )


def require(table: str, configuration: Mapping[str, str], what: str) -> None:
    """UnsupportedFeatureError when a table has no column mapping, and how to have it."""
    if mode(configuration) == "none":
        raise UnsupportedFeatureError(
            f"table {table!r}: {what} needs column mapping: ALTER TABLE {table} SET TBLPROPERTIES ('{MODE}' = 'name') first. "
            "Readers must know it then; the files stay as they are"
        )


def field_ids(schema: Struct) -> str:
    """COPY's FIELD_IDS of columns that are mapped."""
    return "{" + ", ".join(f"{quote(f.physical_name)}: {_ids(f.type, number_of(f))}" for f in schema) + "}"


def _ids(type_: DataType, own: int | None = None) -> str:
    match type_:
        case Struct(fields):
            inside = [f"{quote(f.physical_name)}: {_ids(f.type, number_of(f))}" for f in fields]
        case Array(element, _):
            inside = [f"element: {_ids(element)}"] if _holds_struct(element) else []
        case Map(key, value, _):
            inside = [f"{name}: {_ids(t)}" for name, t in (("key", key), ("value", value)) if _holds_struct(t)]
        case _:
            inside = []
    if not inside:
        return str(own)
    return "{" + ", ".join(([] if own is None else [f"__duckdb_field_id: {own}"]) + inside) + "}"


def _holds_struct(type_: DataType) -> bool:
    match type_:
        case Array(element, _):
            return _holds_struct(element)
        case Map(key, value, _):
            return _holds_struct(key) or _holds_struct(value)
    return isinstance(type_, Struct)


# --- values of structs, whose members have either names


def logical(value: str, type_: DataType) -> str:
    """SQL: a value whose structs have the names of the data files, with the names of the schema."""
    return _renamed(value, type_, lambda f: f.physical_name, lambda f: f.name)


def stored(value: str, type_: DataType) -> str:
    """SQL: a value whose structs have the names of the schema, with the names of the data files."""
    return _renamed(value, type_, lambda f: f.name, lambda f: f.physical_name)


def _renamed(value: str, type_: DataType, old: Callable[[Field], str], new: Callable[[Field], str]) -> str:
    return rebuilt(value, type_, is_renamed, lambda struct, f: (new(f), f"{struct}.{quote(old(f))}"), lambda leaf, _: leaf)


def is_renamed(type_: DataType) -> bool:
    """Has a struct in it members that the data files call otherwise?"""
    return to_duckdb(physical(type_)) != to_duckdb(type_)


def rebuilt(
    value: str, type_: DataType, differs: Callable[[DataType], bool], member: Callable[[str, Field], tuple[str, str]],
    leaf: Callable[[str, DataType], str],
) -> str:  # fmt: skip
    """SQL: a value made anew where its type `differs`, at any depth.

    member: of a struct's SQL and a field, the name that it gets and what it is; leaf: of a value that holds no others."""
    if not differs(type_):
        return value
    match type_:
        case Struct(fields):
            found = [(*member(value, f), f.type) for f in fields]
            members = (f"{quote(name)} := {rebuilt(held, kind, differs, member, leaf)}" for name, held, kind in found)
            return f"CASE WHEN {value} IS NOT NULL THEN struct_pack({', '.join(members)}) END"
        case Array(element, _):
            return f"list_transform({value}, lambda e: {rebuilt('e', element, differs, member, leaf)})"
        case Map(key, element, _):
            k, v = (rebuilt(f"e.{part}", kind, differs, member, leaf) for part, kind in (("key", key), ("value", element)))
            return f"map_from_entries(list_transform(map_entries({value}), lambda e: struct_pack(k := {k}, v := {v})))"
    return leaf(value, type_)


# --- inside


def _fields(type_: DataType) -> Iterator[Field]:
    """Every field at any depth."""
    match type_:
        case Struct(fields):
            for f in fields:
                yield f
                yield from _fields(f.type)
        case Array(element, _):
            yield from _fields(element)
        case Map(key, value, _):
            yield from _fields(key)
            yield from _fields(value)


def _each(type_: DataType, change: Callable[[Field], Field]) -> DataType:
    """The type with every field changed, a parent before its members."""
    match type_:
        case Struct(fields):
            return Struct(tuple(replace(g := change(f), type=_each(g.type, change)) for f in fields))
        case Array(element, contains_null):
            return Array(_each(element, change), contains_null)
        case Map(key, value, contains_null):
            return Map(_each(key, change), _each(value, change), contains_null)
    return type_
