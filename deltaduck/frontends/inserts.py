"""INSERT in its forms, and COPY … FROM."""

from __future__ import annotations

from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from deltaduck import frames, identity
from deltaduck import predicate as predicates
from deltaduck.errors import QueryError, UnsupportedFeatureError
from deltaduck.frontends import from_items, references, rows, sql
from deltaduck.protocol.schema import Field, quote, to_duckdb
from deltaduck.rules import IDENTITY

if TYPE_CHECKING:
    from deltaduck.lake import Lake
    from deltaduck.transaction import Transaction


def insert(lake: Lake, tx: Transaction, tree: exp.Insert, caller: FrameType | None) -> dict[str, int]:
    if any(tree.args.get(key) for key in ("conflict", "ignore", "alternative")):
        raise UnsupportedFeatureError("INSERT on lake tables takes no ON CONFLICT, no OR REPLACE and no OR IGNORE")
    target = sql.target_of(tree)
    if target is not None and target.args.get("partition"):
        raise UnsupportedFeatureError("INSERT ... PARTITION is not supported: select the partition columns with the others")
    name = sql.name_of(tree)
    columns = [i.name for i in tree.this.expressions] if isinstance(tree.this, exp.Schema) else None
    names = rows.columns_of(tx, name)
    free = [n for n in names if IDENTITY not in rows.field_of(tx, name, n).metadata]
    where = tree.args.get("where")
    how: dict[str, Any] = {"mode": "overwrite" if tree.args.get("overwrite") or where else "append", "lenient": True}
    if where is not None:
        how["predicate"] = where.sql("duckdb")
    body = tree.expression
    if tree.args.get("default"):
        return tx.write(name, sql.rows(lake, f"SELECT NULL AS {quote((free or names)[0])}"), **how)
    if tree.args.get("with_"):
        body.set("with_", tree.args["with_"])
    if isinstance(body, exp.Values):
        if columns is None and len(_width(body)) == len(free):
            columns = free
        columns = _fill_defaults(body, [rows.field_of(tx, name, c) for c in columns or names])
    read_before = len(tx.reads(name))
    query = sql.plan(lake, tx, references.render(body), caller)
    by_name = bool(tree.args.get("by_name"))
    source = sql.rows(lake, query, named=by_name)
    if not by_name:
        if columns is None and len(source.columns) != len(names):
            columns = free
        source = sql.rows(lake, _by_position(query, source.columns, columns or names, name))
    counts = tx.write(name, source, **how)
    if (change := tx.change(name)) is not None:
        change.reads += tx.reads(name)[read_before:]  # a table that feeds itself is no blind append
    return counts


def _width(values: exp.Values) -> list[exp.Expr]:
    first = values.expressions[0]
    return list(first.expressions) if isinstance(first, exp.Tuple) else [first]


def _fill_defaults(values: exp.Values, fields: Sequence[Field]) -> list[str]:
    """Say what DEFAULT stands for; the columns that have values then. Identity columns get theirs when rows are written."""
    tuples = [row for row in values.expressions if isinstance(row, exp.Tuple)]
    for i, f in reversed([*enumerate(fields)]):
        asked = [IDENTITY in f.metadata and len(row.expressions) > i and rows.is_default(row.expressions[i]) for row in tuples]
        if any(asked):
            if not all(asked):
                raise UnsupportedFeatureError(f"DEFAULT for identity column {f.name!r} must stand in every row, or in none")
            for row in tuples:
                row.set("expressions", [e for n, e in enumerate(row.expressions) if n != i])
            fields = [*fields[:i], *fields[i + 1 :]]
    for row in values.expressions:
        if isinstance(row, exp.Tuple):
            for value, f in zip(row.expressions, fields, strict=False):
                if rows.is_default(value):
                    value.replace(predicates.parse(rows.default(f)))
    return [f.name for f in fields]


def _by_position(query: str, given: list[str], columns: list[str], table: str) -> str:
    """`query` with its columns named after the columns they go into."""
    if len(given) != len(columns):
        raise QueryError(
            f"INSERT INTO {table}: the rows have {len(given)} columns, and {len(columns)} are wanted: {', '.join(columns)}"
        )
    return f"SELECT * FROM ({query}) AS dl_rows({frames.columns_sql(columns)})"


def copy(lake: Lake, tx: Transaction, tree: exp.Copy, text: str) -> dict[str, int]:
    """COPY … FROM reads the file as DuckDB does, into a temporary table of the same columns."""
    name = sql.name_of(tree)
    snapshot = tx.find(name)
    if snapshot is None:
        raise lake.not_found(name)
    given = tree.this.expressions if isinstance(tree.this, exp.Schema) else []
    held = [f for f in snapshot.schema if not identity.is_always(f)]
    named = [rows.field_of(tx, name, i.name) for i in given]
    if always := [f for f in named if identity.is_always(f)]:
        raise identity.refuse(name, always[0])
    columns = [f.name for f in named or held]
    table = from_items.temporary()
    target = sql.target_of(tree)
    assert target is not None
    start, end = target.parts[0].meta["start"], target.parts[-1].meta["end"] + 1
    shape = ", ".join(f"{quote(f.name)} {to_duckdb(f.type)}" for f in held)
    sql.run(lake, f"CREATE TEMP TABLE {table} ({shape})")
    try:
        sql.run(lake, f"{text[:start]}{table}{text[end:]}")
        return tx.write(name, sql.rows(lake, f"SELECT {frames.columns_sql(columns)} FROM {table}"), mode="append")
    finally:
        lake.con.execute(f"DROP TABLE {table}")
