"""Spark on the catalog: ``spark.read.format("deltaduck")`` and ``df.write.format("deltaduck")``.

A read is planned once, through the catalog, on Spark's driver: which version, which files a filter leaves. Executors get lists
of files and read them with DuckDB; they need the package and the storage, and no catalog. A write is planned there too;
every task writes data files and answers with what is in them, and the driver commits all of them as one version.
"""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa

from deltaduck import casts, deletions, frames, lakes, parquet, scan, storage, uris
from deltaduck import predicate as predicates
from deltaduck.catalog.base import now_ms
from deltaduck.errors import (
    CommitConflictError,
    LogCorruptError,
    MissingDependencyError,
    SchemaMismatchError,
    UnsupportedFeatureError,
    UriError,
)
from deltaduck.operations import write
from deltaduck.parquet import Target
from deltaduck.protocol.schema import Field, Struct, arrow_schema, loosened, parse_schema, quote, to_duckdb, to_json
from deltaduck.rules import IDENTITY
from deltaduck.snapshot import Snapshot

try:
    from pyspark import TaskContext
    from pyspark.sql import datasource as sources
    from pyspark.sql.types import StructType
except ImportError as e:  # pragma: no cover - depends on what is installed
    raise MissingDependencyError("Spark is not installed: pip install 'deltaduck[spark]'") from e

if TYPE_CHECKING:
    from deltaduck.changes import Change
    from deltaduck.lake import Lake
    from deltaduck.transaction import Transaction

PARTITION_BYTES = 128 << 20  # of files that one task reads
READ = {"uri", "table", "version", "timestamp", "filter", "partition_bytes"}
WRITE = {"uri", "table", "partition_by", "schema_mode", "commit_metadata", "app_id", "app_version"}
STORAGE = "storage."  # what options of object stores begin with


def register(spark: Any) -> None:
    """Let a session read and write lakes by ``format("deltaduck")``."""
    spark.dataSource.register(DeltaduckSource)


class DeltaduckSource(sources.DataSource):  # type: ignore[misc, unused-ignore]
    """A table of a lake, as Spark sees it."""

    @classmethod
    def name(cls) -> str:
        return "deltaduck"

    def __init__(self, options: Mapping[str, str]) -> None:
        super().__init__(options)
        self.given = _Options.of(options)
        self.found: Snapshot | None = None

    def schema(self) -> StructType:
        """The table's columns; from here on the version is settled."""
        return _spark_schema(self._snapshot().schema)

    def reader(self, schema: StructType) -> _Reader:
        return _Reader(self.given, self._snapshot(), schema)

    def writer(self, schema: StructType, overwrite: bool) -> _Writer:
        return _Writer(self.given, _delta_schema(schema), "overwrite" if overwrite else "append")

    def _snapshot(self) -> Snapshot:
        if self.found is None:
            self.given.check(READ, "reading")
            version, timestamp = self.given.values.get("version"), self.given.values.get("timestamp")
            if version is not None and timestamp is not None:
                raise SchemaMismatchError("give a version or a timestamp to read, not both")
            with self.given.lake() as lake:
                found = lake.find(self.given.table, _number("version", version), timestamp)
                if found is None:
                    raise lake.not_found(self.given.table)
            self.found = replace(found, location=str(found.location))  # without the way to the store, which is not sent
        return self.found


@dataclass(frozen=True)
class _Options:
    """What was said with ``.option``."""

    uri: str
    table: str
    values: Mapping[str, str]
    storage: Mapping[str, str]

    @staticmethod
    def of(options: Mapping[str, str]) -> _Options:
        values = {key.lower(): value for key, value in options.items()}
        if "uri" not in values:
            raise UriError('format("deltaduck") needs .option("uri", …): postgresql://…, or another catalog')
        table = values.get("table") or uris.parse(values["uri"]).table
        if not table:
            raise UriError(f'{uris.redact(values["uri"])}: which table? say it with .option("table", …)')
        stores = {key.removeprefix(STORAGE): value for key, value in values.items() if key.startswith(STORAGE)}
        return _Options(values["uri"], table, {k: v for k, v in values.items() if not k.startswith(STORAGE)}, stores)

    def check(self, known: set[str], doing: str) -> None:
        if unknown := sorted(self.values.keys() - known - {"path"}):
            raise SchemaMismatchError(
                f"unknown options for {doing}: {', '.join(unknown)}; known: {', '.join(sorted(known))}, storage.*"
            )

    @contextmanager
    def lake(self, *, create: bool = False) -> Iterator[Lake]:
        """The lake, opened for one step: nothing of a catalog stays open between them, or goes to an executor."""
        lease = lakes.borrow(self.uri, create=create, storage_options=dict(self.storage) or None)
        try:
            yield lease.lake
        finally:
            lease.lake.close()

    def place(self, location: str) -> str:
        """A location with a way to it."""
        return storage.Root(location, storage.Access(self.storage))


def _number(name: str, text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError as e:
        raise SchemaMismatchError(f"option {name} is {text!r}, and not a number") from e


def _spark_schema(schema: Struct) -> StructType:
    """A table's schema; of what it says of its columns only the comments."""
    fields = (replace(f, metadata={k: v for k, v in f.metadata.items() if k == "comment"}) for f in schema)
    return StructType.fromJson(json.loads(to_json(Struct(tuple(fields)))))


def _delta_schema(schema: Any) -> Struct:
    """The columns of a frame. They may be NULL: whether a table's may, the table says."""
    fields = tuple(Field(f.name, f.type) for f in parse_schema(schema.json()))
    try:
        for f in fields:
            to_duckdb(f.type)
    except LogCorruptError as e:
        raise SchemaMismatchError(f"column {f.name!r} is of a type that a Delta table does not have: cast it") from e
    return Struct(fields)


def _connect() -> Any:
    """A DuckDB for a task, as large as the task."""
    task = TaskContext.get()
    con = duckdb.connect()
    con.execute(f"SET TimeZone = 'UTC'; SET threads = {task.cpus() if task else 1}")
    return con


# --- reading


@dataclass
class _Files(sources.InputPartition):  # type: ignore[misc, unused-ignore]
    """Files for one task."""

    files: pa.Table


class _Reader(sources.DataSourceReader):  # type: ignore[misc, unused-ignore]
    """Files are chosen by the option ``filter``. Filters of a query stay Spark's own: its push-down for Python sources (4.1) lets
    two uses of one frame share what one of them pushed, and so loses rows of the other."""

    def __init__(self, given: _Options, snapshot: Snapshot, schema: Any) -> None:
        self.given, self.snapshot = given, snapshot
        self.columns = [_column(snapshot, name) for name in schema.fieldNames()]
        self.filter = given.values.get("filter")
        wanted = {f.name: (f.type, f.nullable) for f in parse_schema(schema.json())}
        if other := [f.name for f in self.columns if f.name in wanted and wanted[f.name][0] != _plain(f.type)]:
            raise SchemaMismatchError(f"table {snapshot.name!r}: column {other[0]!r} is of another type than was asked for")

    def partitions(self) -> list[Any]:
        size = _number("partition_bytes", self.given.values.get("partition_bytes")) or PARTITION_BYTES
        with self.given.lake() as lake, lake.at_one_point():
            snapshot = lake.snapshot(self.snapshot.name, self.snapshot.version)
            if snapshot.table_id != self.snapshot.table_id:
                raise lake.not_found(self.snapshot.name)
            condition = lake.compile(snapshot, predicates.parse(self.filter) if self.filter else None, [snapshot.name])
            files = lake.visible(snapshot, condition)
        if not files.num_rows:
            return [_Files(files)]
        sizes = files["size"].to_numpy()
        groups = (np.cumsum(sizes) - sizes) // size
        starts = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), files.num_rows]
        return [_Files(files.slice(a, b - a).combine_chunks()) for a, b in itertools.pairwise(starts)]

    def read(self, partition: Any) -> Iterator[pa.RecordBatch]:
        """On an executor: the rows of some files."""
        snapshot = replace(self.snapshot, location=self.given.place(self.snapshot.location))
        names = ", ".join(quote(f.name) for f in self.columns)
        schema = arrow_schema(loosened(Struct(tuple(self.columns))))
        with _connect() as con:
            try:
                source = scan.scan_sql(con, snapshot, partition.files)
                query = f"SELECT {names} FROM ({source}) AS {quote(snapshot.name)} WHERE {self.filter or 'true'}"
                for batch in con.sql(query).to_arrow_reader(50_000):
                    yield from pa.Table.from_batches([batch]).cast(schema).to_batches()
            except duckdb.Error as e:
                raise parquet.translate(e, snapshot.location) from e
            finally:
                deletions.forget()


def _column(snapshot: Snapshot, name: str) -> Field:
    if (f := snapshot.schema.get(name)) is None:
        raise SchemaMismatchError(f"table {snapshot.name!r} has no column {name!r}; it has {', '.join(snapshot.schema.names)}")
    return f


def _plain(type_: Any) -> Any:
    """A type as Spark knows it: without what the log says of members of structs beside their names and types."""
    return parse_schema(_spark_schema(Struct((Field("c", type_),))).json()).fields[0].type


# --- writing


@dataclass
class _Written(sources.WriterCommitMessage):  # type: ignore[misc, unused-ignore]
    """What a task has written: add actions with their index values, and the names of the files."""

    adds: pa.Table
    files: list[str]


class _Writer(sources.DataSourceArrowWriter):  # type: ignore[misc, unused-ignore]
    """Planned on the driver, sent to the tasks, and back on the driver when they are done."""

    def __init__(self, given: _Options, schema: Struct, mode: str) -> None:
        given.check(WRITE, "writing")
        self.given, self.frame, self.mode = given, schema, mode
        self.versions: dict[int, int] = {}  # the table's id → the version that this write comes after
        app_id, app_version = given.values.get("app_id"), _number("app_version", given.values.get("app_version"))
        if (app_id is None) != (app_version is None):
            raise SchemaMismatchError("app_id and app_version come together")
        self.app = None if app_id is None or app_version is None else (app_id, app_version)
        with given.lake(create=True) as lake:
            if (base := lake.find(given.table)) is not None:
                self.versions[base.table_id] = base.version
            tx = lake.begin()
            change = self._staged(tx)
            target = change.target()
            tx.rollback()
        if base is not None and base.is_mapped and change.after.schema != base.schema:
            raise UnsupportedFeatureError(
                f"table {given.table!r} has column mapping: add columns with ALTER TABLE before Spark writes them"
            )
        if identity := [f.name for f in target.schema if IDENTITY in f.metadata]:
            raise UnsupportedFeatureError(
                f"table {given.table!r}: tasks of Spark cannot agree on values of the identity column {identity[0]!r}; "
                "write it with deltaduck"
            )
        self.target = replace(target, location=str(target.location), begin=f"part-{uuid.uuid4().hex[:8]}-")
        casts.projection(self._source(duckdb.connect()).given(), target.schema)  # fits, or says why not before anything runs

    def write(self, iterator: Iterator[pa.RecordBatch]) -> _Written:
        """On an executor: the rows of one task as data files."""
        first = next(iterator, None)
        if first is None:
            return _Written(pa.table({}), [])
        batches = pa.RecordBatchReader.from_batches(first.schema, itertools.chain([first], iterator))
        target = replace(self.target, location=self.given.place(self.target.location))
        with _connect() as con:
            source = frames.open_frame(con, batches)
            columns = casts.projection(source.given(), target.schema)
            adds, files = parquet.write_files(con, source.from_sql, columns, target, now_ms(), [])
        return _Written(adds, [str(name) for name in files])

    def commit(self, messages: list[Any]) -> None:
        """On the driver: what all tasks wrote, as one version."""
        with self.given.lake() as lake, lake.begin() as tx:
            if self.app is not None and tx.is_done(self.given.table, self.app):
                self._remove(lake)
                return
            change = self._staged(tx)
            if _layout(change.target()) != _layout(self.target):
                known = next(iter(self.versions.values()), -1)
                raise CommitConflictError(self.given.table, known, change.after.latest, "its files would go elsewhere now")
            for message in messages:
                if message is not None and message.adds.num_rows:
                    tx.add(change, message.adds, [self.given.place(name) for name in message.files])

    def abort(self, messages: list[Any]) -> None:
        """On the driver, when a task or the commit failed: take away what was written, by unfinished tasks too."""
        with self.given.lake() as lake:
            self._remove(lake)

    def _staged(self, tx: Transaction) -> Change:
        """The change without its files, on the version that the write was planned on."""
        tx.pin(self.versions)
        by = [name.strip() for name in self.given.values.get("partition_by", "").split(",") if name.strip()]
        source = self._source(tx.lake.con.cursor())
        mode = self.given.values.get("schema_mode")
        staged = write.stage(tx, self.given.table, source, mode=self.mode, partition_by=by or None, schema_mode=mode)
        assert staged is not None, "only mode='ignore' stages nothing"
        change, _ = staged
        change.user_metadata = self.given.values.get("commit_metadata")
        if self.app is not None:
            change.app_transactions[self.app[0]] = self.app[1]
        return change

    def _source(self, connection: Any) -> frames.Source:
        return frames.open_frame(connection, arrow_schema(self.frame).empty_table())

    def _remove(self, lake: Lake) -> None:
        """Delete the files of this write, unless they were committed: a commit that failed may yet have happened."""
        place = self.given.place(self.target.location)
        with lake.catalog.transaction():
            lake.catalog.rows("lock_table_ids")  # waits for a commit whose connection broke
            found = lake.find(self.given.table)
            if found is not None:
                lake.catalog.rows("table_state", table_id=found.table_id)
                known = {path for (path,) in lake.catalog.rows("known_paths", table_id=found.table_id)}
                if any(path.rpartition("/")[2].startswith(self.target.begin) for path in known):
                    return
            elif lake.catalog.rows("location_taken", location=str(place))[0][0]:
                return  # created, and dropped by somebody: its files stay, as those of every dropped table
        storage.remove_begun(place, self.target.begin)


def _layout(target: Target) -> Any:
    return str(target.location), target.schema, tuple(target.partition_columns), dict(target.configuration), list(target.skip)


__all__ = ["DeltaduckSource", "register"]
