"""Real processes share a lake on SQLite and on PostgreSQL; DuckDB lets one process in, and says so (contract/test_bad_input)."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import servers

import deltaduck

WRITERS, READERS, COMMITS = 8, 2, 6

# Processes born by fork, so that they need not import everything anew; the exit code of each, in order.
CROWD = textwrap.dedent("""
    import os, sys, time, deltaduck
    target, storage, writers, readers, commits = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])

    def write(me):
        with deltaduck.connect(target, storage=storage) as lake:
            for n in range(commits):
                row = [{"writer": me, "n": n}]
                with lake.begin() as tx:
                    tx.write("debit", row)
                    tx.write("credit", row)
                lake.write("alone", row)

    def read(me):
        looks = 0
        with deltaduck.connect(target, storage=storage) as lake:
            while looks < 10 or not os.path.exists(storage + "/done"):
                ((d, c),) = lake.sql("SELECT (SELECT count(*) FROM debit), (SELECT count(*) FROM credit)").fetchall()
                assert d == c, f"{d} rows here and {c} there"
                looks += 1

    def born(work, me):
        if child := os.fork():
            return child
        code = 1
        try:
            work(me)
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(code)

    watching = [born(read, n) for n in range(readers)]
    codes = [os.waitpid(pid, 0)[1] for pid in [born(write, n) for n in range(writers)]]
    open(storage + "/done", "w").close()
    sys.exit(any(codes + [os.waitpid(pid, 0)[1] for pid in watching]))
""")


@pytest.fixture(params=["sqlite", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "lake.sqlite")
    if servers.postgres_binaries() is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    return f"deltasql://postgres/postgres/p{hashlib.sha1(str(tmp_path).encode()).hexdigest()[:16]}?{servers.postgres()}"


def test_every_commit_of_every_process_is_there_once(target: str, tmp_path: Path) -> None:
    storage = str(tmp_path / "lake.delta")
    with deltaduck.connect(target, storage=storage) as lake, lake.begin() as tx:
        for table in ("debit", "credit", "alone"):
            tx.create_table(table, {"writer": "BIGINT", "n": "BIGINT"})
    numbers = [str(n) for n in (WRITERS, READERS, COMMITS)]
    subprocess.run([sys.executable, "-c", CROWD, target, storage, *numbers], check=True, timeout=240)

    wanted = [(w, n) for w in range(WRITERS) for n in range(COMMITS)]
    with deltaduck.connect(target, storage=storage) as lake:
        lake.mirror.reconcile()
        for table in ("debit", "credit", "alone"):
            assert lake.sql(f"SELECT writer, n FROM {table} ORDER BY ALL").fetchall() == wanted
            assert [h["version"] for h in reversed(lake.table(table).history())] == list(range(len(wanted) + 1))
            assert lake.mirror.verify(table), str(lake.mirror.verify(table))
        pairs = lake.sql("SELECT count(*) FROM dl_transactions WHERE tables_in_commit = 2").fetchall()
        assert pairs == [(2 * len(wanted),)]
