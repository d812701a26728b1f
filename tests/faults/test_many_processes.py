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

WRITERS, COMMITS = 4, 12

WRITER = textwrap.dedent("""
    import sys, deltaduck
    target, storage, me, commits = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    with deltaduck.connect(target, storage=storage) as lake:
        for n in range(commits):
            row = [{"writer": me, "n": n}]
            with lake.begin() as tx:
                tx.write("debit", row)
                tx.write("credit", row)
            lake.write("alone", row)
""")

READER = textwrap.dedent("""
    import sys, deltaduck
    with deltaduck.connect(sys.argv[1], storage=sys.argv[2]) as lake:
        for _ in range(25):
            ((difference,),) = lake.sql("SELECT (SELECT count(*) FROM debit) - (SELECT count(*) FROM credit)").fetchall()
            assert difference == 0, f"the tables differ by {difference} rows"
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
    python = [sys.executable, "-c"]
    jobs = [subprocess.Popen([*python, WRITER, target, storage, str(w), str(COMMITS)]) for w in range(WRITERS)]
    jobs.append(subprocess.Popen([*python, READER, target, storage]))
    assert [job.wait(timeout=240) for job in jobs] == [0] * (WRITERS + 1)

    wanted = [(w, n) for w in range(WRITERS) for n in range(COMMITS)]
    with deltaduck.connect(target, storage=storage) as lake:
        lake.mirror.reconcile()
        for table in ("debit", "credit", "alone"):
            assert lake.sql(f"SELECT writer, n FROM {table} ORDER BY ALL").fetchall() == wanted
            assert [h["version"] for h in reversed(lake.table(table).history())] == list(range(len(wanted) + 1))
            assert lake.mirror.verify(table), str(lake.mirror.verify(table))
        pairs = lake.sql("SELECT count(*) FROM dl_transactions WHERE tables_in_commit = 2").fetchall()
        assert pairs == [(2 * len(wanted),)]
