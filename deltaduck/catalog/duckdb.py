"""The catalog in a DuckDB file: one writing process, many threads."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from deltaduck import statements
from deltaduck.catalog.arrow import to_arrow
from deltaduck.catalog.base import BATCH_ROWS, Catalog, DuplicateKeyError, Params
from deltaduck.errors import CatalogError

# Every DuckDB since 1.2 reads and writes this format; the newest's own is closed to older clients.
STORAGE_VERSION = "v1.2.0"

RESULTS_ARE_ARROW = int(duckdb.__version__.split(".")[0]) < 2  # without a copy; since then relations are, which are planned twice
FEW_ROWS = 4  # to insert
FEW_ANSWERS = 100


@dataclass
class _Shared:
    """What this process's catalogs on one file have in common. DuckDB lets no other process in, so it is the whole truth."""

    turn: threading.RLock = field(default_factory=threading.RLock)  # to commit
    unmarked: dict[int, int] = field(default_factory=dict)  # what is published, and not marked
    heads: dict[str, tuple[Any, ...] | None] = field(default_factory=dict)  # rows of tables by name, since the last write


_shared: dict[str, _Shared] = {}  # by path
_guard = threading.Lock()


class DuckDBCatalog(Catalog):
    """`path` is a file, created when absent, or ``:memory:``."""

    database = "duckdb"
    slow_to_plan = True
    durable_marks = False  # no other process can look, and a WAL sync per mark would double the cost of a commit

    def __init__(self, path: str) -> None:
        memory = path == ":memory:"
        path = path if memory else os.path.abspath(os.path.expanduser(path))
        self.name = f"DuckDB catalog {path}"
        self.home = None if memory else os.path.splitext(path)[0]
        self._local = threading.local()
        self.definitions, self.scans = {}, {}
        with self._translated():
            if not memory and not os.path.exists(path):
                _create(path)
            self._connection = duckdb.connect(path)
        self._statements = lru_cache(statements.KEPT)(self._connection.extract_statements)  # by text
        # DuckDB lets one process in: threads of it, whatever Lake they use, take turns to commit
        with _guard:
            self._shared = _Shared() if memory else _shared.setdefault(path, _Shared())
        self._shared.heads = {}  # another process may have been here while none of ours was
        self.unmarked = self._shared.unmarked
        self._before = self._shared.heads  # when the transaction under way began,
        self._after: dict[str, tuple[Any, ...] | None] | None = None  # and when it has committed, as far as that is told

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        cursor: duckdb.DuckDBPyConnection | None = getattr(self._local, "cursor", None)
        if cursor is None:
            cursor = self._local.cursor = self._connection.cursor()
        return cursor

    def fetch(self, sql: str, params: Params | None = None) -> list[tuple[Any, ...]]:
        with self._translated():
            return self._run(sql, params).fetchall()

    def fetch_arrow(self, sql: str, params: Params | None = None) -> pa.Table:
        self.trace(sql, params)
        with self._translated():
            if RESULTS_ARE_ARROW:
                return self._run(sql, params).to_arrow_table()
            return self._cursor().sql(self._parsed(sql, params), params=_used(sql, params)).to_arrow_table()

    def fetch_few(self, sql: str, params: Params | None = None) -> pa.Table:
        if RESULTS_ARE_ARROW or _pandas_waits():
            return self.fetch_arrow(sql, params)
        with self._translated():
            cursor = self._run(sql, params)  # which runs as far as it is read
            names, rows = [c[0] for c in cursor.description], cursor.fetchmany(FEW_ANSWERS + 1)
            if len(rows) <= FEW_ANSWERS:
                return to_arrow(names, rows)
            cursor.abort()  # nothing else runs on it before its result has ended
        return self.fetch_arrow(sql, params)  # a relation is planned twice; it has no object per value

    def fetch_batches(self, sql: str, columns: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
        self.trace(sql)
        schema = pa.schema(columns)
        with self._translated():
            for batch in self._cursor().sql(sql).to_arrow_reader(BATCH_ROWS):
                yield pa.Table.from_batches([batch]).cast(schema)

    def execute(self, sql: str, params: Params | None = None) -> int:
        self._shared.heads = {}
        with self._translated():
            rows = self._run(sql, params).fetchall()
        return rows[0][0] if rows and isinstance(rows[0][0], int) else 0

    def _run(self, sql: str, params: Params | None) -> duckdb.DuckDBPyConnection:
        self.trace(sql, params)
        return self._cursor().execute(self._parsed(sql, params), _used(sql, params))

    def _parsed(self, sql: str, params: Params | None = None) -> Any:
        """A statement of which DuckDB need not read the text again: that is a quarter of what a small one takes."""
        (statement,) = self._statements(statements.bind(sql, "$%s") if params else sql)
        return statement

    def ingest(self, table: str, rows: pa.Table) -> None:
        if rows.num_rows <= FEW_ROWS:  # an Arrow scan costs more to set up than a few rows do to bind
            values = [value for row in zip(*rows.to_pydict().values(), strict=True) for value in row]
            width = rows.num_columns
            tuples = ", ".join(f"({', '.join(f'${r * width + c + 1}' for c in range(width))})" for r in range(rows.num_rows))
            sql = f"INSERT INTO {table} ({', '.join(rows.column_names)}) VALUES {tuples}"
            self.trace(sql)
            with self._translated():
                self._cursor().execute(self._parsed(sql), values)
            return
        with self.staged("dl_ingested_rows", rows):
            self.execute(f"INSERT INTO {table} BY NAME SELECT * FROM dl_ingested_rows")

    @contextmanager
    def staged(self, name: str, rows: pa.Table) -> Iterator[None]:
        cursor = self._cursor()
        cursor.register(name, rows)
        try:
            yield
        finally:
            cursor.unregister(name)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._shared.turn:
            self._before, self._after = self._shared.heads, None
            try:
                with self.snapshot():
                    yield
            except BaseException:
                self._after = None
                raise
            finally:  # a new dictionary: what was read before the end of this transaction goes into the old one
                self._shared.heads = self._after or {}

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        self.fetch("BEGIN")
        self._local.inside = True
        try:
            yield
        except BaseException:
            self.fetch("ROLLBACK")
            raise
        else:
            self.fetch("COMMIT")
        finally:
            self._local.inside = False

    def head(self, name: str) -> tuple[Any, ...] | None:
        if getattr(self._local, "inside", False):  # a transaction sees the catalog as it was when it began
            return super().head(name)
        heads, key = self._shared.heads, name.lower()
        if key not in heads:
            heads[key] = super().head(name)
        return heads[key]

    def moved(self, name: str, version: int, commit_ms: int, row: tuple[Any, ...] | None = None) -> None:
        if (row := row or self._before.get(name.lower())) is None:
            self._told().pop(name.lower(), None)
        else:
            self._told()[name.lower()] = (*row[:3], version, version, *row[5:-1], commit_ms)

    def gone(self, name: str) -> None:
        self._told()[name.lower()] = None

    def _told(self) -> dict[str, tuple[Any, ...] | None]:
        if self._after is None:
            self._after = dict(self._before)
        return self._after

    def has_table(self, table: str) -> bool:
        try:  # asking the list of all tables takes ten times as long
            self._cursor().execute(f"SELECT 1 FROM {table} LIMIT 0").fetchall()
        except duckdb.CatalogException:
            return False
        return True

    def is_empty(self) -> bool:
        return not self.fetch("SELECT 1 FROM duckdb_tables() WHERE NOT internal AND NOT temporary LIMIT 1")

    def engine(self) -> duckdb.DuckDBPyConnection:
        with self._translated():
            return self._connection.cursor()

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except duckdb.ConstraintException as e:
            raise DuplicateKeyError(f"{self.name}: {str(e).splitlines()[0]}") from e
        except duckdb.Error as e:
            raise CatalogError(_explain(self.name, e)) from e


def _pandas_waits() -> bool:
    """Would Arrow import pandas to look at Python's values? That takes longer than to open a lake and plan a query."""
    return "pandas" not in sys.modules and _has_pandas()


@cache
def _has_pandas() -> bool:
    return importlib.util.find_spec("pandas") is not None


def _used(sql: str, params: Params | None) -> dict[str, Any]:
    """DuckDB refuses parameters that the statement does not name."""
    names = statements.parameters(sql)
    return {k: v for k, v in (params or {}).items() if k in names}


def _create(path: str) -> None:
    if not os.path.isdir(os.path.dirname(path)):
        raise CatalogError(f"cannot create DuckDB catalog {path}: its directory does not exist")
    with duckdb.connect() as scratch:
        name = str(Path(path)).replace("'", "''")
        scratch.execute(f"ATTACH '{name}' AS created (STORAGE_VERSION '{STORAGE_VERSION}')")
        scratch.execute("DETACH created")


def _explain(name: str, error: duckdb.Error) -> str:
    text = str(error)
    first = text.splitlines()[0] if text else type(error).__name__
    if "Could not set lock" in text or "Conflicting lock" in text:
        return (
            f"{name} is in use by another process, and DuckDB lets one in at a time: close it there, or keep the catalog "
            "in SQLite (lake.sqlite: many processes on one machine) or PostgreSQL (postgresql://...: many machines)"
        )
    if "not a valid DuckDB database file" in text:
        return f"{name} is not a DuckDB database: give another file name"
    if "is not a directory" in text or "Permission denied" in text or "read-only" in text.lower():
        return f"{name} cannot be opened for writing: {first}"
    return f"{name}: {first}"
