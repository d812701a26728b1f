"""A lake: a catalog, the storage below it, and a DuckDB to run queries."""

from __future__ import annotations

import atexit
import contextlib
import datetime as dt
import html
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType, TracebackType
from typing import Any

import duckdb
import pyarrow as pa
from sqlglot import exp
from sqlglot.errors import SqlglotError

from deltaduck import change_feed, frames, importer, parquet, storage, telemetry, uris
from deltaduck import commit as commits
from deltaduck import predicate as predicates
from deltaduck import snapshot as snapshots
from deltaduck.catalog import Catalog
from deltaduck.catalog.base import ConnectionLostError, tries
from deltaduck.catalog.opening import open_catalog
from deltaduck.changes import Change
from deltaduck.commit import Committed
from deltaduck.errors import CatalogError, CommitConflictError, QueryError, TableNotFoundError, UnsupportedFeatureError
from deltaduck.frames import Source
from deltaduck.frontends import ddl, dml, functions, references, sql, words
from deltaduck.frontends.parameters import bound
from deltaduck.importer import replay
from deltaduck.listing import Listing, utc
from deltaduck.mirror import Mirror
from deltaduck.operations import convert, fsck
from deltaduck.operations.create import place_name
from deltaduck.predicate import Condition
from deltaduck.protocol.schema import literal, quote
from deltaduck.snapshot import Snapshot
from deltaduck.table import DeltaTable, Place
from deltaduck.transaction import Transaction


class Lake:
    """Opened by ``deltaduck.connect``. Close it, or use it in a ``with`` block, to let others in."""

    def __init__(
        self, catalog: Catalog, storage_root: str | None, storage_options: Mapping[str, Any] | None = None, mirror: str = "sync"
    ) -> None:
        self.catalog = catalog
        catalog.access = storage.Access(storage_options)
        default = f"{catalog.home}.delta" if catalog.home else None
        root = storage_root or default
        self.storage = catalog.open(storage.normalize(root, catalog.access) if root else None)
        self._local = threading.local()
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()
        self.mirror = Mirror(catalog, catalog.engine, mirror)
        self.opened: dict[str, DeltaTable] = {}  # tables at plain paths that its queries have named
        self._transactions: set[Transaction] = set()  # begun with BEGIN, by any thread
        self._closed = False
        self.read_only: str | None = None  # why it cannot be written to, and what to do
        _open.add(self)
        telemetry.watch(self)

    # --- reading

    def sql(self, query: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> Any:
        """Run SQL; the DuckDB relation of its rows. params: the values of its ``?`` or ``$1``, as a list, or of its ``$name``.

        Tables of the lake are read through the catalog: files that a WHERE rules out are never opened, and
        ``orders AT (VERSION => 3)`` or ``AT (TIMESTAMP => '2024-01-01')`` reads the past. All tables of a statement are
        read at one point of the catalog. Statements that write (INSERT, UPDATE, DELETE, MERGE, COPY … FROM, CREATE, DROP)
        commit before they return, unless BEGIN opened a transaction on this thread: then COMMIT does.
        """
        return self.run_sql(query if params is None else bound(query, params), None, sql.caller_frame())

    def table(self, name: str) -> DeltaTable:
        """A table by name. TableNotFoundError."""
        return DeltaTable.of(Place(self, name))

    def tables(self) -> Listing:
        """Every table: name, version, committed, operation, location."""
        self._require_open()
        rows = [
            (name, version, utc(ms), operation, place)
            for name, _, version, place, ms, operation in self.catalog.rows("list_tables")
        ]
        return Listing(["name", "version", "committed", "operation", "location"], rows)

    # --- writing

    def write(
        self,
        table: str,
        frame: Any,
        mode: str = "append",
        *,
        partition_by: Sequence[str] | str | None = None,
        schema_mode: str | None = None,
        predicate: str | None = None,
        configuration: Mapping[str, str] | None = None,
        description: str | None = None,
        commit_metadata: str | None = None,
        app_transaction: tuple[str, int] | None = None,
    ) -> int:
        """Write rows, creating the table when absent; the version that holds them.

        frame: pyarrow, Polars (lazy too), pandas, a DuckDB relation, a SQL string, anything that speaks the Arrow C
        stream, or a list of dicts. Streams are written without being held in memory.
        mode: "append", "overwrite", "error" (when the table exists) or "ignore" (then do nothing).
        schema_mode: "merge" adds new columns, "overwrite" replaces the schema (with mode="overwrite").
        predicate: with mode="overwrite", replace only the rows that match; the new rows must match too.
        configuration: table properties of a new table (``delta.*`` ones are checked).
        commit_metadata: text that the history keeps as userMetadata.
        app_transaction: (application id, its version): the same or an older version commits only once.

        SchemaMismatchError, ConstraintViolationError, TableExistsError, UnsupportedFeatureError, CommitConflictError:
        nothing has changed then.
        """
        options = {
            "partition_by": partition_by, "schema_mode": schema_mode,
            "predicate": predicate, "configuration": configuration, "description": description,
            "commit_metadata": commit_metadata, "app_transaction": app_transaction,
        }  # fmt: skip
        tx = Transaction(self)
        try:
            with tx:
                tx.write(table, frame, mode, **options)
        except CommitConflictError:
            if app_transaction is None or not Transaction(self).is_done(table, app_transaction):
                raise
        return tx.committed[-1].version if tx.committed else self.table(table).version()

    def create_table(
        self,
        table: str,
        schema: Any,
        *,
        partition_by: Sequence[str] | str | None = None,
        configuration: Mapping[str, str] | None = None,
        description: str | None = None,
        location: str | None = None,
        cluster_by: Sequence[str] = (),
    ) -> DeltaTable:
        """Create an empty table. schema: a pyarrow Schema, or {column: "SQL type [NOT NULL]"}.

        location: where its files go, instead of below the lake's storage. cluster_by: columns (``a.b`` of a struct) that
        OPTIMIZE sorts its rows by. TableExistsError, SchemaMismatchError.
        """
        with self.begin() as tx:
            tx.create_table(
                table, schema, partition_by=partition_by, configuration=configuration, description=description,
                location=location, cluster_by=cluster_by,
            )  # fmt: skip
        return self.table(table)

    def import_table(
        self,
        path: str | os.PathLike[str],
        name: str | None = None,
        *,
        dry_run: bool = False,
        up_to_version: int | None = None,
        resume: bool = False,
        force: bool = False,
        checkpoint_only: bool = False,
        skip_validation: bool = False,
        progress: replay.Progress | None = None,
    ) -> importer.Imported:
        """Bring an existing Delta table into the lake, with its whole history where the log has it; what came in.

        The table stays where it is, and nothing is written there. Versions, times and commit information are the log's own;
        where old commits were cleaned up, history begins at the oldest checkpoint that can be read.

        path: the table's directory, or its URL on an object store. name: in this lake; the directory's unless told.
        dry_run: only say what would come. up_to_version: as if the log ended there. checkpoint_only: begin at the newest
        checkpoint. resume: bring in the commits made elsewhere since. force: replace the table of that name.
        skip_validation: do not compare the result with an independent replay of the log.
        progress: called with what has come in, and how many rows of it since the last call.

        LogCorruptError, UnsupportedFeatureError, TableExistsError, TableNotFoundError: the lake is as it was.
        """
        self._require_open()
        with telemetry.span("import", table=name or ""):
            return importer.import_table(
                self.catalog, os.fspath(path), name, dry_run=dry_run, up_to_version=up_to_version, resume=resume, force=force,
                checkpoint_only=checkpoint_only, skip_validation=skip_validation, progress=progress,
            )  # fmt: skip

    def convert(
        self,
        directory: str | os.PathLike[str],
        name: str | None = None,
        *,
        partition_by: Sequence[str] | Mapping[str, str] | None = None,
        configuration: Mapping[str, str] | None = None,
        description: str | None = None,
    ) -> DeltaTable:
        """Make a table of the Parquet files below a directory, which stay where they are. Footers are read, rows are not.

        name: the directory's unless told. partition_by: the columns of a Hive layout (``day=2024-01-01/``), with SQL types
        where a mapping says so; found in the directories' names when not told. StorageError, SchemaMismatchError,
        TableExistsError.
        """
        with self.begin() as tx:
            convert.convert(
                tx, os.fspath(directory), name, partition_by=partition_by, configuration=configuration, description=description
            )
        return self.table(name or os.path.basename(storage.normalize(directory)))

    def drop_table(self, table: str) -> None:
        """Take a table out of the lake. Its data files and its mirrored log stay where they are."""
        with self.begin() as tx:
            tx.drop_table(table)

    def begin(self, isolation: str | None = None) -> Transaction:
        """A transaction over any tables. isolation: "write_serializable" (each table's own setting, unless told) or
        "serializable": what was only read must not have changed either."""
        return Transaction(self, isolation)

    def fsck(self, *tables: str, repair: bool = False) -> Listing:
        """What is wrong with tables, or with all: the catalog's invariants, skip index, files, mirror. A row per table and check.

        repair: make again what can be made from the log without a loss; each row says whether that did it, and else the way out.
        """
        self._require_open()
        return fsck.fsck(self, tables, repair=repair)

    # --- the end, and looks

    def close(self) -> None:
        """Publish what waits to be, record that, and let go of the catalog. Closing twice is no error."""
        if not self._closed:
            self._closed = True
            _open.discard(self)
            for transaction in self._transactions:
                transaction.rollback()
            self.mirror.close()
            for connection in list(self._connections):
                connection.close()
            self.catalog.close()

    def __enter__(self) -> Lake:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._closed:
            return f"<Lake on {self.catalog.name}, closed>"
        names = [t["name"] for t in self.tables()]
        return f"<Lake on {self.catalog.name}: {len(names)} tables{': ' + ', '.join(names[:12]) if names else ''}>"

    def _repr_html_(self) -> str:
        if self._closed:
            return html.escape(repr(self))
        return f"<b>Lake on {html.escape(self.catalog.name)}</b>{self.tables()._repr_html_()}"

    # --- what the parts ask of the lake

    @property
    def con(self) -> Any:
        """Where this thread's queries run; its relations of ``lake.sql`` belong to it."""
        self._require_open()
        if not hasattr(self._local, "con"):
            self._local.con = self.catalog.engine()
            self._connections.add(self._local.con)
        return self._local.con

    def require_writable(self) -> None:
        """UnsupportedFeatureError when it is there to be read only."""
        if self.read_only is not None:
            raise UnsupportedFeatureError(self.read_only)

    @property
    def closed(self) -> bool:
        return self._closed

    def _require_open(self) -> None:
        if self._closed:
            raise CatalogError(f"the lake on {self.catalog.name} is closed: open it again with deltaduck.connect")

    def snapshot(self, name: str, version: int | None = None) -> Snapshot:
        if (found := self.find(name, version)) is None:
            raise self.not_found(name)
        return found

    def head(self, name: str) -> tuple[Any, ...] | None:
        """The catalog's row of a table: less than a snapshot, where its version is all that is asked."""
        self._require_open()
        return self.catalog.head(name)

    def find(self, name: str, version: int | None = None, timestamp: Any = None) -> Snapshot | None:
        """A table, or None when the lake has none of that name; VersionNotFoundError for a version it never had."""
        self._require_open()
        since = telemetry.clock()
        if timestamp is not None:
            at = dt.datetime.fromtimestamp(timestamp / 1000, dt.UTC) if isinstance(timestamp, int) else timestamp
            if self.catalog.head(name) is None:
                return None
            version = snapshots.version_at(self.catalog, name, at)
        if (found := snapshots.find(self.catalog, name, version)) is not None:
            telemetry.took("metadata_open_latency_ms", since, catalog=self.catalog.name)
        return found

    def visible(self, snapshot: Snapshot, condition: Condition | None = None) -> pa.Table:
        return snapshots.files(self.catalog, snapshot, condition)

    def changes_sql(self, name: str, first: int | None, last: int | None, connection: Any = None) -> str:
        """A query for the change data feed of a table, to run on `connection`, or here."""
        with self.at_one_point():
            snapshot = self.snapshot(name, last)
            return change_feed.changes_sql(connection or self.con.cursor(), self.catalog, snapshot, first)

    def compile(self, snapshot: Snapshot, where: exp.Expr | None, qualifiers: Sequence[str] = ()) -> Condition:
        if where is None:
            return Condition()
        columns = snapshots.by_name(snapshots.skip_columns(self.catalog, snapshot), snapshot)
        return predicates.compile_condition(where, columns, self.evaluate, qualifiers)

    @contextlib.contextmanager
    def at_one_point(self) -> Iterator[None]:
        self._require_open()
        with self.catalog.snapshot():
            yield

    def evaluate(self, constants: Sequence[str]) -> list[tuple[str, Any]]:
        """(DuckDB type, value) of constant SQL expressions."""
        items = ", ".join(f"typeof({c}) AS t{i}, {c} AS v{i}" for i, c in enumerate(constants))
        try:
            row = self.con.cursor().sql(f"SELECT {items}").to_arrow_table()
        except duckdb.Error as e:
            raise parquet.translate(e, "the lake") from e
        return [(row[f"t{i}"][0].as_py(), row[f"v{i}"][0].as_py()) for i in range(len(constants))]

    def not_found(self, name: str) -> TableNotFoundError:
        return snapshots.not_found(self.catalog, name)

    def has_native(self, name: str) -> bool:
        """Is there a table or view of that name in DuckDB that is not one of the lake's?"""
        if self.find(name) is not None:
            return False
        try:  # asking the list of all tables takes five times as long
            self.con.execute("SELECT 1 FROM pragma_table_info($1) LIMIT 0", [quote(name)]).fetchall()
        except duckdb.CatalogException:
            return False
        return True

    def show_tables(self) -> None:
        """Let DuckDB find the tables by itself, where the parser or a subquery of a predicate leaves that to it."""
        if self.catalog.database != "duckdb":  # whose file has views of its own
            functions.show_tables(self.con, self)

    def place(self, name: str) -> str:
        """A free directory for a new table."""
        base = f"{self.storage}/{place_name(name)}"
        candidate, n = base, 1
        while self.catalog.rows("location_taken", location=candidate)[0][0]:
            n += 1
            candidate = f"{base}-{n}"
        return storage.Root(candidate, self.catalog.access)

    def open_source(self, frame: Any, reader: Any) -> Source:
        """Rows to write, from whatever the user gave."""
        if isinstance(frame, str):
            query = sql.plan(self, reader, frame, sql.caller_frame())
            try:
                return frames.from_query(self.con, query)
            except duckdb.Error as e:
                raise parquet.translate(e, "the lake") from e
        return frames.open_frame(self.con.cursor(), frame)

    def commit(self, changes: Sequence[Change], isolation: str | None, keep_files: Callable[[], None]) -> list[Committed]:
        """Commit staged changes. keep_files is called before COMMIT: whatever happens from then on, it may have succeeded."""
        changes = [c for c in changes if c.dropped or c.base is None or not c.changes_nothing or c.reads or c.searches]
        if all(c.base is not None and c.changes_nothing for c in changes):
            return []
        for last in tries(self.catalog.patience):
            done: list[Committed] = []
            asked = False
            try:
                with self.catalog.transaction():
                    done = commits.apply(self.catalog, changes, isolation)
                    keep_files()
                    asked = True
                break
            except CatalogError as e:
                # a connection that broke on COMMIT says nothing of the outcome: the catalog does
                if done and commits.is_committed(self.catalog, done[0]):
                    break
                only_drops = asked and not done  # which leave no trace to ask for
                if last or only_drops or not isinstance(e, ConnectionLostError):
                    raise
        for part in done:
            snapshots.learn(self.catalog, part.made, part.skip)
        return done

    def run_sql(self, query: str, tx: Transaction | None, caller: FrameType | None) -> Any:
        """Run one or more statements, in a transaction or each in its own; what the last one answers."""
        statements = words.split(query)
        if len(statements) > 1:
            return [self.run_sql(statement, tx, caller) for statement in statements][-1]
        if verb := references.transaction_verb(query):
            return self._transact(verb, tx)
        tx = tx or getattr(self._local, "transaction", None)
        if (answer := ddl.run(self, query, tx)) is not None:
            return answer
        try:
            trees = references.parse(query) if not references.EXPLAIN.match(query) else ()
        except SqlglotError as e:
            if references.makes_table(query) or ((name := references.written_table(query)) and self.find(name) is not None):
                raise QueryError(f"{references.first_line(e)}. The statement was not run: {query.strip()[:200]}") from e
            trees = ()
        if not trees or not sql.is_write(self, trees[0]):
            if functions.CALL.search(query) and not hasattr(self._local, "functions"):
                functions.register(self.con, weakref.proxy(self))
                self._local.functions = True
            if "dl_mirror" in query.lower():
                self.mirror.flush()
            return sql.execute(self, tx or self, query, caller)
        with self.begin() if tx is None else contextlib.nullcontext(tx) as staged:
            return self._write_sql(staged, trees[0], query, caller)

    def _write_sql(self, tx: Transaction, tree: exp.Expr, text: str, caller: FrameType | None) -> Any:
        """Stage a writing statement; a relation that says what it did."""
        with tx.statement():
            write = dml.write if isinstance(tree, dml.STATEMENTS) else sql.write
            return sql.told(self, write(self, tx, tree.copy(), text, caller))

    def _transact(self, verb: str, tx: Transaction | None) -> Any:
        """BEGIN, COMMIT and ROLLBACK: the transaction of this thread's statements. COMMIT answers with the versions made."""
        if tx is not None:
            raise UnsupportedFeatureError(
                f"{verb} is no statement inside of `with lake.begin() as tx:`: use tx.commit() or tx.rollback()"
            )
        current: Transaction | None = getattr(self._local, "transaction", None)
        if verb == "BEGIN":
            if current is not None:
                raise QueryError("a transaction is open on this thread already: COMMIT or ROLLBACK it first")
            self._local.transaction = self.begin()
            self._transactions.add(self._local.transaction)
            return sql.told(self)
        if current is None:
            raise QueryError(f"{verb}: no transaction is open on this thread: BEGIN one first, or use `with lake.begin() as tx:`")
        self._local.transaction = None
        self._transactions.discard(current)
        if verb == "ROLLBACK":
            current.rollback()
            return sql.told(self)
        current.commit()
        made = ", ".join(f"({literal(c.name)}, {c.version})" for c in current.committed) or "(NULL, NULL)"
        return self.con.cursor().sql(f'FROM (VALUES {made}) AS made("table", version) WHERE version IS NOT NULL')


_open: weakref.WeakSet[Lake] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Close what a script left open. A lake that is only forgotten lets its relations live, and loses but marks."""
    for lake in list(_open):
        lake.close()


def connect(
    target: str | os.PathLike[str] = ":memory:",
    *,
    storage: str | os.PathLike[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    mirror: str | None = None,
    trace_sql: bool | None = None,
) -> Lake:
    """Open a lake, creating it when absent.

    target: a DuckDB file (``lake.duckdb``), a SQLite file (``lake.sqlite``: many processes), ``postgresql://…`` (many
    machines), a ``deltasql://`` URI of any of them, or ``:memory:``.
    storage: where new tables are placed: a directory, or ``s3://bucket/path`` (gs://, az://, abfss://); unless told,
    ``lake.delta`` beside ``lake.duckdb``.
    storage_options: credentials and settings of object stores, over those of the environment, by the names that obstore and
    the deltalake package take. This lake's own: nothing of them is kept in the catalog.
    mirror: when a commit is published for other readers: "sync", before it returns; "async", soon after, by a thread that
    ``close`` waits for; "manual", by ``lake.mirror.reconcile()`` or ``deltaduck mirror run``. It is durable before that.
    trace_sql: print every statement that the catalog is asked, on standard error; DELTADUCK_TRACE_SQL=1 does so everywhere.
    CatalogError when the catalog cannot be opened, UriError when the target cannot be understood.
    """
    found = uris.parse(os.fspath(target))
    mode = uris.mirror_mode(mirror or found.mirror or "sync")
    catalog = open_catalog(found, trace_sql=trace_sql)
    try:
        return Lake(catalog, found.storage if storage is None else os.fspath(storage), storage_options, mode)
    except BaseException:
        catalog.close()
        raise
