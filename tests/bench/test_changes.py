"""One and a half million orders: merging 100,000 rows into them, and deleting one in a hundred, beside DuckLake and delta-rs."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import deltaduck

ROWS, CHANGED, ROUNDS = 1_500_000, 100_000, 9

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


def timed(work: Callable[[], Any]) -> float:
    """Seconds of a work, which may have measured itself. Nothing is on its way to the disk when it begins."""
    os.sync()
    start = time.perf_counter()
    own = work()
    return own if isinstance(own, float) else time.perf_counter() - start


def compare(board, what: str, found: dict[str, float], vectors: bool) -> None:
    """By deletion vectors no slower than DuckLake, which writes files of deleted rows, and five times as fast as delta-rs, which
    writes files anew; by files for information."""
    board.within(what, found["ours"], "ducklake", found["ducklake"], at_most=1 if vectors else None)
    board.faster(what, found["ours"], {"delta-rs": found["rs"]}, times=5 if vectors else None)
    board.check(what)


@dataclass(frozen=True)
class Contenders:
    """The orders as a table of each kind, in a process of its own: what one has done to memory and caches slows down the next.
    Each writes its table and changes it before the next one's turn."""

    lake: deltaduck.Lake
    peers: Callable[..., float]
    delta_rs: Callable[..., float]
    scratch: Path
    vectors: bool

    def ours(self, n: int, change: str) -> float:
        vectors = {"delta.enableDeletionVectors": str(self.vectors).lower()}
        self.lake.write(f"orders{n}", "SELECT * FROM src", configuration=vectors)
        return timed(lambda: self.lake.sql(change.format(t=f"orders{n}", s="changes")))

    def ducklake(self, n: int, change: str) -> float:
        self.peers("ducklake_orders", name=f"ducklake{n}", root=str(self.scratch), parquet=str(self.scratch / "src.parquet"))
        return timed(lambda: self.peers("delta_query", query=change.format(t=f"ducklake{n}.orders", s="src")))

    def rs(self, n: int, change: str, **arguments: Any) -> float:
        root = str(self.scratch / f"rs{n}")
        self.delta_rs("rs_orders", root=root, parquet=str(self.scratch / "src.parquet"))
        return timed(lambda: self.delta_rs(change, root=root, **arguments))


@pytest.fixture(params=[False, True], ids=["files", "deletion vectors"])
def contenders(lake, peers, delta_rs, scratch, request) -> Contenders:
    return Contenders(lake, peers, delta_rs, scratch, request.param)


def test_merge(board, contenders):
    lake, scratch = contenders.lake, contenders.scratch
    what = title(lake, "merge 100,000 rows into 1.5 M", contenders.vectors)
    contenders.peers("source", parquet=str(scratch / "changes.parquet"))
    contenders.delta_rs("rs_source", parquet=str(scratch / "changes.parquet"))
    updates = {c: f"s.{c}" for c in ("o_totalprice", "o_comment")}

    def run(n: int) -> dict[str, float]:
        seconds = {
            "ours": contenders.ours(n, MERGE),
            "ducklake": contenders.ducklake(n, MERGE),
            "rs": contenders.rs(n, "rs_merge", on="t.o_orderkey = s.o_orderkey", updates=updates),
        }
        assert lake.sql(f"SELECT count(*) FROM orders{n}").fetchall() == [(ROWS + CHANGED // 2,)]
        return seconds

    compare(board, what, rounds(run), contenders.vectors)


def test_delete(board, contenders):
    lake, delete = contenders.lake, f"DELETE FROM {{t}} WHERE {ONE_IN_A_HUNDRED}"
    what = title(lake, "delete 1 % of 1.5 M, scattered", contenders.vectors)

    def run(n: int) -> dict[str, float]:
        seconds = {
            "ours": contenders.ours(n, delete),
            "ducklake": contenders.ducklake(n, delete),
            "rs": contenders.rs(n, "rs_delete", predicate=ONE_IN_A_HUNDRED),
        }
        assert lake.sql(f"SELECT count(*) FROM orders{n}").fetchall() == [(ROWS * 99 // 100,)]
        return seconds

    compare(board, what, rounds(run), contenders.vectors)
