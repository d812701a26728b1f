"""Which tables a query names, where in its text, and what it asks of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import sqlglot
from sqlglot import Token, TokenType, exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.scope import Scope, traverse_scope

from deltaduck import predicate
from deltaduck.errors import QueryError
from deltaduck.frontends.grammar import Grammar


@dataclass
class Reference:
    """A table in a FROM clause: its name, its place in the text (end exclusive), its AT clause, its predicates.

    where: conjuncts that every row it contributes must satisfy; qualifier: how they may name the table.
    """

    name: str
    schema: str
    start: int
    end: int
    has_alias: bool
    qualifier: str
    version: str | None = None
    timestamp: str | None = None
    where: list[exp.Expr] = field(default_factory=list)

    def condition(self) -> exp.Expr | None:
        return exp.and_(*(w.copy() for w in self.where)) if self.where else None


@lru_cache(maxsize=128)
def parse(text: str) -> tuple[exp.Expr, ...]:
    """The statements of `text`, not to be changed. SqlglotError when there is something sqlglot does not know."""
    plain, evolves = _EVOLUTION.subn(r"\1 \2", text, count=1)  # Spark's clause, which the grammar lacks
    grammar = "databricks" if _SPARKS_TYPES.match(text) else Grammar
    trees = tuple(e for e in sqlglot.parse(plain, read=grammar) if e is not None)
    if evolves and trees:
        trees[0].set("schema_evolution", True)
    return trees


_EVOLUTION = re.compile(r"^(\s*MERGE)\s+WITH\s+SCHEMA\s+EVOLUTION\s+(INTO)\b", re.IGNORECASE)
_LEAD = r"(?:\s|--[^\n]*\n|/\*(?:.|\n)*?\*/)*"
_NAME = r'(?:main\.)?(?>("(?:[^"]|"")+"|`[^`]+`|\w+))(?!\s*\.)'
_MADE = re.compile(rf"{_LEAD}CREATE\s+(?:OR\s+REPLACE\s+)?TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?{_NAME}", re.IGNORECASE)
_SPARKS_TYPES = re.compile(rf"{_LEAD}CREATE\b[^;']*\bSTRUCT\s*<", re.IGNORECASE)
_WRITTEN = re.compile(
    rf"{_LEAD}(?:INSERT\s+(?:OR\s+\w+\s+)?(?:INTO|OVERWRITE)(?:\s+TABLE)?|UPDATE|DELETE\s+FROM|MERGE\s+INTO|COPY"
    rf"|TRUNCATE(?:\s+TABLE)?|ALTER\s+TABLE)\s+{_NAME}",
    re.IGNORECASE,
)
_TRANSACTION = re.compile(
    r"(BEGIN|START TRANSACTION|COMMIT|END|ROLLBACK|ABORT)( TRANSACTION| WORK)?( READ WRITE)?( ;)?", re.IGNORECASE
)
_PERHAPS = re.compile(r"\b(BEGIN|START|COMMIT|END|ROLLBACK|ABORT)\b", re.IGNORECASE)


def is_own(connection: Any, qualifiers: Sequence[str]) -> bool:
    """Is a name with this database and schema before it a table of the lake, and none of a database that is attached?"""
    parts = [q.lower() for q in qualifiers]
    if parts in ([], ["main"]):
        return True
    first = "SELECT lower(database_name) FROM duckdb_databases() WHERE NOT internal ORDER BY database_oid LIMIT 1"
    ((own,),) = connection.execute(first).fetchall()
    return parts in ([own], [own, "main"])


def makes_table(text: str) -> bool:
    """Does a statement seem to make a table of the lake, when it cannot be parsed?"""
    return _MADE.match(text) is not None


def written_table(text: str) -> str | None:
    """The table that a statement seems to write, when the statement as a whole cannot be parsed."""
    found = _WRITTEN.match(text)
    return None if found is None else found[1].strip("`").removeprefix('"').removesuffix('"').replace('""', '"')


def transaction_verb(text: str) -> str | None:
    """BEGIN, COMMIT or ROLLBACK, however it is written; None for any other statement."""
    if len(text) > 1000 or not _PERHAPS.search(text):
        return None
    try:
        words = " ".join(token.text for token in sqlglot.tokenize(text, read=Grammar))  # without comments
    except SqlglotError:
        return None
    found = _TRANSACTION.fullmatch(words)
    return None if found is None else _VERBS[found[1].upper().split()[0]]


_VERBS = {"BEGIN": "BEGIN", "START": "BEGIN", "COMMIT": "COMMIT", "END": "COMMIT", "ROLLBACK": "ROLLBACK", "ABORT": "ROLLBACK"}


def first_line(error: SqlglotError) -> str:
    """What the parser says, with the place and without the colours of a terminal."""
    return re.sub(r"\x1b\[\d*m", "", str(error).splitlines()[0]).rstrip(".")


def find(text: str, tree: exp.Expr, columns_of: Callable[[str], set[str] | None]) -> list[Reference]:
    """The tables that a query reads, without the names that its own CTEs define.

    columns_of: lower-case column names of a table, by which an unqualified column finds its table; None if unknown.
    """
    tokens = _Tokens(text)
    scoped = {id(table): local for local in _sources(tree) for table in [local.table]}
    ctes = {c.alias.lower() for c in tree.find_all(exp.CTE)}
    found = []
    for table in tree.find_all(exp.Table):
        if not isinstance(table.this, exp.Identifier) or table.args.get("catalog"):
            continue
        source = scoped.get(id(table))
        if source is None and not table.db and table.name.lower() in ctes:
            continue
        reference = _reference(table, tokens)
        if source is not None:
            reference.where = list(_conjuncts(source, columns_of))
        found.append(reference)
    return sorted(found, key=lambda r: r.start)


def _reference(table: exp.Table, tokens: _Tokens) -> Reference:
    first, last = table.parts[0], table.parts[-1]
    start, name_end = first.meta["start"], last.meta["end"] + 1
    end, kind, value = tokens.at_clause(name_end)
    return Reference(
        table.name, table.db, start, end, bool(table.alias), table.alias or table.name,
        value if kind == "VERSION" else None, value if kind == "TIMESTAMP" else None,
    )  # fmt: skip


class _Tokens:
    """The text's tokens, to find what stands behind a table's name."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[Token] = sqlglot.tokenize(text, read=Grammar)

    def at_clause(self, position: int) -> tuple[int, str | None, str | None]:
        """(end of the reference, VERSION or TIMESTAMP, its expression) for ``AT (VERSION => x)`` behind `position`."""
        rest = [t for t in self.tokens if t.start >= position]
        if len(rest) < 5 or rest[0].text.upper() != "AT" or rest[1].token_type is not TokenType.L_PAREN:
            return position, None, None
        kind = rest[2].text.upper()
        if kind not in ("VERSION", "TIMESTAMP") or rest[3].token_type is not TokenType.FARROW:
            raise QueryError("AT takes (VERSION => n) or (TIMESTAMP => t)")
        depth = 0
        for token in rest[1:]:
            depth += {TokenType.L_PAREN: 1, TokenType.R_PAREN: -1}.get(token.token_type, 0)
            if depth == 0:
                return token.end + 1, kind, self.text[rest[3].end + 1 : token.start].strip()
        raise QueryError("the parenthesis of AT is not closed")


@dataclass
class _Source:
    table: exp.Table
    name: str
    scope: Scope


def _sources(tree: exp.Expr) -> Iterator[_Source]:
    roots = [tree] if isinstance(tree, exp.Query) else [q for q in tree.find_all(exp.Query) if not q.find_ancestor(exp.Query)]
    for root in roots:
        try:
            scopes = traverse_scope(root)
        except SqlglotError:  # a shape that the scope analysis does not know: read without pruning
            continue
        for scope in scopes:
            for name, source in scope.sources.items():
                if isinstance(source, exp.Table) and isinstance(scope.expression, exp.Select):
                    yield _Source(source, name, scope)


def _conjuncts(source: _Source, columns_of: Callable[[str], set[str] | None]) -> Iterator[exp.Expr]:
    """Conditions of the WHERE and of joins that every row of `source` must meet to matter to the result."""
    select = source.scope.expression
    joins = select.args.get("joins") or []
    methods = {(j.method or "").upper() for j in joins}
    if source.table.args.get("pivots") or source.table.args.get("sample") or methods - {"", "NATURAL", "ASOF"}:
        return  # what comes of the rows depends on rows that the WHERE would drop
    alias = source.table.args.get("alias")
    if alias is not None and alias.args.get("columns"):
        return  # t(b, a): the names are not the table's
    position = next((i for i, j in enumerate(joins) if j.this is source.table), None)
    kept_from_here = position is None or _keeps_only_matches(joins[position])
    outer_later = any(j.side in ("RIGHT", "FULL") for j in (joins if position is None else joins[position + 1 :]))
    own_outer = position is not None and (bool(joins[position].side) or (joins[position].method or "").upper() == "ASOF")
    candidates: list[exp.Expr] = []
    where = select.args.get("where")
    if where is not None and kept_from_here and not outer_later and not own_outer:
        candidates += predicate.conjuncts(where.this)
    for i, join in enumerate(joins):
        if (on := join.args.get("on")) is None or join.side == "FULL" or join.method:
            continue
        right, left = i == position, position is None or position < i
        if (right and join.side != "RIGHT") or (left and not join.side and join.kind in ("", "INNER", "SEMI")):
            if right and any(j.side in ("RIGHT", "FULL") for j in joins[i + 1 :]):
                continue
            if left and any(j.side in ("RIGHT", "FULL") for j in joins):
                continue
            if left and position is not None and joins[position].side:
                continue
            candidates += predicate.conjuncts(on)
    read, ctes = source.scope.selected_sources, source.scope.cte_sources
    others = {n: s for n, s in source.scope.sources.items() if n != source.name and (n in read or n not in ctes)}
    for condition in candidates:
        if not condition.find(exp.Query) and _only_about(condition, source, others, columns_of):
            yield condition


def _keeps_only_matches(join: exp.Join) -> bool:
    return not join.side and join.kind in ("", "INNER", "CROSS", "SEMI") and not join.method


def _only_about(
    condition: exp.Expr, source: _Source, others: Mapping[str, object], columns_of: Callable[[str], set[str] | None]
) -> bool:
    """Do all columns of `condition` belong to `source`?"""
    other_names = {name.lower() for name in others}
    mine = columns_of(source.table.name)
    for column in condition.find_all(exp.Column):
        first = column.parts[0].name.lower()
        if len(column.parts) > 1 and first == source.name.lower():
            continue
        if len(column.parts) > 1 and first in other_names:
            return False
        if mine is None or first not in mine:
            return False
        if others:  # an unqualified name is ours when no other source can have it
            for other in others.values():
                theirs = columns_of(other.name) if isinstance(other, exp.Table) else None
                if theirs is None or first in theirs:
                    return False
    return True


def render(tree: exp.Expr) -> str:
    """SQL text of a (part of a) statement, in which tables can be found again: AT stands right behind the name."""
    tree = tree.copy()
    for table in [t for t in tree.find_all(exp.Table) if t.args.get("when") and t.alias]:
        alias, joins = table.args["alias"].pop(), table.args.get("joins") or []
        table.set("joins", None)
        past = exp.Subquery(this=exp.select("*").from_(table.copy()), alias=alias, joins=joins)
        if table is tree:
            return past.sql("duckdb", copy=False)
        table.replace(past)
    return tree.sql("duckdb", copy=False)


EXPLAIN = re.compile(r"\s*EXPLAIN(\s+ANALYZE)?\s+", re.IGNORECASE)
