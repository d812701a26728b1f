"""Values as data files hold them → values of the table's schema: names of struct members, instants, and variants.

Members of structs are found by name, which is all that DuckDB knows; where columns are mapped by id, the files' footers say
which name has an id in which file.
Protocol: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#column-mapping, #variant-data-type
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import duckdb
import pyarrow as pa

from deltaduck.errors import UnsupportedFeatureError
from deltaduck.protocol import mapping
from deltaduck.protocol.schema import (
    Array,
    DataType,
    Field,
    Map,
    Struct,
    arrow_schema,
    conformed,
    literal,
    loosened,
    quote,
    to_duckdb,
    uses,
)

# field id → the names that it has in the files, and SQL for the number of the one in a row's file (from 1, or NULL)
Names = Mapping[int, tuple[list[str], str]]

NAMES_BY_ID = """
    WITH dl_place AS (SELECT unnest({files}) AS file_name, generate_subscripts({files}, 1) AS place),
    dl_named AS (SELECT file_name, field_id, min(name) AS name FROM parquet_schema({files})
                 WHERE field_id IN ({ids}) GROUP BY ALL),
    dl_each AS (SELECT field_id, list(name ORDER BY place) AS names
                FROM dl_place CROSS JOIN (SELECT unnest([{ids}]) AS field_id) LEFT JOIN dl_named USING (file_name, field_id)
                GROUP BY field_id)
    SELECT field_id, list_sort(list_distinct(names)) AS distinct_names,
           CAST(to_json(list_transform(names, lambda n: list_position(list_sort(list_distinct(names)), n))) AS VARCHAR)
    FROM dl_each
"""


def names_by_id(connection: Any, files: str, schema: Struct, *, columns: bool) -> Names:
    """Of the members of structs whose name in a file is not the schema's physical name: the names that they have.

    files: SQL for a list of their names, by which file_index counts. columns: of top-level columns too.
    """
    wanted = {mapping.number_of(f): f.physical_name for depth, f in _members(schema) if columns or depth}
    if not wanted:
        return {}
    rows = connection.execute(NAMES_BY_ID.format(files=files, ids=", ".join(map(str, wanted)))).fetchall()
    return {
        identity: (names, f"from_json({literal(choices)}, '[\"BIGINT\"]')[CAST(file_index AS BIGINT) + 1]")
        for identity, names, choices in rows
        if names != [wanted[identity]] or "null" in choices
    }


INSTANTS = """
    SELECT coalesce(bool_or(starts_with(duckdb_type, 'TIMESTAMP') AND NOT zoned AND (type = 'INT96' OR {all})), false),
           coalesce(bool_or(zoned), false)
    FROM (SELECT *, duckdb_type IN ('TIMESTAMP WITH TIME ZONE', 'TIMESTAMPTZ_NS') AS zoned FROM parquet_schema({files}))
    WHERE type IS NOT NULL
"""


def instants_in_files(connection: Any, files: str, schema: Struct) -> str:
    """The type to read timestamps with, so that what comes of it depends on no session's time zone.

    Spark writes them as INT96 unless told otherwise, and old writers say nothing of UTC: to DuckDB they have no zone, and it
    would take them to be in the session's. Where files of both kinds are read at once, they come as text.
    """
    if not uses(schema, "timestamp"):
        return "timestamp"
    every = "false" if uses(schema, "timestamp_ntz") else "true"
    try:
        ((zoneless, zoned),) = connection.execute(INSTANTS.format(all=every, files=files)).fetchall()
    except duckdb.Error:
        return "timestamp"  # whoever reads the files says what is wrong with them
    return "timestamp" if not zoneless else "string" if zoned else "timestamp_ntz"


def held(schema: Struct, instants: str) -> Struct:
    """The schema with timestamps as they are read."""
    return Struct(tuple(replace(f, type=_held(f.type, instants)) for f in schema))


def _held(type_: DataType, instants: str) -> DataType:
    match type_:
        case Struct():
            return held(type_, instants)
        case Array(element, contains_null):
            return Array(_held(element, instants), contains_null)
        case Map(key, value, contains_null):
            return Map(_held(key, instants), _held(value, instants), contains_null)
    return instants if type_ == "timestamp" else type_


def _members(type_: DataType, depth: int = 0) -> Iterator[tuple[int, Field]]:
    match type_:
        case Struct(fields):
            for f in fields:
                yield depth, f
                yield from _members(f.type, depth + 1)
        case Array(element, _):
            yield from _members(element, depth)
        case Map(key, value, _):
            yield from _members(key, depth)
            yield from _members(value, depth)


def renamed(f: Field, names: Names) -> tuple[list[str], str] | None:
    return names.get(mapping.number_of(f)) if names else None


def type_in_files(type_: DataType, names: Names) -> DataType:
    """The type that files are read with: members under every name that they have in some file."""
    match type_:
        case Struct(fields):
            held: dict[str, Field] = {}
            for f in fields:
                kind = type_in_files(f.type, names)
                for name in names_in_files(f, names):
                    other = held.setdefault(name.lower(), Field(name, kind))
                    if (other.name, other.type) != (name, kind):
                        raise UnsupportedFeatureError(
                            f"column {f.name!r} is called {name!r} in some data files, which call another column so, of another "
                            "type: such files cannot be read in one scan"
                        )
            return Struct(tuple(held.values()))
        case Array(element, contains_null):
            return Array(type_in_files(element, names), contains_null)
        case Map(key, value, contains_null):
            return Map(type_in_files(key, names), type_in_files(value, names), contains_null)
    return type_


def names_in_files(f: Field, names: Names) -> list[str]:
    """What the files call a column or member."""
    found = renamed(f, names)
    return [f.physical_name] if found is None or not found[0] else found[0]


def member(prefix: str, f: Field, names: Names, plain: str | None = None) -> str:
    """SQL: a column or member, under the name that it has in the row's file.

    prefix: its struct and a dot, or nothing; plain: what it is where the files call it as the schema does."""
    if (found := renamed(f, names)) is None:
        return plain or prefix + quote(f.physical_name)
    if not found[0]:
        return f"CAST(NULL AS {to_duckdb(type_in_files(f.type, names))})"
    cases = " ".join(f"WHEN {i} THEN {prefix}{quote(name)}" for i, name in enumerate(found[0], 1))
    return f"CASE {found[1]} {cases} END"


def logical(value: str, type_: DataType, names: Names = {}, instants: str = "timestamp") -> str:  # noqa: B006 - never changed
    """SQL: a value of a data file as a value of the schema."""
    odd = {"variant": _variant} | ({} if instants == "timestamp" else {"timestamp": _instant[instants]})
    return mapping.rebuilt(
        value, type_,
        lambda t: bool(names) or any(uses(t, kind) for kind in odd) or mapping.is_renamed(t),
        lambda struct, f: (f.name, member(f"{struct}.", f, names)),
        lambda leaf, kind: odd[kind](leaf) if kind in odd else leaf,
    )  # fmt: skip


def _in_utc(value: str) -> str:
    return f"make_timestamptz(epoch_us({value}))"


def _from_text(value: str) -> str:
    """SQL: text with the offset of its zone, or in UTC. DuckDB 1.5 leaves out the seconds that offsets had around 1900."""
    text = f"CAST({value} AS VARCHAR)"
    return f"CAST({text} || CASE WHEN regexp_matches({text}, ':\\d\\d(\\.\\d+)?[+-]\\d') THEN '' ELSE '+00' END AS TIMESTAMPTZ)"


_instant = {"timestamp_ntz": _in_utc, "string": _from_text}


def _variant(value: str) -> str:
    """SQL: DuckDB takes a group for a variant where the file marks it. Of others it makes a variant that is the group."""
    kind = f"list_sort(string_split(regexp_extract(variant_typeof({value}), '^OBJECT\\((.*)\\)$', 1), ', '))"
    whole = " || ".join(f"CAST(variant_extract({value}, '{part}') AS BLOB)" for part in ("metadata", "value"))
    shredded = literal("a data file holds a shredded variant without marking it as one, which DuckDB cannot read")
    return (
        f"CASE {kind} WHEN ['metadata', 'value'] THEN variant_bytes_to_variant({whole}) "
        f"WHEN ['metadata', 'typed_value', 'value'] THEN error({shredded}) ELSE {value} END"
    )


def arrow_items(schema: Struct, columns: Sequence[str]) -> str:
    """SQL: columns as Arrow should have them: variants as structs of metadata and value, the encoding's own bytes."""
    found = [(name, schema.get(name)) for name in columns]
    return ", ".join(quote(n) if f is None else f"{_arrow(quote(n), f.type)} AS {quote(n)}" for n, f in found)


def as_said(rows: pa.Table, schema: Struct) -> pa.Table:
    """Columns of `schema` with the types that it says."""
    try:
        return conformed(rows, pa.schema([arrow_schema(schema).field(name) for name in rows.column_names]))
    except (ValueError, pa.ArrowNotImplementedError):  # a NULL where NOT NULL is said; DuckDB 1.5 has no void
        return rows.cast(pa.schema([arrow_schema(loosened(schema)).field(name) for name in rows.column_names]))


def _arrow(value: str, type_: DataType) -> str:
    pair = 'STRUCT(metadata BLOB, "value" BLOB)'
    return mapping.rebuilt(
        value, type_,
        lambda t: uses(t, "variant"),
        lambda struct, f: (f.name, f"{struct}.{quote(f.name)}"),
        lambda leaf, _: f"CASE WHEN {leaf} IS NOT NULL THEN CAST(variant_to_parquet_variant({leaf}) AS {pair}) END",
    )  # fmt: skip
