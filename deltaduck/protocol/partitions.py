"""Partition values: strings in the log, typed in a scan. SQL text for the engine.

Protocol: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#partition-value-serialization
"""

from __future__ import annotations

from deltaduck.errors import SchemaMismatchError
from deltaduck.protocol.schema import DataType, number_text, to_duckdb


def check_partition_type(column: str, type_: DataType) -> None:
    """SchemaMismatchError when a column cannot partition a table."""
    if not isinstance(type_, str):
        raise SchemaMismatchError(f"column {column!r} is nested and cannot partition a table: choose a primitive column")


def serialize(value: str, type_: DataType) -> str:
    """SQL: the log's string of the typed SQL expression `value`; NULL for NULL and for the empty string."""
    match type_:
        case "string":
            return f"nullif({value}, '')"
        case "binary":
            return f"nullif(decode({value}), '')"
        case "timestamp":
            return f"strftime(make_timestamp(epoch_us({value})), '%Y-%m-%dT%H:%M:%S.%fZ')"
        case "timestamp_ntz":
            return f"strftime({value}, '%Y-%m-%d %H:%M:%S.%f')"
    return number_text(value, type_)


def deserialize(text: str, type_: DataType) -> str:
    """SQL: the typed value of the log's string `text`; the empty string is NULL."""
    return typed(in_utc(text, type_), type_)


def in_utc(text: str, type_: DataType) -> str:
    """SQL: the log's string, without an offset that a timestamp may have, which a cast to TIMESTAMP overlooks."""
    if type_ != "timestamp":
        return text
    shifted = f"CAST(make_timestamp(epoch_us(CAST({text} AS TIMESTAMPTZ))) AS VARCHAR)"
    return f"CASE WHEN regexp_matches({text}, ':\\d\\d(\\.\\d+)?[+-]\\d\\d:?\\d\\d$') THEN {shifted} ELSE {text} END"


def typed(text: str, type_: DataType) -> str:
    """SQL: the typed value of a string that `in_utc` has seen."""
    text = f"nullif({text}, '')"
    match type_:
        case "string":
            return text
        case "binary":
            return f"encode({text})"
        case "timestamp":  # a value without a zone is in UTC, whatever zone the session has
            return f"make_timestamptz(epoch_us(CAST({text} AS TIMESTAMP)))"
    return f"CAST({text} AS {to_duckdb(type_)})"
