"""What an auditor asks with the database's own client, without Python or deltaduck."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import duckdb
import pytest

import deltaduck
from deltaduck import Lake

Place = Callable[[str, Path], str]
QUERIES = {
    "SELECT table_name, count(*), sum(num_records) FROM dl_live_files GROUP BY table_name ORDER BY table_name": [
        ("days", 2, 3),
        ("other", 1, 1),
    ],
    "SELECT version, operation, user_metadata FROM dl_history WHERE table_name = 'days' ORDER BY version": [
        (0, "CREATE TABLE AS SELECT", None),
        (1, "DELETE", None),
        (2, "WRITE", "the last"),
    ],
    "SELECT table_name, version, published_version, versions_behind FROM dl_mirror_lag ORDER BY table_name": [
        ("days", 2, 2, 0),
        ("other", 0, 0, 0),
    ],
    "SELECT version, live_files FROM dl_storage_growth WHERE table_name = 'days' ORDER BY version": [(0, 2), (1, 1), (2, 2)],
    "SELECT table_name, version FROM dl_transactions WHERE tables_in_commit = 2 ORDER BY table_name": [("days", 0), ("other", 0)],
    "SELECT added_version, removed_by FROM dl_file_lifetimes WHERE removed_version IS NOT NULL": [(0, "DELETE")],
    "SELECT count(*) FROM dl_log_lines WHERE version = 1": [(2,)],
}


def duckdb_answers(target: str, query: str) -> list[tuple[str, ...]]:
    with duckdb.connect(target, read_only=True) as con:
        return texts(con.execute(query).fetchall())


def sqlite_answers(target: str, query: str) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(f"file:{target}?mode=ro", uri=True)) as con:
        rows = texts(con.execute(query).fetchall())
    if shutil.which("sqlite3"):
        shell = subprocess.run(["sqlite3", "-readonly", "-csv", target, query], check=True, capture_output=True, text=True).stdout
        assert len(shell.splitlines()) == len(rows)
    return rows


def postgres_answers(target: str, query: str) -> list[tuple[str, ...]]:
    parts = urlsplit(target)
    options = dict(parse_qsl(parts.query))
    command = ["psql", "-X", "-A", "-t", "-h", options["host"], "-U", options["user"], "-F", "|", "postgres"]
    schema = parts.path.split("/")[-1]
    done = subprocess.run(
        [*command, "-c", query],
        check=False,
        capture_output=True,
        text=True,
        env={"PGOPTIONS": f"-c search_path={schema}", "PATH": "/usr/bin"},
    )
    assert done.returncode == 0, done.stderr
    return [tuple(line.split("|")) for line in done.stdout.splitlines()]


def texts(rows: list[tuple[object, ...]]) -> list[tuple[str, ...]]:
    return [tuple("" if v is None else str(v) for v in row) for row in rows]


CLIENTS = {"duckdb": duckdb_answers, "sqlite": sqlite_answers, "postgres": postgres_answers}


@pytest.fixture(params=CLIENTS)
def ask(request: pytest.FixtureRequest, tmp_path: Path, place: Place) -> Callable[[str], list[tuple[str, ...]]]:
    if request.param == "postgres" and not shutil.which("psql"):
        pytest.skip("psql is not installed (Debian: apt-get install postgresql-client)")
    target = place(request.param, tmp_path)
    with deltaduck.connect(target, storage=tmp_path / "data") as lake:
        with lake.begin() as tx:
            tx.write("days", [{"day": "mon", "n": 1}, {"day": "tue", "n": 2}, {"day": "tue", "n": 3}], partition_by="day")
            tx.write("other", [{"x": 1}])
        lake.sql("DELETE FROM days WHERE day = 'mon'")
        lake.write("days", [{"day": "wed", "n": 4}], commit_metadata="the last")
    return lambda query: CLIENTS[request.param](target, query)


def test_live_files_history_lag_and_growth(ask: Callable[[str], list[tuple[str, ...]]]) -> None:
    for query, wanted in QUERIES.items():
        assert ask(query) == texts(list(wanted)), query


def test_text_of_any_kind_comes_back_as_it_is(lake: Lake) -> None:
    """Also what separates and quotes values on the way from a server."""
    texts = {"path": 'a\x01b\x02c,"\\', "stats": "", "tags": "\x01", "id": "l\n\r\tm 'ü'"}
    items = ", ".join(f"CAST(:{name} AS TEXT) AS {name}" for name in texts)
    (row,) = lake.catalog.fetch_arrow(f"SELECT {items}, CAST(NULL AS TEXT) AS name", texts).to_pylist()
    assert row == texts | {"name": None}
