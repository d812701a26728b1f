"""One table of a lake."""

from __future__ import annotations

import datetime as dt
import html
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from deltaduck import parquet, scan, skip_index
from deltaduck import predicate as predicates
from deltaduck import snapshot as snapshots
from deltaduck.errors import TableNotFoundError
from deltaduck.listing import Listing, size_text, utc
from deltaduck.maintenance import TableAlterer, TableOptimizer
from deltaduck.operations import restore, vacuum
from deltaduck.protocol.schema import arrow_schema, quote, to_duckdb
from deltaduck.snapshot import Snapshot

if TYPE_CHECKING:
    from deltaduck.lake import Lake


class DeltaTable:
    """A table as it is now, each time it is asked; or, from ``as_of``, as it was at one version for good."""

    def __init__(self, lake: Lake, name: str, version: int | None = None) -> None:
        self._lake = lake
        self._version = version
        snapshot = lake.snapshot(name, version)
        self.name = snapshot.name
        self._table_id = snapshot.table_id

    # --- what it is

    def version(self) -> int:
        """The latest committed version; the version itself for a table from ``as_of``."""
        if self._version is not None:
            return self._version
        head = self._lake.head(self.name)
        if head is None or head[0] != self._table_id:
            raise TableNotFoundError(f"table {self.name!r} has been dropped")
        return int(head[3])

    def schema(self) -> pa.Schema:
        """The columns, as Arrow."""
        return arrow_schema(self._snapshot().schema)

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

    def history(self, limit: int | None = None) -> Listing:
        """The commits, newest first: version, timestamp, operation, operation_parameters, operation_metrics, ..."""
        s = self._snapshot()
        columns = [
            "version", "timestamp", "operation", "operation_parameters", "operation_metrics", "read_version", "isolation_level",
            "is_blind_append", "engine_info", "user_name", "user_metadata", "commit_id",
        ]  # fmt: skip
        rows = self._lake.catalog.rows("history", table_id=s.table_id, version=s.version)[:limit]
        return Listing(
            columns,
            [(r[0], utc(r[1]), r[2], _object(r[3]), _object(r[4]), *r[5:7], _flag(r[7]), *r[8:]) for r in rows],
        )

    def files(self, filter: str | None = None) -> pa.Table:
        """The live files, less those that `filter` (a SQL predicate) rules out by statistics and partition values.

        Columns: path (as in the log: relative, URL-encoded), size (bytes), modification_time (ms), partition_values
        (JSON), num_records, stats (JSON), tags, data_change, and version and action_order of the add.
        """
        s = self._snapshot()
        return self._lake.visible(s, self._condition(s, filter))

    # --- its rows

    def to_arrow(self, columns: list[str] | None = None, filter: str | None = None) -> pa.Table:
        """The rows, as Arrow; of some columns, and of those that match a predicate, when asked."""
        s = self._snapshot()
        if not s.schema.fields:  # metadata of a table that has been named and not yet described
            return arrow_schema(s.schema).empty_table()
        con = self._lake.con.cursor()
        source = scan.scan_sql(con, s, self._lake.visible(s, self._condition(s, filter)))
        select = "*" if columns is None else ", ".join(quote(c) for c in columns)
        try:
            rows = con.sql(f"SELECT {select} FROM ({source}) AS {quote(s.name)} WHERE {filter or 'true'}").to_arrow_table()
        except duckdb.Error as e:
            raise parquet.translate(e, s.location) from e
        schema = arrow_schema(s.schema)
        wanted = schema if columns is None else pa.schema([schema.field(n) for n in rows.column_names])
        return rows.cast(wanted)

    def to_pandas(self, columns: list[str] | None = None, filter: str | None = None) -> Any:
        """The rows, as pandas."""
        return self.to_arrow(columns, filter).to_pandas()

    def to_polars(self, columns: list[str] | None = None, filter: str | None = None) -> Any:
        """The rows, as Polars."""
        import polars

        return polars.from_arrow(self.to_arrow(columns, filter))

    def changes(
        self,
        from_version: int | None = None,
        to_version: int | None = None,
        *,
        from_timestamp: dt.datetime | dt.date | str | None = None,
        to_timestamp: dt.datetime | dt.date | str | None = None,
    ) -> Any:
        """The rows that came and went from one version to another, both included, as a DuckDB relation.

        Columns: the table's, _change_type (insert, delete, update_preimage, update_postimage), _commit_version and
        _commit_timestamp. Without a start: from the first version on; without an end: up to the latest.
        VersionNotFoundError.
        """
        if to_timestamp is not None:
            to_version = snapshots.version_at(self._lake.catalog, self.name, to_timestamp)
        if from_timestamp is not None:
            from_version = snapshots.version_from(self._lake.catalog, self.name, from_timestamp)
        return self._lake.con.sql(self._lake.changes_sql(self.name, from_version, to_version))

    # --- other versions, other rows

    def as_of(self, version: int | None = None, timestamp: dt.datetime | dt.date | str | None = None) -> DeltaTable:
        """The table at a version, or as it was at a time (a naive one is in UTC). VersionNotFoundError."""
        if timestamp is not None:
            version = snapshots.version_at(self._lake.catalog, self.name, timestamp)
        return DeltaTable(self._lake, self.name, version)

    def write(self, frame: Any, mode: str = "append", **options: Any) -> int:
        """``Lake.write`` on this table."""
        return self._lake.write(self.name, frame, mode, **options)

    def delete(self, predicate: str | None = None) -> dict[str, int]:
        """Delete the rows that match: {"rows": deleted, "files": rewritten}."""
        with self._lake.begin() as tx:
            return tx.delete(self.name, predicate)

    def update(self, updates: Mapping[str, str], predicate: str | None = None) -> dict[str, int]:
        """Set columns to SQL expressions over the old row, where it matches: {"rows": changed, "files": rewritten}."""
        with self._lake.begin() as tx:
            return tx.update(self.name, updates, predicate)

    # --- what it is made into

    @property
    def alter(self) -> TableAlterer:
        """Change columns, constraints, properties, name."""
        return TableAlterer(self)

    @property
    def optimize(self) -> TableOptimizer:
        """Put small files together, or sort rows: ``optimize.compact()``, ``optimize.z_order([...])``."""
        return TableOptimizer(self)

    def vacuum(
        self, retention_hours: float | None = None, dry_run: bool = True, enforce_retention_duration: bool = True, *,
        full: bool = False, keep_versions: list[int] | None = None,
    ) -> list[str]:  # fmt: skip
        """Delete, or only list, data files that no version within the retention needs: their paths in the table.

        retention_hours: unless told, ``delta.deletedFileRetentionDuration``, a week by default. full: look into the directory
        too, for what crashed writers left. keep_versions: versions that stay whole whatever their age.
        """
        return vacuum.vacuum(
            self._lake, self.name, retention_hours, dry_run=dry_run,
            enforce_retention_duration=enforce_retention_duration, full=full, keep_versions=keep_versions,
        )  # fmt: skip

    def restore(
        self, target: int | dt.datetime | dt.date | str, *, ignore_missing_files: bool = False,
        protocol_downgrade_allowed: bool = False,
    ) -> dict[str, int]:  # fmt: skip
        """Make the table what it was at a version or time, in a new commit. StorageError lists files that are deleted."""
        with self._lake.begin() as tx:
            return restore.restore(
                tx, self.name, target,
                ignore_missing_files=ignore_missing_files, protocol_downgrade_allowed=protocol_downgrade_allowed,
            )  # fmt: skip

    def rebuild_index(self) -> int:
        """Derive the skip index anew from the log's statistics; how many files it has. It holds nothing that the log has not."""
        return skip_index.rebuild(self._lake.catalog, self._lake.con, self._snapshot())

    # --- for people

    def __repr__(self) -> str:
        d = self.detail()
        rows = "? rows" if d["num_rows"] is None else f"{d['num_rows']:,} rows"
        size = f"{d['num_files']:,} files, {size_text(d['size_in_bytes'])}"
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

    def _condition(self, s: Snapshot, filter: str | None) -> predicates.Condition:
        return self._lake.compile(s, None if filter is None else predicates.parse(filter), [self.name])


def _flag(value: int | bool | None) -> bool | None:
    """SQLite's booleans are numbers."""
    return None if value is None else bool(value)


def _object(text: str | None) -> dict[str, Any]:
    return json.loads(text) if text else {}
