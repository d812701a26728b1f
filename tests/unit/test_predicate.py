"""WHERE as a condition on the skip index: it keeps every file that could hold a matching row, and drops what it can."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import pytest

from deltaduck import predicate, statements
from deltaduck.errors import QueryError
from deltaduck.predicate import compile_condition, conjuncts, is_constant, is_rising
from deltaduck.protocol.stats import SkipColumn

COLUMNS = [
    SkipColumn(0, ("i",), "long", False),
    SkipColumn(1, ("s",), "string", False),
    SkipColumn(2, ("f",), "double", False),
    SkipColumn(3, ("d",), "date", False),
    SkipColumn(4, ("ts",), "timestamp", False),
    SkipColumn(5, ("part",), "string", True),
    SkipColumn(6, ("st", "Inner X"), "integer", False),
    SkipColumn(7, ("flag",), "boolean", True),
    SkipColumn(8, ("dec",), "decimal(10,2)", False),
]
TYPES = """i BIGINT, s VARCHAR, f DOUBLE, d DATE, ts TIMESTAMPTZ, part VARCHAR,
           st STRUCT("Inner X" INTEGER), flag BOOLEAN, dec DECIMAL(10,2)"""

# file -> rows, in the order of TYPES
FILES = {
    "low": [
        "(1, 'apple', 0.5, '2024-01-01', '2024-01-01 00:00:00+00', 'x', {'Inner X': 1}, true, 0.10)",
        "(9, 'avocado', 1.5, '2024-01-31', '2024-01-31 12:00:00+00', 'x', {'Inner X': 5}, true, 9.99)",
    ],
    "high": [
        "(10, 'banana', 2.5, '2024-02-01', '2024-02-01 00:00:00+00', 'y', {'Inner X': 10}, false, 10.00)",
        "(20, 'cherry', 'nan', '2024-02-29', '2024-02-29 23:59:59+00', 'y', {'Inner X': 20}, false, 99.99)",
    ],
    "nulls": ["(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)", "(5, 'b', 0, '2024-01-15', NULL, NULL, NULL, NULL, 5)"],
    "one value": ["(7, 'kiwi', 7, '2023-12-31', '2023-12-31 00:00:00+00', 'z', {'Inner X': 7}, true, 7)"],
    "all null": ["(NULL, NULL, NULL, NULL, NULL, 'x', NULL, NULL, NULL)"],
}


def statistics(c: SkipColumn) -> list[str]:
    """Select items: what a writer would say of the column."""
    path = ".".join(f'"{p}"' for p in c.path)
    held = {
        "date": f"datediff('day', DATE '1970-01-01', {path})", "timestamp": f"epoch_us({path})",
        "boolean": f"CAST({path} AS BIGINT)", "decimal(10,2)": f"CAST({path} AS DOUBLE)",
    }  # fmt: skip
    value = held.get(c.type, path)
    if c.is_partition:
        return [f"any_value({value}) AS {c.value}"]
    no_nan = f"count(CASE WHEN isnan({value}) THEN 1 END) = 0" if c.type == "double" else "true"
    return [
        f"min({value}) AS {c.min}", f"CASE WHEN {no_nan} THEN max({value}) END AS {c.max}",
        f"count(*) - count({value}) AS {c.nulls}",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    """rows (with the file each is in), and dl_skip: what the files' statistics would say."""
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'America/New_York'")
        con.execute(f"CREATE TABLE rows (file VARCHAR, {TYPES})")
        for name, rows in FILES.items():
            for row in rows:
                con.execute(f"INSERT INTO rows VALUES ('{name}', {row[1:]}")
        items = ["file", "count(*) AS num_records", *(item for c in COLUMNS for item in statistics(c))]
        con.execute(f"CREATE TABLE dl_skip AS SELECT {', '.join(items)} FROM rows GROUP BY file")
        # a file without any statistics: it must survive every predicate on data columns
        con.execute("INSERT INTO dl_skip (file, c5_value, c7_value) VALUES ('no stats', 'y', 1)")
        con.execute("INSERT INTO rows BY NAME SELECT * REPLACE ('no stats' AS file, 'y' AS part) FROM rows WHERE s = 'kiwi'")
        yield con


@pytest.fixture(scope="module")
def lite(con: duckdb.DuckDBPyConnection) -> Iterator[sqlite3.Connection]:
    """The same index in SQLite: conditions are portable text."""
    lite = sqlite3.connect(":memory:")
    index = con.execute("SELECT * FROM dl_skip")
    names = [d[0] for d in index.description]
    lite.execute(f"CREATE TABLE dl_skip ({', '.join(names)})")
    lite.executemany(f"INSERT INTO dl_skip VALUES ({', '.join('?' * len(names))})", index.fetchall())
    yield lite
    lite.close()


def kept(con: duckdb.DuckDBPyConnection, text: str, lite: sqlite3.Connection | None = None) -> set[str]:
    """The files that the condition of a predicate keeps."""

    def evaluate(constants: Sequence[str]) -> list[tuple[str, Any]]:
        rows = (con.sql(f"SELECT typeof({c}) AS t, {c} AS v").to_arrow_table().to_pylist()[0] for c in constants)
        return [(row["t"], row["v"]) for row in rows]

    condition = compile_condition(predicate.parse(text), COLUMNS, evaluate, ["t"])
    query = f"SELECT file FROM dl_skip s WHERE {condition.sql}"
    params = {k: v for k, v in condition.params.items() if k in statements.parameters(query)}
    found = {row[0] for row in con.execute(statements.bind(query, "$%s"), params).fetchall()}
    if lite is not None:
        assert {row[0] for row in lite.execute(query, params)} == found
    return found


EVERYTHING = {*FILES, "no stats"}

PREDICATES = [
    "i = 7", "i <> 7", "NOT i = 7", "i < 7", "i <= 1", "i > 9", "i >= 20", "7 = i", "7 > i", "i BETWEEN 2 AND 8",
    "i NOT BETWEEN 2 AND 100", "NOT (i BETWEEN 1 AND 9)", "i IN (1, 20)", "i NOT IN (7)", "i IN (100, NULL)", "i IS NULL",
    "i IS NOT NULL", "NOT i IS NULL", "i = NULL", "i IS NOT DISTINCT FROM 7", "i IS DISTINCT FROM 7", "i = 7 OR s = 'apple'",
    "i = 7 AND s = 'kiwi'", "NOT (i = 7 OR s = 'apple')", "NOT (i > 5 AND i < 8)", "t.i = 7", "i + 1 = 8", "i = 6 + 1",
    "i = 7.0", "i = 7.5", "i < 7.5", "i > 9.5", "i = -7", "i = '7'", "i = 9223372036854775807", "i < 99999999999999999999",
    "abs(i) = 7", "i % 2 = 0", "s = 'kiwi'", "s > 'b'", "s >= 'cherry'", "s < 'apple'", "s LIKE 'a%'", "s LIKE 'av_cado'",
    "s LIKE '%o'", "s NOT LIKE 'a%'", "s LIKE 'kiwi'", "s LIKE ''", "s ILIKE 'A%'", "starts_with(s, 'ch')",
    "NOT starts_with(s, 'a')", "s IN ('apple', 'kiwi')", "lower(s) = 'kiwi'", "s = ''", "s IS NULL", "length(s) = 4", "f = 7",
    "f > 2", "f < 0.75", "f = 'nan'::DOUBLE", "f > 1000", "NOT f < 2", "f <> 7", "f = 2.5", "isnan(f)", "NOT f > 1",
    "f IS NULL", "f BETWEEN 1 AND 2", "f >= 'inf'::DOUBLE", "d = '2024-01-15'", "d = DATE '2024-01-15'", "d > '2024-01-31'",
    "d < DATE '2024-01-01'", "d >= DATE '2024-01-31' + 1", "d BETWEEN '2024-01-10' AND '2024-01-20'",
    "d = TIMESTAMP '2024-01-15 00:00:00'", "d < TIMESTAMP '2024-01-01 12:00:00'", "d IN ('2024-01-15', '2023-12-31')",
    "d < current_date", "d > current_date - 30", "year(d) = 2024", "ts = '2024-01-31 12:00:00+00'",
    "ts > TIMESTAMPTZ '2024-02-01 00:00:00+00'", "ts >= '2024-01-31 19:00:00'", "ts < TIMESTAMP '2024-01-01 00:00:00'",
    "ts < DATE '2024-01-01'", "ts IS NULL", "ts <= '2023-12-31 00:00:00+00'", "ts > now() - INTERVAL 1 DAY", "part = 'x'",
    "part <> 'x'", "part IN ('y', 'z')", "part NOT IN ('x')", "part IS NULL", "part IS NOT NULL", "part > 'x'",
    "part LIKE 'x%'", "NOT part = 'x'", "part = 'x' OR i = 10", "part = 'x' AND i = 10", "part || 'a' = 'xa'",
    'st."Inner X" = 7', 'st."inner x" > 9', 't.st."Inner X" < 2', 'st."Inner X" IS NULL', "st['Inner X'] = 7", "st IS NULL",
    "flag", "NOT flag", "flag = true", "flag = false", "flag IS NULL", "flag AND i = 7", "(flag) IS TRUE", "flag IS NOT TRUE",
    "dec = 10", "dec = 9.99", "dec > 99.98", "dec < 0.11", "dec <> 7", "dec BETWEEN 6.99 AND 7.01", "dec = 7.000001", "true",
    "false", "i > f", "unknown_function_of(i) IS NULL OR true", "CASE WHEN i = 7 THEN true ELSE false END", "(i = 7) = true",
    "(i, s) = (7, 'kiwi')", "i IN (SELECT 7)", "EXISTS (SELECT 1)", "coalesce(i, 0) = 0", "i = CAST('7' AS BIGINT)",
    "i = 7 IS TRUE", "NOT (NOT (i = 7))", "i <= 7 AND NOT (part = 'z' OR flag)", "s BETWEEN 'b' AND 'c'",
    "s >= 'kiwi' OR d < '2023-12-31'",
]  # fmt: skip


@pytest.mark.parametrize("text", PREDICATES)
def test_a_file_with_a_match_is_never_dropped(con: duckdb.DuckDBPyConnection, lite: sqlite3.Connection, text: str) -> None:
    try:
        matching = {row[0] for row in con.execute(f"SELECT DISTINCT file FROM rows t WHERE {text}").fetchall()}
    except duckdb.CatalogException:  # a function that does not exist
        matching = EVERYTHING
    assert matching <= kept(con, text, lite)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("i = 7", {"low", "one value", "no stats"}),
        ("i > 9", {"high", "no stats"}),
        ("i <= 1", {"low", "no stats"}),
        ("NOT i <> 7", {"low", "one value", "no stats"}),
        ("i <> 7", {"low", "high", "nulls", "no stats"}),
        ("i IN (20, 30)", {"high", "no stats"}),
        ("i BETWEEN 100 AND 200", {"no stats"}),
        ("i IS NULL", {"nulls", "all null", "no stats"}),
        ("i IS NOT NULL", EVERYTHING - {"all null"}),
        ("s LIKE 'k%'", {"one value", "no stats"}),
        ("s >= 'c'", {"high", "one value", "no stats"}),
        ("d >= '2024-02-01'", {"high", "no stats"}),
        ("d > current_date - 7", {"no stats"}),
        ("ts < '2024-01-01 00:00:00+00'", {"one value", "no stats"}),
        ("part = 'x'", {"low", "all null"}),
        ("part IS NULL", {"nulls"}),
        ("flag", {"low", "one value", "no stats"}),
        ("NOT flag", {"high"}),
        ("part = 'x' AND i = 7", {"low"}),
        ("part = 'x' OR i > 10", {"low", "high", "all null", "no stats"}),
        ('st."Inner X" > 15', {"high", "no stats"}),
        ("dec > 50", {"high", "no stats"}),
        ("f < 0.25", {"nulls", "no stats"}),
        ("f > 5", {"high", "one value", "no stats"}),  # a NaN is above every number
        ("false", set()),
    ],
)
def test_files_without_a_match_are_dropped(con: duckdb.DuckDBPyConnection, text: str, expected: set[str]) -> None:
    assert kept(con, text) - {"all null"} == expected - {"all null"}  # NULLs have no bounds: they may be kept


@pytest.mark.parametrize("text", ["part = 'y'", "i IS NOT NULL"])
def test_a_file_of_nulls_is_dropped_where_that_is_known(con: duckdb.DuckDBPyConnection, text: str) -> None:
    assert "all null" not in kept(con, text)


@pytest.mark.parametrize("text", ["i = ", "a b c", "(", "SELECT 1 FROM", "i = 1; DROP TABLE x"])
def test_a_predicate_that_cannot_be_parsed_is_shown(text: str) -> None:
    with pytest.raises(QueryError, match="cannot be parsed"):
        predicate.parse(text)


def test_values_are_bound_never_spliced(con: duckdb.DuckDBPyConnection) -> None:
    condition = compile_condition(predicate.parse("s = 'x'' OR 1=1 --'"), COLUMNS, lambda _: [])
    assert "OR 1=1" not in condition.sql
    assert "x' OR 1=1 --" in condition.params.values()


def test_long_lists_are_checked_by_their_range(con: duckdb.DuckDBPyConnection) -> None:
    members = ", ".join(map(str, range(1000, 2000)))
    condition = compile_condition(predicate.parse(f"i IN ({members})"), COLUMNS, lambda _: [])
    assert len(condition.params) == 2
    assert kept(con, f"i IN ({members})") <= {"no stats", "all null"}


def test_a_column_of_another_table_says_nothing(con: duckdb.DuckDBPyConnection) -> None:
    assert kept(con, "other.i = 7") == EVERYTHING


def test_conjuncts_are_the_parts_that_all_must_hold() -> None:
    parts = conjuncts(predicate.parse("((a = 1 AND (b = 2)) AND (c = 3 OR d = 4)) AND NOT e"))
    assert [p.sql() for p in parts] == ["a = 1", "b = 2", "c = 3 OR d = 4", "NOT e"]


def test_constants_mean_the_same_every_time() -> None:
    assert is_constant(predicate.parse("DATE '2024-01-01' + INTERVAL 3 DAY"))
    assert not is_constant(predicate.parse("random()"))
    assert not is_constant(predicate.parse("now()"))
    assert is_rising(predicate.parse("current_date - 7"))
    assert not is_rising(predicate.parse("7 - current_date"))
