"""One and a half million orders: merging 100,000 rows into them, and deleting one in a hundred, beside DuckLake and delta-rs."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from deltalake import DeltaTable, write_deltalake

import deltaduck

ROWS, CHANGED, ROUNDS = 1_500_000, 100_000, 5

# TPC-H's orders, with about its cardinalities
COLUMNS = """
    CAST(hash(i, 1) % 150000 AS BIGINT) AS o_custkey, ['F', 'O', 'P'][CAST(hash(i, 2) % 3 AS BIGINT) + 1] AS o_orderstatus,
    CAST(hash(i, 3) % 50000000 / 100 AS DECIMAL(15, 2)) AS o_totalprice,
    DATE '1992-01-01' + CAST(i * 7919 % 2400 AS INTEGER) AS o_orderdate,
    ['1-URGENT', '2-HIGH', '3-MEDIUM', '4-NOT SPECIFIED', '5-LOW'][CAST(hash(i, 4) % 5 AS BIGINT) + 1] AS o_orderpriority,
    'Clerk#' || hash(i, 5) % 1000 AS o_clerk, 0 AS o_shippriority, 'carefully final ' || hash(i, 6) % 1000000 AS o_comment
"""
ORDERS = f"SELECT i AS o_orderkey, {COLUMNS} FROM range({ROWS}) t(i)"
# half of them are there, all over the table; half are new
CHANGES = f"SELECT i * {2 * ROWS // CHANGED} AS o_orderkey, {COLUMNS} FROM range({CHANGED}) t(i)"
MERGE = (
    "MERGE INTO {t} AS t USING {s} AS s ON t.o_orderkey = s.o_orderkey "
    "WHEN MATCHED THEN UPDATE SET o_totalprice = s.o_totalprice, o_comment = s.o_comment "
    "WHEN NOT MATCHED THEN INSERT (o_orderkey, o_custkey, o_orderstatus, o_totalprice, o_orderdate, o_orderpriority, o_clerk, "
    "o_shippriority, o_comment) VALUES (s.o_orderkey, s.o_custkey, s.o_orderstatus, s.o_totalprice, s.o_orderdate, "
    "s.o_orderpriority, s.o_clerk, s.o_shippriority, s.o_comment)"
)
ONE_IN_A_HUNDRED = "o_orderkey % 100 = 7"


@pytest.fixture(params=["duckdb", "sqlite"])
def lake(scratch: Path, request: pytest.FixtureRequest):
    """A lake, whose catalog is in one or the other: the changes are DuckDB's work, the log's rows are the catalog's."""
    with deltaduck.connect(scratch / f"lake.{request.param}") as lake:
        lake.con.execute(f"CREATE TEMP TABLE src AS {ORDERS}")
        lake.con.execute(f"CREATE TEMP TABLE changes AS {CHANGES}")
        for name in ("src", "changes"):
            lake.con.execute(f"COPY {name} TO '{scratch / name}.parquet' (FORMAT parquet)")
        yield lake


def rounds(run: Callable[[int], dict[str, float]]) -> dict[str, float]:
    """The medians; every round works on tables of its own."""
    found = [run(n) for n in range(ROUNDS)]
    return {name: statistics.median(f[name] for f in found) for name in found[0]}


def title(lake: deltaduck.Lake, what: str, vectors: bool) -> str:
    catalog = "" if lake.catalog.database == "duckdb" else ", SQLite catalog"
    return what + (", deletion vectors" if vectors else "") + catalog


def timed(work: Callable[[], object]) -> float:
    os.sync()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(board, what: str, found: dict[str, float], vectors: bool) -> None:
    """By deletion vectors no slower than DuckLake, which writes files of deleted rows, and five times as fast as delta-rs, which
    writes files anew; by files for information."""
    board.within(what, found["ours"], "ducklake", found["ducklake"], at_most=1 if vectors else None)
    board.faster(what, found["ours"], {"delta-rs": found["rs"]}, times=5 if vectors else None)
    board.check(what)


VECTORS = pytest.mark.parametrize("vectors", [False, True], ids=["files", "deletion vectors"])


def prepared(lake, peers, scratch: Path, n: int, vectors: bool) -> DeltaTable:
    """The orders, as a table of each kind; ours with deletion vectors or without."""
    lake.write(f"orders{n}", "SELECT * FROM src", configuration={"delta.enableDeletionVectors": str(vectors).lower()})
    peers("ducklake_orders", name=f"ducklake{n}", root=str(scratch), parquet=str(scratch / "src.parquet"))
    write_deltalake(scratch / f"rs{n}", lake.con.sql("FROM src").to_arrow_reader())
    return DeltaTable(scratch / f"rs{n}")


@VECTORS
def test_merge(board, lake, scratch, peers, vectors):
    what = title(lake, "merge 100,000 rows into 1.5 M", vectors)
    peers("source", parquet=str(scratch / "changes.parquet"))
    changes = lake.con.sql("FROM changes").to_arrow_table()
    updates = {c: f"s.{c}" for c in ("o_totalprice", "o_comment")}

    def run(n: int) -> dict[str, float]:
        rs = prepared(lake, peers, scratch, n, vectors)
        merger = (
            rs.merge(changes, "t.o_orderkey = s.o_orderkey", source_alias="s", target_alias="t")
            .when_matched_update(updates).when_not_matched_insert_all()
        )  # fmt: skip
        seconds = {
            "ours": timed(lambda: lake.sql(MERGE.format(t=f"orders{n}", s="changes"))),
            "ducklake": peers("delta_query", query=MERGE.format(t=f"ducklake{n}.orders", s="src")),
            "rs": timed(merger.execute),
        }
        assert lake.sql(f"SELECT count(*) FROM orders{n}").fetchall() == [(ROWS + CHANGED // 2,)]
        return seconds

    compare(board, what, rounds(run), vectors)


@VECTORS
def test_delete(board, lake, scratch, peers, vectors):
    what = title(lake, "delete 1 % of 1.5 M, scattered", vectors)

    def run(n: int) -> dict[str, float]:
        rs = prepared(lake, peers, scratch, n, vectors)
        seconds = {
            "ours": timed(lambda: lake.sql(f"DELETE FROM orders{n} WHERE {ONE_IN_A_HUNDRED}")),
            "ducklake": peers("delta_query", query=f"DELETE FROM ducklake{n}.orders WHERE {ONE_IN_A_HUNDRED}"),
            "rs": timed(lambda: rs.delete(ONE_IN_A_HUNDRED)),
        }
        assert lake.sql(f"SELECT count(*) FROM orders{n}").fetchall() == [(ROWS * 99 // 100,)]
        return seconds

    compare(board, what, rounds(run), vectors)
