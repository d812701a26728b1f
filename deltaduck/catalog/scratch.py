"""A few rows of a DuckDB catalog in a SQLite in memory: what DuckDB takes milliseconds to plan, it answers in microseconds."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from deltaduck import statements
from deltaduck.catalog.base import Params

_turn = threading.Lock()
_ESCAPES = {c: f"\\u{c:04X}" for c in range(32)} | {ord(c): f"\\{e}" for c, e in zip('\b\f\n\r\t"\\', 'bfnrt"\\', strict=True)}


def query(rows: Iterable[tuple[str, Params | Sequence[Any]]], sql: str) -> list[tuple[Any, ...]]:
    """What `sql` answers where the log has but these rows: portable INSERT statements with their parameters."""
    with _turn:
        connection = _open()
        connection.execute("BEGIN")
        try:
            for insert, params in rows:
                connection.execute(insert, params)
            return connection.execute(sql).fetchall()
        finally:
            connection.execute("ROLLBACK")


@cache
def _open() -> sqlite3.Connection:
    """The tables of a catalog, empty."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.create_function("json_quote", 1, _json_quote, deterministic=True)
    for _, script in statements.migrations():
        for statement in statements.split(script):
            connection.execute(statement)
    return connection


def _json_quote(text: str | None) -> str | None:
    """DuckDB's: SQLite's writes hexadecimal digits small."""
    return None if text is None else f'"{text.translate(_ESCAPES)}"'
