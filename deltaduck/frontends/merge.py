"""MERGE: clauses as they were written, by SQL text or by the Python twin, become clauses of a search."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from sqlglot import ErrorLevel, exp

from deltaduck import casts, identity
from deltaduck.changes import Change
from deltaduck.errors import QueryError, SchemaMismatchError, UnsupportedFeatureError
from deltaduck.frames import Source
from deltaduck.frontends import from_items, key_ranges, rows, sql
from deltaduck.frontends.key_ranges import Names
from deltaduck.operations.create import evolved
from deltaduck.operations.merge import MATCHED, NOT_MATCHED, NOT_MATCHED_BY_SOURCE, Clause, Effect, Search
from deltaduck.protocol.schema import DataType, Struct, quote, to_duckdb

if TYPE_CHECKING:
    from deltaduck.lake import Lake
    from deltaduck.transaction import Transaction


@dataclass(frozen=True)
class When:
    """A clause of a MERGE as it was written: `values` are (column, value); a star sets every column of the source but some."""

    when: str
    action: str
    condition: exp.Expr | None = None
    values: Sequence[tuple[Any, exp.Expr]] = ()
    star: bool = False
    but: frozenset[str] = frozenset()


def run(lake: Lake, tx: Transaction, tree: exp.Merge, caller: FrameType | None) -> dict[str, int]:
    evolve = bool(tree.args.pop("schema_evolution", False))
    from_items.hand_down_ctes(tree)
    name, alias = rows.target(tree)
    item = tree.args["using"]
    source_alias = item.alias_or_name or "dl_rows"
    shared = [
        exp.EQ(this=exp.column(i.copy(), alias, quoted=True), expression=exp.column(i.copy(), source_alias, quoted=True))
        for i in tree.args.get("using_cond") or []
    ]
    if not shared and not tree.args.get("on"):
        raise QueryError(f"MERGE INTO {name}: ON, or USING (columns), must say which rows match")
    on = tree.args.get("on") or exp.and_(*shared)
    whens = [_when(w, rows.columns_of(tx, name)) for w in tree.args["whens"].expressions]
    effect, _ = merge(lake, tx, name, alias, item, source_alias, on, whens, evolve=evolve, caller=caller)
    return {
        "rows": effect.rows, "files": effect.files_removed, "inserted": effect.inserted, "updated": effect.updated,
        "deleted": effect.deleted, "files_added": effect.files_added, "files_removed": effect.files_removed,
    }  # fmt: skip


def _when(node: exp.When, columns: Sequence[str]) -> When:
    when = MATCHED if node.args["matched"] else NOT_MATCHED_BY_SOURCE if node.args.get("source") else NOT_MATCHED
    condition, then = node.args.get("condition"), node.args["then"]
    what = node.sql("duckdb", unsupported_level=ErrorLevel.IGNORE)
    if isinstance(then, exp.Var):
        action = {"DELETE": "delete", "DO NOTHING": "nothing"}.get(then.name.upper())
        if action is None or (action == "delete" and when == NOT_MATCHED):
            raise UnsupportedFeatureError(f"MERGE: {what}: this action is not known here")
        return When(when, action, condition)
    if then.args.get("where"):
        raise UnsupportedFeatureError(f"MERGE: {what}: a condition stands before THEN, behind AND")
    if isinstance(then, exp.Update) and when != NOT_MATCHED:
        sets = then.args.get("expressions")
        if not isinstance(sets, list) or (len(sets) == 1 and isinstance(sets[0], exp.Star)):
            return When(when, "update", condition, star=True)
        return When(when, "update", condition, rows.assignments(sets))
    if isinstance(then, exp.Insert) and when == NOT_MATCHED:
        return _when_insert(then, condition, columns, what)
    raise QueryError(f"MERGE: {what}: rows that match are updated or deleted, rows that are not in the table are inserted")


def _when_insert(then: exp.Insert, condition: exp.Expr | None, columns: Sequence[str], what: str) -> When:
    names, given = then.args.get("this"), then.args.get("expression")
    if isinstance(names, exp.Tuple) and not given and len(names.expressions) == 1 and rows.is_default(names.expressions[0]):
        return When(NOT_MATCHED, "insert", condition)  # DEFAULT VALUES
    if isinstance(names, exp.Star) or not (names or given):
        return When(NOT_MATCHED, "insert", condition, star=True)
    if not isinstance(given, exp.Tuple | exp.Paren):
        raise UnsupportedFeatureError(f"MERGE: {what}: write INSERT (columns) VALUES (values), INSERT * or INSERT BY NAME")
    values = given.expressions if isinstance(given, exp.Tuple) else [given.this]
    into = [exp.to_identifier(c, quoted=True) for c in columns] if names is None else names.expressions
    if len(into) != len(values):
        raise QueryError(f"MERGE: {what}: {len(values)} values for {len(into)} columns")
    return When(NOT_MATCHED, "insert", condition, list(zip(into, values, strict=True)))


def merge(
    lake: Lake, tx: Transaction, name: str, alias: str, item: exp.Expr, source_alias: str, on: exp.Expr, whens: Sequence[When],
    *, evolve: bool = False, cast: str | None = None, caller: FrameType | None = None,
) -> tuple[Effect, int]:  # fmt: skip
    """Stage a MERGE; what it did, and how many rows the source had.

    item: the source, as the statement's FROM item. evolve: add columns that only the source has. cast: what happens to a
    source column of another type: None casts as DuckDB does, "exact" refuses what would lose something, "try" gives NULL.
    """
    _check_reachable(whens)
    tx.pin()
    change = rows.begin(tx, name, "MERGE", _parameters(on, whens))
    read_before = len(tx.reads(name))
    parts = [e for e in (on, *(w.condition for w in whens), *(value for w in whens for _, value in w.values)) if e is not None]
    star = any(w.star for w in whens)
    with from_items.opened(lake, tx, [item], None if star else from_items.used_names(parts), caller) as source:
        given = Source(lake.con, str(source.from_sql), *(list(x) for x in zip(*source.columns, strict=True)))
        types = given.given(lenient=cast is None)
        if evolve:
            change = _evolved(tx, change, whens, given, alias)
        clauses = [_clause(lake, tx, change, alias, source_alias, types, w, cast, caller) for w in whens]
        names = Names(alias, change.after.schema, {source_alias.lower(): str(source.from_sql)}, source.columns)
        files = _files_of_merge(lake, on, whens, names, change)
        ((source_rows,),) = sql.run(lake, f"SELECT count(*) FROM {source.from_sql}").fetchall()
        only = [w for w in whens if w.when == MATCHED and w.action != "nothing"]
        search = Search(
            alias, rows.planned(lake, tx, on, caller), tx.condition(change, files, [alias]),
            source.from_sql, source_alias, source_rows,
            repeats="one" if len(only) == 1 and only[0].action == "delete" and only[0].condition is None else "error",
            connection=lake.con,
        )  # fmt: skip
        change.reads += tx.reads(name)[read_before:]
        effect = rows.apply(tx, change, search, clauses)
    return rows.note(change, effect, source_rows), source_rows


def _check_reachable(whens: Sequence[When]) -> None:
    """QueryError for a clause behind one of its kind that takes every row."""
    done: set[str] = set()
    for w in whens:
        if w.when in done:
            raise QueryError(f"MERGE: a WHEN {w.when} clause stands behind one without a condition, and could never apply")
        if w.condition is None:
            done.add(w.when)


def _parameters(on: exp.Expr, whens: Sequence[When]) -> dict[str, str]:
    out = {"predicate": on.sql("duckdb")}
    keys = {"matched": MATCHED, "notMatched": NOT_MATCHED, "notMatchedBySource": NOT_MATCHED_BY_SOURCE}
    for key, when in keys.items():
        parts = [
            {"actionType": w.action} | ({} if w.condition is None else {"predicate": w.condition.sql("duckdb")})
            for w in whens
            if w.when == when
        ]
        out[f"{key}Predicates"] = json.dumps(parts)
    return out


def _evolved(tx: Transaction, change: Change, whens: Sequence[When], source: Source, alias: str) -> Change:
    """The change with the columns that clauses want and only the source has."""
    schema, offered = change.after.schema, source.offered()
    wanted = []
    for f in offered:
        by_star = any(w.star and f.name.lower() not in w.but for w in whens)
        by_name = schema.get(f.name) is None and any(c.name.lower() == f.name.lower() for w in whens for c, _ in w.values)
        if by_star or by_name:
            wanted.append(f)
    changed = evolved(change, Struct(tuple(wanted)))
    if changed is not change:
        tx.stage(changed)
    return changed


def _clause(
    lake: Lake, tx: Transaction, change: Change, alias: str, source_alias: str, types: Mapping[str, DataType | None], w: When,
    cast: str | None, caller: FrameType | None,
) -> Clause:  # fmt: skip
    condition, pairs = w.condition, list(w.values)
    if w.when != MATCHED:  # then an unqualified name can only mean one side
        names = set(map(str.lower, types)) if w.when == NOT_MATCHED else {n.lower() for n in change.after.schema.names}
        owner, other = (source_alias, alias) if w.when == NOT_MATCHED else (alias, source_alias)
        for part in (condition, *(value for _, value in pairs)) if other.lower() not in {owner.lower(), *names} else ():
            _require_side(part, owner, other, w.when)
        condition = condition and rows.qualified(condition, names, owner)
        pairs = [(column, rows.qualified(value, names, owner)) for column, value in pairs]
    but = w.but
    if w.action == "update":  # who finds a row by its identity does not mean to give it another
        but |= {f.name.lower() for f in change.after.schema if identity.is_always(f)}
    values = _star(change, source_alias, types, but, cast) if w.star else {}
    values |= rows.values_of(lake, tx, change, alias, pairs, caller, fresh=w.when == NOT_MATCHED)
    if w.action == "insert":
        missing = {f.name: rows.default(f) for f in change.after.schema if f.name not in values and rows.default(f) != "NULL"}
        values |= missing
    return Clause(w.when, w.action, rows.planned(lake, tx, condition, caller), values)


def _require_side(tree: exp.Expr | None, owner: str, other: str, when: str) -> None:
    """QueryError for a name of the side that has no row here."""
    for column in tree.find_all(exp.Column) if tree is not None else ():
        if len(column.parts) > 1 and column.parts[0].name.lower() == other.lower() and column.find_ancestor(exp.Query) is None:
            raise QueryError(f"MERGE: {column.sql('duckdb')} has no value WHEN {when}: only columns of {owner} have")


def _star(
    change: Change, source_alias: str, types: Mapping[str, DataType | None], but: frozenset[str], cast: str | None
) -> dict[str, str]:
    """Every column of the source into the table's column of that name."""
    values, problems = {}, []
    for name, given in types.items():
        if name.lower() in but:
            continue
        f = change.after.schema.get(name)
        if f is None:
            problems.append(f"column {name!r} of the source is not in the table: name the columns, or merge the schemas")
            continue
        if identity.is_always(f):
            raise identity.refuse(change.name, f)
        if cast == "exact" and given is not None and (why := casts.misfit(given, f.type, f.name)):
            problems.append(why)
        value = f"{quote(source_alias)}.{quote(name)}"
        values[f.name] = f"TRY_CAST({value} AS {to_duckdb(f.type)})" if cast == "try" else casts.convert(value, given, f.type)
    if problems:
        raise SchemaMismatchError(f"table {change.name!r}: {'; '.join(problems)}")
    return values


def _files_of_merge(lake: Lake, on: exp.Expr, whens: Sequence[When], names: Names, change: Change) -> exp.Expr | None:
    """What a row of the table must satisfy for the MERGE to look at it."""
    files = key_ranges.could_match(lake.con, on, names, change.after.partition_columns)
    by_source = [w for w in whens if w.when == NOT_MATCHED_BY_SOURCE and w.action != "nothing"]
    if files is None or any(w.condition is None for w in by_source):
        return None
    return exp.or_(files, *(w.condition.copy() for w in by_source if w.condition is not None))
