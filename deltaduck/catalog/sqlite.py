"""The catalog in a SQLite file: many processes of one machine."""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from deltaduck.catalog.arrow import to_arrow
from deltaduck.catalog.base import DuplicateKeyError, Params, log
from deltaduck.catalog.threads import ThreadedCatalog
from deltaduck.errors import CatalogError

BUSY_SECONDS = 60.0  # how long a writer waits for its turn


class SQLiteCatalog(ThreadedCatalog):
    """`path` is a file, created when absent, or ``:memory:``. One connection per thread."""

    database = "sqlite"

    def __init__(self, path: str) -> None:
        super().__init__()
        self._memory = path == ":memory:"
        self._path = f"file:{uuid.uuid4().hex}?mode=memory&cache=shared" if self._memory else _absolute(path)
        self.name = f"SQLite catalog {path if self._memory else self._path}"
        self.home = None if self._memory else os.path.splitext(self._path)[0]
        if not self._memory and not os.path.isdir(os.path.dirname(self._path)):
            raise CatalogError(f"cannot create {self.name}: its directory does not exist")
        with self._translated():
            self._connection().execute("SELECT count(*) FROM sqlite_master").fetchall()

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(
                self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=self._memory
            )
            if not self._memory:
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            self._keep(connection)
        return connection

    def fetch(self, sql: str, params: Params | None = None) -> list[tuple[Any, ...]]:
        log.debug("%s %s", sql, params)
        with self._translated():
            return self._connection().execute(sql, params or {}).fetchall()

    def fetch_arrow(self, sql: str, params: Params | None = None) -> pa.Table:
        log.debug("%s %s", sql, params)
        with self._translated():
            cursor = self._connection().execute(sql, params or {})
            return to_arrow([c[0] for c in cursor.description], cursor.fetchall())

    def execute(self, sql: str, params: Params | None = None) -> int:
        log.debug("%s %s", sql, params)
        with self._translated():
            return self._connection().execute(sql, params or {}).rowcount

    def ingest(self, table: str, rows: pa.Table) -> None:
        marks = ", ".join("?" * rows.num_columns)
        sql = f"INSERT INTO {table} ({', '.join(rows.column_names)}) VALUES ({marks})"
        with self._translated():
            self._connection().executemany(sql, zip(*rows.to_pydict().values(), strict=True))

    @contextmanager
    def staged(self, name: str, rows: pa.Table) -> Iterator[None]:
        self.execute(f"CREATE TEMP TABLE {name} ({', '.join(rows.column_names)})")
        try:
            self.ingest(name, rows)
            yield
        finally:
            self.execute(f"DROP TABLE {name}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._between("BEGIN IMMEDIATE"):
            yield

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        if self._connection().in_transaction:
            yield
            return
        with self._between("BEGIN"):
            yield

    @contextmanager
    def _between(self, begin: str) -> Iterator[None]:
        self.execute(begin)
        try:
            yield
        except BaseException:
            self._connection().rollback()
            raise
        try:
            self.execute("COMMIT")
        except BaseException:
            self._connection().rollback()
            raise

    def has_table(self, table: str) -> bool:
        return bool(self.fetch("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :table", {"table": table}))

    def is_empty(self) -> bool:
        return not self.fetch("SELECT 1 FROM sqlite_master LIMIT 1")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError as e:
            raise DuplicateKeyError(f"{self.name}: {e}") from e
        except sqlite3.Error as e:
            raise CatalogError(_explain(self.name, e)) from e


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _explain(name: str, error: sqlite3.Error) -> str:
    text = str(error)
    if "locked" in text or "busy" in text:
        return f"{name} was busy for {BUSY_SECONDS:.0f} seconds: another process holds a long transaction; try again"
    if "not a database" in text:
        return f"{name} is not a SQLite database: give another file name"
    if "readonly" in text or "unable to open" in text:
        return f"{name} cannot be opened for writing: {text}; check the file's and its directory's permissions"
    if "full" in text:
        return f"{name}: the disk is full; nothing was committed"
    return f"{name}: {text}"
