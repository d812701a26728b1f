"""WHERE → a condition on the skip index: could a file hold a row that matches?

The condition may keep a file that has no match; it never drops one that has. Whatever is not understood keeps the file.
Constants are evaluated by DuckDB itself, so that they mean here what they mean in the query.
"""

from __future__ import annotations

import datetime as dt
import decimal
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from deltaduck.errors import DeltaduckError, QueryError
from deltaduck.protocol.schema import decimal_of
from deltaduck.protocol.stats import SkipColumn

Evaluate = Callable[[Sequence[str]], list[tuple[str, Any]]]  # SQL constants -> (DuckDB type, value) each


@dataclass(frozen=True)
class Condition:
    """SQL over the columns of ``dl_skip_<table_id> s`` with ``:parameters``. ``TRUE`` keeps every file."""

    sql: str = "TRUE"
    params: Mapping[str, Any] = field(default_factory=dict, hash=False)


def parse(text: str) -> exp.Expr:
    """A predicate as a syntax tree; QueryError shows where it cannot be parsed."""
    try:
        return sqlglot.parse_one(text, read="duckdb", into=exp.Condition)
    except SqlglotError as e:
        raise QueryError(f"the predicate {text!r} cannot be parsed: {str(e).splitlines()[0]}") from e


def compile_condition(
    where: exp.Expr | None, columns: Sequence[SkipColumn], evaluate: Evaluate, qualifiers: Sequence[str] = ()
) -> Condition:
    """The condition of one table's predicate. `qualifiers` are the names by which it may refer to the table itself."""
    if where is None:
        return Condition()
    by_path = {tuple(p.lower() for p in c.path): c for c in columns}
    compiler = _Compiler(by_path, evaluate, {q.lower() for q in qualifiers})
    sql = compiler.could_match(where, negated=False)
    return Condition(sql, compiler.params)


_SWAPPED: dict[type[exp.Expr], type[exp.Expr]] = {
    exp.LT: exp.GT,
    exp.GT: exp.LT,
    exp.LTE: exp.GTE,
    exp.GTE: exp.LTE,
    exp.EQ: exp.EQ,
    exp.NEQ: exp.NEQ,
}
_NEGATED: dict[type[exp.Expr], type[exp.Expr]] = {
    exp.LT: exp.GTE,
    exp.GT: exp.LTE,
    exp.LTE: exp.GT,
    exp.GTE: exp.LT,
    exp.EQ: exp.NEQ,
    exp.NEQ: exp.EQ,
}
_OPERATORS: dict[type[exp.Expr], str] = {exp.LT: "<", exp.GT: ">", exp.LTE: "<=", exp.GTE: ">=", exp.EQ: "=", exp.NEQ: "<>"}
_INTEGERS = ("byte", "short", "integer", "long")
HOUR = 3_600_000_000  # microseconds
MAX_LIST = 256  # members of an IN list that are checked one by one; longer lists are checked by their range


class _Compiler:
    def __init__(self, columns: dict[tuple[str, ...], SkipColumn], evaluate: Evaluate, qualifiers: set[str]) -> None:
        self.columns = columns
        self.qualifiers = qualifiers
        self.evaluate = evaluate
        self.params: dict[str, Any] = {}

    def could_match(self, node: exp.Expr, negated: bool) -> str:
        """SQL that is true for every file with a row for which `node` is true (false, when negated)."""
        if node.args.get("negate"):  # x NOT LIKE y, as sqlglot holds it
            negated = not negated
        match node:
            case exp.Paren():
                return self.could_match(node.this, negated)
            case exp.Not():
                return self.could_match(node.this, not negated)
            case exp.And() | exp.Or():
                parts = [self.could_match(side, negated) for side in node.flatten()]
                return self._all(parts) if isinstance(node, exp.And) != negated else self._any(parts)
            case exp.Between():
                low = exp.GTE(this=node.this.copy(), expression=node.args["low"].copy())
                high = exp.LTE(this=node.this.copy(), expression=node.args["high"].copy())
                return self.could_match(exp.And(this=low, expression=high), negated)
            case exp.In() if not negated and not node.args.get("query") and not node.args.get("unnest"):
                return self._in_list(node)
            case exp.Is() if isinstance(node.expression, exp.Null):
                return self._is_null(node.this, negated)
            case exp.Like() | exp.StartsWith() if not negated:
                return self._prefix(node)
            case exp.Column() | exp.Dot() if (c := self.column(node)) and c.is_partition and c.type == "boolean":
                return f"s.{c.value} = {0 if negated else 1}"
            case exp.Boolean():
                return "TRUE" if bool(node.this) != negated else "FALSE"
        if type(node) in _OPERATORS:
            return self._comparison(node, negated)
        return "TRUE"

    def column(self, node: exp.Expr) -> SkipColumn | None:
        """The indexed column that a reference names: a, t.a, s.field, t.s.field."""
        if not isinstance(node, exp.Column | exp.Dot) or not all(isinstance(p, exp.Identifier) for p in node.parts):
            return None
        path = tuple(part.name.lower() for part in node.parts)
        return self.columns.get(path[1:] if len(path) > 1 and path[0] in self.qualifiers else path)

    def constants(self, nodes: Sequence[exp.Expr]) -> list[tuple[str, Any]]:
        """(DuckDB type, value) of each: plain literals as they stand, the rest as DuckDB evaluates them."""
        plain = [_plain(n) for n in nodes]
        rest = [n.sql("duckdb") for n, p in zip(nodes, plain, strict=True) if p is None]
        answers = iter(self._evaluated(rest))
        return [next(answers) if p is None else p for p in plain]

    def _evaluated(self, constants: Sequence[str]) -> list[tuple[str, Any]]:
        """The same of SQL text. What fails, or has no value in Python, is unknown: whether it is an error, the query says."""
        try:
            return self.evaluate(constants) if constants else []
        except (DeltaduckError, OverflowError, ValueError):
            return [("", _UNKNOWN)] * len(constants)

    @staticmethod
    def _all(parts: list[str]) -> str:
        kept = [p for p in parts if p != "TRUE"]
        return " AND ".join(kept) if kept else "TRUE"

    @staticmethod
    def _any(parts: list[str]) -> str:
        return "TRUE" if "TRUE" in parts else "(" + " OR ".join(parts) + ")"

    def _comparison(self, node: exp.Expr, negated: bool) -> str:
        left, right = node.this, node.expression
        operator: type[exp.Expr] = type(node)
        column = self.column(left)
        if column is None:
            column, operator, right = self.column(right), _SWAPPED[operator], left
        operator = _NEGATED[operator] if negated else operator
        if column is None or not (is_constant(right) or (operator in (exp.GT, exp.GTE) and is_rising(right))):
            return "TRUE"
        ((kind, value),) = self.constants([right])
        return self.compare(column, operator, right, kind, value)

    def compare(self, c: SkipColumn, operator: type[exp.Expr], node: exp.Expr, kind: str, value: Any) -> str:
        known, lossy, bound = self._in_domain(c, node, kind, value)
        if not known:
            return "TRUE"
        if lossy:
            return self._compare_loosely(c, operator, *self._around(c, node, bound))
        name = self._bind(bound)
        if c.is_partition:
            return f"s.{c.value} {_OPERATORS[operator]} {name}"
        unknown_low, unknown_high = f"s.{c.min} IS NULL", f"s.{c.max} IS NULL"
        any_value = f"(s.{c.nulls} < s.num_records OR s.{c.nulls} IS NULL OR s.num_records IS NULL)"
        if operator is exp.EQ:
            return f"(s.{c.min} <= {name} OR {unknown_low}) AND (s.{c.max} >= {name} OR {unknown_high}) AND {any_value}"
        if operator in (exp.LT, exp.LTE):
            return f"(s.{c.min} {_OPERATORS[operator]} {name} OR {unknown_low}) AND {any_value}"
        if operator in (exp.GT, exp.GTE):
            return f"(s.{c.max} {_OPERATORS[operator]} {name} OR {unknown_high}) AND {any_value}"
        if c.type not in ("byte", "short", "integer", "long", "date"):
            return "TRUE"  # bounds of these may be wider than the values
        return f"(s.{c.min} <> {name} OR s.{c.max} <> {name} OR {unknown_low} OR {unknown_high})"

    def _compare_loosely(self, c: SkipColumn, operator: type[exp.Expr], low: Any, high: Any) -> str:
        """The same with a constant that is only known to lie in [low, high]."""
        if operator is exp.NEQ:
            return "TRUE"
        least, most = (c.value, c.value) if c.is_partition else (c.min, c.max)  # a partition value of NULL may be a NaN
        parts = []
        if operator in (exp.EQ, exp.LT, exp.LTE):
            parts.append(f"(s.{least} <= {self._bind(high)} OR s.{least} IS NULL)")
        if operator in (exp.EQ, exp.GT, exp.GTE):
            parts.append(f"(s.{most} >= {self._bind(low)} OR s.{most} IS NULL)")
        return " AND ".join(parts)

    @staticmethod
    def _around(c: SkipColumn, node: exp.Expr, bound: Any) -> tuple[Any, Any]:
        """The range that a constant is known to lie in: what DuckDB compares with is rounded in its own way."""
        if c.type in ("timestamp", "timestamp_ntz"):
            slack = 48 * HOUR if _depends_on_zone(node) else 16 * HOUR
            return bound - slack, bound + slack
        if c.type == "date":
            return bound - 2, bound + 2
        if c.type in _INTEGERS:
            return bound, bound
        slack = abs(bound) * 2**-22 + 1e-44 if c.type == "float" else abs(bound) * 2**-50
        return bound - slack, bound + slack

    def _in_list(self, node: exp.In) -> str:
        column = self.column(node.this)
        members = node.expressions
        if column is None or not members or not all(is_constant(m) for m in members):
            return "TRUE"
        values = self.constants(members)
        if len(values) <= MAX_LIST:
            return self._any(
                [f"({self.compare(column, exp.EQ, m, kind, v)})" if v is not None else "FALSE"
                 for m, (kind, v) in zip(members, values, strict=True)]
            )  # fmt: skip
        present = [(kind, v, m) for m, (kind, v) in zip(members, values, strict=True) if v is not None]
        orderly = len({kind for kind, _, _ in present}) == 1 and all(
            isinstance(v, str if column.type == "string" else (int, float, decimal.Decimal, dt.date)) and v == v
            for _, v, _ in present
        )
        if not orderly:  # members of several types, or text that stands for something else, have no order here
            return "TRUE"
        low, high = min(present, key=lambda x: x[1]), max(present, key=lambda x: x[1])
        return self._all(
            [self.compare(column, exp.GTE, low[2], low[0], low[1]), self.compare(column, exp.LTE, high[2], high[0], high[1])]
        )

    def _is_null(self, node: exp.Expr, negated: bool) -> str:
        c = self.column(node)
        if c is None:
            return "TRUE"
        if c.is_partition:
            return "TRUE" if c.type in ("float", "double") else f"s.{c.value} IS {'NOT ' if negated else ''}NULL"
        if negated:
            return f"(s.{c.nulls} < s.num_records OR s.{c.nulls} IS NULL OR s.num_records IS NULL)"
        return f"(s.{c.nulls} > 0 OR s.{c.nulls} IS NULL)"

    def _prefix(self, node: exp.Expr) -> str:
        """LIKE 'abc%' and starts_with(x, 'abc') as a range."""
        c, pattern = self.column(node.this), node.expression
        if c is None or c.type != "string" or not isinstance(pattern, exp.Literal) or not pattern.is_string:
            return "TRUE"
        text = pattern.this
        if isinstance(node, exp.Like):
            if "\\" in text:
                return "TRUE"
            text = text[: min((i for i in (text.find("%"), text.find("_")) if i >= 0), default=len(text))]
        if not text:
            return "TRUE"
        prefix = self._bind(text)
        if c.is_partition:
            return f"substr(s.{c.value}, 1, {len(text)}) = {prefix}"
        low = f"substr(s.{c.min}, 1, {len(text)}) <= {prefix}"
        return f"(s.{c.max} >= {prefix} OR s.{c.max} IS NULL) AND ({low} OR s.{c.min} IS NULL)"

    def _bind(self, value: Any) -> str:
        name = f"p{len(self.params)}"
        self.params[name] = value
        return f":{name}"

    def _in_domain(self, c: SkipColumn, node: exp.Expr, kind: str, value: Any) -> tuple[bool, bool, Any]:
        """(can it be compared, is the comparison lossy, the value as the skip index holds values of this column).

        A string literal takes the column's type, as it does in DuckDB.
        """
        if value is None:
            return False, False, None
        if isinstance(value, str) and c.type != "string":
            if not (isinstance(node, exp.Literal) and node.is_string):
                return False, False, None
            ((kind, value),) = self._evaluated(
                [f"TRY_CAST({node.sql('duckdb')} AS {_CAST[c.type]})" if c.type in _CAST else "NULL"]
            )
            if value is None:
                return False, False, None
        if kind == "FLOAT" and c.type not in ("float", "double"):  # then the column is rounded, to 24 bits
            return False, False, None
        match c.type:
            case "byte" | "short" | "integer" | "long":
                return _number_domain(value)
            case "float" | "double":
                known, _, number = _number_domain(value)
                return known and abs(number) < 2**53, True, float(number) if known else None
            case "string":
                return isinstance(value, str) and not _depends_on_zone(node), False, value
            case "boolean":
                return isinstance(value, bool), False, int(value) if isinstance(value, bool) else None
            case "date":
                if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
                    return True, _depends_on_zone(node), (value - dt.date(1970, 1, 1)).days
            case "timestamp" | "timestamp_ntz":
                return self._timestamp_domain(c, node, kind, value)
        if decimal_of(c.type):
            known, _, number = _number_domain(value)
            return known, True, float(number) if known else None
        return False, False, None

    def _timestamp_domain(self, c: SkipColumn, node: exp.Expr, kind: str, value: Any) -> tuple[bool, bool, Any]:
        zoned = c.type == "timestamp" and kind == "TIMESTAMP WITH TIME ZONE"
        if not isinstance(value, dt.date) or not (zoned or kind in ("DATE", "TIMESTAMP")):
            return False, False, None
        # without a zone of its own, a constant is read in UTC here, and in the zone of the session where the query runs
        certain = _has_zone(node) if c.type == "timestamp" else not _depends_on_zone(node)
        micros = f"epoch_us(TRY_CAST({node.sql('duckdb')} AS {_CAST[c.type if certain else 'timestamp_ntz']}))"
        ((_, number),) = self._evaluated([micros])
        return isinstance(number, int), not certain, number


_UNKNOWN = object()  # a constant that has no value in Python

_CAST = {
    "byte": "BIGINT", "short": "BIGINT", "integer": "BIGINT", "long": "BIGINT", "date": "DATE",
    "timestamp": "TIMESTAMPTZ", "timestamp_ntz": "TIMESTAMP", "boolean": "BOOLEAN",
}  # fmt: skip


def _number_domain(value: Any) -> tuple[bool, bool, Any]:
    """A number that BIGINT and double columns compare with exactly, or nearly (lossy)."""
    if isinstance(value, bool):
        return False, False, None
    if isinstance(value, int):
        return abs(value) < 2**63, False, value
    if isinstance(value, decimal.Decimal) and value.is_finite() and abs(value) < 2**53:
        return (True, False, int(value)) if value == value.to_integral_value() else (True, True, float(value))
    if isinstance(value, float) and math.isfinite(value) and abs(value) < 2**53:
        return True, True, value
    return False, False, None


_CONSTANTS = (
    exp.Literal, exp.Cast, exp.DataType, exp.Neg, exp.Add, exp.Sub, exp.Mul, exp.Paren, exp.Interval, exp.Var,
    exp.Null, exp.Boolean, exp.DataTypeParam, exp.IntervalSpan, exp.TsOrDsToDate, exp.StrToTime, exp.Date,
)  # fmt: skip


def _plain_date(text: str) -> tuple[str, Any] | None:
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text) is None:
        return None
    try:
        return "DATE", dt.date.fromisoformat(text)
    except ValueError:  # a day that does not exist is for DuckDB to refuse
        return None


def _plain(node: exp.Expr) -> tuple[str, Any] | None:
    if isinstance(node, exp.Literal):
        if node.is_string:
            return "VARCHAR", node.this
        return ("BIGINT", int(node.this)) if node.is_int else None
    if isinstance(node, exp.Cast) and node.to.is_type(exp.DType.DATE) and isinstance(node.this, exp.Literal):
        return _plain_date(node.this.this)
    if isinstance(node, exp.Neg) and (inner := _plain(node.this)) and inner[0] == "BIGINT":
        return "BIGINT", -inner[1]
    return None


def is_constant(node: exp.Expr) -> bool:
    """Literals, and arithmetic and casts of them: what means the same every time it is evaluated."""
    return all(isinstance(n, _CONSTANTS) for n in node.walk())


def _depends_on_zone(node: exp.Expr) -> bool:
    """May a constant have another value in a session of another time zone? Plain text aside."""
    current = (exp.CurrentDate, exp.CurrentTimestamp, exp.CurrentTimestampLTZ)
    zoned = (exp.DType.TIMESTAMPTZ, exp.DType.TIMESTAMPLTZ, exp.DType.TIMETZ)
    return any(isinstance(n, current) or (isinstance(n, exp.DataType) and n.this in zoned) for n in node.walk())


def _has_zone(node: exp.Expr) -> bool:
    """Is it one instant in every session: text that ends in an offset, or the current time?"""
    match node:
        case exp.Literal():
            return re.search(r":\d\d(\.\d+)?\s*(Z|[+-]\d\d(:?\d\d)?)$", node.name) is not None
        case exp.Cast():
            return isinstance(node.this, exp.Literal) and _depends_on_zone(node) and _has_zone(node.this)
    return isinstance(node, exp.CurrentTimestamp | exp.CurrentTimestampLTZ)


def is_rising(node: exp.Expr) -> bool:
    """The current time, plus or minus constants: later, it can only be more, so what it rules out now stays ruled out."""
    match node:
        case exp.CurrentDate() | exp.CurrentTimestamp() | exp.CurrentTimestampLTZ():
            return not node.args.get("this")
        case exp.Paren() | exp.Cast():
            return is_rising(node.this)
        case exp.Add() | exp.Sub():
            return is_rising(node.this) and is_constant(node.expression)
    return False


def has_query(node: exp.Expr) -> bool:
    """Does it read other tables?"""
    return node.find(exp.Query) is not None


def require_columns(filter: str | None, table: str, known: Sequence[str]) -> None:
    """QueryError when a predicate names a column that the table has not. Subqueries have names of their own."""
    names = {name.lower() for name in known}
    for column in () if filter is None else parse(filter).find_all(exp.Column):
        path = [part.name for part in column.parts]
        if len(path) > 1 and path[0].lower() == table.lower() and table.lower() not in names:
            path = path[1:]
        if path[0].lower() not in names and column.find_ancestor(exp.Query, exp.Lambda) is None:
            raise QueryError(f"table {table!r} has no column {path[0]!r}; it has {', '.join(known)}")


def conjuncts(where: exp.Expr) -> list[exp.Expr]:
    """The parts that all must hold."""
    node = where.unnest()
    return [part for side in node.flatten() for part in conjuncts(side)] if isinstance(node, exp.And) else [node]


parse("a = 1")  # sqlglot builds its dialect at its first use: at import, then, not in the first query
