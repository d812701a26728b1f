"""Files that came, or went, without us: Parquet that something else wrote below a table, and files that somebody deleted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from deltaduck import add_actions, parquet, rules, scan, skip_index, storage
from deltaduck.changes import Change
from deltaduck.errors import ConstraintViolationError, QueryError, SchemaMismatchError, StorageError, UnsupportedFeatureError
from deltaduck.operations import change_data, footers
from deltaduck.operations.alter import begin
from deltaduck.operations.create import as_schema, checked_partitions
from deltaduck.predicate import Condition
from deltaduck.protocol.schema import DataType, from_duckdb, literal, physical, to_duckdb, widens

if TYPE_CHECKING:
    from deltaduck.transaction import Transaction


def take_out_missing(tx: Transaction, table: str, *, dry_run: bool = False) -> list[str]:
    """Stage the removal of files that are not in storage any more; their paths, as the log has them."""
    change = begin(tx, table)
    files, location = tx.files(change), change.after.location
    gone = storage.missing(location, files["path"].to_pylist())
    if gone and len(gone) == files.num_rows and not storage.list_log(location):
        raise StorageError(f"table {table!r}: nothing of it is at {location}, its log neither: is a disk not mounted?")
    if gone and not dry_run:
        tx.remove(change, files.filter(pc.is_in(files["path"], pa.array(gone, pa.string()))), told=True)  # nobody can read them
        _describe(change, "FSCK", {})
    return gone


def commit(
    tx: Transaction, table: str, actions: Sequence[Any], mode: str, schema: Any, partition_by: Sequence[str] | str | None = None,
    partition_filters: Any = None,
) -> None:  # fmt: skip
    """Stage add and remove actions: see ``DeltaTable.create_write_transaction``."""
    change = begin(tx, table)
    _check_table(tx, change, schema, partition_by)
    if mode not in ("append", "overwrite"):
        raise SchemaMismatchError(f"mode {mode!r} is unknown; it is 'append' or 'overwrite'")
    if partition_filters is not None and mode == "append":
        raise SchemaMismatchError("partition_filters say what is replaced: they need mode='overwrite'")
    adds = [a for a in actions if hasattr(a, "stats")]
    removes = [str(a.path) for a in actions if not hasattr(a, "stats")]
    if mode == "overwrite":
        _take_out(tx, change, _partition_condition(tx, change, partition_filters))
    _take_out_named(tx, change, removes)
    if adds:
        _add(tx, change, adds)
    _describe(change, "WRITE", {"mode": mode.capitalize(), "partitionBy": json.dumps(change.after.partition_columns)})


# --- inside


def _describe(change: Change, operation: str, parameters: dict[str, str]) -> None:
    if change.base is not None:
        change.operation, change.parameters = operation, parameters


def _check_table(tx: Transaction, change: Change, schema: Any, partition_by: Sequence[str] | str | None) -> None:
    """Is it the table that the files were written for?"""
    after = change.after
    ours, theirs = ([(f.name.lower(), to_duckdb(f.type)) for f in s] for s in (after.schema, as_schema(tx.lake.con, schema)))
    if ours != theirs:
        raise SchemaMismatchError(
            f"table {after.name!r} has other columns than the files were written for: {ours}, not {theirs}; alter it first"
        )
    if partition_by is not None and checked_partitions(after.schema, partition_by) != after.partition_columns:
        raise SchemaMismatchError(f"table {after.name!r} is partitioned by {list(after.partition_columns)}, not {partition_by}")
    if named := [f.name for f in after.schema if rules.IDENTITY in f.metadata]:
        raise UnsupportedFeatureError(
            f"table {after.name!r}: the catalog gives out the values of identity column {named[0]!r}, which files of others "
            "do not have: write the rows"
        )


def _partition_condition(tx: Transaction, change: Change, filters: Any) -> Condition:
    if filters is None:
        return Condition()
    groups = [filters] if all(isinstance(f, tuple) for f in filters) else filters
    parts = {name.lower() for name in change.after.partition_columns}
    if other := [f[0] for group in groups for f in group if f[0].lower() not in parts]:
        raise QueryError(f"table {change.name!r}: {other[0]!r} is no partition column, so it does not say which files to replace")
    return tx.condition(change, add_actions.predicate_of(filters, change.after))


def _take_out(tx: Transaction, change: Change, which: Condition) -> None:
    files = tx.files(change, which)
    change_data.tell_dropped(tx, change, files)
    tx.remove(change, files)
    change.reads.append(which)


def _take_out_named(tx: Transaction, change: Change, paths: Sequence[str]) -> None:
    files = tx.files(change)
    if unknown := {*paths} - {*files["path"].to_pylist()}:
        raise StorageError(f"table {change.name!r} has no file {min(unknown)}, so it cannot be taken out; nothing was committed")
    if paths:
        files = files.filter(pc.is_in(files["path"], pa.array(paths, pa.string())))
        change_data.tell_dropped(tx, change, files)
        tx.remove(change, files)


def _add(tx: Transaction, change: Change, actions: Sequence[Any]) -> None:
    paths = [str(a.path) for a in actions]
    twice = {*paths} & {*tx.files(change)["path"].to_pylist()} | {p for p, times in Counter(paths).items() if times > 1}
    if twice:
        raise SchemaMismatchError(f"table {change.name!r} would have the file {min(twice)} twice")
    if missing := storage.missing(change.after.location, paths):
        raise StorageError(
            f"table {change.name!r}: there is no file {missing[0]} at {change.after.location}; nothing was committed"
        )
    _check_files(tx.lake.con.cursor(), change, paths)
    values = [_partition_values(change, a) for a in actions]
    said = [_stats(change, a) for a in actions]
    adds = pa.table(
        {
            "path": paths, "partition_values": values, "size": [int(a.size) for a in actions],
            "modification_time": [int(a.modification_time) for a in actions],
            "data_change": [bool(a.data_change) for a in actions], "stats": [text for text, _ in said],
            "num_records": [rows for _, rows in said],
        },
        parquet.ADD_SCHEMA,
    )  # fmt: skip
    tx.add(change, _indexed(tx, change, adds), [])
    change.keeps_foreign_files()
    con = tx.lake.con.cursor()
    files = tx.files(change)
    rows = scan.scan_sql(con, change.after, files.filter(pc.is_in(files["path"], adds["path"].combine_chunks())))
    for rule in rules.all_rules(change.after.schema, change.after.configuration):
        try:
            rules.check_existing(con, rows, rule, change.after.schema.names, holds=True)
        except ConstraintViolationError as e:
            raise ConstraintViolationError(f"table {change.name!r}: files that are added: {e}") from None


def _check_files(con: Any, change: Change, paths: Sequence[str]) -> None:
    """SchemaMismatchError for a file that does not hold columns of the table: nobody could read the table with it."""
    after = change.after
    place = storage.readable(con, after.location, plain=False)
    names = [
        path if path.startswith("/") else f"{place}/{path}" for _, path in (storage.locate(after.location, p) for p in paths)
    ]
    wanted = {f.physical_name: f for f in after.schema.without(after.partition_columns)}
    try:
        for name in footers.layouts(con, names):
            relation = con.sql(f"FROM read_parquet({literal(name)}, hive_partitioning = false)")
            held = {n: from_duckdb(t, n) for n, t in zip(relation.columns, relation.types, strict=True) if n in wanted}
            if other := [n for n, kind in held.items() if not _fits(kind, wanted[n].type)]:
                f = wanted[other[0]]
                what = f"column {f.name!r} is {to_duckdb(f.type)} in the table and {to_duckdb(held[other[0]])}"
                raise SchemaMismatchError(f"table {after.name!r}: {what} in {name}")
            if not held:
                columns = ", ".join(wanted)
                raise SchemaMismatchError(f"table {after.name!r}: {name} has none of the columns that its files have: {columns}")
    except duckdb.Error as e:
        raise parquet.translate(e, after.location) from e


def _fits(held: DataType, wanted: DataType) -> bool:
    if isinstance(held, str) and isinstance(wanted, str):
        return held == wanted or widens(held, wanted) or {held, wanted} == {"timestamp", "timestamp_ntz"}
    return to_duckdb(physical(wanted)) == to_duckdb(held)


def _indexed(tx: Transaction, change: Change, adds: pa.Table) -> pa.Table:
    """The adds, with the values of the skip index."""
    places = {"version": pa.nulls(adds.num_rows, pa.int64()), "action_order": pa.array(range(adds.num_rows), pa.int64())}
    exact = pa.repeat(pa.scalar(False), adds.num_rows)
    sources = pa.table({**places, **{n: adds[n] for n in ("stats", "partition_values")}, "exact_max": exact})
    index = skip_index.derive(tx.lake.con.cursor(), sources, change.skip, change.after.schema).sort_by("action_order")
    return pa.table(
        {n: adds[n] for n in adds.column_names}
        | {n: index[n] for n in skip_index.names(change.skip) if n not in adds.column_names}
    )


def _partition_values(change: Change, action: Any) -> str:
    given: Mapping[str, Any] = dict(action.partition_values)
    keys = change.target().partition_keys
    if {*given} != {*keys}:
        raise SchemaMismatchError(
            f"table {change.name!r}: the file {action.path} has values of {sorted(given) or 'no partition column'}, and the "
            f"table is partitioned by {keys}"
        )
    return json.dumps({key: None if given[key] in (None, "") else str(given[key]) for key in keys}, ensure_ascii=False)


def _stats(change: Change, action: Any) -> tuple[str | None, int | None]:
    """(statistics as the log has them, rows) of an add action."""
    if not action.stats:
        return None, None
    try:
        found = json.loads(action.stats)
        return str(action.stats), None if found.get("numRecords") is None else int(found["numRecords"])
    except (ValueError, TypeError, AttributeError) as e:
        raise SchemaMismatchError(f"table {change.name!r}: the statistics of {action.path} are no JSON object: {e}") from e
