"""PostgreSQL roles: one that owns the catalog, one that may write its tables, one that may read them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import servers

import deltaduck
from deltaduck import CatalogError, Lake

RUNBOOK = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
SQL = re.findall(r"^```sql\n(-- by an administrator.*?)^```$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Postgres]:
    if servers.postgres_binaries() is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    server = servers.Postgres().start()
    (grants,) = SQL
    with deltaduck.connect(server.uri("scratch"), storage="/nowhere") as lake:
        for statement in filter(None, map(str.strip, re.sub(r"--[^\n]*", "", grants).split(";"))):
            lake.catalog.execute(statement)
    yield server
    server.remove()


@pytest.fixture
def connect(server: servers.Postgres, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Lake]:
    storage = tmp_path_factory.getbasetemp() / "roles.delta"
    return lambda role: deltaduck.connect(server.uri("sales", user=role), storage=storage if role == "lake_owner" else None)


@pytest.fixture(autouse=True)
def orders(connect: Callable[[str], Lake]) -> None:
    with connect("lake_owner") as lake:
        if not lake.tables():
            lake.write("orders", [{"id": 1}, {"id": 2}])


def test_a_reader_reads_tables_and_views(connect: Callable[[str], Lake]) -> None:
    with connect("lake_reader") as lake:
        assert lake.sql("SELECT count(*) >= 2 FROM orders WHERE id < 10").fetchall() == [(True,)]
        assert lake.table("orders").as_of(version=0).to_arrow().num_rows == 2
        for view in ("dl_history", "dl_live_files", "dl_mirror_lag", "dl_storage_growth", "dl_file_lifetimes", "dl_log_lines"):
            assert lake.catalog.fetch(f"SELECT * FROM {view}"), view
        assert lake.mirror.verify("orders")


@pytest.mark.parametrize(
    "statement",
    ["INSERT INTO orders VALUES (3)", "DELETE FROM orders", "CREATE TABLE mine AS SELECT 1 AS n", "DROP TABLE orders"],
)
def test_a_reader_cannot_write_and_is_told_why(connect: Callable[[str], Lake], statement: str) -> None:
    with connect("lake_reader") as lake:
        files = sorted(Path(lake.storage).rglob("*.parquet"))
        with pytest.raises(CatalogError, match=r"permission denied.*this role may not do that: nothing was committed"):
            lake.sql(statement)
        assert sorted(Path(lake.storage).rglob("*.parquet")) == files
        assert lake.sql("SELECT count(*) >= 2 FROM orders").fetchall() == [(True,)]


def test_a_writer_writes_tables_that_are_there(connect: Callable[[str], Lake]) -> None:
    with connect("lake_writer") as lake:
        before = lake.table("orders").version()
        lake.write("orders", [{"id": 100 + before}])
        lake.sql(f"UPDATE orders SET id = {200 + before} WHERE id = {100 + before}")
        with lake.begin("serializable") as tx:
            tx.sql(f"DELETE FROM orders WHERE id = {200 + before}")
        assert lake.table("orders").version() == before + 3
        lake.mirror.reconcile()
        assert lake.mirror.verify("orders")


@pytest.mark.parametrize("statement", ["CREATE TABLE mine AS SELECT 1 AS n", "DROP TABLE orders"])
def test_a_writer_neither_makes_nor_drops_tables(connect: Callable[[str], Lake], statement: str) -> None:
    with connect("lake_writer") as lake:
        with pytest.raises(CatalogError, match=r"(permission denied|must be owner).*this role may not do that"):
            lake.sql(statement)
        assert [t["name"] for t in lake.tables()] == ["orders"]


def test_both_see_tables_that_the_owner_makes_later(connect: Callable[[str], Lake]) -> None:
    with connect("lake_owner") as lake:
        lake.write("later", [{"n": 1}])
    try:
        with connect("lake_reader") as lake:
            assert lake.sql("FROM later WHERE n = 1").fetchall() == [(1,)]
        with connect("lake_writer") as lake:
            assert lake.write("later", [{"n": 2}]) == 1
    finally:
        with connect("lake_owner") as lake:
            lake.drop_table("later")
