"""What statements that change rows share: their table, their expressions, and the columns that they set."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from types import FrameType
from typing import TYPE_CHECKING

import duckdb
from sqlglot import exp

from deltaduck import identity, rules
from deltaduck import predicate as predicates
from deltaduck.changes import Change
from deltaduck.errors import ConstraintViolationError, QueryError, SchemaMismatchError, UnsupportedFeatureError
from deltaduck.frontends import grammar, references, sql
from deltaduck.operations.merge import Clause, Effect, Search, change_rows
from deltaduck.protocol.schema import DataType, Field, Struct, literal, quote, to_duckdb
from deltaduck.rules import GENERATED, IDENTITY

if TYPE_CHECKING:
    from deltaduck.lake import Lake
    from deltaduck.transaction import Transaction


def begin(tx: Transaction, name: str, operation: str, parameters: dict[str, str]) -> Change:
    """The change of a table that there must be."""
    change = tx.change(name)
    if change is None:
        raise tx.lake.not_found(name)
    if change.base is not None:
        change.operation, change.parameters = operation, parameters
    return change


def apply(tx: Transaction, change: Change, search: Search, clauses: Sequence[Clause]) -> Effect:
    """Stage what the clauses say. TableNotFoundError for a table that only DuckDB could have known."""
    try:
        return change_rows(tx, change, search, clauses)
    except (QueryError, SchemaMismatchError, ConstraintViolationError) as e:
        if isinstance(e.__cause__, duckdb.CatalogException):
            raise sql.unknown_name(tx.lake, e.__cause__) from e.__cause__
        if str(e).startswith("table "):
            raise
        raise type(e)(f"table {change.name!r}: {e}") from (e.__cause__ or e)


def note(change: Change, effect: Effect, source_rows: int | None = None) -> Effect:
    """Add what a statement did to the commit's metrics, under the names that Spark gives them."""
    if source_rows is not None:
        change.count(
            numSourceRows=source_rows, numTargetRowsInserted=effect.inserted, numTargetRowsUpdated=effect.updated,
            numTargetRowsDeleted=effect.deleted, numTargetRowsCopied=effect.copied,
            numTargetFilesAdded=effect.files_added, numTargetFilesRemoved=effect.files_removed,
        )  # fmt: skip
    elif effect.rows:
        kind = {"numDeletedRows": effect.deleted} if effect.deleted else {"numUpdatedRows": effect.updated}
        change.count(**kind, numCopiedRows=effect.copied, numAddedFiles=effect.files_added)
    return effect


def columns_of(tx: Transaction, name: str) -> list[str]:
    """The columns of a table that there must be."""
    snapshot = tx.find(name)
    if snapshot is None:
        raise tx.lake.not_found(name)
    return snapshot.schema.names


def field_of(tx: Transaction, table: str, column: str) -> Field:
    snapshot = tx.find(table)
    f = None if snapshot is None else snapshot.schema.get(column)
    if f is None:
        raise SchemaMismatchError(f"table {table!r} has no column {column!r}")
    return f


def target(tree: exp.Expr) -> tuple[str, str]:
    """(name, what the statement calls it)"""
    name = sql.name_of(tree)
    return name, tree.this.alias or name


def assignments(expressions: Sequence[exp.Expr]) -> list[tuple[exp.Expr, exp.Expr]]:
    if not expressions:
        raise QueryError("SET sets nothing: write column = value behind it")
    pairs: list[tuple[exp.Expr, exp.Expr]] = []
    for e in expressions:
        if not isinstance(e, exp.EQ):
            raise UnsupportedFeatureError(f"SET {e.sql('duckdb')}: write it as column = value")
        left, right = e.this, e.expression
        if isinstance(left, exp.Tuple | exp.Paren):
            lefts, rights = (t.expressions if isinstance(t, exp.Tuple) else [t.unnest()] for t in (left, right))
            if len(lefts) != len(rights) or isinstance(right, exp.Subquery):
                raise UnsupportedFeatureError(f"SET {e.sql('duckdb')}: give each column one value")
            pairs += zip(lefts, rights, strict=True)
        else:
            pairs.append((left, right))
    return pairs


def values_of(
    lake: Lake, tx: Transaction, change: Change, alias: str, pairs: Sequence[tuple[exp.Expr, exp.Expr]], caller: FrameType | None,
    *, fresh: bool = False,
) -> dict[str, str]:  # fmt: skip
    """SQL of each column that is set; `s.a = x` replaces a field. fresh: of a new row, which has no old values."""
    schema = change.after.schema
    out: dict[str, str] = {}
    seen: set[tuple[str, ...]] = set()
    for column, value in pairs:
        path = _path(column, alias, change)
        f = schema.get(path[0])
        assert f is not None
        if path in seen:
            raise QueryError(f"column {'.'.join(path)!r} is set twice")
        seen.add(path)
        if is_default(value) and ((fresh and IDENTITY in f.metadata) or GENERATED in f.metadata):
            continue
        if identity.is_always(f):
            raise identity.refuse(change.name, f)
        text = default(f) if is_default(value) else planned(lake, tx, value, caller)
        if len(path) > 1:
            old = out.get(f.name) or (f"CAST(NULL AS {to_duckdb(f.type)})" if fresh else f"{quote(alias)}.{quote(f.name)}")
            text = _with_field(old, f.type, path[1:], text or "NULL")
        out[f.name] = text or "NULL"
    return out


def _path(column: exp.Expr, alias: str, change: Change) -> tuple[str, ...]:
    """The column, and the fields below it, that an assignment names."""
    if not isinstance(column, exp.Column | exp.Dot | exp.Identifier):
        raise UnsupportedFeatureError(f"SET {column.sql('duckdb')}: only columns, and fields of structs, can be set")
    names = [column.name] if isinstance(column, exp.Identifier) else [p.name for p in column.parts]
    schema = change.after.schema
    if len(names) > 1 and names[0].lower() in (alias.lower(), change.name.lower()) and schema.get(names[1]) is not None:
        names = names[1:]
    f = schema.get(names[0])
    if f is None:
        raise SchemaMismatchError(f"table {change.name!r} has no column {names[0]!r}; it has {', '.join(schema.names)}")
    type_: DataType = f.type
    for i, child in enumerate(names[1:], 1):
        inner = type_.get(child) if isinstance(type_, Struct) else None
        if inner is None:
            raise SchemaMismatchError(f"{'.'.join(names[:i])!r} has no field {child!r} that could be set")
        type_ = inner.type
    return tuple(n.lower() for n in names)


def _with_field(old: str, type_: DataType, path: Sequence[str], value: str) -> str:
    """SQL: a struct with another value in one place."""
    assert isinstance(type_, Struct)
    members = []
    for f in type_:
        member = f"struct_extract({old}, {literal(f.name)})"
        if f.name.lower() == path[0]:
            member = f"CAST(({value}) AS {to_duckdb(f.type)})" if len(path) == 1 else _with_field(member, f.type, path[1:], value)
        members.append(f"{quote(f.name)} := {member}")
    return f"struct_pack({', '.join(members)})"


def is_default(value: exp.Expr) -> bool:
    """Is it the word DEFAULT, and no column of that name?"""
    if isinstance(value, exp.Column):
        return len(value.parts) == 1 and value.name.upper() == "DEFAULT" and not value.this.args.get("quoted")
    return isinstance(value, exp.Var) and value.name.upper() == "DEFAULT"


def default(f: Field) -> str:
    """What DEFAULT stands for, in DuckDB's SQL."""
    return rules.to_engine(f.metadata[rules.DEFAULT], f"default of {f.name!r}")[0] if rules.DEFAULT in f.metadata else "NULL"


def planned(lake: Lake, tx: Transaction, tree: exp.Expr | None, caller: FrameType | None) -> str | None:
    """SQL of an expression whose subqueries read the lake as the transaction sees it."""
    if tree is None:
        return None
    grammar.require_scalar(tree)
    text = references.render(tree)
    return sql.plan_expression(lake, tx, text, caller) if predicates.has_query(tree) else text


def qualified(tree: exp.Expr, names: set[str], owner: str) -> exp.Expr:
    """Unqualified names of the one side there is, qualified. Subqueries have names of their own."""
    if not any(len(column.parts) == 1 for column in tree.find_all(exp.Column)):
        return tree
    holder = exp.Paren(this=tree.copy())
    for column in list(holder.find_all(exp.Column)):
        alone = len(column.parts) == 1 and column.name.lower() in names
        if alone and column.find_ancestor(exp.Query, exp.Lambda) is None and not is_default(column):
            column.set("table", exp.to_identifier(owner, quoted=True))
    return holder.this  # type: ignore[no-any-return]


def named(column: str, known: Collection[str]) -> exp.Expr:
    """A column as Python names it: just so when the table has it, else as SQL does (alias.column, "column")."""
    return exp.column(exp.to_identifier(column, quoted=True)) if column.lower() in known else predicates.parse(column)
