"""Python values as SQL, and a statement's parameters written into it as such: its plan knows which files they leave."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sqlglot import TokenType

from deltaduck.errors import QueryError, SchemaMismatchError
from deltaduck.frontends.words import Words
from deltaduck.protocol.schema import literal, quote


def bound(text: str, params: Sequence[Any] | Mapping[str, Any]) -> str:
    """`text` with the values of its parameters in their places: ``?`` and ``$1`` of a list, ``$name`` of a mapping.

    QueryError for a parameter without a value, or a value that no parameter asks for; SchemaMismatchError for one that SQL
    cannot say."""
    if not isinstance(params, Mapping) and (isinstance(params, str | bytes) or not isinstance(params, Sequence)):
        raise QueryError(f"params is a {type(params).__name__}: give a list of values, or a dict of them by name")
    given = params.items() if isinstance(params, Mapping) else enumerate(params, 1)
    values = {str(name).lower(): value for name, value in given}
    markers = _markers(text)
    wanted = {name for name, _, _ in markers}
    if missing := sorted(wanted - {*values}):
        raise _refusal(f"params has no value for {_named(missing)}", text)
    if unasked := sorted({*values} - wanted):
        raise _refusal(f"nothing asks for {_named(unasked)} of params", text)
    pieces, position = [], 0
    for name, start, end in markers:
        sql = value_sql(values[name])
        sql = f"({sql})" if sql.startswith("-") else sql  # two dashes begin a comment
        pieces += [
            text[position:start],
            f" {sql} " if text[start - 1 : start].isalnum() or text[end : end + 1].isalnum() else sql,
        ]
        position = end
    return "".join([*pieces, text[position:]])


def _named(names: Sequence[str]) -> str:
    return ", ".join(f"${name}" for name in names)


def _refusal(what: str, text: str) -> QueryError:
    return QueryError(f"{what}. The statement was not run: {text.strip()[:200]}")


def _markers(text: str) -> list[tuple[str, int, int]]:
    """(name, start, end) of each parameter; those that have no name are counted."""
    found: list[tuple[str, int, int]] = []
    counted = 0
    tokens = Words(text).tokens
    if not tokens:
        raise _refusal("the statement is empty, or leaves a quote or a comment open", text)
    for token, after in zip(tokens, [*tokens[1:], None], strict=True):
        kind = token.token_type
        if kind not in (TokenType.PARAMETER, TokenType.PLACEHOLDER, TokenType.QDCOLON):  # $, ? and ?::
            continue
        name = after.text.lower() if after is not None and after.start == token.end + 1 else ""
        if after is not None and (name.isdigit() or (kind is TokenType.PARAMETER and name.isidentifier())):
            found.append((name, token.start, after.end + 1))
        elif kind is not TokenType.PARAMETER:
            counted += 1
            found.append((str(counted), token.start, token.start + 1))
    if counted and counted != len(found):
        raise _refusal("parameters are all ?, or all have numbers or names", text)
    return found


def value_sql(value: Any) -> str:
    """A Python value as SQL, of the type that DuckDB gives it. SchemaMismatchError for what has no literal."""
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case decimal.Decimal() if value.is_finite():
            return f"{value:f}"
        case float():
            return f"CAST('{float(value)!r}' AS DOUBLE)"
        case str():
            return literal(value)
        case bytes():
            return f"from_hex('{value.hex()}')"
        case dt.datetime() if str(value) == "NaT":  # pandas'
            return "NULL"
        case dt.datetime():
            return f"CAST('{value.isoformat(' ')}' AS {'TIMESTAMP' if value.tzinfo is None else 'TIMESTAMPTZ'})"
        case dt.date():
            return f"CAST('{value.isoformat()}' AS DATE)"
        case dt.time() if value.tzinfo is None:
            return f"CAST('{value.isoformat()}' AS TIME)"
        case dt.timedelta():
            micros = (value - dt.timedelta(days=value.days)) // dt.timedelta(microseconds=1)
            return f"CAST('{value.days} days {micros} microseconds' AS INTERVAL)"
        case uuid.UUID():
            return f"CAST('{value}' AS UUID)"
        case list() | tuple():
            return f"[{', '.join(value_sql(v) for v in value)}]"
        case dict() if value:
            return f"struct_pack({', '.join(f'{quote(str(k))} := {value_sql(v)}' for k, v in value.items())})"
    if isinstance(value, np.ndarray) and value.ndim:
        return value_sql([*value])
    if isinstance(value, np.generic | np.ndarray):
        plain = value.item()  # of times that are finer than Python's it is a number, of what Python has not the same again
        if isinstance(value, np.datetime64) and isinstance(plain, int):
            return f"CAST('{value}' AS TIMESTAMP_NS)"
        if not isinstance(plain, np.generic) and not (isinstance(value, np.timedelta64) and isinstance(plain, int)):
            return value_sql(plain)
    raise SchemaMismatchError(f"a {type(value).__name__} has no SQL literal: give the value as SQL")
