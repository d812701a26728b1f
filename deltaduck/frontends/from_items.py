"""What a statement reads beside the table that it changes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from deltaduck import frames
from deltaduck.frontends import references, sql

if TYPE_CHECKING:
    from deltaduck.lake import Lake
    from deltaduck.transaction import Transaction

_tables = (f"deltaduck_source_{n}" for n in itertools.count())


def temporary() -> str:
    """A name for a temporary table."""
    return next(_tables)


@dataclass(frozen=True)
class From:
    """FROM items that may be read more than once; None when there is nothing to join.

    columns: (name, type). tables: what stands behind an alias, as a FROM item of its own.
    """

    from_sql: str | None = None
    columns: Sequence[tuple[str, Any]] = ()
    tables: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def opened(
    lake: Lake, tx: Transaction, items: Sequence[exp.Expr], used: set[str] | None, caller: FrameType | None
) -> Iterator[From]:
    """What the statement joins with. What may answer differently, or only once, is put into temporary tables."""
    if not items:
        yield From()
        return
    made: list[str] = []
    holder = exp.Tuple(expressions=[i.copy() for i in items])
    try:
        leaves = [leaf for item in holder.expressions for leaf in _leaves(item)]
        for i, leaf in enumerate(leaves):
            if _must_be_kept(lake, tx, leaf):
                made.append(temporary())
                joins = leaf.args.get("joins")
                leaf.set("joins", None)
                _keep(lake, tx, leaf, made[-1], used if len(leaves) == 1 else None, caller)
                kept = exp.to_table(made[-1], alias=exp.to_identifier(leaf.alias_or_name or made[-1], quoted=True))
                kept.set("joins", joins)
                leaves[i] = leaf.replace(kept)
        text = ", ".join(references.render(item) for item in holder.expressions)
        planned = _planned(lake, tx, text, caller)
        relation = sql.relation(lake, f"SELECT * FROM {planned}")
        tables = {leaves[0].alias_or_name.lower(): planned}
        if len(leaves) > 1:
            tables = {t.alias_or_name.lower(): _planned(lake, tx, _alone(t), caller) for t in leaves if isinstance(t, exp.Table)}
        yield From(planned, list(zip(relation.columns, relation.types, strict=True)), tables)
    finally:
        for table in made:
            lake.con.execute(f"DROP TABLE IF EXISTS {table}")


def _planned(lake: Lake, tx: Transaction, text: str, caller: FrameType | None) -> str:
    return sql.plan(lake, tx, f"SELECT * FROM {text}", caller)[len("SELECT * FROM ") :]


def _alone(table: exp.Table) -> str:
    alone = table.copy()
    alone.set("joins", None)
    return references.render(alone)


@contextmanager
def kept_frame(lake: Lake, tx: Transaction, frame: Any, alias: str) -> Iterator[exp.Table]:
    """A frame as a FROM item that can be read more than once."""
    table = temporary()
    source = lake.open_source(frame, tx) if isinstance(frame, str) else frames.open_frame(lake.con, frames.fetched(frame))
    try:
        sql.run(lake, f"CREATE TEMP TABLE {table} AS SELECT * FROM {source.from_sql}")
        frames.release(source)
        yield exp.to_table(table, alias=exp.to_identifier(alias, quoted=True))
    finally:
        frames.release(source)
        lake.con.execute(f"DROP TABLE IF EXISTS {table}")


def _leaves(item: exp.Expr) -> Iterator[exp.Expr]:
    joins = item.args.get("joins") or []
    if isinstance(item, exp.Subquery) and not isinstance(item.this, exp.Query):  # (a JOIN b …)
        yield from _leaves(item.this)
    else:
        yield item
    for join in joins:
        yield from _leaves(join.this)


def _must_be_kept(lake: Lake, tx: Transaction, leaf: exp.Expr) -> bool:
    if isinstance(leaf, exp.Table) and isinstance(leaf.this, exp.Identifier):
        is_frame = not leaf.db and tx.find(leaf.name) is None and not lake.has_native(leaf.name)
        return bool(leaf.args.get("sample")) or (is_frame and not sql.CATALOG_NAME.fullmatch(leaf.name))
    return isinstance(leaf, exp.Subquery | exp.Values)


def _keep(lake: Lake, tx: Transaction, leaf: exp.Expr, table: str, used: set[str] | None, caller: FrameType | None) -> None:
    query = sql.plan(lake, tx, f"SELECT * FROM {references.render(leaf)}", caller)
    relation = sql.relation(lake, query)
    alias = leaf.alias_or_name.lower()
    names = relation.columns
    if used is not None and alias not in used and len({n.lower() for n in names}) == len(names):
        names = [n for n in names if n.lower() in used] or names[:1]
        query = f"SELECT {frames.columns_sql(names)} FROM ({query})"
    sql.run(lake, f"CREATE TEMP TABLE {table} AS {query}")


def used_names(parts: Sequence[exp.Expr]) -> set[str] | None:
    """Every name that stands in the expressions (a lone alias too, which means a whole row); None when a star may mean any."""
    used = set()
    for part in parts:
        for node in part.find_all(exp.Identifier, exp.Star, exp.Columns, exp.Anonymous):
            column = node.parent
            if isinstance(node, exp.Anonymous):  # t.COLUMNS(...)
                if node.name.upper() == "COLUMNS":
                    return None
            elif not isinstance(node, exp.Identifier):
                return None
            elif not (isinstance(column, exp.Column) and column.parts[0] is node and len(column.parts) > 1):  # a qualifier
                used.add(node.name.lower())
    return used


def hand_down_ctes(tree: exp.Expr) -> None:
    """A statement's WITH becomes part of each query in it that needs it, so that each can be planned by itself."""
    with_ = tree.args.get("with_")
    if with_ is None:
        return
    tree.set("with_", None)
    names, target = {cte.alias.lower() for cte in with_.expressions}, sql.target_of(tree)
    for table in [t for t in tree.find_all(exp.Table) if t.name.lower() in names and not t.db and t is not target]:
        if table.find_ancestor(exp.Query) is None:
            alias = table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(table.name, quoted=True))
            joins = table.args.get("joins")
            table.set("joins", None)
            table.set("alias", None)
            table.replace(exp.Subquery(this=exp.select("*").from_(table.copy()), alias=alias.copy(), joins=joins))
    for query in [q for q in tree.find_all(exp.Select, exp.SetOperation) if q.find_ancestor(exp.Query) in (None, q.parent)]:
        if isinstance(query.parent, exp.SetOperation) or not any(t.name.lower() in names for t in query.find_all(exp.Table)):
            continue
        own = query.args.get("with_")
        both = [c.copy() for c in with_.expressions] + ([] if own is None else own.expressions)
        query.set(
            "with_", exp.With(expressions=both, recursive=with_.args.get("recursive") or (own and own.args.get("recursive")))
        )
