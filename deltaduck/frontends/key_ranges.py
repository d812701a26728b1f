"""Which files of a table can match a join: what the condition says of the table alone, and where the keys of the source lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import duckdb
from sqlglot import exp

from deltaduck import predicate as predicates
from deltaduck.protocol.schema import Struct, to_duckdb

MAX_KEYS = 64  # so many different keys are looked up one by one, more by their range
MAX_PARTITIONS = 256

_PLAIN = (
    exp.Column, exp.Identifier, exp.Cast, exp.Literal, exp.DataType, exp.DataTypeParam, exp.Neg, exp.Add, exp.Sub, exp.Mul,
    exp.Paren, exp.Lower, exp.Upper, exp.Dot,
)  # fmt: skip
_FAMILIES = {
    "number": ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "DOUBLE"),
    "text": ("VARCHAR",),
    "time": ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"),
}


@dataclass(frozen=True)
class Names:
    """What the names in a join's condition may mean. columns: (name, type) of the source; tables: its FROM items by alias."""

    target: str
    schema: Struct
    tables: Mapping[str, str]
    columns: Sequence[tuple[str, Any]]

    def side(self, tree: exp.Expr) -> str | None:
        """ "target" or "source", when every column of the expression belongs there."""
        if tree.find(exp.Query):
            return None
        sides = {self._side(column) for column in tree.find_all(exp.Column)}
        return sides.pop() if len(sides) == 1 else None

    def _side(self, column: exp.Column) -> str | None:
        first = column.parts[0].name.lower()
        if len(column.parts) > 1 and first == self.target.lower():
            return "target"
        if len(column.parts) > 1 and first in self.tables:
            return "source"
        mine = self.schema.get(first) is not None
        theirs = first in {name.lower() for name, _ in self.columns}
        return None if mine == theirs else "target" if mine else "source"


def could_match(connection: Any, on: exp.Expr | None, names: Names, partition_columns: Sequence[str]) -> exp.Expr | None:
    """A predicate that every row of the table satisfies that the join can find; None when nothing is known."""
    parts: list[exp.Expr] = []
    if on is None:
        return None
    if not names.columns:
        return on
    for part in predicates.conjuncts(on):
        if names.side(part) == "target":
            parts.append(part.copy())
        elif isinstance(part, exp.EQ | exp.NullSafeEQ):
            for mine, theirs in ((part.this, part.expression), (part.expression, part.this)):
                if isinstance(mine, exp.Column) and names.side(mine) == "target" and names.side(theirs) == "source":
                    found = None
                    with suppress(duckdb.Error):  # the search tells what is wrong with it
                        found = _keys(connection, mine, theirs, names, partition_columns)
                    if found is not None and isinstance(part, exp.NullSafeEQ):
                        found = exp.or_(found, exp.Is(this=mine.copy(), expression=exp.Null()))
                    parts += [] if found is None else [found]
    return exp.and_(*parts) if parts else None


def _keys(connection: Any, mine: exp.Column, theirs: exp.Expr, names: Names, partition_columns: Sequence[str]) -> exp.Expr | None:
    """Where the values of `theirs` lie, as a predicate on `mine`; None where that is not known."""
    path = [p.name for p in mine.parts]
    f = names.schema.get(path[-1]) if len(path) == 1 or (len(path) == 2 and path[0].lower() == names.target.lower()) else None
    source = _table_of(theirs, names.tables)
    if f is None or source is None or not all(isinstance(node, _PLAIN) for node in theirs.walk()):
        return None
    key = theirs.sql("duckdb")
    bounds = f"SELECT typeof(min({key})), CAST(min({key}) AS VARCHAR), CAST(max({key}) AS VARCHAR) FROM {source}"
    ((type_, low, high),) = connection.execute(bounds).fetchall()
    if _family(type_) is None or _family(type_) != _family(to_duckdb(f.type)):
        return None
    most = MAX_PARTITIONS if f.name in partition_columns else MAX_KEYS
    distinct = f"SELECT DISTINCT CAST({key} AS VARCHAR) FROM {source} WHERE ({key}) IS NOT NULL LIMIT {most + 1}"
    values = [_constant(text, type_) for (text,) in connection.execute(distinct).fetchall()]
    if not values:
        return exp.false()
    if len(values) <= most:
        return exp.In(this=mine.copy(), expressions=values)
    return exp.Between(this=mine.copy(), low=_constant(low, type_), high=_constant(high, type_))


def _table_of(tree: exp.Expr, tables: Mapping[str, str]) -> str | None:
    """The FROM item that an expression is about: the only one there is, or the one that qualifies all its columns."""
    if len(tables) == 1:
        return next(iter(tables.values()))
    qualifiers = {c.parts[0].name.lower() if len(c.parts) > 1 else "" for c in tree.find_all(exp.Column)}
    return tables.get(qualifiers.pop()) if len(qualifiers) == 1 else None


def _family(type_: str) -> str | None:
    if type_.startswith("DECIMAL"):
        return "number"
    return next((family for family, types in _FAMILIES.items() if type_ in types), None)


def _constant(text: str, type_: str) -> exp.Expr:
    if type_ == "VARCHAR":
        return exp.Literal.string(text)
    if type_ in _FAMILIES["number"] and type_ != "DOUBLE":
        number = exp.Literal.number(text.lstrip("-"))
        return exp.Neg(this=number) if text.startswith("-") else number
    return exp.Cast(this=exp.Literal.string(text), to=exp.DataType.build(type_, dialect="duckdb"))
