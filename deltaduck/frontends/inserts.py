"""INSERT in its forms, and COPY … FROM."""

from __future__ import annotations

from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from deltaduck import frames
from deltaduck import predicate as predicates
from deltaduck.errors import QueryError, UnsupportedFeatureError
from deltaduck.frontends import from_items, references, rows, sql
from deltaduck.protocol.schema import Field, quote, to_duckdb

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
    where = tree.args.get("where")
    how: dict[str, Any] = {"mode": "overwrite" if tree.args.get("overwrite") or where else "append", "lenient": True}
    if where is not None:
        how["predicate"] = where.sql("duckdb")
    body = tree.expression
    if tree.args.get("default"):
        return tx.write(name, sql.rows(lake, f"SELECT NULL AS {quote(names[0])}"), **how)
    if tree.args.get("with_"):
        body.set("with_", tree.args["with_"])
    if isinstance(body, exp.Values):
        _fill_defaults(body, [rows.field_of(tx, name, c) for c in columns or names])
    read_before = len(tx.reads(name))
    query = sql.plan(lake, tx, references.render(body), caller)
    source = sql.rows(lake, query)
    if not tree.args.get("by_name"):
        source = sql.rows(lake, _by_position(query, source.columns, columns or names, name))
    counts = tx.write(name, source, **how)
    if (change := tx.change(name)) is not None:
        change.reads += tx.reads(name)[read_before:]  # a table that feeds itself is no blind append
    return counts


def _fill_defaults(values: exp.Values, fields: Sequence[Field]) -> None:
    for row in values.expressions:
        if isinstance(row, exp.Tuple):
            for value, f in zip(row.expressions, fields, strict=False):
                if rows.is_default(value):
                    value.replace(predicates.parse(rows.default(f)))


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
    columns = [rows.field_of(tx, name, i.name).name for i in given] or snapshot.schema.names
    table = from_items.temporary()
    target = sql.target_of(tree)
    assert target is not None
    start, end = target.parts[0].meta["start"], target.parts[-1].meta["end"] + 1
    shape = ", ".join(f"{quote(f.name)} {to_duckdb(f.type)}" for f in snapshot.schema)
    sql.run(lake, f"CREATE TEMP TABLE {table} ({shape})")
    try:
        sql.run(lake, f"{text[:start]}{table}{text[end:]}")
        return tx.write(name, sql.rows(lake, f"SELECT {frames.columns_sql(columns)} FROM {table}"), mode="append")
    finally:
        lake.con.execute(f"DROP TABLE {table}")
