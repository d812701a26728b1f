"""A few rows of the log in a SQLite in memory: what DuckDB takes milliseconds to plan, it answers in microseconds."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable
from functools import cache
from typing import Any

from deltaduck import statements
from deltaduck.catalog.base import Params

_turn = threading.Lock()


def query(rows: Iterable[tuple[str, Params]], sql: str) -> list[tuple[Any, ...]]:
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
    for _, script in statements.migrations():
        for statement in statements.split(script):
            connection.execute(statement)
    return connection
