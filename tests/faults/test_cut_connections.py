"""A PostgreSQL server that ends the connection while a commit is under way: what is true afterwards is what the lake says."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import servers

import deltaduck
from deltaduck import CatalogError, Lake, commit
from deltaduck.commit import Committed

ROWS = pa.table({"n": [1]})


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    if servers.postgres_binaries() is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    schema = "c" + hashlib.sha1(str(tmp_path).encode()).hexdigest()[:16]
    target = f"deltasql://postgres/postgres/{schema}?{servers.postgres()}"
    with deltaduck.connect(target, storage=tmp_path / "lake.delta") as lake:
        lake.write("t", ROWS)
        yield lake


def cut_at_commit(lake: Lake, monkeypatch: pytest.MonkeyPatch, *, arrives: bool) -> None:
    """The server ends this connection at its next COMMIT: before it does what it was told, or after."""
    catalog: Any = lake.catalog
    execute = catalog.execute

    def cut(sql: str, params: Any = None) -> Any:
        if sql != "COMMIT":
            return execute(sql, params)
        monkeypatch.undo()
        if arrives:
            execute("COMMIT")
        ((pid,),) = catalog.fetch("SELECT pg_backend_pid()")
        with deltaduck.connect(f"deltasql://postgres/postgres?{servers.postgres()}", storage="/nowhere") as other:
            other.catalog.fetch("SELECT pg_terminate_backend(:pid, 5000)", {"pid": pid})
        return execute("SELECT 1" if arrives else "COMMIT")  # on the dead connection, so the driver's own error

    monkeypatch.setattr(catalog, "execute", cut)


def test_a_commit_that_arrived_is_not_reported_lost(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_at_commit(lake, monkeypatch, arrives=True)
    assert lake.write("t", ROWS) == 1
    assert lake.sql("SELECT count(*) FROM t").fetchall() == [(2,)]
    lake.mirror.reconcile()
    assert lake.mirror.verify("t")


def test_a_commit_that_did_not_arrive_is_made_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the catalog has said that it does not hold it, doing it again is not blind."""
    cut_at_commit(lake, monkeypatch, arrives=False)
    assert lake.write("t", ROWS) == 1
    assert lake.sql("SELECT count(*) FROM t").fetchall() == [(2,)]
    lake.mirror.reconcile()
    assert lake.mirror.verify("t")


def test_a_commit_still_under_way_on_the_server_is_waited_for(lake: Lake) -> None:
    """The client lost its connection, the server has not noticed: only when it is done does anybody know."""
    ((table_id,),) = lake.catalog.fetch("SELECT table_id FROM dl_tables")
    part = Committed(table_id, "t", "", 1, 0, False, (), "the-lost-one")
    held, answers = threading.Event(), []

    def the_server_goes_on() -> None:
        with lake.catalog.transaction():
            lake.catalog.run("advance_table", table_id=table_id, version=1, expected=0, commit_ms=2**42)
            held.set()
            time.sleep(0.3)
            lake.catalog.execute(
                "INSERT INTO dl_table_versions (table_id, version, commit_ms, commit_id) VALUES (:t, 1, 1, 'the-lost-one')",
                {"t": table_id},
            )

    thread = threading.Thread(target=the_server_goes_on)
    thread.start()
    held.wait()
    answers.append(commit.is_committed(lake.catalog, part))
    thread.join()
    assert answers == [True]


def test_a_dropped_table_whose_commit_was_cut_is_not_dropped_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropping leaves no commit to ask for: the error says what is known, and nothing is done twice."""
    cut_at_commit(lake, monkeypatch, arrives=True)
    with pytest.raises(CatalogError, match="closed the connection"):
        lake.drop_table("t")
    assert [t["name"] for t in lake.tables()] == []


def test_statements_before_the_commit_find_another_connection(lake: Lake) -> None:
    """Connections die of age, firewalls and restarts: a question that stands alone is asked again, a commit starts anew."""
    catalog: Any = lake.catalog
    for _ in range(2):
        with deltaduck.connect(f"deltasql://postgres/postgres?{servers.postgres()}", storage="/nowhere") as other:
            everybody = "pg_stat_activity WHERE pid <> pg_backend_pid() AND datname IS NOT NULL"
            other.catalog.fetch(f"SELECT pg_terminate_backend(pid, 5000) FROM {everybody}")
        assert lake.table("t").version() == len(catalog.fetch("SELECT 1 FROM dl_table_versions")) - 1
        lake.write("t", ROWS)
    assert lake.table("t").version() == 2


def cut_inside(lake: Lake, monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
    """The server ends this connection in the middle of the next commit, where it runs a named statement."""
    catalog: Any = lake.catalog
    run = catalog.run

    def cut(name: str, **params: Any) -> None:
        if name == statement:
            monkeypatch.undo()
            ((pid,),) = catalog.fetch("SELECT pg_backend_pid()")
            with deltaduck.connect(f"deltasql://postgres/postgres?{servers.postgres()}", storage="/nowhere") as other:
                other.catalog.fetch("SELECT pg_terminate_backend(:pid, 5000)", {"pid": pid})
        run(name, **params)

    monkeypatch.setattr(catalog, "run", cut)


def test_a_commit_that_was_cut_before_its_end_is_made_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_inside(lake, monkeypatch, "insert_outbox")
    assert lake.write("t", ROWS) == 1
    assert lake.sql("SELECT count(*) FROM t").fetchall() == [(2,)]
    assert lake.mirror.verify("t")
