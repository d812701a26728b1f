"""The statistics we publish are true for others: with a predicate, a peer that skips files finds what a full scan finds."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder, write_deltalake

import deltaduck
from deltaduck import Lake

AsText = Callable[[pa.Table], list[str]]

NOON = dt.datetime(2024, 2, 29, 12, 0, 0)
MICRO = dt.timedelta(microseconds=1)
LONG = "x" * 32
# One file per row: each value is its file's minimum and maximum.
COLUMNS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "s": (pa.string(), [LONG, LONG + "a", LONG + "\U0010ffff" * 3, "x" * 31, "é" * 40, "", "a", "\U0010ffff" * 40, None]),
    "f": (pa.float64(), [float("nan"), float("inf"), float("-inf"), 1.5, 0.0, -1e300, 5e-324, 0.1, None]),
    "i": (pa.int64(), [-(2**63), -1, 0, 1, 2**53 + 1, 2**63 - 1, -5, 10, None]),
    "t": (pa.timestamp("us"), [NOON, NOON + MICRO, NOON - MICRO, NOON + 999 * MICRO, NOON + 1000 * MICRO, dt.datetime(1969,
        12, 31, 23, 59, 59, 999_999),
        dt.datetime(1900, 1, 1), dt.datetime(2200, 1, 1), None]),
    "d": (pa.date32(), [dt.date(2024, 2, 29), dt.date(1969, 12, 31), dt.date(1, 1, 1), dt.date(9999, 12, 31), dt.date(2024, 3,
        1), dt.date(1970, 1, 1),
        dt.date(1582, 10, 15), dt.date(2000, 1, 1), None]),
    "dec": (pa.decimal128(18, 4), [Decimal(v) for v in ("-99999999999999.9999", "-0.0001", "0", "0.1", "5.5",
        "99999999999999.9999", "1", "-1.5")] + [None]),
    "part": (pa.decimal128(4, 4), [Decimal(v) for v in ("-0.9999", "-0.5", "-0.0001", "0", "0.0001", "0.1", "0.5",
        "0.9999")] + [None]),
}  # fmt: skip
PREDICATES = [
    *(f"s {op} '{LONG}{tail}'" for op in ("=", ">", ">=", "<", "<=") for tail in ("", "a", "b")), "s LIKE 'xxxx%'", "s = ''",
      "s IS NULL", "s >= 'é'",
    *(f"f {op} {v}" for op in ("=", ">", "<", ">=", "<>") for v in ("0.1", "0", "-1e300", "1e308")), "f IS NULL",
    *(f"i {op} {v}" for op in ("=", ">", "<", "<=") for v in ("-1", "0", "9007199254740993", "-9223372036854775807")),
    "i IN (1, 10)", "NOT i = 0",
    *(f"t {op} TIMESTAMP '{v}'" for op in ("=", ">", "<", ">=", "<=") for v in ("2024-02-29 12:00:00",
    "2024-02-29 12:00:00.000001", "2024-02-29 12:00:00.000999",
        "1969-12-31 23:59:59.999999")),
    *(f"d {op} DATE '{v}'" for op in ("=", ">", "<") for v in ("2024-02-29", "1969-12-31", "9999-12-31")),
    *(
        f"dec {op} CAST('{v}' AS DECIMAL(18, 4))"
        for op in ("=", ">", "<", ">=") for v in ("-0.0001", "0.1", "5.5", "99999999999999.9999")
    ),
    *(f"part {op} CAST('{v}' AS DECIMAL(4, 4))" for op in ("=", ">", "<") for v in ("-0.5", "0", "0.1")),
]  # fmt: skip


def odd_files(lake: Lake) -> None:
    """Each row a file of its own."""
    schema = pa.schema({name: kind for name, (kind, _) in COLUMNS.items()} | {"st": pa.struct({"n": pa.int32()})})
    with lake.begin() as tx:
        for n in range(9):
            row = {name: values[n] for name, (_, values) in COLUMNS.items()} | {"st": {"n": n}}
            tx.write("odd", pa.Table.from_pylist([row], schema=schema))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[deltaduck.DeltaTable]:
    with deltaduck.connect(tmp_path_factory.mktemp("prune") / "lake.duckdb") as lake:
        odd_files(lake)
        yield lake.table("odd")


# NaN is the greatest number for DuckDB and for delta-rs, so `f > 1e308` finds it in both.
def test_delta_rs_prunes_to_the_same_rows(odd: deltaduck.DeltaTable, as_text: AsText) -> None:
    query = QueryBuilder().register("odd", DeltaTable(odd.detail()["location"]))
    for predicate in [*PREDICATES, "st['n'] > 6"]:
        ours = odd.to_arrow(filter=predicate.replace("st['n']", "st.n"))
        theirs = pa.table(query.execute(f"SELECT * FROM odd WHERE {predicate}").read_all())
        assert as_text(theirs) == as_text(ours), predicate


def test_duckdb_prunes_to_the_same_rows(odd: deltaduck.DeltaTable, as_text: AsText, duckdb_delta: Any) -> None:
    scan = duckdb_delta.scan(odd.detail()["location"], None)
    for predicate in [*PREDICATES, "st.n > 6"]:
        theirs = duckdb_delta.query(f"SELECT * FROM {scan} WHERE {predicate}")
        assert as_text(theirs) == as_text(odd.to_arrow(filter=predicate)), predicate


def test_polars_prunes_to_the_same_rows(odd: deltaduck.DeltaTable, as_text: AsText) -> None:
    import polars as pl

    frame = pl.scan_delta(odd.detail()["location"])
    expressions = {
        f"s = '{LONG}a'": pl.col("s") == LONG + "a",
        f"s > '{LONG}a'": pl.col("s") > LONG + "a",
        "i < 0": pl.col("i") < 0,
        "i = 9007199254740993": pl.col("i") == 2**53 + 1,
        "t > TIMESTAMP '2024-02-29 12:00:00.000998'": pl.col("t") > NOON + 998 * MICRO,
        "d = DATE '0001-01-01'": pl.col("d") == dt.date(1, 1, 1),
        "f < 0": pl.col("f") < 0,
        "f = 0.1": pl.col("f") == 0.1,
        "i IS NULL": pl.col("i").is_null(),
    }
    for predicate, expression in expressions.items():
        assert as_text(frame.filter(expression).collect().to_arrow()) == as_text(odd.to_arrow(filter=predicate)), predicate


def test_peers_do_skip_files(odd: deltaduck.DeltaTable) -> None:
    """The comparison above means something only when the peers read our statistics."""
    stats = pa.table(DeltaTable(odd.detail()["location"]).get_add_actions(flatten=True))
    assert sorted(v for v in stats["min.i"].to_pylist() if v is not None) == sorted(v for v in COLUMNS["i"][1] if v is not None)
    assert sum(stats["null_count.s"].to_pylist()) == 1
    assert stats["max.t"].null_count == 1


def test_nobody_trusts_a_maximum_above_which_a_nan_lies(lake: Lake, as_text: AsText, duckdb_delta: Any) -> None:
    lake.write("nan", pa.table({"f": [1.0, float("nan")], "g": pa.array([float("nan")] * 2, pa.float32())}))
    path = lake.table("nan").detail()["location"]
    for predicate in ("f > 5", "g > 5", "f < 5", "f = 1", "f >= 1", "NOT f <= 5"):
        ours = as_text(lake.sql(f"SELECT f FROM nan WHERE {predicate}").to_arrow_table())
        theirs = QueryBuilder().register("nan", DeltaTable(path)).execute(f"SELECT f FROM nan WHERE {predicate}").read_all()
        assert as_text(pa.table(theirs)) == ours, predicate
        assert as_text(duckdb_delta.query(f"SELECT f FROM {duckdb_delta.scan(path, None)} WHERE {predicate}")) == ours, predicate


def test_nor_after_rows_of_that_file_were_deleted_and_the_index_was_made_anew(lake: Lake, tmp_path: Path) -> None:
    """Whoever adds the file again, it is the one that somebody else wrote, whose maximum may ignore a NaN."""
    write_deltalake(tmp_path / "theirs", pa.table({"f": [1.0, 2.0, float("nan")]}))
    lake.import_table(tmp_path / "theirs", "nan")
    lake.sql("ALTER TABLE nan SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
    lake.sql("DELETE FROM nan WHERE f = 1")
    assert lake.table("nan").files()["dv_cardinality"].to_pylist() == [1]
    assert lake.table("nan").rebuild_index() == 1
    assert lake.table("nan").files("f > 5").num_rows == 1
