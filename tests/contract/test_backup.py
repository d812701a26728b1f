"""Backup and restore, as docs/operations.md has them, while the lake is open."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import servers

import deltaduck
from deltaduck import Lake

Place = Callable[[str, Path], str]
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


def fill(lake: Lake) -> None:
    lake.write("t", [{"n": 1}])
    lake.sql("UPDATE t SET n = 2")


def check(target: str, restored: list[tuple[int]]) -> None:
    """The lake is as it was at the backup, says what it lacks, and goes on."""
    with deltaduck.connect(target) as lake:
        assert lake.sql("FROM t").fetchall() == restored
        assert lake.sql("FROM t AT (VERSION => 0)").fetchall() == [(1,)]
        lake.mirror.reconcile()
        assert lake.mirror.verify("t"), str(lake.mirror.verify("t"))
        assert lake.write("t", [{"n": 3}]) == 2


@pytest.mark.parametrize("kind", ["duckdb", "sqlite", "postgres"])
def test_any_catalog_by_migrate(kind: str, tmp_path: Path, place: Place) -> None:
    for command in ("deltaduck migrate SOURCE backup.sqlite", "deltaduck migrate backup.sqlite TARGET"):
        assert command in PAGE
    backup = tmp_path / "backup.sqlite"
    (tmp_path / "new").mkdir()
    with deltaduck.connect(place(kind, tmp_path), storage=tmp_path / "data") as lake:
        fill(lake)
        if kind == "duckdb":  # one process at a time, and the backup is another one's
            lake.close()
        deltaduck.migrate(place(kind, tmp_path), backup)
    deltaduck.migrate(backup, place(kind, tmp_path / "new"))
    check(place(kind, tmp_path / "new"), [(2,)])


def test_sqlite_by_its_own_backup(tmp_path: Path) -> None:
    (command,) = re.findall(r'`sqlite3 lake\.sqlite "(\.backup backup\.sqlite)"`', PAGE)
    if not shutil.which("sqlite3"):
        pytest.skip("the sqlite3 shell is not installed")
    with deltaduck.connect(tmp_path / "lake.sqlite") as lake:
        fill(lake)
        subprocess.run(["sqlite3", "lake.sqlite", command], check=True, cwd=tmp_path)
    check(str(tmp_path / "backup.sqlite"), [(2,)])


@pytest.fixture
def server() -> Iterator[servers.Postgres]:
    if servers.postgres_binaries() is None or not shutil.which("pg_dump"):
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    server = servers.Postgres().start()
    yield server
    server.remove()


def test_postgres_by_its_own_dump(server: servers.Postgres, tmp_path: Path) -> None:
    dump, load = re.findall(r"`(pg_dump|psql) (--schema=sales )?--file=sales\.sql DATABASE`", PAGE)
    assert (dump[0], load[0]) == ("pg_dump", "psql")
    to = ["-h", server.home, "-U", "deltaduck"]
    with deltaduck.connect(server.uri("sales"), storage=tmp_path / "data") as lake:
        fill(lake)
        subprocess.run(["pg_dump", *to, "--schema=sales", "--file=sales.sql", "postgres"], check=True, cwd=tmp_path)
    subprocess.run(["createdb", *to, "another"], check=True)
    subprocess.run(["psql", *to, "-qX", "-v", "ON_ERROR_STOP=1", "--file=sales.sql", "another"], check=True, cwd=tmp_path)
    check(server.uri("sales").replace("postgres/postgres/", "postgres/another/"), [(2,)])
