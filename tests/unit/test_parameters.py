"""Parameters of a statement: the values that DuckDB would bind, written into the text."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaduck.errors import QueryError, SchemaMismatchError
from deltaduck.frontends.parameters import bound, value_sql

# statement, params, the same without parameters
BOUND = [
    ("SELECT ?, ?", [1, "it's"], "SELECT 1, 'it''s'"),
    ("SELECT $2, $1, $1", [1, 2], "SELECT 2, 1, 1"),
    ("SELECT ?2, ?1", [1, 2], "SELECT 2, 1"),
    ("SELECT $day, $Day", {"DAY": "mon"}, "SELECT 'mon', 'mon'"),
    ("SELECT $select, $naïve", {"select": 1, "naïve": 2}, "SELECT 1, 2"),
    ("SELECT ?::INT, ?::INT", ["5", "6"], "SELECT '5'::INT, '6'::INT"),
    ("SELECT 1-?", [-1], "SELECT 1-(-1)"),
    ("SELECT 'é ?', \"$1\", $$ ? $$, $a$ $b $a$, ? -- ? $1", [7], "SELECT 'é ?', \"$1\", $$ ? $$, $a$ $b $a$, 7 -- ? $1"),
    ("SELECT ? /* $1 ? */ FROM t WHERE a=?AND b", [1, 2], "SELECT 1 /* $1 ? */ FROM t WHERE a= 2 AND b"),
    ("FROM t SELECT x[?:?]", [1, 2], "FROM t SELECT x[1:2]"),
    ("SELECT ?; DELETE FROM t WHERE id = ?", [1, 2], "SELECT 1; DELETE FROM t WHERE id = 2"),
    ("SELECT 1", [], "SELECT 1"),
    ("SELECT $1 IN ('?', '$1')", ["'; DROP TABLE t; --"], "SELECT '''; DROP TABLE t; --' IN ('?', '$1')"),
]


@pytest.mark.parametrize(("text", "params", "expected"), BOUND)
def test_values_stand_where_their_parameters_stood(text: str, params: Any, expected: str) -> None:
    assert bound(text, params) == expected


@pytest.mark.parametrize(
    ("text", "params", "message"),
    [
        ("SELECT ?, ?", [1], r"params has no value for \$2"),
        ("SELECT $a", {"b": 1}, r"params has no value for \$a"),
        ("SELECT ?", {"a": 1}, r"params has no value for \$1"),
        ("SELECT $1", [1, 2], r"nothing asks for \$2 of params"),
        ("SELECT 1", {"a": 1}, r"nothing asks for \$a of params"),
        ("SELECT ?, $1", [1, 2], r"parameters are all \?, or all have numbers or names"),
        ("SELECT 'a, ?", [1], "leaves a quote or a comment open"),
        ("SELECT ?", "a", "params is a str: give a list"),
        ("SELECT ?", 1, "params is a int: give a list"),
    ],
)
def test_what_does_not_fit_is_told(text: str, params: Any, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        bound(text, params)


SCALARS = [
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), st.binary(), st.dates(), st.times(), st.uuids(),
    st.datetimes(), st.datetimes(timezones=st.timezones()), st.timedeltas(dt.timedelta(days=-99999), dt.timedelta(days=99999)),
    st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**12), max_value=10**12),
]  # fmt: skip


@given(st.one_of(*SCALARS, *(st.lists(kind, min_size=1, max_size=3) for kind in SCALARS[1:])))
def test_a_value_is_what_duckdb_binds(value: Any) -> None:
    with duckdb.connect() as con:
        sql = value_sql(value)
        ((same, ours, theirs),) = con.execute(f"SELECT {sql} IS NOT DISTINCT FROM $1, {sql}, $1", [value]).fetchall()
    assert same, (ours, theirs)


@pytest.mark.parametrize(
    ("value", "sql"),
    [
        (np.int32(7), "7"),
        (np.float32(0.5), "CAST('0.5' AS DOUBLE)"),
        (np.float64(0.5), "CAST('0.5' AS DOUBLE)"),
        (np.bool_(True), "true"),
        (np.datetime64("2024-01-31"), "CAST('2024-01-31' AS DATE)"),
        (np.datetime64("2024-01-31T12:00:00.000000001"), "CAST('2024-01-31T12:00:00.000000001' AS TIMESTAMP_NS)"),
        (np.datetime64("NaT"), "NULL"),
        (np.timedelta64(5, "s"), "CAST('0 days 5000000 microseconds' AS INTERVAL)"),
        (np.array([5]), "[5]"),
        (np.array(["2024-01-31"], "M8[ns]"), "[CAST('2024-01-31T00:00:00.000000000' AS TIMESTAMP_NS)]"),
        (pd.Timestamp("2024-01-31 12:00"), "CAST('2024-01-31 12:00:00' AS TIMESTAMP)"),
        (pd.NaT, "NULL"),
        (Decimal("1E+3"), "1000"),
        (uuid.UUID(int=1), "CAST('00000000-0000-0000-0000-000000000001' AS UUID)"),
        ({"a": [1, None]}, 'struct_pack("a" := [1, NULL])'),
    ],
)
def test_values_of_other_libraries(value: Any, sql: str) -> None:
    assert value_sql(value) == sql


@pytest.mark.parametrize(
    "value",
    [set(), object(), {}, Decimal("NaN"), dt.time(1, tzinfo=dt.UTC), np.timedelta64(5, "ns"), np.longdouble(1), pd.Series([1])],
)
def test_what_has_no_literal(value: Any) -> None:
    with pytest.raises(SchemaMismatchError, match="has no SQL literal"):
        value_sql(value)
