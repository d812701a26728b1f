"""Which types may go into which column, and the SQL that takes them there."""

from __future__ import annotations

import duckdb
import pytest

from deltaduck.casts import merged, misfit, projection
from deltaduck.errors import SchemaMismatchError
from deltaduck.protocol.schema import Array, DataType, Field, Map, Struct, quote


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("byte", "long"),
        ("long", "byte"),  # a value out of range is an error when it comes
        ("integer", "double"),
        ("float", "double"),
        ("double", "float"),
        ("integer", "decimal(10,2)"),
        ("decimal(5,1)", "decimal(10,2)"),
        ("decimal(10,2)", "double"),
        ("date", "timestamp_ntz"),
        (Array("integer"), Array("long")),
        (Map("string", "integer"), Map("string", "long")),
        (Struct((Field("b", "integer"),)), Struct((Field("a", "long"), Field("B", "long")))),
    ],
)
def test_what_fits(given: DataType, wanted: DataType) -> None:
    assert misfit(given, wanted, "c") is None


@pytest.mark.parametrize(
    ("given", "wanted", "named"),
    [
        ("string", "long", "'c'"),
        ("long", "string", "'c'"),
        ("double", "long", "'c'"),
        ("decimal(10,3)", "decimal(10,2)", "'c'"),  # would round
        ("timestamp", "timestamp_ntz", "'c'"),
        ("timestamp_ntz", "timestamp", "'c'"),
        ("date", "timestamp", "'c'"),
        ("boolean", "integer", "'c'"),
        ("string", "binary", "'c'"),
        ("long", Array("long"), "'c'"),
        (Array("string"), Array("long"), "'c.element'"),
        (Map("string", "string"), Map("string", "long"), "'c.value'"),
        (Map("long", "long"), Map("string", "long"), "'c.key'"),
        (Struct((Field("x", "long"),)), Struct((Field("y", "long"),)), "'c.x'"),
        (Struct((Field("x", "long"),)), Struct((Field("x", "long"), Field("y", "long", nullable=False))), "'c.y'"),
        (Struct((Field("s", Struct((Field("x", "string"),))),)), Struct((Field("s", Struct((Field("x", "long"),))),)), "'c.s.x'"),
    ],
)
def test_what_does_not_fit_is_named(given: DataType, wanted: DataType, named: str) -> None:
    why = misfit(given, wanted, "c")
    assert why is not None
    assert named in why


def test_all_problems_are_told_at_once() -> None:
    table = Struct((Field("id", "long", nullable=False), Field("name", "string"), Field("n", "integer")))
    with pytest.raises(SchemaMismatchError) as e:
        projection({"name": "long", "other": "long", "n": "integer"}, table)
    assert "'other'" in str(e.value)
    assert "'id' is NOT NULL and is missing" in str(e.value)
    assert "'name'" in str(e.value)
    assert "'n'" not in str(e.value)


def run(given: dict[str, DataType | None], table: Struct, rows: str) -> list[tuple[object, ...]]:
    """The rows of a SELECT, fitted to a table."""
    items = ", ".join(f"{sql} AS {quote(name)}" for name, sql in projection(given, table))
    with duckdb.connect() as con:
        return con.execute(f"SELECT {items} FROM ({rows})").fetchall()


def test_columns_go_by_name_in_the_tables_order_and_those_not_given_are_left_out() -> None:
    table = Struct((Field("a", "long"), Field("B b", "string"), Field("missing", "date")))
    assert run({"B B": "string", "A": "integer"}, table, """SELECT 'x' AS "B B", 1 AS "A" """) == [(1, "x")]


def test_struct_members_go_by_name() -> None:
    table = Struct((Field("s", Struct((Field("x", "long"), Field("y", "string"), Field("z", "double")))),))
    given: dict[str, DataType | None] = {"s": Struct((Field("y", "string"), Field("X", "integer")))}
    rows = "SELECT {'y': 'why', 'X': 1} AS s UNION ALL SELECT NULL"
    assert run(given, table, rows) == [({"x": 1, "y": "why", "z": None},), (None,)]


def test_structs_in_lists_go_by_name() -> None:
    table = Struct((Field("a", Array(Struct((Field("x", "long"), Field("y", "string"))))),))
    given: dict[str, DataType | None] = {"a": Array(Struct((Field("y", "string"), Field("x", "long"))))}
    assert run(given, table, "SELECT [{'y': 'b', 'x': 2}, NULL] AS a") == [([{"x": 2, "y": "b"}, None],)]


def test_structs_in_maps_go_by_name() -> None:
    table = Struct((Field("m", Map("string", Struct((Field("x", "long"), Field("y", "long"))))),))
    given: dict[str, DataType | None] = {"m": Map("string", Struct((Field("y", "long"), Field("x", "long"))))}
    assert run(given, table, "SELECT MAP {'k': {'y': 2, 'x': 1}} AS m") == [({"k": {"x": 1, "y": 2}},)]


def test_untyped_nulls_go_anywhere() -> None:
    assert run({"a": None}, Struct((Field("a", Array("long")),)), "SELECT NULL AS a") == [(None,)]


def test_a_value_out_of_range_is_an_error_not_another_value() -> None:
    with pytest.raises(duckdb.ConversionException):
        run({"a": "long"}, Struct((Field("a", "byte"),)), "SELECT 300::BIGINT AS a")


def test_a_null_struct_has_no_members_to_miss() -> None:
    table = Struct((Field("s", Struct((Field("x", "long", nullable=False),))),))
    assert run({"s": Struct((Field("x", "long"),))}, table, "SELECT NULL::STRUCT(x BIGINT) AS s") == [(None,)]


def test_merging_adds_columns_at_the_end_and_members_at_their_place() -> None:
    table = Struct((Field("a", "long", nullable=False), Field("s", Struct((Field("x", "long"),)))))
    rows = Struct((Field("new", "date"), Field("S", Struct((Field("y", "string"), Field("X", "integer")))), Field("A", "byte")))
    assert merged(table, rows) == Struct(
        (
            Field("a", "long", nullable=False),
            Field("s", Struct((Field("x", "long"), Field("y", "string")))),
            Field("new", "date"),
        )
    )
