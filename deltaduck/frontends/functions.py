"""Table functions on any DuckDB connection: a Python function writes SQL, and a macro runs it.

DuckDB's Python client has scalar functions only. It folds one of constant arguments when it binds a statement, so
``query(function(...))`` in a table macro is a table function whose rows are as of that moment.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import duckdb

from deltaduck import predicate, scan, storage
from deltaduck.errors import QueryError
from deltaduck.listing import Listing
from deltaduck.protocol.schema import literal, quote
from deltaduck.snapshot import Snapshot
from deltaduck.table import DeltaTable

if TYPE_CHECKING:
    from deltaduck.lake import Lake

MACROS = {
    "dl_scan": '(t, version := NULL, "timestamp" := NULL, filter := NULL)',
    "dl_files": '(t, version := NULL, "timestamp" := NULL, filter := NULL)',
    "dl_history": "(t)",
    "dl_detail": "(t)",
    "dl_changes": "(t, from_version := NULL, to_version := NULL)",
    "dl_tables": "()",
}

CALL = re.compile(rf"\b({'|'.join(MACROS)})\s*\(", re.IGNORECASE)


def register(con: duckdb.DuckDBPyConnection, lake: Lake, *, temporary: bool = True) -> None:
    """Put a lake's table functions on a DuckDB connection, in its temporary schema unless told otherwise.

    t: a table of the lake, or the path of any Delta table, which is read as it is then.
    dl_scan(t, version, timestamp, filter): rows of a table, now or as of a version or time; files that `filter` rules
    out are not opened, and its rows are filtered. dl_files(t, version, timestamp, filter): its live files.
    dl_history(t): its commits.
    dl_changes(t, from_version, to_version): the rows that came and went. dl_detail(t): one row about it. dl_tables(): every
    table of the lake.
    """
    asking = weakref.ref(con)  # a function that held its connection would keep its database open for good

    def cursor() -> Any:
        """Where the rows will be read: it must know how to reach the files."""
        mine = asking()
        return (lake.con if mine is None else mine).cursor()

    makers: dict[str, tuple[Callable[..., str], int]] = {
        "dl_scan": (lambda t, v, ts, f: _scan(lake, cursor(), t, v, ts, f), 4),
        "dl_files": (lambda t, v, ts, f: _files(lake, t, v, ts, f), 4),
        "dl_history": (lambda t: _rows(_table(lake, t).history()), 1),
        "dl_detail": (lambda t: _rows([_table(lake, t).detail()]), 1),
        "dl_changes": (lambda t, first, last: _changes(lake, cursor(), t, first, last), 3),
        "dl_tables": (lambda: _rows(lake.tables()), 0),
    }
    for name, (maker, arguments) in makers.items():
        function = f"{name}_sql"
        _replace(con, function, maker, arguments)
        names = [part.split(":=")[0].strip() for part in MACROS[name].strip("()").split(",")][:arguments]
        call = f"{function}({', '.join(f'CAST({n} AS VARCHAR)' for n in names)})"
        kind = "TEMP MACRO" if temporary else "MACRO"
        con.execute(f"CREATE OR REPLACE {kind} {name}{MACROS[name]} AS TABLE FROM query({call})")


def show_tables(con: duckdb.DuckDBPyConnection, lake: Lake) -> None:
    """Make every table a view, for SQL that DuckDB must resolve by itself. A view follows its table's versions."""
    register(con, weakref.proxy(lake), temporary=False)
    names = [table["name"] for table in lake.tables()]
    for view, text in con.execute("SELECT view_name, sql FROM duckdb_views() WHERE sql LIKE '%dl_scan(%'").fetchall():
        if view not in names and f" FROM dl_scan({literal(view)})" in text:  # of a table that is gone
            con.execute(f"DROP VIEW {quote(view)}")
    for name in names:
        con.execute(f"CREATE OR REPLACE VIEW {quote(name)} AS SELECT * FROM dl_scan({literal(name)})")


def _replace(con: Any, name: str, maker: Callable[..., str], arguments: int) -> None:
    with contextlib.suppress(duckdb.Error):  # it was not there
        con.remove_function(name)
    con.create_function(name, maker, ["VARCHAR"] * arguments, "VARCHAR", null_handling="special")


def _table(lake: Lake, table: str | None) -> DeltaTable:
    """A table of the lake; where it has none of that name, the Delta table at that path, as it is now."""
    if table is None:
        raise QueryError("a table's name is needed")
    if ("/" not in table and os.sep not in table) or lake.find(table) is not None:
        return lake.table(table)
    if (opened := lake.opened.get(table)) is None:
        opened = lake.opened[table] = DeltaTable(table)
    else:
        opened.update_incremental()
    return opened


def _scan(lake: Lake, cursor: Any, table: str | None, version: str | None, timestamp: str | None, filter: str | None) -> str:
    lake, snapshot, condition = _selected(lake, table, version, timestamp, filter)
    with lake.at_one_point(), storage.while_binding():
        source = scan.scan_sql(cursor, snapshot, lake.visible(snapshot, condition))
    return f"SELECT * FROM ({source}) AS {quote(snapshot.name)} WHERE {filter or 'true'}"


def _files(lake: Lake, table: str | None, version: str | None, timestamp: str | None, filter: str | None) -> str:
    lake, snapshot, condition = _selected(lake, table, version, timestamp, filter)
    predicate.require_columns(filter, snapshot.name, snapshot.schema.names)
    return _rows(lake.visible(snapshot, condition).to_pylist(), FILE_TYPES)


def _changes(lake: Lake, cursor: Any, table: str | None, first: str | None, last: str | None) -> str:
    place = _table(lake, table).place
    with storage.while_binding():
        return place.lake.changes_sql(
            place.table, None if first is None else int(first), None if last is None else int(last), cursor
        )


def _selected(
    lake: Lake, table: str | None, version: str | None, timestamp: str | None, filter: str | None
) -> tuple[Lake, Snapshot, predicate.Condition]:
    """The lake, the table in it at a version or time, and what `filter` says of its files."""
    if version is not None and timestamp is not None:
        raise QueryError("give a version or a timestamp, not both")
    place = _table(lake, table).place
    snapshot = place.lake.find(place.table, None if version is None else int(version), timestamp)
    if snapshot is None:
        raise place.lake.not_found(place.table)
    where = None if filter is None else predicate.parse(filter)
    return place.lake, snapshot, place.lake.compile(snapshot, where, [snapshot.name])


FILE_TYPES = {
    "version": "BIGINT", "action_order": "BIGINT", "path": "VARCHAR", "size": "BIGINT", "modification_time": "BIGINT",
    "partition_values": "VARCHAR", "num_records": "BIGINT", "stats": "VARCHAR", "tags": "VARCHAR", "data_change": "BOOLEAN",
}  # fmt: skip
TYPES = FILE_TYPES | {
    "timestamp": "TIMESTAMPTZ", "committed": "TIMESTAMPTZ", "created_at": "TIMESTAMPTZ", "read_version": "BIGINT",
    "is_blind_append": "BOOLEAN", "min_reader_version": "BIGINT", "min_writer_version": "BIGINT", "num_files": "BIGINT",
    "size_in_bytes": "BIGINT", "num_rows": "BIGINT", "partition_columns": "VARCHAR[]", "table_features": "VARCHAR[]",
    "properties": "MAP(VARCHAR, VARCHAR)", "operation_parameters": "MAP(VARCHAR, VARCHAR)",
    "operation_metrics": "MAP(VARCHAR, VARCHAR)",
}  # fmt: skip


def _rows(rows: list[dict[str, Any]], columns: dict[str, str] | None = None) -> str:
    """A query that answers these rows: one JSON text, which DuckDB reads into columns."""
    names = list(columns if columns is not None else rows.columns if isinstance(rows, Listing) else rows[0])
    if isinstance(rows, Listing):
        rows = [dict(zip(names, row, strict=True)) for row in rows.rows()]
    shape = {name: TYPES.get(name, "VARCHAR") for name in names}
    text = json.dumps(rows, ensure_ascii=False, default=lambda value: value.isoformat())
    return f"SELECT unnest(from_json({literal(text)}, {literal(json.dumps([shape]))}), max_depth := 2)"
