"""Change data files: what happened to rows, where the files that a commit adds and removes do not say it.

A commit that has any of them must tell all its changes by them. What only adds or removes whole files tells it by these, until
another statement of the same transaction changes rows.
Protocol: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#change-data-files
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from deltaduck import parquet, scan, storage
from deltaduck import snapshot as snapshots
from deltaduck.catalog.base import now_ms
from deltaduck.changes import Change
from deltaduck.protocol.features import CHANGE_DATA, is_on
from deltaduck.protocol.schema import Field, literal, quote
from deltaduck.rules import GENERATED

if TYPE_CHECKING:
    from deltaduck.operations.merge import Found
    from deltaduck.transaction import Transaction

DIRECTORY = "_change_data"
TYPE = Field("_change_type", "string")


def is_wanted(change: Change) -> bool:
    """Does the table ask for its changes to be told? Its first version is: all its rows came."""
    return change.base is not None and is_on(change.after.configuration, CHANGE_DATA)


def tell_rows(tx: Transaction, change: Change, found: Found, place: str) -> None:
    """Stage what a statement does to the rows that it found. place: SQL of the places in the files that lose rows."""
    if not is_wanted(change) or not (found.touched or found.new_rows):
        return
    tell_rest(tx, change, [file for file, _ in found.touched], found.files)
    schema = change.after.schema
    names = [f"c{i}" for i in range(len(schema.fields))]
    given = [
        (f.name, n) for f, n in zip(schema, names, strict=True) if GENERATED not in f.metadata or f.name.lower() in found.given
    ]
    every = [(f.name, n) for f, n in zip(schema, names, strict=True)]
    parts = []
    if found.touched:
        old = found.files.take(pa.array([file for file, _ in found.touched], pa.int64()))
        source = scan.scan_sql(found.connection, change.after, old, f"{place} AS dl_at")
        columns = ", ".join(f"{quote(f.name)} AS {n}" for f, n in zip(schema, names, strict=True))
        gone = f"SELECT DISTINCT place, {found.comes} AS comes FROM {found.table} WHERE place IS NOT NULL"
        parts.append(
            (f"SELECT {columns}, CASE WHEN g.comes THEN 'update_preimage' ELSE 'delete' END AS dl_type "
             f"FROM ({source}) AS t JOIN ({gone}) AS g ON t.dl_at = g.place", every)
        )  # fmt: skip
    if found.new_rows:
        parts.append(
            (f"SELECT {', '.join(names)}, CASE WHEN place IS NULL THEN 'insert' ELSE 'update_postimage' END AS dl_type "
             f"FROM {found.table} WHERE {found.comes}", given)
        )  # fmt: skip
    if all(columns == every for _, columns in parts):
        parts = [(" UNION ALL ".join(sql for sql, _ in parts), every)]
    for sql, given in parts:
        _write(tx, change, found.connection, sql, given)


def tell_rest(tx: Transaction, change: Change, touched: Sequence[int] | None = None, files: pa.Table | None = None) -> None:
    """Stage the rows of whole files that came or went, if the commit has to tell them: if others are told, or some of the files
    that this transaction added are `touched`."""
    if not is_wanted(change):
        return
    if touched is not None and files is not None:
        staged = files.take(pa.array(list(touched), pa.int64()))
        if not change.cdc and not _has_staged(staged):
            return
    elif not change.cdc:
        return
    tell_all(tx, change)


def tell_staged(tx: Transaction, change: Change) -> None:
    """Before files of this very transaction are written anew, which says nothing of where their rows came from."""
    if is_wanted(change) and change.adds:
        tell_all(tx, change)


def tell_all(tx: Transaction, change: Change) -> None:
    """Stage the rows of all whole files that came or went and are not told yet."""
    added = change.added_files()
    if added is not None:
        _tell_files(tx, change, added.filter(_untold(added)), "insert")
    removes = pa.concat_tables(change.removes, promote_options="default") if change.removes else None
    if removes is not None and change.base is not None:
        keys = removes.filter(_untold(removes)).select(["version", "action_order"])
        if keys.num_rows:
            committed = snapshots.files(tx.lake.catalog, change.base)
            _tell_files(tx, change, committed.join(keys, keys.column_names, join_type="left semi"), "delete")
    change.adds, change.removes = ([told(t) for t in tables] for tables in (change.adds, change.removes))


def tell_dropped(tx: Transaction, change: Change, files: pa.Table) -> None:
    """Before files of this very transaction go: their rows, where they were told, or were there before."""
    added = change.added_files()
    if change.cdc and added is not None and _has_staged(files):
        known = added.filter(pc.and_(_known(added), pc.invert(pc.is_in(added["path"], _added_again(change)))))
        _tell_files(tx, change, known.filter(pc.is_in(known["path"], files["path"].combine_chunks())), "delete")


def tell_returned(tx: Transaction, change: Change, files: pa.Table) -> None:
    """Before removes of these files are taken back: their rows, where they were told."""
    if change.cdc and files.num_rows:
        known = pa.concat_tables([r.filter(_known(r)).select(snapshots.KEY) for r in change.removes])
        _tell_files(tx, change, files.join(known, snapshots.KEY, join_type="left semi"), "insert")


def no_mere_move(change: Change, gone: pa.Array) -> None:
    """Rows go that this transaction has only moved, from files that it took out to some of these: then both say that data
    changed, or else who follows the files would not learn of it."""
    again = _added_again(change)
    moved = [pc.and_(pc.invert(a["data_change"]), pc.invert(pc.is_in(a["path"], again))) for a in change.adds]
    if any(pc.any(pc.and_(m, pc.is_in(a["path"], gone))).as_py() for m, a in zip(moved, change.adds, strict=True)):
        is_told = bool(change.cdc)
        change.adds = [_as_changed(a, which, is_told) for a, which in zip(change.adds, moved, strict=True)]
        change.removes = [_as_changed(r, pc.fill_null(pc.invert(r["data_change"]), False), is_told) for r in change.removes]


def _as_changed(table: pa.Table, which: pa.ChunkedArray, is_told: bool) -> pa.Table:
    before = table["told"] if "told" in table.column_names else pa.repeat(False, table.num_rows)
    changes = pc.if_else(which, True, table["data_change"])
    names = [name for name in table.column_names if name != "told"]
    table = table.select(names).set_column(names.index("data_change"), "data_change", changes)
    return table.append_column("told", pc.if_else(which, is_told, before))


def _known(table: pa.Table) -> pa.ChunkedArray:
    """Are these files whose rows were told, or files between which this transaction has only moved rows?"""
    moved = pc.fill_null(pc.invert(table["data_change"]), False)
    return pc.or_(moved, pc.fill_null(table["told"], False)) if "told" in table.column_names else moved


def _added_again(change: Change) -> pa.Array:
    """Paths of files that are added once more, saying more of themselves."""
    paths = [r["again"].combine_chunks() for r in change.removes if "again" in r.column_names]
    return pa.concat_arrays(paths) if paths else pa.array([], pa.string())


def told(table: pa.Table) -> pa.Table:
    """Staged adds or removes whose rows are told."""
    names = [name for name in table.column_names if name != "told"]
    return table.select(names).append_column("told", pa.repeat(True, table.num_rows))


def _untold(table: pa.Table) -> Any:
    if "told" not in table.column_names:
        return table["data_change"]
    return pc.and_(table["data_change"], pc.invert(pc.fill_null(table["told"], False)))


def _has_staged(files: pa.Table) -> bool:
    return "version" not in files.column_names or files["version"].null_count > 0


def _tell_files(tx: Transaction, change: Change, files: pa.Table, kind: str) -> None:
    """Stage all rows of files as changes of one kind."""
    if files.num_rows:
        con: Any = tx.lake.con.cursor()
        if "version" not in files.column_names:
            files = files.append_column("version", pa.nulls(files.num_rows, pa.int64()))
        sql = scan.scan_sql(con, change.after, files, f"{literal(kind)} AS dl_type")
        _write(tx, change, con, sql, [(f.name, quote(f.name)) for f in change.after.schema])


def _write(tx: Transaction, change: Change, con: Any, sql: str, columns: Sequence[tuple[str, str]]) -> None:
    location = storage.join(change.after.location, DIRECTORY)
    target = replace(change.target(), location=location, skip=(), hidden=(TYPE,))
    rules = None if len(columns) == len(change.after.schema.fields) else ()
    adds, written = parquet.write_files(con, f"({sql}) AS dl_rows", [*columns, (TYPE.name, "dl_type")], target, now_ms(), rules)
    paths = pa.array([f"{DIRECTORY}/{path}" for path in adds["path"].to_pylist()], pa.string())
    tx.tell(change, adds.select(["partition_values", "size"]).append_column("path", paths), written)
