"""``QueryBuilder``, with the ``deltalake`` package's signature: SQL over tables of any lakes, under names given to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from sqlglot import exp
from sqlglot.errors import SqlglotError

from deltaduck.errors import QueryError, TableNotFoundError, UnsupportedFeatureError
from deltaduck.frontends import references, sql
from deltaduck.predicate import Condition
from deltaduck.snapshot import Snapshot
from deltaduck.table import DeltaTable


class QueryBuilder:
    """SQL over tables that are registered by name. DuckDB runs it, over the files that its predicates leave.

    session_config: the ``deltalake`` package's is about its own engine, and refused.
    """

    def __init__(self, session_config: Mapping[str, str] | None = None) -> None:
        if session_config:
            raise UnsupportedFeatureError("session_config is about DataFusion: DuckDB runs these queries, set it by lake.con")
        self._tables: dict[str, DeltaTable] = {}

    def register(self, table_name: str, delta_table: DeltaTable) -> QueryBuilder:
        """Know a table, as of its version when it has one, by this name."""
        self._tables[table_name.lower()] = delta_table
        return self

    def execute(self, sql: str) -> pa.RecordBatchReader:
        """The rows of a query, as they come. QueryError, TableNotFoundError."""
        return _execute(self._tables, sql)


def _execute(tables: Mapping[str, DeltaTable], text: str) -> pa.RecordBatchReader:
    if not tables:
        raise QueryError("there is nothing to query: register(name, table) first")
    lake = next(iter(tables.values())).place.lake
    try:
        trees = references.parse(text)
    except SqlglotError as e:
        raise QueryError(f"{references.first_line(e)}. The query was not run: {text.strip()[:200]}") from e
    if len(trees) != 1 or not isinstance(trees[0], exp.Query | exp.Describe | exp.Summarize):
        raise UnsupportedFeatureError("QueryBuilder runs one query: lake.sql, or the methods of DeltaTable, change tables")
    return sql.execute(lake, _Registered(tables), text, None).to_arrow_reader()


class _Registered:
    """The tables that a query may name, each in the lake that it is of."""

    def __init__(self, tables: Mapping[str, DeltaTable]) -> None:
        self._tables = tables
        self._of: dict[int, tuple[Snapshot, DeltaTable]] = {}  # by the snapshots that were handed out

    def find(self, name: str, version: int | None = None, timestamp: Any = None) -> Snapshot | None:
        if (table := self._tables.get(name.lower())) is None:
            if next(iter(self._tables.values())).place.lake.find(name) is not None:
                raise TableNotFoundError(f"table {name!r} is not registered: {', '.join(self._tables)}")
            return None
        lake = table.place.lake
        found = table._snapshot() if version is None and timestamp is None else lake.find(table.name, version, timestamp)
        if found is not None:
            self._of[id(found)] = found, table
        return found

    def visible(self, snapshot: Snapshot, condition: Condition | None = None) -> pa.Table:
        return self._of[id(snapshot)][1].place.lake.visible(snapshot, condition)

    def compile(self, snapshot: Snapshot, where: exp.Expr | None, qualifiers: Sequence[str] = ()) -> Condition:
        return self._of[id(snapshot)][1].place.lake.compile(snapshot, where, qualifiers)

    def at_one_point(self) -> Any:
        return next(iter(self._tables.values())).place.lake.at_one_point()
