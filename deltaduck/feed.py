"""What ``DeltaTable`` tells of the rows that came and went."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from deltaduck import change_feed, file_values, parquet
from deltaduck import snapshot as snapshots
from deltaduck.errors import QueryError
from deltaduck.protocol.schema import Struct, arrow_schema, loosened, quote

if TYPE_CHECKING:
    from collections.abc import Callable

    from deltaduck.lake import Lake
    from deltaduck.snapshot import Snapshot


class ChangeFeed:
    """The methods of ``DeltaTable`` that read its change feed."""

    name: str
    _lake: Lake
    _snapshot: Callable[[], Snapshot]
    version: Callable[[], int]

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
        query = self._lake.changes_sql(self.name, from_version, to_version)
        try:
            return self._lake.con.sql(query)
        except duckdb.Error as e:
            raise parquet.translate(e, self._snapshot().location) from e

    def load_cdf(
        self, starting_version: int = 0, ending_version: int | None = None, starting_timestamp: str | dt.datetime | None = None,
        ending_timestamp: str | dt.datetime | None = None, columns: list[str] | None = None, predicate: str | None = None,
        allow_out_of_range: bool = False,
    ) -> pa.RecordBatchReader:  # fmt: skip
        """What ``changes`` tells, as Arrow: some columns of it, and the rows that match a SQL predicate, when asked.

        An end beyond the latest version is that. A start beyond it is a VersionNotFoundError, or no rows with allow_out_of_range.
        """
        first, last, latest = starting_version, ending_version, self.version()
        if starting_timestamp is not None:
            late = snapshots.to_ms(starting_timestamp) > self._snapshot().commit_ms
            first = latest + 1 if late else snapshots.version_from(self._lake.catalog, self.name, starting_timestamp)
        if ending_timestamp is not None:
            last = snapshots.version_at(self._lake.catalog, self.name, ending_timestamp)
        last = latest if last is None else min(last, latest)
        s = self._snapshot()
        told = loosened(Struct((*s.schema, *change_feed.COLUMNS)))  # a row may be older than NOT NULL
        if unknown := [name for name in columns or () if name not in told.names]:
            raise QueryError(f"the changes of table {s.name!r} have no column {unknown[0]!r}: {', '.join(told.names)}")
        schema = arrow_schema(told)
        wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
        if first > latest and allow_out_of_range:
            return wanted.empty_table().to_reader()
        query = self._lake.changes_sql(self.name, first, last)
        items = file_values.arrow_items(told, wanted.names)
        try:
            rows = self._lake.con.cursor().sql(f"SELECT {items} FROM ({query}) AS {quote(s.name)} WHERE {predicate or 'true'}")
            return rows.to_arrow_reader().cast(wanted)
        except duckdb.Error as e:
            raise parquet.translate(e, s.location) from e
