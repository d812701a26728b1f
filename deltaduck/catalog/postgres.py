"""The catalog in PostgreSQL: many machines."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import csv

from deltaduck import statements
from deltaduck.catalog.arrow import to_arrow
from deltaduck.catalog.base import BATCH_ROWS, ConnectionLostError, DuplicateKeyError, Params, log, tries
from deltaduck.catalog.pool import POOL_SIZE, PooledCatalog
from deltaduck.errors import CatalogError, MissingDependencyError

try:
    import psycopg
    from psycopg import sql as composed
except ImportError:  # an extra
    psycopg = None  # type: ignore[assignment]

T = TypeVar("T")

# What a server says that is there and will not have us: trying again is in vain. Anything else that breaks a connection may pass.
REFUSALS = ("authentication", "does not exist", "pg_hba.conf", "not permitted", "no password", "ssl", "certificate")

_ARROW_TYPES = {16: pa.bool_(), 20: pa.int64(), 23: pa.int64(), 25: pa.string(), 1700: pa.int64()}  # by OID; NUMERIC are sums

# Signs that are in no JSON, so that hardly a value needs quotes: a third of the time.
_CSV = "FORMAT csv, HEADER, DELIMITER E'\\x02', QUOTE E'\\x01'"
_PARSED = csv.ParseOptions(delimiter="\x02", quote_char="\x01", newlines_in_values=True)

GONE = ("08", "57P0")  # SQLSTATEs: the connection broke, the server shuts down or is starting


class PostgresCatalog(PooledCatalog):
    """`conninfo` is a libpq connection string or URL; `schema` is where the catalog's tables are.

    options: what libpq knows (sslmode, connect_timeout, application_name, ...), and pool_size, the most connections at a time.
    """

    database = "postgres"
    index_types = {"TEXT": 'TEXT COLLATE "C"'}  # statistics compare bytes, not words of a language  # noqa: RUF012

    def __init__(self, conninfo: str, schema: str = "public", **options: Any) -> None:
        if psycopg is None:
            raise MissingDependencyError("a PostgreSQL catalog needs psycopg: pip install 'deltaduck[postgres]'")
        super().__init__(int(options.pop("pool_size", POOL_SIZE)))
        try:
            known = psycopg.conninfo.conninfo_to_dict(psycopg.conninfo.make_conninfo(conninfo, **options))
        except psycopg.ProgrammingError:
            raise CatalogError("the PostgreSQL connection string cannot be understood") from None
        self._options: dict[str, Any] = {"connect_timeout": 10, **known, "client_encoding": "utf8"}
        self.patience = float(self._options["connect_timeout"])
        self._schema = schema
        self.name = f"PostgreSQL catalog {known.get('dbname', '')}/{schema} on {known.get('host', 'localhost')}"
        with self._lent():  # now, and not at the first query, it turns out whether anybody is there
            pass

    # --- connections

    def _connect(self) -> Any:
        with self._translated(None):
            connection = psycopg.connect(**self._options, autocommit=True)
            connection.execute(composed.SQL("SET search_path TO {}").format(composed.Identifier(self._schema)))
            connection.execute("SET jit TO off")  # it compiles for longer than any of our queries runs
            return connection

    def _is_usable(self, connection: Any) -> bool:
        return bool(connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE)

    def _ask(self, run: Callable[[Any], T]) -> T:
        """Answer of a connection. A question that stands alone, and so has changed nothing, is asked again when it is lost."""
        if self._kept() is not None:
            return self._once(run)
        return self._patiently(lambda: self._once(run))

    def _patiently(self, run: Callable[[], T]) -> T:
        for last in tries(self.patience):
            try:
                return run()
            except ConnectionLostError as e:
                if last:
                    raise
                log.warning("%s; trying again", e)
        raise AssertionError  # the last try has returned or raised

    def _once(self, run: Callable[[Any], T]) -> T:
        with self._lent() as connection, self._translated(connection):
            return run(connection)

    # --- statements

    def fetch(self, sql: str, params: Params | None = None) -> list[tuple[Any, ...]]:
        self.trace(sql, params)
        return self._ask(lambda connection: _run(connection, sql, params).fetchall())

    def fetch_arrow(self, sql: str, params: Params | None = None) -> pa.Table:
        """There may be a row per file: the server writes CSV and Arrow reads it, with no object per value on the way."""

        def run(connection: Any) -> pa.Table:
            described = _run(connection, f"SELECT * FROM ({sql}) q LIMIT 0", params).description
            buffer = io.BytesIO()
            with connection.cursor().copy(*_bound(f"COPY ({sql}) TO STDOUT ({_CSV})", params)) as copy:
                buffer.writelines(copy)
            buffer.seek(0)
            types = {c.name: _ARROW_TYPES[c.type_code] for c in described if c.type_code in _ARROW_TYPES}
            convert = csv.ConvertOptions(
                column_types=types, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False,
                true_values=["t"], false_values=["f"],
            )  # fmt: skip
            return csv.read_csv(buffer, parse_options=_PARSED, convert_options=convert)

        self.trace(sql, params)
        return self._ask(run)

    def fetch_batches(self, sql: str, columns: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
        self.trace(sql)
        connection = self._kept()
        with self._translated(connection), connection.cursor("dl_batches") as cursor:
            cursor.execute(sql)
            while rows := cursor.fetchmany(BATCH_ROWS):
                yield to_arrow(list(columns), rows, columns)

    def execute(self, sql: str, params: Params | None = None) -> int:
        self.trace(sql, params)
        return self._once(lambda connection: int(_run(connection, sql, params).rowcount))

    def ingest(self, table: str, rows: pa.Table) -> None:
        buffer = io.BytesIO()
        copy_in = f"COPY {table} ({', '.join(rows.column_names)}) FROM STDIN (FORMAT csv)"
        self.trace(copy_in)
        # Arrow writes kilobytes of zeros for a chunk without rows
        csv.write_csv(rows.combine_chunks(), buffer, csv.WriteOptions(include_header=False))

        def run(connection: Any) -> None:
            with connection.cursor() as cursor:
                with cursor.copy(copy_in) as copy:
                    copy.write(buffer.getbuffer())

        self._once(run)

    @contextmanager
    def staged(self, name: str, rows: pa.Table) -> Iterator[None]:
        known = {"int64": "BIGINT", "string": "TEXT", "bool": "BOOLEAN"}
        columns = ", ".join(f"{f.name} {known[str(f.type)]}" for f in rows.schema)
        self.execute(f"CREATE TEMP TABLE {name} ({columns}) ON COMMIT DROP")
        self.ingest(name, rows)
        yield
        self.execute(f"DROP TABLE {name}")

    # --- transactions

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._between("BEGIN"):
            yield

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        if self._kept() is not None:
            yield
            return
        with self._between("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"):
            yield

    @contextmanager
    def _between(self, begin: str) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            connection = self._begin(stack, begin)
            try:
                yield
            except BaseException:
                with contextlib.suppress(psycopg.Error):  # a connection that is lost has rolled back
                    connection.execute("ROLLBACK")
                raise
            self.execute("COMMIT")

    def _begin(self, stack: contextlib.ExitStack, begin: str) -> Any:
        """A connection in a transaction, kept until the stack closes. Where the server was away, it is waited for."""

        def try_it() -> Any:
            with contextlib.ExitStack() as mine:
                connection = mine.enter_context(self._keeping())
                self.execute(begin)
                stack.push(mine.pop_all())
                return connection

        return self._patiently(try_it)

    # --- what is there

    def has_table(self, table: str) -> bool:
        query = "SELECT 1 FROM pg_tables WHERE schemaname = :schema AND tablename = :table"
        return bool(self.fetch(query, {"schema": self._schema, "table": table}))

    def is_empty(self) -> bool:
        return not self.fetch("SELECT 1 FROM pg_tables WHERE schemaname = :schema LIMIT 1", {"schema": self._schema})

    def create_tables(self) -> None:
        if not self.fetch("SELECT 1 FROM pg_namespace WHERE nspname = :schema", {"schema": self._schema}):
            with self._lent() as connection, self._translated(connection):
                connection.execute(composed.SQL("CREATE SCHEMA {}").format(composed.Identifier(self._schema)))
        super().create_tables()

    # --- errors

    @contextmanager
    def _translated(self, connection: Any) -> Iterator[None]:
        """Errors of a connection, or of an attempt to have one (None), as ours."""
        try:
            yield
        except psycopg.errors.UniqueViolation as e:
            raise DuplicateKeyError(f"{self.name}: {_first(e)}") from e
        except psycopg.errors.InsufficientPrivilege as e:
            raise CatalogError(f"{self.name}: {_first(e)}; this role may not do that: nothing was committed") from e
        except psycopg.errors.ReadOnlySqlTransaction as e:
            raise CatalogError(f"{self.name} is read-only, a standby perhaps: nothing was committed") from e
        except psycopg.errors.DiskFull as e:
            raise CatalogError(f"{self.name}: the server's disk is full; nothing was committed") from e
        except psycopg.OperationalError as e:
            if connection is None and _is_refusal(e):
                raise CatalogError(f"{self.name} refuses the connection: {_reason(e)}; check database, user and password") from e
            if connection is None:
                raise ConnectionLostError(f"{self.name} cannot be reached: {_reason(e)}; check host and port") from e
            if connection.closed or (e.sqlstate or "").startswith(GONE):
                self._forget_idle()  # they will have broken with this one
                raise ConnectionLostError(f"{self.name} closed the connection: {_first(e)}") from e
            raise CatalogError(f"{self.name}: {_first(e)}") from e
        except psycopg.Error as e:
            raise CatalogError(f"{self.name}: {_first(e)}") from e


def _run(connection: Any, sql: str, params: Params | None) -> Any:
    return connection.execute(*_bound(sql, params))


def _bound(sql: str, params: Params | None) -> tuple[Any, ...]:
    return (statements.bind(sql.replace("%", "%%"), "%%(%s)s"), params) if params else (sql,)


def _is_refusal(error: Exception) -> bool:
    return any(word in str(error).lower() for word in REFUSALS)


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _reason(error: Exception) -> str:
    """What the server, or the way to it, said: libpq puts where it tried before that, and lists every address."""
    lines = [line.strip() for line in str(error).splitlines() if "failed: " in line] or [_first(error)]
    return lines[-1].rpartition("failed: ")[2].removeprefix("FATAL:").strip()
