"""Six million rows in the shape of TPC-H's lineitem: writing and scanning them, beside what DuckDB does by itself."""

from __future__ import annotations

import os
import shutil
import statistics
import time

import polars as pl
import pytest
from deltalake import write_deltalake

import deltaduck

ROWS = 6_000_000

WORDS = ["furiously", "quickly", "carefully", "slyly", "blithely", "even", "final", "bold", "ironic", "pending", "express"]


def number(seed: int, below: int) -> str:
    """SQL: a number that is random to look at, and the same in every run."""
    return f"CAST(hash(i, {seed}) % {below} AS BIGINT)"


def pick(seed: int, values: list[str]) -> str:
    """SQL: one of the values."""
    return f"{values}[{number(seed, len(values))} + 1]"


def money(sql: str) -> str:
    return f"CAST({sql} AS DECIMAL(15, 2))"


# TPC-H's columns and types, with about its cardinalities; orders of four lines.
LINEITEM = f"""
    SELECT i // 4 AS l_orderkey, {number(0, 200_000)} + 1 AS l_partkey, {number(1, 10_000)} + 1 AS l_suppkey,
        i % 4 + 1 AS l_linenumber,
        {money(number(2, 50) + " + 1")} AS l_quantity, {money(number(3, 10_000_000) + " / 100 + 900")} AS l_extendedprice,
        {money(number(4, 11) + " / 100")} AS l_discount, {money(number(5, 9) + " / 100")} AS l_tax,
        {pick(6, ["A", "N", "R"])} AS l_returnflag, {pick(7, ["F", "O"])} AS l_linestatus,
        DATE '1992-01-02' + CAST(i // 4 * 7919 % 2400 AS INTEGER) AS l_shipdate,
        DATE '1992-02-01' + CAST(i // 4 * 7919 % 2400 AS INTEGER) AS l_commitdate,
        DATE '1992-01-12' + CAST(i // 4 * 7919 % 2400 AS INTEGER) AS l_receiptdate,
        {pick(8, ["DELIVER IN PERSON", "COLLECT COD", "NONE", "TAKE BACK RETURN"])} AS l_shipinstruct,
        {pick(9, ["REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB"])} AS l_shipmode,
        concat_ws(' ', {", ".join(pick(seed, WORDS) for seed in range(10, 14))}) AS l_comment
    FROM range({ROWS}) t(i)
"""

Q1 = """
    SELECT l_returnflag, l_linestatus, sum(l_quantity), sum(l_extendedprice), sum(l_extendedprice * (1 - l_discount)),
        sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)), avg(l_quantity), avg(l_extendedprice), avg(l_discount), count(*)
    FROM {source} WHERE l_shipdate <= DATE '1998-09-02'
    GROUP BY l_returnflag, l_linestatus ORDER BY l_returnflag, l_linestatus
"""


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """A lake with the rows in memory, as the temporary table src."""
    root = tmp_path_factory.mktemp("lineitem")
    with deltaduck.connect(root / "lake.duckdb") as lake:
        lake.con.execute(f"CREATE TEMP TABLE src AS {LINEITEM}")
        yield lake
    shutil.rmtree(root)


def test_write(board, medians, lake, scratch, peers):
    what = "write 6 M rows"
    options = "FORMAT parquet, COMPRESSION snappy, FILE_SIZE_BYTES 268435456, APPEND, FILENAME_PATTERN 'part-{uuid}'"
    lake.con.execute(f"COPY src TO '{scratch / 'src.parquet'}' (FORMAT parquet)")
    peers("source", parquet=str(scratch / "src.parquet"))
    peers("attach", name="ducklake", root=str(scratch))

    def settled(run):
        """What one run left to be written to disk is not the next one's burden."""

        def timed() -> float:
            os.sync()
            start = time.perf_counter()
            own = run()
            return time.perf_counter() - start if own is None else own

        return timed

    def ours() -> None:
        lake.write("lineitem", "SELECT * FROM src", mode="overwrite")

    def copy() -> None:
        lake.con.execute(f"COPY (SELECT * FROM src) TO '{scratch / 'raw'}' ({options})")

    def delta_rs() -> None:
        write_deltalake(scratch / "rs", lake.con.sql("SELECT * FROM src").to_arrow_reader(), mode="overwrite")

    found = medians(5, ours=settled(ours), copy=settled(copy))
    ducklake = settled(lambda: peers("ducklake_write", name="ducklake", root=str(scratch)))
    others = medians(1, rs=settled(delta_rs), ducklake=ducklake)
    board.within(what, found["ours"], "raw COPY", found["copy"], at_most=1.1)
    board.within(what, found["ours"], "ducklake", others["ducklake"])
    board.within(what, found["ours"], "delta-rs", others["rs"])
    board.check(what)


def test_scan(board, lake, peers):
    what = "Q1 over 6 M rows"
    lake.write("lineitem", "SELECT * FROM src", mode="overwrite")
    location = lake.table("lineitem").detail()["location"]
    files = [f"{location}/{path}" for path in lake.table("lineitem").files()["path"].to_pylist()]
    raw = Q1.format(source=f"read_parquet({files})")
    delta = Q1.format(source=f"delta_scan('{location}')")
    assert lake.sql(Q1.format(source="lineitem")).fetchall() == lake.con.sql(raw).fetchall()

    def polars() -> None:
        price = pl.col("l_extendedprice") * (1 - pl.col("l_discount"))
        means = [pl.mean(name).alias(f"avg_{name}") for name in ("l_quantity", "l_extendedprice", "l_discount")]
        sums = [pl.sum("l_quantity"), pl.sum("l_extendedprice"), price.sum().alias("price")]
        rows = pl.scan_delta(location).filter(pl.col("l_shipdate") <= pl.date(1998, 9, 2))
        groups = rows.group_by("l_returnflag", "l_linestatus")
        charge = (price * (1 + pl.col("l_tax"))).sum().alias("charge")
        groups.agg(*sums, charge, *means, pl.len()).sort("l_returnflag", "l_linestatus").collect()

    runs = {
        "ours": lambda: lake.sql(Q1.format(source="lineitem")).fetchall(),
        "raw": lambda: lake.con.sql(raw).fetchall(),
    }
    seconds = {name: [] for name in runs}
    for turn in range(21):
        for name in runs if turn % 2 else reversed(runs):
            start = time.perf_counter()
            runs[name]()
            seconds[name].append(time.perf_counter() - start)
    ours, theirs = (statistics.median(seconds[name]) for name in ("ours", "raw"))
    board.within(what, ours, "raw read_parquet", theirs, at_most=1.05)
    polars()
    others = {"polars": [], "duckdb delta": []}
    for _ in range(5):
        start = time.perf_counter()
        polars()
        others["polars"].append(time.perf_counter() - start)
        others["duckdb delta"].append(peers("delta_query", query=delta))
    for name, values in others.items():
        board.within(what, ours, name, statistics.median(values))
    board.check(what)
