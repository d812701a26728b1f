"""The SQL is the product: one portable text, which every database parses, and SQLite runs as it stands."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest
import sqlglot

from deltaduck import statements
from deltaduck.statements import ROOT

CORE = statements.read_directory(ROOT / "core")
DATABASES = ("duckdb", "sqlite", "postgres")


def filled(sql: str) -> str:
    """A statement with its {placeholders}, the parts that depend on a query, put in."""
    join = (
        "JOIN dl_skip_1 s ON s.version = coalesce(a.indexed_version, a.version) "
        "AND s.action_order = coalesce(a.indexed_action_order, a.action_order)"
    )
    return (
        sql.replace("{skip_join}", join)
        .replace("{condition}", "s.num_records > 0")
        .replace("{keys}", "SELECT version, action_order FROM dl_add_files")
        .replace("{kept}", "FALSE")
        .replace("{index}", ", s.num_records AS n")
        .replace("{source_id}", "1")
        .replace("{table_id}", "1")
        .replace("{table}", "dl_add_files")
        .replace("{among}", "version = 1 AND action_order IN (3, 4)")
    )


@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize("name", CORE)
def test_every_statement_parses_in_every_dialect(name: str, database: str) -> None:
    sql = statements.load(database)[name]
    trees = sqlglot.parse(statements.bind(filled(sql), ":%s"), read=database)
    assert len([t for t in trees if t is not None]) == 1
    assert not isinstance(trees[0], sqlglot.exp.Command), "sqlglot did not understand it"


@pytest.mark.parametrize("database", DATABASES)
def test_migrations_parse_in_every_dialect(database: str) -> None:
    for _, script in statements.migrations():
        for statement in statements.split(script):
            assert not isinstance(sqlglot.parse_one(statement, read=database), sqlglot.exp.Command)


@pytest.mark.parametrize("database", DATABASES)
def test_every_override_overrides_something_and_says_why(database: str) -> None:
    for name, sql in statements.read_directory(ROOT / database).items():
        assert sql.startswith("-- "), f"{database}/{name} needs a comment with its reason"
        if name.startswith("function_"):  # what this database lacks
            continue
        assert name in CORE
        assert statements.parameters(sql) == statements.parameters(CORE[name])


@pytest.mark.parametrize("name", CORE)
def test_every_statement_says_what_it_is_for(name: str) -> None:
    assert CORE[name].startswith("-- ")


@pytest.fixture(scope="module")
def lite() -> Iterator[sqlite3.Connection]:
    """A SQLite database with the catalog's tables and views, made by the same text."""
    con = sqlite3.connect(":memory:")
    for _, script in statements.migrations():
        for statement in statements.split(script):
            con.execute(statement)
    con.execute("CREATE TABLE dl_skip_1 (version BIGINT, action_order BIGINT, num_records BIGINT)")
    con.execute("CREATE TABLE dl_staged_removes (version BIGINT, action_order BIGINT, data_change BOOLEAN, remove_order BIGINT)")
    con.execute("CREATE TABLE dl_staged_paths (path TEXT)")
    con.execute("CREATE TABLE dl_staged_files (path TEXT, dv_id TEXT)")
    con.execute("CREATE TABLE dl_staged_ends (version BIGINT, action_order BIGINT, removed_version BIGINT)")
    for name, sql in statements.load("sqlite").items():
        if name.startswith("view_"):
            con.execute(sql)
    yield con
    con.close()


@pytest.mark.parametrize("name", [n for n in CORE if not n.startswith("view_")])
def test_every_statement_runs_on_sqlite(lite: sqlite3.Connection, name: str) -> None:
    sql = filled(statements.load("sqlite")[name])
    lite.execute(f"EXPLAIN {sql}", dict.fromkeys(statements.parameters(sql), 1))


@pytest.mark.parametrize("name", [n.removeprefix("view_") for n in CORE if n.startswith("view_")])
def test_every_view_answers_on_sqlite(lite: sqlite3.Connection, name: str) -> None:
    assert lite.execute(f"SELECT * FROM {name}").fetchall() == []
