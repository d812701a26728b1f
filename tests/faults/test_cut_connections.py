"""A PostgreSQL server that ends the connection while a commit is under way: what is true afterwards is what the lake says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import servers

import deltaduck
from deltaduck import CatalogError, Lake

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


def test_a_commit_that_did_not_arrive_is_an_error_and_the_next_call_works(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_at_commit(lake, monkeypatch, arrives=False)
    with pytest.raises(CatalogError, match="PostgreSQL catalog"):
        lake.write("t", ROWS)
    assert lake.table("t").version() == 0
    assert lake.write("t", ROWS) == 1
    assert lake.sql("SELECT count(*) FROM t").fetchall() == [(2,)]
    lake.mirror.reconcile()
    assert lake.mirror.verify("t")
