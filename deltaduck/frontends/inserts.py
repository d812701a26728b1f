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
from deltaduck.rules import GENERATED, IDENTITY

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
    if columns and (twice := [c for i, c in enumerate(columns) if c.lower() in map(str.lower, columns[:i])]):
        raise QueryError(f"INSERT INTO {name}: column {twice[0]!r} is named twice")
    fields: Sequence[Field] = [rows.field_of(tx, name, n) for n in columns or rows.columns_of(tx, name)]
    where = tree.args.get("where")
    how: dict[str, Any] = {"mode": "overwrite" if tree.args.get("overwrite") or where else "append", "lenient": True}
    if where is not None:
        how["predicate"] = where.sql("duckdb")
    body = tree.expression
    if tree.args.get("default"):
        first = _filled(fields)[-1][0]
        return tx.write(name, sql.rows(lake, f"SELECT {rows.default(first)} AS {quote(first.name)}"), **how)
    from_items.hand_down_ctes(tree)
    if isinstance(body, exp.Values):
        if columns is None:
            fields = _fitting(fields, _width(body))
        fields = _completed(body, fields)
    read_before = len(tx.reads(name))
    query = sql.plan(lake, tx, references.render(body), caller)
    by_name = bool(tree.args.get("by_name"))
    source = sql.rows(lake, query, named=by_name)
    if not by_name:
        if columns is None and not isinstance(body, exp.Values):
            fields = _fitting(fields, len(source.columns))
        source = sql.rows(lake, _by_position(query, source.columns, [f.name for f in fields], name))
    counts = tx.write(name, source, **how)
    if (change := tx.change(name)) is not None:
        change.reads += tx.reads(name)[read_before:]  # a table that feeds itself is no blind append
    return counts


def _width(values: exp.Values) -> int:
    first = values.expressions[0]
    return len(first.expressions) if isinstance(first, exp.Tuple) else 1


def _filled(fields: Sequence[Field]) -> list[list[Field]]:
    """The columns that rows without a list of columns may have: all, those without the identity, those without what is made."""
    given = [f for f in fields if IDENTITY not in f.metadata]
    free = [f for f in given if GENERATED not in f.metadata]
    return [list(fields), *([given] if given else []), *([free] if free else [])]


def _fitting(fields: Sequence[Field], width: int) -> Sequence[Field]:
    return next((found for found in _filled(fields) if len(found) == width), fields)


def _completed(values: exp.Values, fields: Sequence[Field]) -> Sequence[Field]:
    """Say what DEFAULT stands for, and give each value its column's type, lest those of other rows have a say in it; the
    columns that have values then. Identity and generated columns get theirs when rows are written."""
    tuples = [row for row in values.expressions if isinstance(row, exp.Tuple)]
    for i, f in reversed([*enumerate(fields)]):
        if not {IDENTITY, GENERATED} & {*f.metadata}:
            continue
        asked = [len(row.expressions) > i and rows.is_default(row.expressions[i]) for row in tuples]
        if any(asked):
            if not all(asked):
                raise UnsupportedFeatureError(f"DEFAULT for generated column {f.name!r} must stand in every row, or in none")
            for row in tuples:
                row.set("expressions", [e for n, e in enumerate(row.expressions) if n != i])
            fields = [*fields[:i], *fields[i + 1 :]]
    for i, f in enumerate(fields):
        given = [row.expressions[i] for row in tuples if len(row.expressions) > i]
        mixed = len({_kind(value) for value in given} - {"null"}) > 1
        for value in given:
            if rows.is_default(value):
                value.replace(predicates.parse(rows.default(f)))
            elif mixed or _kind(value) == "expression":
                value.replace(exp.Cast(this=value.copy(), to=exp.DataType.build(to_duckdb(f.type), dialect="duckdb")))
    return fields


def _kind(value: exp.Expr) -> str:
    """What a value of VALUES is, where its type is no question."""
    match value:
        case exp.Null():
            return "null"
        case exp.Boolean():
            return "truth"
        case exp.Literal():
            return "text" if value.is_string else "whole" if value.name.isdigit() else "expression"
        case exp.Neg(this=exp.Literal()) if value.name.isdigit():
            return "whole"
    return "null" if rows.is_default(value) else "expression"


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
