"""What every catalog does alike: named statements, migrations, transactions. Adapters add a driver."""

from __future__ import annotations

import logging
import random
import sys
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import pyarrow as pa

from deltaduck import statements
from deltaduck.errors import CatalogError
from deltaduck.storage import Access

Params = Mapping[str, Any]
log = logging.getLogger("deltaduck.catalog")
statement_log = logging.getLogger("deltaduck.sql")

TOLD = {
    "name_key",
    "table_name",
    "commit_id",
    "operation",
    "status",
    "table",
    "schema",
}  # texts that a trace shows: none is secret


BATCH_ROWS = 20_000  # of a stream of rows
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0  # seconds between two tries


class DuplicateKeyError(CatalogError):
    """A key is taken: somebody else was faster. Translated before it reaches a user."""


class ConnectionLostError(CatalogError):
    """The server is gone, or not yet there again. What had not been sent to commit did not happen; trying again may succeed."""


class Catalog(ABC):
    """One open catalog database. Used from many threads; a transaction belongs to one thread."""

    database: str  # directory of overrides in sql/
    name: str  # for messages, without secrets
    access: Access = Access()  # to the stores where its tables lie
    home: str | None = None  # directory beside which data files go by default
    unmarked: dict[int, int]  # table_id -> newest version published that the catalog has not been told of
    definitions: dict[Any, Any]  # what of the catalog never changes, kept by whoever read it
    scans: dict[Any, str]  # SQL that reads a version's files, likewise
    index_types: Mapping[str, str] = {}  # how the skip index's column types are spelt, where not as in the portable text
    slow_to_plan = False  # reading a row back costs more than keeping it
    patience = 0.0  # seconds to wait for a server that went away
    durable_marks = True  # record a publication at once, rather than every few commits
    is_traced = False  # are statements printed?

    # --- the driver's part

    @abstractmethod
    def fetch(self, sql: str, params: Params | None = None) -> list[tuple[Any, ...]]:
        """Rows of a query with ``:name`` parameters."""

    @abstractmethod
    def fetch_arrow(self, sql: str, params: Params | None = None) -> pa.Table:
        """The same, as Arrow."""

    def fetch_few(self, sql: str, params: Params | None = None) -> pa.Table:
        """The same of an answer that has few rows, most of the time."""
        return self.fetch_arrow(sql, params)

    @abstractmethod
    def fetch_batches(self, sql: str, columns: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
        """The same in parts, inside of a transaction, with the types that are asked for: memory is bounded."""

    @abstractmethod
    def execute(self, sql: str, params: Params | None = None) -> int:
        """Run a statement that answers nothing; how many rows an UPDATE, INSERT or DELETE changed."""

    @abstractmethod
    def ingest(self, table: str, rows: pa.Table) -> None:
        """Append Arrow rows to a table, columns matched by name."""

    @abstractmethod
    def staged(self, name: str, rows: pa.Table) -> AbstractContextManager[None]:
        """Show Arrow rows to SQL as a table of that name, for a while, inside a transaction."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """A write transaction of this thread: commits at the end, rolls back on an exception."""

    @abstractmethod
    def snapshot(self) -> AbstractContextManager[None]:
        """A read transaction of this thread: every query in it sees one point of the catalog."""

    @abstractmethod
    def has_table(self, table: str) -> bool:
        """Is there a table of that name?"""

    @abstractmethod
    def is_empty(self) -> bool:
        """Does the database hold no table at all?"""

    @abstractmethod
    def engine(self) -> Any:
        """A new DuckDB connection for reading and writing data files."""

    @abstractmethod
    def close(self) -> None: ...

    # --- the common part

    def sql(self, statement: str) -> str:
        return statements.load(self.database)[statement]

    def rows(self, statement: str, **params: Any) -> list[tuple[Any, ...]]:
        """Rows of a named statement."""
        return self.fetch(self.sql(statement), params)

    def trace(self, sql: str, params: Params | None = None) -> None:
        """Tell whoever asked for it of a statement that is about to run. Texts, which may be anything, are not told."""
        if self.is_traced:
            sys.stderr.write(f"[{self.database}] {shown(sql, params)}\n")
        elif statement_log.isEnabledFor(logging.DEBUG):
            statement_log.debug("%s", shown(sql, params))

    def head(self, name: str) -> tuple[Any, ...] | None:
        """The row of a live table by name (the statement ``head``); None when there is none."""
        rows = self.rows("head", name_key=name.lower())
        return rows[0] if rows else None

    def moved(self, name: str, version: int, commit_ms: int, row: tuple[Any, ...] | None = None) -> None:  # noqa: B027
        """The transaction under way moves a table there. Its row is as it was but for that, or as told.

        For adapters that keep rows: a transaction that tells of one table tells of all that it changes."""

    def gone(self, name: str) -> None:  # noqa: B027
        """The transaction under way leaves no table of that name."""

    def arrow(self, statement: str, **params: Any) -> pa.Table:
        """Arrow table of a named statement."""
        return self.fetch_arrow(self.sql(statement), params)

    def run(self, statement: str, **params: Any) -> None:
        """Run a named statement."""
        self.execute(self.sql(statement), params)

    def open(self, storage: str | None) -> str:
        """Create or migrate the schema where needed; the lake's storage root."""
        newest = max(version for version, _ in statements.migrations())
        if not (rows := self.lake_row()):
            with self.transaction():
                self.run("lock_catalog")  # one of those who find it new makes it
                self.create_tables()
                if not self.rows("read_lake"):
                    if storage is None:
                        raise CatalogError(f"{self.name} is new: say where data files go with storage=...")
                    lake_id = str(uuid.uuid4())
                    self.run("insert_lake", lake_id=lake_id, schema_version=newest, storage=storage, now_ms=now_ms())
            rows = self.lake_row()
        ((found, root),) = rows
        if found > newest:
            raise CatalogError(
                f"{self.name} was written by a newer deltaduck (catalog schema {found}; known here: {newest}): upgrade"
            )
        if found < newest:
            with self.transaction():
                self.run("lock_catalog")
                if self.lake_row() == rows:
                    self._migrate(found)
                    self.run("set_schema_version", schema_version=newest)
        return str(root)

    def lake_row(self) -> list[tuple[Any, ...]]:
        """(schema version, storage) of the lake; nothing where there is none yet."""
        return self.rows("read_lake") if self.has_table("dl_lake") else []

    def create_tables(self) -> None:
        """Tables and views of a new catalog, inside a transaction; an administrator may have made them.

        CatalogError in a database that holds something else.
        """
        if self.is_empty():
            self._migrate(0)
        elif not self.has_table("dl_lake"):
            raise CatalogError(
                f"{self.name} holds other tables and is no deltaduck catalog: give a new file or an empty database"
            )
        elif not self.rows("read_lake") and self.rows("table_versions"):
            raise CatalogError(f"{self.name} has tables in dl_tables and no row in dl_lake: it is damaged")

    def _migrate(self, found: int) -> None:
        for version, script in statements.migrations():
            if version > found:
                log.info("migrating %s to catalog schema %s", self.name, version)
                for statement in statements.split(script):
                    self.execute(statement)
        for sql in statements.indexes(self.database):
            self.execute(sql)
        self.create_views()

    def create_views(self) -> None:
        """(Re)create the shipped views; they are derived from the tables."""
        for sql in statements.functions(self.database):
            self.execute(sql)
        for name, sql in statements.views(self.database).items():
            self.execute(f"DROP VIEW IF EXISTS {name}")
            self.execute(sql)


def shown(sql: str, params: Params | None) -> str:
    """A statement in one line, without its comments, and its numbers and names."""
    lines = (line.split(" -- ")[0].strip() for line in sql.splitlines() if not line.lstrip().startswith("--"))
    text = " ".join(line for line in lines if line)
    named = ", ".join(f"{k}={_shown(k, v)}" for k, v in (params or {}).items() if k in statements.parameters(sql))
    line = f"{text} [{named}]" if named else text
    return line if line.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def _shown(name: str, value: Any) -> str:
    if isinstance(value, str) and name not in TOLD:
        return f"<{len(value)} characters>"
    return repr(value)


def now_ms() -> int:
    """Milliseconds since the epoch, by this machine's clock."""
    return time.time_ns() // 1_000_000


def tries(patience: float) -> Iterator[bool]:
    """Once, and again after longer and longer pauses, until so many seconds have passed; is it the last time?"""
    pause, until = FIRST_PAUSE, time.monotonic() + patience
    while time.monotonic() < until:
        yield False
        time.sleep(pause * random.uniform(0.5, 1))  # not all at once
        pause = min(2 * pause, LONGEST_PAUSE)
    yield True
