"""What rows of a table must satisfy, and what is filled in where they say nothing: NOT NULL, CHECK, invariants, generated
columns, defaults. All rows pass here on their way to Parquet.

The log holds expressions in Spark's SQL; they are translated once. Protocol:
https://github.com/delta-io/delta/blob/master/PROTOCOL.md#check-constraints
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import duckdb
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError, UnsupportedError

from deltaduck.errors import ConstraintViolationError, QueryError, SchemaMismatchError, UnsupportedFeatureError
from deltaduck.protocol.features import check_change_columns
from deltaduck.protocol.schema import Array, DataType, Field, Map, Struct, literal, quote, to_duckdb

CONSTRAINT = "delta.constraints."
GENERATED = "delta.generationExpression"
DEFAULT = "CURRENT_DEFAULT"
IDENTITY = "delta.identity.start"
INVARIANT = "delta.invariants"
MARK = "deltaduck rule "
EXAMPLE = 200  # characters of a row that an error shows

# What means the same in Spark and in DuckDB as sqlglot translates it; anything else is refused by name.
_KNOWN = tuple(
    getattr(exp, name)
    for name in re.findall(
        r"\w+",
        """Column Identifier Literal Boolean Null And Or Not Paren EQ NEQ GT GTE LT LTE NullSafeEQ In Between Is Like ILike
        RegexpLike Case If Coalesce Cast TryCast DataType DataTypeParam Add Sub Mul Div Mod IntDiv Neg Abs Length Upper Lower
        Trim Substring Concat DPipe Year Month Day Hour Minute Second DateTrunc TimestampTrunc TimeToStr StartsWith EndsWith
        Greatest Least Round Floor Ceil ArrayContains ArraySize Bracket Dot DateAdd DateDiff CurrentTimestamp CurrentDate
        Interval IntervalSpan TsOrDsToDate MD5 Var Tuple Array IsNan""",
    )
    if hasattr(exp, name)
)


@dataclass(frozen=True)
class Rule:
    """Something that must be true of every row. says: what it is, for people; sql: DuckDB's, true of rows that keep it."""

    says: str
    sql: str
    columns: tuple[str, ...]


def check_rules(schema: Struct, configuration: Mapping[str, str]) -> list[Rule]:
    """Every rule of a table but the values of its generated columns."""
    found = [
        Rule(f"column {path!r} is NOT NULL, and a row has no value for it", sql, (top,)) for path, sql, top in _required(schema)
    ]
    for f in schema:
        if INVARIANT in f.metadata:
            text = json.loads(f.metadata[INVARIANT])["expression"]["expression"]
            found.append(rule(f"the invariant of column {f.name!r} ({text})", text))
    for key, text in configuration.items():
        if key.startswith(CONSTRAINT):
            found.append(rule(f"CHECK constraint {key.removeprefix(CONSTRAINT)!r} ({text})", text))
    for r in found:
        if missing := [c for c in r.columns if schema.get(c) is None]:
            raise SchemaMismatchError(f"{r.says} needs column {missing[0]!r}: keep the column, or drop the constraint first")
    return found


def all_rules(schema: Struct, configuration: Mapping[str, str]) -> list[Rule]:
    """Every rule of a table, the values of its generated columns among them."""
    return [*check_rules(schema, configuration), *(_generated(f)[1] for f in schema if GENERATED in f.metadata)]


def _generated(f: Field) -> tuple[str, Rule]:
    """(SQL of the value that a generated column has, what is true of rows that have it)."""
    text = f.metadata[GENERATED]
    value = f"CAST(({to_engine(text, f'generated column {f.name!r}')[0]}) AS {to_duckdb(f.type)})"
    says = f"generated column {f.name!r} is not {text}"
    return value, Rule(says, f"{quote(f.name)} IS NOT DISTINCT FROM {value}", (f.name,))


def rule(says: str, text: str) -> Rule:
    sql, columns = to_engine(text, says)
    return Rule(says, f"({sql}) IS TRUE", columns)


def replaced_rule(predicate: str, schema: Struct) -> Rule:
    """What rows must satisfy that take the place of those that `predicate`, in DuckDB's SQL, matches."""
    named = (c.parts[0].name for c in sqlglot.parse_one(predicate, read="duckdb").find_all(exp.Column))
    columns = tuple(dict.fromkeys(c for c in named if schema.get(c) is not None))
    return Rule(f"a row to write does not match the predicate it replaces: {predicate}", f"({predicate}) IS TRUE", columns)


def dependent(schema: Struct, configuration: Mapping[str, str], path: Sequence[str]) -> str | None:
    """A rule that speaks of a column, of what it is in, or of what is in it; None when there is none."""
    texts = [
        (f"CHECK constraint {k.removeprefix(CONSTRAINT)!r}", v) for k, v in configuration.items() if k.startswith(CONSTRAINT)
    ]
    texts += [(f"generated column {f.name!r}", f.metadata[GENERATED]) for f in schema if GENERATED in f.metadata]
    texts += [
        (f"the invariant of column {f.name!r}", json.loads(f.metadata[INVARIANT])["expression"]["expression"])
        for f in schema
        if INVARIANT in f.metadata and f.name.lower() != path[0].lower()
    ]
    wanted = [part.lower() for part in path]
    for says, text in texts:
        for column in sqlglot.parse_one(text, read="databricks").find_all(exp.Column):
            named = [part.name.lower() for part in column.parts]
            if all(a == b for a, b in zip(named, wanted, strict=False)):
                return f"{says} ({text})"
    return None


def is_filled(f: Field) -> bool:
    """Has the column a value of its own where a row has none?"""
    return bool({GENERATED, DEFAULT, IDENTITY} & {*f.metadata})


def guarded(
    from_sql: str, columns: Sequence[tuple[str, str]], schema: Struct, configuration: Mapping[str, str], more: Sequence[Rule] = ()
) -> tuple[str, list[tuple[str, str]], list[tuple[Rule, str]]]:
    """(FROM item, columns) that hold whole rows of the table and fail where one breaks a rule, and what counts those.

    Columns that are left out are generated, or have their default, or NULL. The third part is for `explained`.
    """
    given = {name for name, _ in columns}
    rules = [*check_rules(schema, configuration), *more]
    if len(given) == len(schema.fields) and not rules and not any(GENERATED in f.metadata for f in schema):
        return from_sql, list(columns), []
    items = [f"{sql} AS {quote(name)}" for name, sql in columns]
    later = []
    for f in schema:
        if GENERATED in f.metadata:
            value, of_value = _generated(f)
            if f.name in given:
                rules.append(of_value)
            else:
                later.append(f"{value} AS {quote(f.name)}")
        elif f.name not in given:
            text = f.metadata.get(DEFAULT, "NULL")
            items.append(f"CAST(({to_engine(text, f'default of {f.name!r}')[0]}) AS {to_duckdb(f.type)}) AS {quote(f.name)}")
    rows = f"(SELECT {', '.join(items)} FROM {from_sql})"
    if later:
        rows = f"(SELECT *, {', '.join(later)} FROM {rows} AS dl_rows)"
    names = schema.names
    counted = [(r, f"SELECT count(*), any_value({_example(r, names)}) FROM {rows} AS dl_rows WHERE NOT ({r.sql})") for r in rules]
    if rules:
        cases = " ".join(
            f"WHEN NOT ({r.sql}) THEN error({literal(MARK + str(i) + ':')} || {_example(r, names)})" for i, r in enumerate(rules)
        )
        # in a column, for DuckDB moves a filter below a join, to rows that are none of these
        guard = quote(next((f.name for f in schema if isinstance(f.type, str)), schema.fields[0].name))
        rows = f"(SELECT * REPLACE (CASE {cases} ELSE {guard} END AS {guard}) FROM {rows} AS dl_rows)"
    return f"{rows} AS dl_rows", [(f.name, quote(f.name)) for f in schema], counted


def explained(
    connection: Any, error: Exception, counted: Sequence[tuple[Rule, str]], dl_frame: Any
) -> ConstraintViolationError | None:
    """The error of a broken rule, with how many rows break it where the rows can be read again; None for other errors.

    dl_frame: rows for a FROM item of that name, which DuckDB finds in this function's variables."""
    text = str(error)
    if not counted or MARK not in text:
        return None
    number, _, example = text[text.index(MARK) + len(MARK) :].partition(":")
    broken, query = counted[int(number)]
    try:
        ((count, found),) = connection.execute(query).fetchall()
    except duckdb.Error:
        count, found = 0, None
    return violation(broken, count, found or example)


def violation(broken: Rule, count: int, example: str) -> ConstraintViolationError:
    """count: 0 when it is not known, as of a stream."""
    rows = "at least one row" if not count else "one row" if count == 1 else f"{count} rows"
    return ConstraintViolationError(f"{broken.says}: broken by {rows}, such as {example.strip()[:EXAMPLE]}; nothing was written")


def check_existing(connection: Any, rows_sql: str, r: Rule, names: Sequence[str], *, holds: bool = False) -> None:
    """ConstraintViolationError when rows, of columns of these names, break a rule that is about to hold, or holds already."""
    ((count, example),) = connection.execute(
        f"SELECT count(*), any_value({_example(r, names)}) FROM ({rows_sql}) AS dl_rows WHERE NOT ({r.sql})"
    ).fetchall()
    if count:
        raise violation(r if holds else replace(r, says=f"it cannot be set, {r.says}"), count, example)


def _example(r: Rule, names: Sequence[str]) -> str:
    """SQL: a row, short: the columns that a rule speaks of, then a few of the others."""
    known = {c.lower() for c in r.columns}
    columns = [*r.columns, *[n for n in names if n.lower() not in known][:5]]
    shown = [f"{literal(c + ' = ')} || coalesce(left(CAST({quote(c)} AS VARCHAR), {EXAMPLE}), 'NULL')" for c in columns]
    return f"left(concat_ws(', ', {', '.join(shown)}), {EXAMPLE})"


def _required(schema: Struct) -> Iterator[tuple[str, str, str]]:
    """(path, SQL that is true of rows that satisfy it, top column) of every NOT NULL."""
    for f in schema:
        if not f.nullable:
            yield f.name, f"{quote(f.name)} IS NOT NULL", f.name
        for path, broken in _inside(quote(f.name), f.type, f.name, 0):
            yield path, f"({broken}) IS NOT TRUE", f.name


def _inside(value: str, type_: DataType, name: str, depth: int) -> Iterator[tuple[str, str]]:
    """(path, SQL that is true where it is broken) of every NOT NULL inside a value."""
    match type_:
        case Struct():
            for f in type_:
                child = f"struct_extract({value}, {literal(f.name)})"
                if not f.nullable:
                    yield f"{name}.{f.name}", f"{value} IS NOT NULL AND {child} IS NULL"
                yield from _inside(child, f.type, f"{name}.{f.name}", depth)
        case Array(element, contains_null):
            yield from _members(value, element, contains_null, f"{name}.element", depth)
        case Map(_, item, contains_null):
            yield from _members(f"map_values({value})", item, contains_null, f"{name}.value", depth)


def _members(values: str, type_: DataType, contains_null: bool, name: str, depth: int) -> Iterator[tuple[str, str]]:
    item = f"dl_item_{depth}"
    broken = [] if contains_null else [(name, f"{item} IS NULL")]
    for path, condition in [*broken, *_inside(item, type_, name, depth + 1)]:
        yield path, f"len(list_filter({values}, lambda {item}: {condition})) > 0"


# --- expressions


@lru_cache(maxsize=1024)
def to_engine(text: str, what: str) -> tuple[str, tuple[str, ...]]:
    """(DuckDB SQL, columns) of an expression of the log. UnsupportedFeatureError names what cannot be translated."""
    try:
        tree = sqlglot.parse_one(text, read="databricks")
        for node in tree.walk():
            if isinstance(node, exp.Anonymous) and node.name.lower() in ("isnull", "isnotnull"):
                continue
            if not isinstance(node, _KNOWN):
                raise UnsupportedFeatureError(f"{what}: {node.sql('databricks')} cannot be evaluated: write it another way")
        columns = tuple(dict.fromkeys(c.parts[0].name for c in tree.find_all(exp.Column)))
        return tree.sql("duckdb", unsupported_level=sqlglot.ErrorLevel.RAISE), columns
    except (SqlglotError, UnsupportedError) as e:
        raise UnsupportedFeatureError(f"{what}: {text!r} cannot be understood: {str(e).splitlines()[0]}") from e


def to_log(text: str) -> str:
    """An expression as a user wrote it, in DuckDB's SQL or else in Spark's, as the log holds it: in Spark's."""
    ours, theirs = _parsed(text, "duckdb"), _parsed(text, "databricks")
    if isinstance(ours, exp.Expr):
        return text.strip() if ours == theirs and "::" not in text else ours.sql("databricks")
    if isinstance(theirs, exp.Expr):
        return text.strip()
    raise QueryError(f"the expression {text!r} cannot be parsed: {str(ours).splitlines()[0]}") from ours


def _parsed(text: str, dialect: str) -> exp.Expr | SqlglotError:
    try:
        return sqlglot.parse_one(text, read=dialect)
    except SqlglotError as e:
        return e


def validate(connection: Any, schema: Struct, configuration: Mapping[str, str]) -> None:
    """Can every rule and every filled value be evaluated over the table's columns, and is each of its type?"""
    check_change_columns(schema, configuration)
    columns = ", ".join(f"CAST(NULL AS {to_duckdb(f.type)}) AS {quote(f.name)}" for f in schema)
    rows = f"(SELECT {columns} WHERE false) AS dl_rows"
    wanted = [(r.says, f"SELECT {r.sql} FROM {rows}") for r in check_rules(schema, configuration)]
    for f in schema:
        for key, what in ((GENERATED, f"generated column {f.name!r}"), (DEFAULT, f"default of column {f.name!r}")):
            if key in f.metadata:
                sql, used = to_engine(f.metadata[key], what)
                if key == DEFAULT and used:
                    raise QueryError(f"{what}: a default cannot name columns, such as {used[0]}")
                if any((g := schema.get(c)) is not None and GENERATED in g.metadata for c in used):
                    raise QueryError(f"{what} cannot be made of another generated column")
                source = f"FROM {rows}" if key == GENERATED else ""
                wanted.append((what, f"SELECT CAST(({sql}) AS {to_duckdb(f.type)}) {source}"))
    for says, sql in wanted:
        try:
            connection.execute(sql).fetchall()
        except duckdb.Error as e:
            raise QueryError(f"{says} cannot be evaluated: {str(e).splitlines()[0]}") from e
    for name, text in ((k.removeprefix(CONSTRAINT), v) for k, v in configuration.items() if k.startswith(CONSTRAINT)):
        says = f"CHECK constraint {name!r} ({text})"
        (kind,) = connection.sql(f"SELECT {to_engine(text, says)[0]} FROM {rows}").types
        if str(kind) != "BOOLEAN":
            raise QueryError(f"{says} is {kind}, and a condition is BOOLEAN: compare it with something")
