"""One table of a lake, under the names of the ``deltalake`` package too."""

from __future__ import annotations

import datetime as dt
import html
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deltaduck import add_actions, file_values, parquet, properties, scan, storage, uris
from deltaduck import predicate as predicates
from deltaduck import snapshot as snapshots
from deltaduck.errors import (
    DeltaduckError,
    SchemaMismatchError,
    TableExistsError,
    TableNotFoundError,
    UnsupportedFeatureError,
    VersionNotFoundError,
)
from deltaduck.feed import ChangeFeed
from deltaduck.frontends import merger
from deltaduck.frontends.merger import TableMerger
from deltaduck.listing import size_text, utc
from deltaduck.maintenance import TableAlterer, TableOptimizer
from deltaduck.operations.create import as_schema
from deltaduck.operations.write import MODES
from deltaduck.protocol.schema import arrow_schema, quote, to_duckdb, with_optional_members
from deltaduck.shapes import DeltaTableConfig, History, Metadata, ProtocolVersions, Schema
from deltaduck.snapshot import Snapshot
from deltaduck.upkeep import Upkeep

if TYPE_CHECKING:
    from deltaduck.lake import Lake
    from deltaduck.transaction import Transaction


@dataclass(frozen=True)
class Place:
    """A table's name in an open lake.

    uri: how it was named, without secrets. lease: what keeps the lake open. refresh: brings in what others committed.
    """

    lake: Lake
    table: str
    uri: str | None = None
    lease: object = None
    refresh: Callable[[], object] | None = None


class DeltaTable(ChangeFeed, Upkeep):
    """A table as it is now, each time it is asked; or, of a version, as it was then.

    ``DeltaTable("deltasql://…?table=orders")`` opens the lake as well, shares it with all others that name the same one,
    and lets go of it with the last of them. ``lake.table("orders")`` is the same in a lake that is open. The path of a
    Delta table is read through a catalog in memory, and cannot be written to. Unlike the
    ``deltalake`` package's, a table opened without a version shows every commit at once; ``load_as_version`` pins it.

    version: a version, or a time as ``load_as_version`` takes it. storage_options: for object stores.
    without_files, log_buffer_size, skip_stats: accepted, and of no effect: files are looked up when asked for.
    """

    locate: ClassVar[Callable[[Any, Mapping[str, str] | None, bool], Place]]  # set by what opens lakes, further out

    def __init__(
        self, table_uri: str | os.PathLike[str], version: int | str | dt.datetime | None = None,
        storage_options: Mapping[str, str] | None = None, without_files: bool = False, log_buffer_size: int | None = None,
        skip_stats: bool = False,
    ) -> None:  # fmt: skip
        self._config = DeltaTableConfig(without_files, log_buffer_size, skip_stats)
        self._open(DeltaTable.locate(table_uri, storage_options, False))
        if version is not None:
            self.load_as_version(version)

    @classmethod
    def of(cls, place: Place, version: int | None = None) -> DeltaTable:
        """The table at a place, or as it was at a version. TableNotFoundError, VersionNotFoundError."""
        table = cls.__new__(cls)
        table._config = DeltaTableConfig()
        table._open(place, version)
        return table

    def _open(self, place: Place, version: int | None = None) -> None:
        self.place, self._lake, self._version = place, place.lake, version
        snapshot = place.lake.snapshot(place.table, version)
        self.name = snapshot.name
        self._table_id = snapshot.table_id

    @staticmethod
    def is_deltatable(table_uri: str | os.PathLike[str], storage_options: Mapping[str, str] | None = None) -> bool:
        """Is there such a table? Nothing is created. CatalogError when the catalog cannot be asked."""
        if not uris.is_uri(os.fspath(table_uri)):
            return bool(storage.list_log(storage.normalize(table_uri, storage.Access(storage_options))))
        try:
            DeltaTable(table_uri, storage_options=storage_options)
        except TableNotFoundError:
            return False
        return True

    @classmethod
    def create(
        cls, table_uri: str | os.PathLike[str], schema: Any, mode: str = "error",
        partition_by: Sequence[str] | str | None = None, name: str | None = None, description: str | None = None,
        configuration: Mapping[str, str | None] | None = None, storage_options: Mapping[str, str] | None = None,
        commit_properties: Any = None, post_commithook_properties: Any = None, raise_if_key_not_exists: bool = True,
    ) -> DeltaTable:  # fmt: skip
        """Create an empty table, and its lake when absent.

        schema: Arrow, the ``deltalake`` package's or {column: SQL type}. mode: "error", "ignore", or "overwrite": a table
        that exists gets a version without rows and with this schema. configuration: other keys than ``delta.*`` need
        raise_if_key_not_exists=False. TableExistsError.
        """
        if mode not in MODES:
            raise SchemaMismatchError(f"mode {mode!r} is unknown; it is one of {', '.join(MODES)}")
        settings = {k: v for k, v in (configuration or {}).items() if v is not None}
        if raise_if_key_not_exists and (unknown := sorted(k for k in settings if not k.startswith("delta."))):
            raise DeltaduckError(f"configuration: {', '.join(unknown)} are no delta.* properties: raise_if_key_not_exists=False")
        place = DeltaTable.locate(table_uri, storage_options, True)
        exists = place.lake.find(place.table) is not None
        if exists and mode not in ("overwrite", "ignore"):
            raise TableExistsError(f"table {place.table!r} exists already; use mode='overwrite' or 'ignore', or another name")
        if not exists or mode == "overwrite":
            with place.lake.begin() as tx:
                options: dict[str, Any] = {"partition_by": partition_by, "configuration": settings, "description": description}
                if exists:
                    rows = as_schema(place.lake.con, schema)
                    empty = arrow_schema(rows).empty_table()
                    tx.write(place.table, empty, "overwrite", schema_mode="overwrite", **options)
                else:
                    tx.create_table(place.table, schema, **options)
                if (change := tx.change(place.table)) is not None:
                    properties.describe(change, name, commit_properties, post_commithook_properties)
        return cls.of(place)

    # --- what it is

    def version(self) -> int:
        """The latest committed version; the version itself for a table from ``as_of``."""
        if self._version is not None:
            return self._version
        head = self._lake.head(self.name)
        if head is None or head[0] != self._table_id:
            raise TableNotFoundError(f"table {self.name!r} has been dropped")
        return int(head[3])

    def schema(self) -> Schema:
        """The columns: what a ``pyarrow.Schema`` answers, and to_arrow, to_json, fields."""
        return Schema(self._snapshot().schema)

    def metadata(self) -> Metadata:
        s = self._snapshot()
        return Metadata(
            s.metadata_id, s.metadata_name, s.description, list(s.partition_columns), s.created_ms, dict(s.configuration)
        )

    def protocol(self) -> ProtocolVersions:
        p = self._snapshot().protocol
        features = (None if f is None else list(f) for f in (p.writer_features, p.reader_features))
        return ProtocolVersions(p.min_reader_version, p.min_writer_version, *features)

    @property
    def table_uri(self) -> str:
        """How it was named, without a password; the place of its files when it comes from ``lake.table``."""
        return self.place.uri or add_actions.as_uri(self._snapshot().location) + "/"

    @property
    def table_config(self) -> DeltaTableConfig:
        return self._config

    def count(self) -> int:
        """How many rows there are, by the statistics; files without any count as none."""
        s = self._snapshot()
        ((_, _, rows),) = self._lake.catalog.rows("file_totals", table_id=s.table_id, version=s.version)
        return int(rows) if rows is not None else pc.sum(self._lake.visible(s)["num_records"]).as_py() or 0

    def detail(self) -> dict[str, Any]:
        """What DESCRIBE DETAIL tells: names, place, partitioning, properties, protocol, files, bytes and rows."""
        s = self._snapshot()
        ((files, size, rows),) = self._lake.catalog.rows("file_totals", table_id=s.table_id, version=s.version)
        return {
            "name": s.name, "id": s.metadata_id, "description": s.description, "location": s.location, "format": "delta",
            "version": s.version, "created_at": utc(s.created_ms), "partition_columns": list(s.partition_columns),
            "properties": dict(s.configuration), "min_reader_version": s.protocol.min_reader_version,
            "min_writer_version": s.protocol.min_writer_version,
            "table_features": sorted({*(s.protocol.reader_features or ()), *(s.protocol.writer_features or ())}),
            "num_files": int(files), "size_in_bytes": int(size), "num_rows": None if rows is None else int(rows),
        }  # fmt: skip

    def history(self, limit: int | None = None) -> History:
        """The commits, newest first, as dicts of what their commitInfo says: version, timestamp (ms), operation, ..."""
        s = self._snapshot()
        above = -1 if limit is None else s.version - limit
        return History(self._lake.catalog.rows("history", table_id=s.table_id, version=s.version, above=above))

    def transaction_version(self, app_id: str) -> int | None:
        """The version that an application has reached; None when it never committed to this table."""
        ((version,),) = self._lake.catalog.rows("transaction_version", table_id=self._table_id, app_id=app_id)
        return None if version is None else int(version)

    def files(self, filter: str | None = None) -> pa.Table:
        """The live files, less those that `filter` (a SQL predicate) rules out by statistics and partition values.

        Columns: path (as in the log: relative, URL-encoded), size (bytes), modification_time (ms), partition_values
        (JSON), num_records, stats (JSON), tags, data_change, and version and action_order of the add.
        """
        return self._files(filter)[1]

    def file_uris(self, partition_filters: Any = None, *, file_pruning_predicate: Any = None) -> list[str]:
        """The absolute names of the files that may hold a row that matches.

        A filter is SQL, a list of (column, operator, value) tuples, all of which hold, or a list of such lists, one of
        which does. Operators: =, !=, <, <=, >, >=, in, not in; '' is a partition column's null.
        """
        s, files = self._files(file_pruning_predicate, partition_filters)
        return add_actions.file_uris(self._lake.con.cursor(), s, files)

    def partitions(self, partition_filters: Any = None, *, file_pruning_predicate: Any = None) -> list[dict[str, str | None]]:
        """The partition values of the files that may hold a row that matches, as the log writes them."""
        return add_actions.partition_values(*self._files(file_pruning_predicate, partition_filters))

    def get_add_actions(self, flatten: bool = False) -> pa.Table:
        """A row per file: path, size_bytes, modification_time, num_records, null_count, min, max, partition.

        The last four are structs over the columns; flattened, each column has its own: ``min.price``, ``partition.day``.
        """
        return add_actions.add_actions(self._lake.con.cursor(), *self._files(), flatten=flatten)

    def deletion_vectors(self) -> pa.RecordBatchReader:
        """Of each file with deleted rows: filepath, and selection_vector, which says of every row whether it is there."""
        return add_actions.selection_vectors(self._lake.con.cursor(), *self._files())

    # --- its rows

    def to_arrow(self, columns: list[str] | None = None, filter: str | None = None) -> pa.Table:
        """The rows, as Arrow; of some columns, and of those that match a predicate, when asked."""
        s = self._snapshot()
        if not s.schema.fields:  # metadata of a table that has been named and not yet described
            return arrow_schema(s.schema).empty_table()
        con = self._lake.con.cursor()
        source = scan.scan_sql(con, s, self._lake.visible(s, self._condition(s, filter)))
        select = file_values.arrow_items(s.schema, s.schema.names if columns is None else columns)
        try:
            rows = con.sql(f"SELECT {select} FROM ({source}) AS {quote(s.name)} WHERE {filter or 'true'}").to_arrow_table()
        except duckdb.Error as e:
            raise parquet.translate(e, s.location) from e
        return file_values.as_said(rows, s.schema)

    def to_pyarrow_dataset(
        self, partitions: Any = None, filesystem: Any = None, parquet_read_options: Any = None, schema: pa.Schema | None = None,
        as_large_types: bool = False, file_pruning_predicate: Any = None,
    ) -> Any:  # fmt: skip
        """A pyarrow dataset of the live files; it knows their partition values and skips by their statistics.

        partitions, file_pruning_predicate: as in ``file_uris``. filesystem: one rooted at the table, in place of the local.
        """
        s, files = self._files(file_pruning_predicate, partitions)
        schema = with_optional_members(Schema(s.schema).to_arrow(as_large_types)) if schema is None else schema
        return add_actions.dataset(self._lake.con.cursor(), s, files, schema, filesystem, parquet_read_options)

    def to_pyarrow_table(
        self, partitions: Any = None, columns: list[str] | None = None, filesystem: Any = None, filters: Any = None
    ) -> pa.Table:
        """The rows that match, as Arrow. filters: tuples as in ``file_uris``, or a pyarrow expression."""
        if filesystem is not None or isinstance(filters, pc.Expression):
            expression = None if filters is None else pq.filters_to_expression(filters)
            return self.to_pyarrow_dataset(partitions, filesystem).to_table(columns=columns, filter=expression)
        return self.to_arrow(columns, _both(self._snapshot(), partitions, filters))

    def to_pandas(
        self, partitions: Any = None, columns: list[str] | None = None, filesystem: Any = None, filters: Any = None,
        types_mapper: Any = None, *, filter: str | None = None,
    ) -> Any:  # fmt: skip
        """The rows that match, as pandas. filters: as in ``to_pyarrow_table``; filter: SQL."""
        rows = self.to_arrow(columns, filter) if filter else self.to_pyarrow_table(partitions, columns, filesystem, filters)
        return rows.to_pandas(types_mapper=types_mapper)

    def scan(self, columns: list[str] | None = None, predicate: str | None = None) -> Any:
        """The rows of this version, as a Polars LazyFrame: a query reads the columns it needs, of the files it needs.

        predicate: SQL that rows must match.
        """
        import polars
        from polars.io.plugins import register_io_source

        s = self._snapshot()
        then = self.as_of(version=s.version)

        def batches(names: list[str] | None, where: Any, n_rows: int | None, batch_size: int | None) -> Iterator[Any]:
            frame = then.to_polars(names, predicate)
            yield (frame if where is None else frame.filter(where)).head(frame.height if n_rows is None else n_rows)

        if predicate is None and add_actions.is_plain(*then._files()):
            frame = polars.scan_pyarrow_dataset(then.to_pyarrow_dataset())
        else:
            schema: Any = polars.from_arrow(arrow_schema(s.schema).empty_table())
            frame = register_io_source(batches, schema=schema.schema)
        return frame if columns is None else frame.select(columns)

    def to_polars(self, columns: list[str] | None = None, filter: str | None = None) -> Any:
        """The rows, as Polars."""
        import polars

        return polars.from_arrow(self.to_arrow(columns, filter))

    # --- other versions, other rows

    def as_of(self, version: int | None = None, timestamp: dt.datetime | dt.date | str | int | None = None) -> DeltaTable:
        """The table at a version, or as it was at a time (a naive one is in UTC). VersionNotFoundError."""
        if timestamp is not None:
            version = snapshots.version_at(self._lake.catalog, self.name, timestamp)
        return DeltaTable.of(self.place, version)

    def load_as_version(self, version: int | str | dt.datetime) -> None:
        """Be the table of a version, or of a time (ISO 8601 text, or a datetime; a naive one is in UTC)."""
        if isinstance(version, str | dt.datetime):
            version = snapshots.version_at(self._lake.catalog, self.name, version)
        elif not isinstance(version, int):
            raise VersionNotFoundError(f"{version!r} is no version: give a number, ISO 8601 text or a datetime")
        self._lake.snapshot(self.name, version)
        self._version = version

    def update_incremental(self) -> None:
        """Be the latest version again; of a plain path, with the commits made since it was opened."""
        if self.place.refresh is not None:
            self.place.refresh()
        self._version = None

    def write(self, frame: Any, mode: str = "append", **options: Any) -> int:
        """``Lake.write`` on this table."""
        return self._lake.write(self.name, frame, mode, **options)

    # --- changing rows, with the deltalake package's names and metrics

    def delete(
        self, predicate: str | None = None, writer_properties: Any = None, *, commit_properties: Any = None,
        post_commithook_properties: Any = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Delete the rows that match a SQL predicate; all rows without one. num_deleted_rows, num_removed_files, …"""
        with self._change(writer_properties, commit_properties, post_commithook_properties) as tx:
            return merger.delete(tx, self.name, predicate)

    def update(
        self, updates: Mapping[str, str] | None = None, new_values: Mapping[str, Any] | None = None,
        predicate: str | None = None, writer_properties: Any = None, error_on_type_mismatch: bool = True, *,
        commit_properties: Any = None, post_commithook_properties: Any = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Set columns where a predicate holds: to SQL expressions over the old row (updates), or to values (new_values).

        error_on_type_mismatch: False makes a value that does not fit NULL. num_updated_rows, num_copied_rows, …
        """
        with self._change(writer_properties, commit_properties, post_commithook_properties) as tx:
            return merger.update(tx, self.name, updates, new_values, predicate, exact=error_on_type_mismatch)

    def merge(
        self, source: Any, predicate: str, source_alias: str | None = None, target_alias: str | None = None,
        merge_schema: bool = False, error_on_type_mismatch: bool = True, writer_properties: Any = None,
        streamed_exec: bool = True, max_spill_size: int | None = None, max_temp_directory_size: int | None = None, *,
        commit_properties: Any = None, post_commithook_properties: Any = None,
    ) -> TableMerger:  # fmt: skip
        """Merge a frame into the table: add clauses to what this returns, then ``execute()`` it.

        predicate: when two rows match, as SQL over the aliases ("target" and "source", unless told).
        merge_schema: columns that only the source has are added. error_on_type_mismatch: False makes a value that does
        not fit NULL. DuckDB spills by its own settings: streamed_exec and the sizes are accepted and not needed.
        """
        self._require_present()
        return TableMerger(
            self._lake, self.name, source, predicate, source_alias=source_alias, target_alias=target_alias,
            merge_schema=merge_schema, error_on_type_mismatch=error_on_type_mismatch,
            tell=lambda tx: self._tell(tx, writer_properties, commit_properties, post_commithook_properties),
        )  # fmt: skip

    @contextmanager
    def _change(self, *told: Any) -> Iterator[Transaction]:
        """A transaction on the table, whose commit is told what the caller said."""
        self._require_present()
        with self._lake.begin() as tx:
            self._tell(tx, *told)
            yield tx

    def _require_present(self) -> None:
        if self._version is not None:
            raise UnsupportedFeatureError(f"table {self.name!r} as of version {self._version} is the past: it cannot be changed")

    def _tell(self, tx: Transaction, writer_properties: Any, commit_properties: Any, post_commithook_properties: Any) -> None:
        if (change := tx.change(self.name)) is not None:
            change.copy_options = properties.copy_options(writer_properties)
            properties.describe(change, None, commit_properties, post_commithook_properties)

    # --- what it is made into

    @property
    def alter(self) -> TableAlterer:
        """Change columns, constraints, properties, name."""
        return TableAlterer(self)

    @property
    def optimize(self) -> TableOptimizer:
        """Put small files together, or sort rows: ``optimize.compact()``, ``optimize.z_order([...])``."""
        return TableOptimizer(self)

    # --- for people

    def __repr__(self) -> str:
        d = self.detail()
        rows = "? rows" if d["num_rows"] is None else f"{d['num_rows']:,} rows"
        size = f"{d['num_files']:,} file{'s' if d['num_files'] != 1 else ''}, {size_text(d['size_in_bytes'])}"
        return f"<DeltaTable {self.name!r} version {d['version']}: {rows}, {size}>"

    def _repr_html_(self) -> str:
        s = self._snapshot()
        rows = []
        for f in s.schema:
            marks = ("NOT NULL " if not f.nullable else "") + ("partition" if f.name in s.partition_columns else "")
            cells = (html.escape(text) for text in (f.name, to_duckdb(f.type), marks))
            rows.append("<tr>" + "".join(f"<td style='text-align:left'>{cell}</td>" for cell in cells) + "</tr>")
        return f"<b>{html.escape(repr(self)[1:-1])}</b><table>{''.join(rows)}</table>"

    def _snapshot(self) -> Snapshot:
        return self._lake.snapshot(self.name, self._version)

    def _files(self, *filters: Any) -> tuple[Snapshot, pa.Table]:
        """The files that may hold a row that all filters let through."""
        s = self._snapshot()
        filter = _both(s, *filters)
        predicates.require_columns(filter, s.name, s.schema.names)  # nothing else looks: no query runs
        return s, self._lake.visible(s, self._condition(s, filter))

    def _condition(self, s: Snapshot, filter: str | None) -> predicates.Condition:
        return self._lake.compile(s, None if filter is None else predicates.parse(filter), [self.name])


def _both(s: Snapshot, *filters: Any) -> str | None:
    """SQL of all the filters given."""
    parts = [f"({sql})" for sql in (add_actions.predicate_of(f, s) for f in filters) if sql is not None]
    return " AND ".join(parts) or None
