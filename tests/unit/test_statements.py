"""The named SQL: found, bound, split."""

from __future__ import annotations

from pathlib import Path

import pytest

from deltaduck import statements


def test_a_directory_is_read_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_text("-- the file\n-- name: one\n-- What it does.\nSELECT 1;\n\n-- name: two\nSELECT 2\n")
    (tmp_path / "b.sql").write_text("-- name: three\nSELECT ';';\n")
    found = statements.read_directory(tmp_path)
    assert list(found) == ["one", "two", "three"]
    assert found["one"] == "-- What it does.\nSELECT 1"
    assert found["three"] == "SELECT ';'"


def test_a_name_stands_once(tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_text("-- name: one\nSELECT 1;\n-- name: one\nSELECT 2;\n")
    with pytest.raises(ValueError, match="'one' stands twice"):
        statements.read_directory(tmp_path)


def test_a_database_without_overrides_has_the_core(tmp_path: Path) -> None:
    assert statements.load("no such database") == statements.read_directory(statements.ROOT / "core")


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        ("$%s", "SELECT $a, $a, x::BIGINT, ':b', 'it''s :c' FROM t -- :d\nWHERE e = $e_2"),
        (":%s", "SELECT :a, :a, x::BIGINT, ':b', 'it''s :c' FROM t -- :d\nWHERE e = :e_2"),
        ("%%(%s)s", "SELECT %(a)s, %(a)s, x::BIGINT, ':b', 'it''s :c' FROM t -- :d\nWHERE e = %(e_2)s"),
    ],
)
def test_parameters_are_written_as_the_driver_wants_them(marker: str, expected: str) -> None:
    sql = "SELECT :a, :a, x::BIGINT, ':b', 'it''s :c' FROM t -- :d\nWHERE e = :e_2"
    assert statements.bind(sql, marker) == expected
    assert statements.parameters(sql) == {"a", "e_2"}


def test_a_script_is_split_into_statements() -> None:
    script = "-- a; comment\nCREATE TABLE a (x BIGINT); -- another; one\n\nCREATE TABLE b (\n  y TEXT -- why\n);\n"
    assert statements.split(script) == ["CREATE TABLE a (x BIGINT)", "CREATE TABLE b (\n  y TEXT\n)"]


def test_migrations_are_numbered_from_one_without_gaps() -> None:
    assert [version for version, _ in statements.migrations()] == list(range(1, len(statements.migrations()) + 1))
