"""Catalogs that many share: large commits, large tables, many processes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import servers
from bench.test_many_files import SCHEMA, file_rows, wanted

import deltaduck
from deltaduck import Lake, skip_index

KEEP = "path, partition_values, size, modification_time, data_change, stats"


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Postgres]:
    server = servers.Postgres(durable=True).start()
    yield server
    server.remove()


@pytest.fixture
def lake(server: servers.Postgres, tmp_path: Path) -> Iterator[Lake]:
    with deltaduck.connect(server.uri(f"b{time.time_ns()}"), storage=tmp_path / "data") as lake:
        lake.mirror.publish = lambda done: None  # what is measured is the catalog
        yield lake


def stage(lake: Lake, tx: deltaduck.Transaction, table: str, first: int, files: int) -> None:
    """Add actions of files that nobody has written."""
    change = tx.change(table)
    assert change is not None
    query = skip_index.values_sql(change.skip, frozenset(), f"({file_rows(first, files)})", KEEP)
    change.adds.append(lake.con.sql(query).to_arrow_table())


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def test_ten_thousand_files_in_one_commit(board, lake):
    what = "PostgreSQL: 10,000 adds, one commit"
    lake.create_table("events", SCHEMA)
    found = []
    for n in range(5):
        tx = lake.begin()
        stage(lake, tx, "events", n * 10_000, 10_000)
        found.append(seconds(tx.commit))
    board.within(what, statistics.median(found), "five seconds", 5, at_most=1)
    board.check(what)


def test_ten_tables_in_one_transaction(board, lake):
    what = "PostgreSQL: 10 tables x 1,000 adds, one transaction"
    for n in range(10):
        lake.create_table(f"t{n}", SCHEMA)
    found = []
    for turn in range(3):
        tx = lake.begin()
        for n in range(10):
            stage(lake, tx, f"t{n}", turn * 1000, 1000)
        found.append(seconds(tx.commit))
    board.within(what, statistics.median(found), "thirty seconds", 30, at_most=1)
    board.check(what)


COLD = """
import sys, time, deltaduck, psycopg
start = time.perf_counter()
lake = deltaduck.connect(sys.argv[1])
files = lake.table("events").files(sys.argv[2] or None)
print(time.perf_counter() - start, files.num_rows)
"""


def test_a_hundred_thousand_files(board, lake, server):
    lake.create_table("events", SCHEMA)
    for first in range(0, 100_000, 10_000):
        with lake.begin() as tx:
            stage(lake, tx, "events", first, 10_000)
    for table in ("dl_add_files", "dl_skip_1"):
        lake.catalog.execute(f"VACUUM ANALYZE {table}")  # as the server does by itself, some time within a minute
    schema = lake.catalog.name.split("/")[1].split(" ")[0]

    def cold(predicate: str, files: int) -> float:
        command = [sys.executable, "-c", COLD, server.uri(schema), predicate]
        took, found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        assert int(found) == files
        return float(took)

    what = "PostgreSQL: cold snapshot, 100,000 files, p95"
    board.within(what, sorted(cold("", 100_000) for _ in range(20))[18], "800 ms", 0.8, at_most=1)
    table, predicate = lake.table("events"), f"id = {wanted(100_000)}"
    assert table.files(predicate).num_rows == 1
    point = "PostgreSQL: point plan, 100,000 files"
    board.within(point, statistics.median(seconds(lambda: table.files(predicate)) for _ in range(50)), "20 ms", 0.02, at_most=1)
    board.check(what)
    board.check(point)


WRITER = textwrap.dedent("""
    import os, sys, time, deltaduck
    target, storage, writers, commits = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    ready, go = os.pipe(), os.pipe()
    for me in range(writers):
        if not os.fork():
            with deltaduck.connect(target, storage=storage) as lake:
                lake.write("events", [{"writer": me, "n": -1}])
                os.write(ready[1], b"x")
                os.read(go[0], 1)
                for n in range(commits // writers):
                    lake.write("events", [{"writer": me, "n": n}])
            os._exit(0)
    for me in range(writers):
        os.read(ready[0], 1)
    start = time.perf_counter()
    os.write(go[1], b"x" * writers)
    codes = [os.wait()[1] for me in range(writers)]
    print(time.perf_counter() - start)
    sys.exit(any(codes))
""")


DUCKLAKE_WRITER = textwrap.dedent("""
    import os, sys, time, duckdb
    from duckdb_extensions import import_extension
    catalog, storage, schema, writers, commits = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
    for name in ("ducklake", "postgres", "sqlite"):
        import_extension(name)

    def attached():
        con = duckdb.connect()
        con.execute("LOAD ducklake; SET ducklake_max_retry_count = 1000")
        con.execute("LOAD postgres" if catalog.startswith("postgres") else "LOAD sqlite")
        options = f"DATA_PATH '{storage}/', METADATA_SCHEMA '{schema}', DATA_INLINING_ROW_LIMIT 0"
        con.execute(f"ATTACH 'ducklake:{catalog}' AS lake ({options})")
        return con

    con = attached()
    con.execute("CREATE TABLE lake.events (writer BIGINT, n BIGINT)")
    con.close()
    ready, go = os.pipe(), os.pipe()
    for me in range(writers):
        if not os.fork():
            con = attached()
            con.execute(f"INSERT INTO lake.events VALUES ({me}, -1)")
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            for n in range(commits // writers):
                con.execute(f"INSERT INTO lake.events VALUES ({me}, {n})")
            os._exit(0)
    for me in range(writers):
        os.read(ready[0], 1)
    start = time.perf_counter()
    os.write(go[1], b"x" * writers)
    codes = [os.wait()[1] for me in range(writers)]
    print(time.perf_counter() - start)
    sys.exit(any(codes))
""")


@pytest.mark.parametrize("database", ["SQLite", "PostgreSQL"])
def test_commits_by_many_processes(board, server, tmp_path, peers_python, database):
    """Durable, mirrored, one row each, all to one table. DuckLake writes no log beside its catalog."""
    commits, rate, theirs = 160, {}, {}
    for writers in (1, 4, 8):
        postgres, name = database == "PostgreSQL", f"c{time.time_ns()}"
        target = server.uri(name) if postgres else str(tmp_path / f"{writers}.sqlite")
        storage = str(tmp_path / f"data-{database}-{writers}")
        with deltaduck.connect(target, storage=storage) as lake:
            lake.create_table("events", {"writer": "BIGINT", "n": "BIGINT"})
        command = [sys.executable, "-c", WRITER, target, storage, str(writers), str(commits)]
        rate[writers] = commits / float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        if not postgres and writers > 1:
            continue  # DuckLake's second process finds the SQLite file locked and gives up
        catalog = f"postgres:{server.libpq}" if postgres else f"sqlite:{tmp_path}/{writers}.ducklake"
        schema = f"d{name}" if postgres else "main"
        command = [peers_python, "-c", DUCKLAKE_WRITER, catalog, f"{storage}-ducklake", schema, str(writers), str(commits)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # after progress bars
        theirs[writers] = commits / float(printed.split()[-1])
    for writers in (1, 4, 8):
        what = f"{database}: commits by {writers} process{'es' if writers > 1 else ''}"
        if writers in theirs:
            board.rate(what, rate[writers], "ducklake, files", theirs[writers])
        if writers > 1:
            board.rate(what, rate[writers], "one process", rate[1])


def test_ten_partitioned_tables_in_one_transaction(board, server, tmp_path, peers_python, peers):
    """A hundred files each, rows and all: what DuckLake can do as well."""
    what, rows = (
        "PostgreSQL: 10 tables x 100 partitions, one transaction",
        "SELECT range % 100 AS p, range AS n FROM range(10_000)",
    )
    tables = [f"t{n}" for n in range(10)]
    peers("ducklake_on_postgres", libpq=server.libpq, root=str(tmp_path), tables=tables)
    with deltaduck.connect(server.uri(f"p{time.time_ns()}"), storage=tmp_path / "data") as lake:
        for table in tables:
            lake.create_table(table, {"p": "BIGINT", "n": "BIGINT"}, partition_by="p")
        ours, theirs = [], []
        for _ in range(3):
            with lake.begin() as tx:
                start = time.perf_counter()
                for table in tables:
                    tx.write(table, rows)
            ours.append(time.perf_counter() - start)
            theirs.append(peers("ducklake_inserts", tables=tables, rows=rows))
    board.faster(what, statistics.median(ours), {"ducklake": statistics.median(theirs)}, times=1)
    board.check(what)
