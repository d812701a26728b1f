"""Partition values: strings in the log, typed in a scan, and the same value after the round trip."""

from __future__ import annotations

import duckdb
import pytest

from deltaduck.errors import SchemaMismatchError
from deltaduck.protocol.partitions import check_partition_type, deserialize, serialize
from deltaduck.protocol.schema import Array, Map, Struct, literal

# type, a SQL value of it, the string that the log holds
VALUES = [
    ("string", "'plain'", "plain"),
    ("string", "'a=b/c%20 ''q'' \"d\" ünï'", "a=b/c%20 'q' \"d\" ünï"),
    ("string", "'__HIVE_DEFAULT_PARTITION__'", "__HIVE_DEFAULT_PARTITION__"),
    ("string", "'null'", "null"),
    ("long", "-9223372036854775808", "-9223372036854775808"),
    ("integer", "42", "42"),
    ("short", "-1", "-1"),
    ("byte", "127", "127"),
    ("boolean", "true", "true"),
    ("boolean", "false", "false"),
    ("date", "DATE '2024-02-29'", "2024-02-29"),
    ("decimal(10,2)", "12.50", "12.50"),
    ("decimal(38,0)", "12345678901234567890123456789012345678", "12345678901234567890123456789012345678"),
    ("timestamp", "TIMESTAMPTZ '2024-01-02 03:04:05.000007+02:00'", "2024-01-02T01:04:05.000007Z"),
    ("timestamp_ntz", "TIMESTAMP '2024-01-02 03:04:05.000007'", "2024-01-02 03:04:05.000007"),
    ("binary", "encode('bytes')", "bytes"),
    ("double", "0.1", "0.1"),
    ("float", "1e10", None),
]


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    """A session whose time zone is not UTC: values must not depend on it."""
    con = duckdb.connect()
    con.execute("SET TimeZone = 'Asia/Kolkata'")
    return con


@pytest.mark.parametrize(("type_", "value", "text"), VALUES)
def test_round_trip(con: duckdb.DuckDBPyConnection, type_: str, value: str, text: str | None) -> None:
    from deltaduck.protocol.schema import to_duckdb

    typed = f"CAST({value} AS {to_duckdb(type_)})"
    ((written, same),) = con.execute(
        f"SELECT t, {deserialize('t', type_)} IS NOT DISTINCT FROM {typed} FROM (SELECT {serialize(typed, type_)} AS t)"
    ).fetchall()
    assert same
    assert text is None or written == text


@pytest.mark.parametrize("type_", sorted({t for t, _, _ in VALUES}))
def test_null_and_the_empty_string_are_null(con: duckdb.DuckDBPyConnection, type_: str) -> None:
    from deltaduck.protocol.schema import to_duckdb

    null = f"CAST(NULL AS {to_duckdb(type_)})"
    assert con.execute(f"SELECT {serialize(null, type_)}, {deserialize('NULL', type_)}").fetchall() == [(None, None)]
    assert con.execute(f"SELECT {deserialize(literal(''), type_)}").fetchall() == [(None,)]


def test_the_empty_string_is_written_as_null(con: duckdb.DuckDBPyConnection) -> None:
    assert con.execute(f"SELECT {serialize(literal(''), 'string')}").fetchall() == [(None,)]


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2024-01-02 03:04:05", "2024-01-02 03:04:05"),  # no zone: in UTC
        ("2024-01-02 03:04:05.123456", "2024-01-02 03:04:05.123456"),
        ("2024-01-02T03:04:05.5Z", "2024-01-02 03:04:05.5"),
        ("2024-01-02T03:04:05+02:00", "2024-01-02 01:04:05"),
        ("2024-01-02 03:04:05.123456-0530", "2024-01-02 08:34:05.123456"),
        ("2024-01-02", "2024-01-02 00:00:00"),
        ("1969-12-31 23:59:59.999999", "1969-12-31 23:59:59.999999"),
    ],
)
def test_timestamps_of_other_writers_are_read_in_utc(con: duckdb.DuckDBPyConnection, text: str, utc: str) -> None:
    ((same,),) = con.execute(f"SELECT {deserialize(literal(text), 'timestamp')} = TIMESTAMPTZ '{utc}+00:00'").fetchall()
    assert same


@pytest.mark.parametrize("type_", [Array("long"), Map("string", "long"), Struct(())])
def test_nested_columns_cannot_partition(type_: Array | Map | Struct) -> None:
    check_partition_type("c", "binary")
    with pytest.raises(SchemaMismatchError, match="'c' is nested"):
        check_partition_type("c", type_)
