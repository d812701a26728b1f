"""Append, overwrite and replaceWhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from deltaduck import casts, clustering, identity, parquet
from deltaduck.catalog.base import now_ms
from deltaduck.changes import Change
from deltaduck.errors import (
    ConstraintViolationError,
    SchemaMismatchError,
    TableExistsError,
    UnsupportedFeatureError,
)
from deltaduck.frames import Source
from deltaduck.operations import change_data
from deltaduck.operations.create import change_schema, checked_partitions, create, evolved
from deltaduck.operations.merge import delete_rows
from deltaduck.predicate import Condition
from deltaduck.protocol import mapping
from deltaduck.protocol.features import check_writable
from deltaduck.rules import replaced_rule

if TYPE_CHECKING:
    from deltaduck.transaction import Transaction

MODES = ("append", "overwrite", "error", "ignore")


def write(
    tx: Transaction,
    name: str,
    source: Source,
    *,
    mode: str,
    partition_by: Sequence[str] | None = None,
    schema_mode: str | None = None,
    predicate: str | None = None,
    configuration: Mapping[str, str] | None = None,
    description: str | None = None,
    copy_options: Mapping[str, str | int] | None = None,
    lenient: bool = False,
) -> dict[str, int]:
    """Stage the rows of `source` in a table, which is created when absent; how many rows and files were written."""
    staged = stage(
        tx, name, source, mode=mode, partition_by=partition_by, schema_mode=schema_mode, predicate=predicate,
        configuration=configuration, description=description, copy_options=copy_options,
    )  # fmt: skip
    if staged is None:
        return {"rows": 0, "files": 0}
    change, rows = staged
    return _append(tx, change, source, rows, lenient=lenient)


def stage(
    tx: Transaction,
    name: str,
    source: Source,
    *,
    mode: str,
    partition_by: Sequence[str] | None = None,
    schema_mode: str | None = None,
    predicate: str | None = None,
    configuration: Mapping[str, str] | None = None,
    description: str | None = None,
    copy_options: Mapping[str, str | int] | None = None,
) -> tuple[Change, str | None] | None:
    """A write but for its files: (the change they belong to, what each of their rows must satisfy); None for nothing to do."""
    _check_arguments(mode, schema_mode, predicate)
    change = tx.change(name)
    if change is None:
        schema = source.schema()
        change = create(tx, name, schema, partition_by, configuration, description)
        change.copy_options = copy_options or {}
        change.operation, change.parameters["mode"] = "CREATE TABLE AS SELECT", mode
        return change, None
    if mode == "ignore":
        return None
    if mode == "error":
        raise TableExistsError(f"table {name!r} exists already; use mode='append' or 'overwrite'")
    check_writable(change.after.protocol, name)
    _check_unchanged(change, partition_by, configuration, schema_mode, description)
    change.copy_options = copy_options or {}
    change = _with_schema(tx, change, source, schema_mode, partition_by)
    _describe(change, "WRITE", {"mode": mode.capitalize(), "partitionBy": json.dumps(change.after.partition_columns)})
    rows: str | None = None
    if mode == "overwrite" and predicate is None:
        remove_all(tx, change)
    elif predicate is not None:
        change.parameters["predicate"] = predicate
        rows = predicate
        delete_rows(tx, change, predicate)
    return change, rows


def _check_arguments(mode: str, schema_mode: str | None, predicate: str | None) -> None:
    if mode not in MODES:
        raise SchemaMismatchError(f"mode {mode!r} is unknown; it is one of {', '.join(MODES)}")
    if schema_mode not in (None, "merge", "overwrite"):
        raise SchemaMismatchError(f"schema_mode {schema_mode!r} is unknown; it is 'merge' or 'overwrite'")
    if predicate is not None and mode != "overwrite":
        raise SchemaMismatchError("predicate replaces the rows it matches: it needs mode='overwrite'")
    if schema_mode == "overwrite" and (mode != "overwrite" or predicate is not None):
        raise SchemaMismatchError("schema_mode='overwrite' needs mode='overwrite' of the whole table")


def _check_unchanged(
    change: Change, partition_by: Sequence[str] | None, configuration: Mapping[str, str] | None, schema_mode: str | None,
    description: str | None,
) -> None:  # fmt: skip
    table = change.after
    if partition_by is not None and schema_mode != "overwrite":
        wanted = checked_partitions(table.schema, partition_by)
        if wanted != table.partition_columns:
            raise SchemaMismatchError(
                f"table {table.name!r} is partitioned by {list(table.partition_columns)}, not {list(wanted)}: "
                "to change that, use mode='overwrite' with schema_mode='overwrite'"
            )
    differing = {k: v for k, v in (configuration or {}).items() if table.configuration.get(k) != str(v)}
    if differing:
        raise UnsupportedFeatureError(f"table {table.name!r} exists: its properties are not changed by a write: {differing}")
    if description not in (None, table.description):
        raise UnsupportedFeatureError(f"table {table.name!r} exists: its description is not changed by a write: {description!r}")


def _with_schema(
    tx: Transaction, change: Change, source: Source, schema_mode: str | None, partition_by: Sequence[str] | None
) -> Change:
    if schema_mode == "merge":
        changed = evolved(change, source.offered())
    elif schema_mode == "overwrite":
        schema = mapping.kept(source.schema(), change.after.schema)
        parts = change.after.partition_columns if partition_by is None else partition_by
        clustering.require_free(tx.lake.catalog, change, schema)
        changed = change_schema(change, schema, checked_partitions(schema, parts))
    else:
        return change
    if changed is not change:
        tx.stage(changed)
    return changed


def _describe(change: Change, operation: str, parameters: dict[str, str]) -> None:
    if change.base is not None:
        change.operation = operation
        change.parameters |= parameters


def remove_all(tx: Transaction, change: Change) -> None:
    """Stage the removal of every file, having read them all."""
    files = tx.visible(change.after)
    if files.num_rows:
        change.require_removable()
    change_data.tell_dropped(tx, change, files)
    tx.remove(change, files)
    change.reads.append(Condition())


def _append(tx: Transaction, change: Change, source: Source, rows: str | None = None, *, lenient: bool) -> dict[str, int]:
    with identity.numbered(tx.lake.catalog, change, source) as numbered:
        return _append_rows(tx, change, numbered, rows, lenient=lenient)


def _append_rows(tx: Transaction, change: Change, source: Source, rows: str | None, *, lenient: bool) -> dict[str, int]:
    after = change.after
    try:
        columns = casts.projection(source.given(lenient=lenient), after.schema, lenient=lenient)
    except SchemaMismatchError as e:
        raise SchemaMismatchError(f"table {after.name!r}: {e}{_merge_hint(str(e))}") from None
    rules = [] if rows is None else [replaced_rule(rows, after.schema)]
    named = rows is None and source.item is None
    from_sql, frame = ("dl_frame", source.frame) if named else (source.from_sql, None)
    try:
        adds, files = parquet.write_files(source.connection, from_sql, columns, change.target(), now_ms(), rules, frame)
    except (SchemaMismatchError, ConstraintViolationError) as e:
        raise type(e)(f"table {after.name!r}: {e}") from (e.__cause__ or e)
    tx.add(change, adds, files)
    return {"rows": pc.sum(adds["num_records"]).as_py() or 0, "files": adds.num_rows}


def _merge_hint(text: str) -> str:
    return "; to add columns, use schema_mode='merge'" if "is not in the table" in text else ""
