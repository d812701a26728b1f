"""Whatever frame is written, the same rows are read: every type, nulls, NaN, infinities, long and odd strings, extremes."""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
import os
import urllib.parse
import uuid
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import deltaduck
from deltaduck import Lake, StorageError

EXAMPLES = int(os.environ.get("DELTADUCK_EXAMPLES", "60"))

# Strings that break naive escaping, paths, statistics and ordering.
ODD = [
    "", " ", "a b", "50%", "a/b", "../up", "k=v", "it's", 'say "hi"', "back\\slash", "new\nline", "tab\t", "\x01", "\x7f",
    "ünïcödé", "日本語", "🦆", "\U0010ffff", "a\U0010ffff", "e\u0301", "NULL", "null", "__HIVE_DEFAULT_PARTITION__", "nan",
      "+", "%2F", "?#&",
    ".", "..", "_hidden", "~", "{}", "[*]", ":", ";", "-- x", "$1", ":p0", "é" * 33, "z" * 32 + "\U0010ffff" * 3,
]  # fmt: skip
TEXT = st.one_of(
    st.sampled_from(ODD),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.text(st.sampled_from("abz\U0010ffff"), min_size=30, max_size=70),
)


# SQL text holds no NUL, on DuckDB 1.5.
IN_SQL = TEXT.filter(lambda text: "\0" not in text)
# A partition value names a directory, and file systems allow that 255 bytes: `p=` and the value, percent-encoded.
PARTITION_TEXT = TEXT.filter(lambda text: len(urllib.parse.quote(text)) < 200)


def whole(bits: int, signed: bool = True) -> st.SearchStrategy[int]:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.one_of(st.sampled_from([low, -1 if signed else 0, 0, 1, high]), st.integers(low, high))


def decimals(precision: int, scale: int) -> st.SearchStrategy[decimal.Decimal]:
    digits = st.one_of(st.integers(-(10**precision) + 1, 10**precision - 1), st.sampled_from([0, 1, -1, 10**precision - 1]))
    return digits.map(lambda n: decimal.Decimal(n).scaleb(-scale, decimal.Context(prec=60)))


def moments(zone: dt.tzinfo | None) -> st.SearchStrategy[dt.datetime]:
    edges = [
        dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999_999), dt.datetime(1969, 12, 31, 23, 59, 59, 999_999),
        dt.datetime(2024, 2, 29, 1, 2, 3, 456_789), dt.datetime(1582, 10, 10),
    ]  # fmt: skip
    return st.one_of(st.sampled_from(edges), st.datetimes()).map(lambda d: d.replace(tzinfo=zone))


PRIMITIVES: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.bool_(), st.booleans()),
    *((kind, whole(kind.bit_width)) for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())),
    *((kind, whole(kind.bit_width, signed=False)) for kind in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())),
    (pa.float32(), st.floats(width=32)),
    (pa.float64(), st.floats()),
    (pa.decimal128(5, 2), decimals(5, 2)),
    (pa.decimal128(18, 18), decimals(18, 18)),
    (pa.decimal128(38, 0), decimals(38, 0)),
    (pa.decimal128(38, 10), decimals(38, 10)),
    (pa.string(), TEXT),
    (pa.binary(), st.one_of(st.binary(max_size=40), TEXT.map(str.encode))),
    (pa.date32(), st.one_of(st.dates(), st.sampled_from([dt.date.min, dt.date.max]))),
    (pa.timestamp("us", tz="UTC"), moments(dt.UTC)),
    (pa.timestamp("us"), moments(None)),
]


def nullable(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(values, values, values, st.none())


@st.composite
def types(draw: st.DrawFn, depth: int = 2) -> tuple[pa.DataType, st.SearchStrategy[Any]]:
    """A type and its values, nested up to `depth` deep."""
    kind = draw(st.sampled_from(["primitive"] * 4 + ["struct", "list", "map"])) if depth else "primitive"
    if kind == "primitive":
        return draw(st.sampled_from(PRIMITIVES))
    inner, values = draw(types(depth=depth - 1))
    if kind == "list":
        return pa.list_(inner), st.lists(nullable(values), max_size=3)
    if kind == "map":
        return pa.map_(pa.string(), inner), st.dictionaries(TEXT, nullable(values), max_size=3).map(lambda d: list(d.items()))
    second, more = draw(types(depth=depth - 1))
    names = draw(st.sampled_from([("a", "b"), ("x y", 'q"q'), ("ü", "it's"), ("Upper", "lower")]))
    parts = st.fixed_dictionaries({names[0]: nullable(values), names[1]: nullable(more)})
    return pa.struct([pa.field(names[0], inner), pa.field(names[1], second)]), parts


NAMES = [
    "id",
    "Name",
    "a b",
    'q"q',
    "it's",
    "k=v",
    "a/b",
    "a.b",
    "50%",
    "日本",
    "semi;colon",
    "filename",
    "file_index",
    "x,y",
    "{n}",
    "select",
]


@st.composite
def frames(draw: st.DrawFn) -> tuple[list[pa.Table], list[str]]:
    """One to three frames of one schema, and the columns to partition them by."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=5, unique=True))
    columns = [draw(types()) for _ in names]
    can_part = [n for n, (t, _) in zip(names, columns) if not pa.types.is_nested(t) and not pa.types.is_binary(t)]
    by = draw(st.lists(st.sampled_from(can_part), max_size=min(2, len(names) - 1), unique=True)) if can_part else []
    schema = pa.schema([pa.field(n, t) for n, (t, _) in zip(names, columns)])
    batches = []
    for _ in range(draw(st.integers(1, 3))):
        rows = draw(st.integers(0, 6))
        values = [PARTITION_TEXT if n in by and pa.types.is_string(t) else v for n, (t, v) in zip(names, columns)]
        data = [pa.array([draw(nullable(v)) for _ in range(rows)], t) for (t, _), v in zip(columns, values)]
        batches.append(pa.Table.from_arrays(data, schema=schema))
    return batches, by


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with deltaduck.connect(storage=tmp_path_factory.mktemp("data")) as lake:
        yield lake


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def as_text(rows: pa.Table) -> list[str]:
    """Each row as DuckDB prints it, sorted: what Python objects cannot compare (NaN, -0.0) is compared too."""
    columns = [f"CAST({quote(n)} AS VARCHAR)" for n in rows.column_names]
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.register("frame", rows)
        return sorted(map(repr, con.execute(f"SELECT {', '.join(columns)} FROM frame").fetchall()))


def blanks_to_null(rows: pa.Table, partitions: list[str]) -> pa.Table:
    """The protocol writes a partition value of '' like NULL, and reads it back as NULL."""
    for name in partitions:
        if pa.types.is_string(rows[name].type):
            values = [v or None for v in rows[name].to_pylist()]
            rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), pa.array(values, pa.string()))
    return rows


fresh = (f"t{n}" for n in itertools.count())


@given(frames())
@settings(max_examples=EXAMPLES)
def test_written_equals_read(shared: Lake, written: tuple[list[pa.Table], list[str]]) -> None:
    batches, by = written
    name = next(fresh)
    for rows in batches:
        shared.write(name, rows, partition_by=by)
    wanted = as_text(blanks_to_null(pa.concat_tables(batches), by))
    assert as_text(shared.sql(f"FROM {name}").to_arrow_table()) == wanted
    assert as_text(shared.table(name).to_arrow()) == wanted
    first = blanks_to_null(batches[0], by)
    assert as_text(shared.sql(f"FROM {name} AT (VERSION => 0)").to_arrow_table()) == as_text(first)
    shared.drop_table(name)


@given(st.lists(PARTITION_TEXT.filter(lambda text: text and "\0" not in text), min_size=1, max_size=6, unique=True))
@settings(max_examples=max(20, EXAMPLES // 3))
def test_a_partition_is_found_by_its_value(shared: Lake, values: list[str]) -> None:
    name = next(fresh)
    shared.write(name, pa.table({"p": values, "n": range(len(values))}), partition_by="p")
    for n, value in enumerate(values):
        text = "'" + value.replace("'", "''") + "'"
        assert shared.sql(f"SELECT n FROM {name} WHERE p = {text}").fetchall() == [(n,)]
        assert shared.table(name).files(f"p = {text}").num_rows == 1
    shared.drop_table(name)


@given(st.lists(IN_SQL, min_size=1, max_size=6))
@settings(max_examples=max(20, EXAMPLES // 3))
def test_a_string_is_found_whatever_its_statistics_keep_of_it(shared: Lake, values: list[str]) -> None:
    name = next(fresh)
    shared.write(name, pa.table({"s": values}))
    for value in values:
        text = "'" + value.replace("'", "''") + "'"
        for predicate in (f"s = {text}", f"s >= {text}", f"s <= {text}", f"starts_with(s, {text})", f"s IN ('-', {text})"):
            assert shared.table(name).files(predicate).num_rows == 1, predicate
    shared.drop_table(name)


def test_a_partition_value_too_long_for_a_directory_is_refused_whole(shared: Lake) -> None:
    with pytest.raises(StorageError, match="too long"):
        shared.write("too_long", pa.table({"p": ["short", "x" * 300], "n": [1, 2]}), partition_by="p")
    assert "too_long" not in [t["name"] for t in shared.tables()]


def test_a_long_text_has_no_length_limit(shared: Lake) -> None:
    long = ["x" * 100_000, "y" * 20_000 + uuid.uuid4().hex, None]
    shared.write("long_text", pa.table({"s": long}))
    assert shared.table("long_text").to_arrow()["s"].to_pylist() == long
    assert shared.sql("SELECT length(s) FROM long_text WHERE s > 'xx'").fetchall() == [(100_000,), (20_032,)]
