"""Statements that change rows: DELETE, UPDATE, MERGE, INSERT and COPY … FROM, for SQL text and for the Python twins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING

from sqlglot import exp

from deltaduck import predicate as predicates
from deltaduck.errors import UnsupportedFeatureError
from deltaduck.frontends import from_items, inserts, key_ranges, merge, rows, sql
from deltaduck.frontends.key_ranges import Names
from deltaduck.operations.merge import MATCHED, Clause, Effect, Search

if TYPE_CHECKING:
    from deltaduck.lake import Lake
    from deltaduck.transaction import Transaction

STATEMENTS = exp.Insert | exp.Update | exp.Delete | exp.Merge | exp.TruncateTable | exp.Copy


def write(lake: Lake, tx: Transaction, tree: exp.Expr, text: str, caller: FrameType | None) -> dict[str, int]:
    """Stage a statement; what it did. The tree is the caller's to give away."""
    if tree.args.get("returning"):
        raise UnsupportedFeatureError(
            f"RETURNING is not supported on lake tables: leave it out of {type(tree).__name__.upper()}, and SELECT the rows"
        )
    match tree:
        case exp.Insert():
            return inserts.insert(lake, tx, tree, caller)
        case exp.Copy():
            return inserts.copy(lake, tx, tree, text)
        case exp.Merge():
            return merge.run(lake, tx, tree, caller)
        case exp.Update():
            return brief(_update(lake, tx, tree, caller))
        case exp.Delete():
            return brief(_delete(lake, tx, tree, caller))
    return brief(delete(tx, sql.name_of(tree), None))


def brief(effect: Effect) -> dict[str, int]:
    """What DELETE and UPDATE answer: rows changed, files taken out."""
    return {"rows": effect.rows, "files": effect.files_removed}


def delete(tx: Transaction, name: str, predicate: str | None) -> Effect:
    """Stage the deletion of the rows that match."""
    tree = exp.Delete(this=_table(name), where=_where(predicate))
    return _delete(tx.lake, tx, tree, sql.caller_frame())


def update(tx: Transaction, name: str, updates: Mapping[str, str], predicate: str | None) -> Effect:
    """Stage new values, as SQL over the old row, for the rows that match."""
    columns = {c.lower() for c in rows.columns_of(tx, name)}
    tree = exp.Update(
        this=_table(name),
        expressions=[exp.EQ(this=rows.named(c, columns), expression=predicates.parse(v)) for c, v in updates.items()],
        where=_where(predicate),
    )
    return _update(tx.lake, tx, tree, sql.caller_frame())


def _table(name: str) -> exp.Table:
    return exp.Table(this=exp.to_identifier(name, quoted=True))


def _where(predicate: str | None) -> exp.Where | None:
    return None if predicate is None else exp.Where(this=predicates.parse(predicate))


# --- DELETE and UPDATE


def _delete(lake: Lake, tx: Transaction, tree: exp.Delete, caller: FrameType | None) -> Effect:
    from_items.hand_down_ctes(tree)
    where = tree.args.get("where")
    return _change(lake, tx, tree, "DELETE", tree.args.get("using") or [], where and where.this, None, caller)


def _update(lake: Lake, tx: Transaction, tree: exp.Update, caller: FrameType | None) -> Effect:
    from_items.hand_down_ctes(tree)
    where, from_ = tree.args.get("where"), tree.args.get("from_")
    items = [] if from_ is None else [from_.this, *(from_.args.get("expressions") or [])]
    return _change(lake, tx, tree, "UPDATE", items, where and where.this, rows.assignments(tree.expressions), caller)


def _change(
    lake: Lake, tx: Transaction, tree: exp.Expr, operation: str, items: list[exp.Expr], where: exp.Expr | None,
    values: Sequence[tuple[exp.Expr, exp.Expr]] | None, caller: FrameType | None,
) -> Effect:  # fmt: skip
    name, alias = rows.target(tree)
    parts = [e for e in (where, *(value for _, value in values or ())) if e is not None]
    if any(e.find(exp.Query) for e in (*parts, *items)) or items:
        tx.pin()  # all tables at one point
    change = rows.begin(tx, name, operation, {"predicate": "true" if where is None else where.sql("duckdb")})
    read_before = len(tx.reads(name))
    with from_items.opened(lake, tx, items, from_items.used_names(parts), caller) as source:
        names = Names(alias, change.after.schema, source.tables, source.columns)
        assigned = {} if values is None else rows.values_of(lake, tx, change, alias, values, caller)
        clause = Clause(MATCHED, "delete" if values is None else "update", None, assigned)
        files = key_ranges.could_match(lake.con, where, names, change.after.partition_columns)
        search = Search(
            alias, rows.planned(lake, tx, where, caller), tx.condition(change, files, [alias]), source.from_sql,
            repeats="one" if values is None else "same",
            connection=lake.con if items or any(e.find(exp.Query) for e in parts) else None,
        )  # fmt: skip
        change.reads += tx.reads(name)[read_before:]
        return rows.note(change, rows.apply(tx, change, search, [clause]))
