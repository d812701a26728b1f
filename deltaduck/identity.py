"""Identity columns: whole numbers that are given out once.

The catalog gives ranges to writers, each in a transaction of its own, so that no two writers ever have the same value and
appends do not wait for each other; a range whose commit fails is a gap. The log's high water mark is what other engines go on
from: an upper bound of the values that are in the table. It is raised by a margin, so that few commits have to, by a metaData
action with which nothing conflicts.

Protocol: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#identity-columns
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from deltaduck.catalog import Catalog
from deltaduck.changes import Change
from deltaduck.errors import ConstraintViolationError, SchemaMismatchError
from deltaduck.frames import Source
from deltaduck.protocol.schema import Field, Struct, parse_schema, quote
from deltaduck.rules import DEFAULT, GENERATED, IDENTITY

STEP = "delta.identity.step"
MARK = "delta.identity.highWaterMark"
EXPLICIT = "delta.identity.allowExplicitInsert"
MARGIN = 1000  # values that a high water mark is ahead: as many are lost to other engines, none to this one
LEAST, MOST = -(2**63), 2**63 - 1


def is_always(f: Field) -> bool:
    """Is it a column whose values nobody may choose?"""
    return IDENTITY in f.metadata and f.metadata.get(EXPLICIT) is not True


def metadata(start: int = 1, step: int = 1, *, always: bool) -> dict[str, Any]:
    """What the schema says of a new identity column."""
    return {IDENTITY: start, STEP: step, EXPLICIT: not always}


def check(schema: Struct, partition_columns: Sequence[str]) -> None:
    """SchemaMismatchError for an identity column that cannot be one."""
    for f in schema:
        if IDENTITY not in f.metadata:
            continue
        problem = (
            f"is {f.type}, and identity columns are BIGINT" if f.type != "long"
            else "cannot be a partition column" if f.name in partition_columns
            else "has a default or an expression, too" if {DEFAULT, GENERATED} & {*f.metadata}
            else "has an increment of 0" if f.metadata.get(STEP) == 0
            else "begins outside of the numbers of a BIGINT" if not LEAST <= int(f.metadata[IDENTITY]) <= MOST
            else None
        )  # fmt: skip
        if problem:
            raise SchemaMismatchError(f"identity column {f.name!r} {problem}")


def refuse(table: str, f: Field) -> ConstraintViolationError:
    """The error for a value that somebody chose."""
    return ConstraintViolationError(
        f"table {table!r}: column {f.name!r} is GENERATED ALWAYS AS IDENTITY: leave it out; nothing was written"
    )


def take(catalog: Catalog, change: Change, f: Field, count: int) -> int:
    """The first of so many values that nobody else will have; the others follow by the column's step."""
    step, table_id = int(f.metadata.get(STEP, 1)), change.after.table_id
    known = change.identity.get(f.physical_name)
    if table_id < 0:  # nobody else knows the table yet
        first = _next(f) if known is None else known + step
    else:
        scope = {"table_id": table_id, "column_name": f.physical_name}
        with catalog.transaction():
            catalog.run("insert_identity", **scope, next_value=_next(f))
            ((after,),) = catalog.rows("take_identity", **scope, span=count * step)
        first = int(after) - count * step
    last = first + (count - 1) * step
    if not LEAST <= last <= MOST:
        raise ConstraintViolationError(f"table {change.name!r}: identity column {f.name!r} has no values left")
    change.identity[f.physical_name] = last if known is None else _furthest(step, known, last)
    return first


@contextmanager
def numbered(catalog: Catalog, change: Change, source: Source) -> Iterator[Source]:
    """Rows that have their identity values. ConstraintViolationError for values that nobody may choose."""
    given = {name.lower() for name in source.columns}
    columns = [f for f in change.after.schema if IDENTITY in f.metadata]
    if chosen := [f for f in columns if is_always(f) and f.name.lower() in given]:
        raise refuse(change.name, chosen[0])
    wanted = [f for f in columns if f.name.lower() not in given]
    if not wanted:
        yield source
        return
    names, kinds = [*source.columns, *(f.name for f in wanted)], [*source.types, *(duckdb.sqltype("BIGINT") for _ in wanted)]
    if source.item is None and isinstance(source.frame, pa.Table):
        frame = source.frame
        for f in wanted:
            first, step = take(catalog, change, f, max(frame.num_rows, 1)), int(f.metadata.get(STEP, 1))
            frame = frame.append_column(f.name, pa.array(first + step * np.arange(frame.num_rows, dtype=np.int64)))
        yield Source(source.connection, None, names, kinds, source.arrow, frame)
        return
    con, table = source.connection, "dl_numbered"  # how many rows there are is known when they are all there
    con.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT * FROM {source.from_sql}")
    try:
        ((rows,),) = con.execute(f"SELECT count(*) FROM {table}").fetchall()
        firsts = [(f, take(catalog, change, f, max(rows, 1)), f.metadata.get(STEP, 1)) for f in wanted]
        values = [f"{first} + {step} * (row_number() OVER () - 1) AS {quote(f.name)}" for f, first, step in firsts]
        yield Source(con, f"(SELECT *, {', '.join(values)} FROM {table})", names, kinds)
    finally:
        con.execute(f"DROP TABLE IF EXISTS {table}")


def raised(catalog: Catalog, change: Change, version: int) -> Struct | None:
    """The schema whose marks cover the values that a commit after `version` brings; None where they do already."""
    base, schema = change.base, change.after.schema
    if base is not None and base.version != version:  # others may have raised them since
        ((text,),) = catalog.rows("schema_at", table_id=base.table_id, version=version)
        schema = parse_schema(text)
    margin = 0 if base is None else MARGIN
    fields = []
    for f in schema:
        last, step = change.identity.get(f.physical_name), int(f.metadata.get(STEP, 1))
        mark = f.metadata.get(MARK)
        if IDENTITY in f.metadata and last is not None and (mark is None or _furthest(step, int(mark), last) != int(mark)):
            f = replace(f, metadata={**f.metadata, MARK: max(LEAST, min(MOST, last + margin * step))})
        fields.append(f)
    return Struct(tuple(fields)) if tuple(fields) != schema.fields else None


def marked_since(schema: Struct, since: Struct) -> Struct:
    """An older schema, whose identity columns go on after the values that have been given out since."""
    fields = []
    for f in schema:
        now = since.get(f.name)
        if IDENTITY in f.metadata and now is not None and now.physical_name == f.physical_name and MARK in now.metadata:
            marks = [int(m[MARK]) for m in (f.metadata, now.metadata) if MARK in m]
            f = replace(f, metadata={**f.metadata, MARK: _furthest(int(f.metadata.get(STEP, 1)), *marks)})
        fields.append(f)
    return Struct(tuple(fields))


def unmarked(schema: Struct) -> Struct:
    """The schema without what an append may change of it."""
    return Struct(tuple(replace(f, metadata={k: v for k, v in f.metadata.items() if k != MARK}) for f in schema))


def follow(catalog: Catalog, table_id: int, schema: Struct) -> None:
    """Give no value out that somebody else's commits may have used."""
    for f in schema:
        if IDENTITY in f.metadata and MARK in f.metadata:
            scope = {"table_id": table_id, "column_name": f.physical_name, "next_value": _next(f)}
            catalog.run("raise_identity" if int(f.metadata.get(STEP, 1)) > 0 else "lower_identity", **scope)


def _next(f: Field) -> int:
    """The first value behind the column's high water mark."""
    start, step, mark = int(f.metadata[IDENTITY]), int(f.metadata.get(STEP, 1)), f.metadata.get(MARK)
    return start if mark is None else start + max(0, (int(mark) - start) // step + 1) * step


def _furthest(step: int, *values: int) -> int:
    return max(values) if step > 0 else min(values)
