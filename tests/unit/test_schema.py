"""Delta schemas: the JSON of the log, DuckDB's types, Arrow's."""

from __future__ import annotations

import json

import duckdb
import pyarrow as pa
import pytest

from deltaduck.errors import LogCorruptError, SchemaMismatchError
from deltaduck.protocol.schema import (
    Array,
    Field,
    Map,
    Struct,
    arrow_schema,
    check_names,
    decimal_of,
    from_duckdb,
    leaves,
    literal,
    parse_schema,
    quote,
    to_duckdb,
    to_json,
    uses,
    with_nullability,
)

PRIMITIVES = [
    "string", "long", "integer", "short", "byte", "float", "double", "boolean", "binary", "date", "timestamp",
    "timestamp_ntz", "decimal(10,2)", "decimal(38,0)",
]  # fmt: skip

NESTED = Struct(
    (
        Field("id", "long", nullable=False),
        Field("tags", Array("string", contains_null=False)),
        Field("scores", Map("string", "double", value_contains_null=False)),
        Field("address", Struct((Field("street", "string"), Field("geo", Struct((Field("lat", "double", nullable=False),)))))),
        Field("with comment", "string", metadata={"comment": 'say "hi" – ünïcode'}),
        Field("deep", Array(Map("integer", Array(Struct((Field("x", "date"),)))))),
    )
)


def test_a_schema_survives_its_json() -> None:
    assert parse_schema(to_json(NESTED)) == NESTED
    assert parse_schema(to_json(NESTED)).fields[4].metadata == {"comment": 'say "hi" – ünïcode'}


def test_the_json_is_what_the_protocol_prints() -> None:
    schema = Struct((Field("a", "integer", metadata={"k": 1}), Field("b", Array(Map("string", "long")), nullable=False)))
    assert json.loads(to_json(schema)) == {
        "type": "struct",
        "fields": [
            {"name": "a", "type": "integer", "nullable": True, "metadata": {"k": 1}},
            {
                "name": "b",
                "nullable": False,
                "metadata": {},
                "type": {
                    "type": "array",
                    "containsNull": True,
                    "elementType": {"type": "map", "keyType": "string", "valueType": "long", "valueContainsNull": True},
                },
            },
        ],
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        '"string"',
        "[]",
        '{"type": "struct"}',
        '{"type": "tuple", "fields": []}',
        '{"type": "struct", "fields": [{"name": "a"}]}',
        '{"type": "struct", "fields": [3]}',
    ],
)
def test_what_is_no_schema_is_a_corrupt_log(text: str) -> None:
    with pytest.raises(LogCorruptError, match="schema in the log"):
        parse_schema(text)


def test_nesting_has_an_end() -> None:
    bomb = '{"type":"array","containsNull":true,"elementType":' * 5_000 + '"long"' + "}" * 5_000
    with pytest.raises(LogCorruptError):
        parse_schema('{"type":"struct","fields":[{"name":"a","type":' + bomb + "}]}")


@pytest.mark.parametrize("name", PRIMITIVES)
def test_every_primitive_is_a_duckdb_type_and_back(name: str) -> None:
    assert from_duckdb(duckdb.sqltype(to_duckdb(name)), "c") == name


def test_nested_types_are_duckdb_types_and_back() -> None:
    for f in NESTED:
        back = from_duckdb(duckdb.sqltype(to_duckdb(f.type)), f.name)
        assert to_duckdb(back) == to_duckdb(f.type)


def test_types_delta_lacks_go_to_the_narrowest_that_holds_them() -> None:
    held = {
        "UTINYINT": "short", "USMALLINT": "integer", "UINTEGER": "long", "UBIGINT": "decimal(20,0)", "HUGEINT": "decimal(38,0)",
        "UUID": "string", "ENUM('a', 'b')": "string", "TIMESTAMP_NS": "timestamp_ntz", "TIMESTAMP_S": "timestamp_ntz",
        "JSON": "string",
    }  # fmt: skip
    assert {t: from_duckdb(duckdb.sqltype(t), "c") for t in held} == held
    assert from_duckdb(duckdb.sqltype("INTEGER[3]"), "c") == Array("integer")


@pytest.mark.parametrize("type_", ["TIME", "INTERVAL", "BIT", "UNION(a INTEGER, b VARCHAR)"])
def test_types_delta_cannot_hold_are_refused_by_column_name(type_: str) -> None:
    with pytest.raises(SchemaMismatchError, match=r"'odd\.inner'.*cast it"):
        from_duckdb(duckdb.sqltype(f'STRUCT("inner" {type_})'), "odd")


def test_an_unknown_type_in_a_log_is_reported() -> None:
    with pytest.raises(LogCorruptError, match="'interval year'"):
        to_duckdb("interval year")


@pytest.mark.parametrize(
    ("text", "expected"), [("decimal", (10, 0)), ("decimal(5,2)", (5, 2)), ("decimal(38, 18)", (38, 18)), ("double", None)]
)
def test_decimals(text: str, expected: tuple[int, int] | None) -> None:
    assert decimal_of(text) == expected


def test_arrow_types() -> None:
    schema = Struct(
        (
            Field("ts", "timestamp"),
            Field("ntz", "timestamp_ntz"),
            Field("d", "decimal(12,3)", nullable=False),
            Field("list", Array("short", contains_null=False)),
            Field("map", Map("string", "boolean")),
            Field("s", Struct((Field("x", "byte", nullable=False),))),
        )
    )
    assert arrow_schema(schema) == pa.schema(
        [
            pa.field("ts", pa.timestamp("us", tz="UTC")),
            pa.field("ntz", pa.timestamp("us")),
            pa.field("d", pa.decimal128(12, 3), nullable=False),
            pa.field("list", pa.list_(pa.field("element", pa.int16(), nullable=False))),
            pa.field("map", pa.map_(pa.string(), pa.bool_())),
            pa.field("s", pa.struct([pa.field("x", pa.int8(), nullable=False)])),
        ]
    )


def test_not_null_comes_from_arrow_at_every_level_of_structs() -> None:
    plain = Struct((Field("a", "long"), Field("s", Struct((Field("x", "long"), Field("y", "long"))))))
    arrow = pa.schema(
        [
            pa.field("a", pa.int64(), nullable=False),
            pa.field("s", pa.struct([pa.field("x", pa.int64()), pa.field("y", pa.int64(), nullable=False)])),
        ]
    )
    marked = with_nullability(plain, arrow)
    assert [f.nullable for f in marked] == [False, True]
    assert [f.nullable for f in marked.fields[1].type] == [True, False]  # type: ignore[union-attr]


def test_columns_are_found_whatever_their_case() -> None:
    schema = Struct((Field("Order ID", "long"), Field("n", "long")))
    assert schema.get("order id") is schema.fields[0]
    assert schema.get("nothing") is None
    assert schema.without(["ORDER ID"]).names == ["n"]


@pytest.mark.parametrize("names", [["a", "A"], ["x", ""]])
def test_names_that_delta_readers_would_confuse_are_refused(names: list[str]) -> None:
    top = Struct(tuple(Field(n, "long") for n in names))
    for schema in (top, Struct((Field("s", top),))):
        with pytest.raises(SchemaMismatchError, match=r"rename|empty name"):
            check_names(schema)


def test_uses_looks_into_every_nesting() -> None:
    assert uses(NESTED, "date")
    assert not uses(NESTED, "timestamp_ntz")


def test_leaves_are_the_columns_that_statistics_know() -> None:
    assert [(".".join(path), to_duckdb(t)) for path, t in leaves(NESTED)][:5] == [
        ("id", "BIGINT"), ("tags", "VARCHAR[]"), ("scores", "MAP(VARCHAR, DOUBLE)"), ("address.street", "VARCHAR"),
        ("address.geo.lat", "DOUBLE"),
    ]  # fmt: skip


def test_a_field_may_have_another_name_in_files() -> None:
    assert Field("a", "long", metadata={"delta.columnMapping.physicalName": "col-7"}).physical_name == "col-7"


@pytest.mark.parametrize("text", ["plain", "it's", 'say "x"', "semi;colon", "new\nline", "ünïcode", "--", "/*"])
def test_quoting(text: str) -> None:
    (row,) = duckdb.sql(f"SELECT {literal(text)} AS {quote(text)}").fetchall()
    assert row == (text,)
