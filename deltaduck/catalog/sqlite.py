"""The catalog in a SQLite file: many processes of one machine."""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import pyarrow as pa

from deltaduck.catalog.arrow import to_arrow
from deltaduck.catalog.base import BATCH_ROWS, DuplicateKeyError, Params, tries
from deltaduck.catalog.pool import POOL_SIZE, PooledCatalog
from deltaduck.errors import CatalogError

BUSY_SECONDS = 60.0  # how long a writer waits for its turn


class SQLiteCatalog(PooledCatalog):
    """`path` is a file, created when absent, or ``:memory:``."""

    database = "sqlite"

    def __init__(self, path: str) -> None:
        super().__init__(POOL_SIZE)
        self._memory = path == ":memory:"
        self._path = f"file:{uuid.uuid4().hex}?mode=memory&cache=shared" if self._memory else _absolute(path)
        self.name = f"SQLite catalog {path if self._memory else self._path}"
        self.home = None if self._memory else os.path.splitext(self._path)[0]
        if not self._memory and not os.path.isdir(os.path.dirname(self._path)):
            raise CatalogError(f"cannot create {self.name}: its directory does not exist")
        self.fetch("SELECT count(*) FROM sqlite_master")

    def _connect(self) -> sqlite3.Connection:
        with self._translated():
            connection = sqlite3.connect(
                self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=self._memory
            )
            try:
                if not self._memory:
                    _use_wal(connection)
                connection.execute("PRAGMA synchronous = FULL")
            except BaseException:
                connection.close()
                raise
            return connection

    def _is_usable(self, connection: sqlite3.Connection) -> bool:
        return not connection.in_transaction

    @contextmanager
    def _cursor(self, sql: str, params: Params | None = None) -> Iterator[sqlite3.Cursor]:
        self.trace(sql, params)
        with self._lent() as connection, self._translated(), closing(connection.cursor()) as cursor:
            yield cursor.execute(sql, params or {})

    def fetch(self, sql: str, params: Params | None = None) -> list[tuple[Any, ...]]:
        with self._cursor(sql, params) as cursor:
            return cursor.fetchall()

    def fetch_arrow(self, sql: str, params: Params | None = None) -> pa.Table:
        with self._cursor(sql, params) as cursor:
            return to_arrow([c[0] for c in cursor.description], cursor.fetchall())

    def fetch_batches(self, sql: str, columns: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
        with self._cursor(sql) as cursor:
            while rows := cursor.fetchmany(BATCH_ROWS):
                yield to_arrow(list(columns), rows, columns)

    def execute(self, sql: str, params: Params | None = None) -> int:
        with self._cursor(sql, params) as cursor:
            return cursor.rowcount

    def ingest(self, table: str, rows: pa.Table) -> None:
        marks = ", ".join("?" * rows.num_columns)
        sql = f"INSERT INTO {table} ({', '.join(rows.column_names)}) VALUES ({marks})"
        self.trace(sql)
        with self._lent() as connection, self._translated():
            connection.executemany(sql, zip(*rows.to_pydict().values(), strict=True))

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
        if self._kept() is not None:
            yield
            return
        with self._between("BEGIN"):
            yield

    @contextmanager
    def _between(self, begin: str) -> Iterator[None]:
        with self._keeping() as connection:
            self.execute(begin)
            try:
                yield
                self.execute("COMMIT")
            except BaseException:
                connection.rollback()
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


def _use_wal(connection: sqlite3.Connection) -> None:
    """Readers and a writer side by side. Whoever opens a file first changes its mode, and SQLite lets no other wait for that."""
    for last in tries(BUSY_SECONDS):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as e:
            if last or "locked" not in str(e):
                raise


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
