"""Taking rows out by copy-on-write: files that lose a row are written anew, the others stay. Where a table asks for deletion
vectors, `marking` does what it can first."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from deltaduck import parquet, scan
from deltaduck.catalog.base import now_ms
from deltaduck.changes import Change
from deltaduck.operations import change_data, marking
from deltaduck.protocol import row_tracking
from deltaduck.protocol.schema import quote
from deltaduck.rules import GENERATED

if TYPE_CHECKING:
    from deltaduck.operations.merge import Effect, Found
    from deltaduck.transaction import Transaction


def replace(tx: Transaction, change: Change, found: Found, effect: Effect) -> None:
    """Stage the exchange of the files that lose rows for files with what remains of them, and with the rows that come."""
    if found.touched:
        change.require_removable()
    change_data.tell_rows(tx, change, found, _place([file for file, _ in found.touched]))
    touched = marking.mark(tx, change, found, effect)
    gone = found.files.take(pa.array([file for file, _ in touched], pa.int64()))
    schema = change.after.schema
    names = [f"c{i}" for i in range(len(schema.fields))]
    tracked = row_tracking.columns(change.after.configuration)
    parts = []
    remaining = _remaining(found, change, gone, touched)
    if remaining:
        old = gone.take(pa.array([i for i, _ in remaining], pa.int64()))
        more, stored = scan.identity_sql(change.after, old)
        places = _place([touched[i][0] for i, _ in remaining])
        source = scan.scan_sql(found.connection, change.after, old, f"{places} AS dl_at{more}", stored=stored)
        columns = ", ".join(f"{quote(f.name)} AS {n}" for f, n in zip(schema, names, strict=True))
        columns += ", dl_row_id, dl_row_version" if more else ""
        parts.append(f"SELECT {columns} FROM ({source}) AS t ANTI JOIN {found.table} AS changes ON t.dl_at = changes.place")
    if found.new_rows:
        same_row = ["row_id AS dl_row_id", "CAST(NULL AS BIGINT) AS dl_row_version"] if tracked else []  # changed by this commit
        parts.append(f"SELECT {', '.join(names + same_row)} FROM {found.table} WHERE {found.comes}")
    effect.copied += sum(rows for _, rows in remaining)
    effect.files_removed += gone.num_rows
    tx.remove(change, gone, told=True)
    if parts:
        columns_in_order = [
            (f.name, n)
            for f, n in zip(schema, names, strict=True)
            if GENERATED not in f.metadata or f.name.lower() in found.given  # else they follow from the new values
        ]
        columns_in_order += [(f.name, n) for f, n in zip(tracked, ("dl_row_id", "dl_row_version"), strict=False)]
        rows = found.new_rows + sum(rows for _, rows in remaining)
        target = parquet.by_all_threads(dataclasses.replace(change.target(), hidden=tracked), rows, found.changes.threads)
        adds, written = parquet.write_files(
            found.connection, f"({' UNION ALL '.join(parts)}) AS dl_rows", columns_in_order, target, now_ms()
        )
        effect.files_added += adds.num_rows
        tx.add(change, adds, written, told=True)


def remove_all(tx: Transaction, change: Change, files: pa.Table, effect: Effect) -> None:
    """Stage the removal of all files: none of their rows needs to be looked at."""
    change.require_removable()
    con: Any = tx.lake.con.cursor()
    ((effect.deleted,),) = con.execute(f"SELECT count(*) FROM ({scan.scan_sql(con, change.after, files)})").fetchall()
    effect.files_removed = files.num_rows
    change_data.tell_dropped(tx, change, files)
    tx.remove(change, files)


def _remaining(found: Found, change: Change, gone: pa.Table, touched: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """(place in `gone`, rows that stay) of the files that do not lose all their rows."""
    if not gone.num_rows:
        return []
    con: Any = found.connection
    source = scan.scan_sql(con, change.after, gone, "file_index AS dl_file")
    held = dict(con.execute(f"SELECT dl_file, count(*) FROM ({source}) GROUP BY dl_file").fetchall())
    return [(i, held[i] - lost) for i, (_, lost) in enumerate(touched) if held[i] > lost]


def _place(files: Sequence[int]) -> str:
    """SQL: the place that a row had among the files searched."""
    return f"{scan.of_file(files)} * {marking.FILE} + CAST(file_row_number AS BIGINT)"
