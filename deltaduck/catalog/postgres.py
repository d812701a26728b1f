"""The catalog in PostgreSQL: many machines."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from pyarrow import csv

from deltaduck import statements
from deltaduck.catalog.arrow import to_arrow
from deltaduck.catalog.base import DuplicateKeyError, Params, log
from deltaduck.catalog.threads import ThreadedCatalog
from deltaduck.errors import CatalogError, MissingDependencyError

try:
    import psycopg
    from psycopg import sql as composed
except ImportError:  # an extra
    psycopg = None  # type: ignore[assignment]


class PostgresCatalog(ThreadedCatalog):
    """`conninfo` is a libpq connection string or URL; `schema` is where the catalog's tables are. One connection per thread."""

    database = "postgres"
    index_types = {"TEXT": 'TEXT COLLATE "C"'}  # statistics compare bytes, not words of a language  # noqa: RUF012

    def __init__(self, conninfo: str, schema: str = "public", **options: Any) -> None:
        super().__init__()
        if psycopg is None:
            raise MissingDependencyError("a PostgreSQL catalog needs psycopg: pip install 'deltaduck[postgres]'")
        try:
            known = psycopg.conninfo.conninfo_to_dict(conninfo, **options)
        except psycopg.ProgrammingError:
            raise CatalogError("the PostgreSQL connection string cannot be understood") from None
        self._options: dict[str, Any] = {"connect_timeout": 10, **known}
        self._schema = schema
        self.name = f"PostgreSQL catalog {known.get('dbname', '')}/{schema} on {known.get('host', 'localhost')}"
        self._connection()

    def _connection(self) -> Any:
        connection = getattr(self._local, "connection", None)
        if connection is None or connection.closed:
            with self._translated():
                connection = psycopg.connect(**self._options, autocommit=True)
                name = composed.Identifier(self._schema)
                if not connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [self._schema]).fetchall():
                    connection.execute(composed.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name))
                connection.execute(composed.SQL("SET search_path TO {}").format(name))
            self._keep(connection)
        return connection

    def _run(self, sql: str, params: Params | None) -> Any:
        log.debug("%s %s", sql, params)
        connection = self._connection()
        with self._translated():
            if params:
                return connection.execute(statements.bind(sql.replace("%", "%%"), "%%(%s)s"), params)
            return connection.execute(sql)

    def fetch(self, sql: str, params: Params | None = None) -> list[tuple[Any, ...]]:
        cursor = self._run(sql, params)
        with self._translated():
            return cursor.fetchall()  # type: ignore[no-any-return]

    def fetch_arrow(self, sql: str, params: Params | None = None) -> pa.Table:
        cursor = self._run(sql, params)
        with self._translated():
            return to_arrow([c.name for c in cursor.description], cursor.fetchall())

    def execute(self, sql: str, params: Params | None = None) -> int:
        return int(self._run(sql, params).rowcount)

    def ingest(self, table: str, rows: pa.Table) -> None:
        buffer = io.BytesIO()
        csv.write_csv(rows, buffer, csv.WriteOptions(include_header=False))
        connection = self._connection()
        with self._translated(), connection.cursor() as cursor:
            with cursor.copy(f"COPY {table} ({', '.join(rows.column_names)}) FROM STDIN (FORMAT csv)") as copy:
                copy.write(buffer.getbuffer())

    @contextmanager
    def staged(self, name: str, rows: pa.Table) -> Iterator[None]:
        known = {"int64": "BIGINT", "string": "TEXT", "bool": "BOOLEAN"}
        columns = ", ".join(f"{f.name} {known[str(f.type)]}" for f in rows.schema)
        self.execute(f"CREATE TEMP TABLE {name} ({columns}) ON COMMIT DROP")
        self.ingest(name, rows)
        yield
        self.execute(f"DROP TABLE {name}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._between("BEGIN"):
            yield

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        if self._connection().info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            yield
            return
        with self._between("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"):
            yield

    @contextmanager
    def _between(self, begin: str) -> Iterator[None]:
        self.execute(begin)
        try:
            yield
        except BaseException:
            connection = self._connection()
            if not connection.closed:
                connection.execute("ROLLBACK")
            raise
        self.execute("COMMIT")

    def has_table(self, table: str) -> bool:
        query = "SELECT 1 FROM pg_tables WHERE schemaname = :schema AND tablename = :table"
        return bool(self.fetch(query, {"schema": self._schema, "table": table}))

    def is_empty(self) -> bool:
        return not self.fetch("SELECT 1 FROM pg_tables WHERE schemaname = :schema LIMIT 1", {"schema": self._schema})

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.errors.UniqueViolation as e:
            raise DuplicateKeyError(f"{self.name}: {_first(e)}") from e
        except psycopg.OperationalError as e:
            raise CatalogError(f"{self.name} cannot be reached: {_first(e)}; check host, port, user and password") from e
        except psycopg.Error as e:
            raise CatalogError(f"{self.name}: {_first(e)}") from e


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
