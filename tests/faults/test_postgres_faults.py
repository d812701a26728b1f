"""A PostgreSQL that is not there, will not have us, dies, or comes back: clear errors, nothing half, nothing lost."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import servers

import deltaduck
from deltaduck import CatalogError, DeltaduckError

ROWS = pa.table({"n": [1]})


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Postgres]:
    """A server of its own, to be killed; it asks for passwords."""
    if servers.postgres_binaries() is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    server = servers.Postgres(auth="scram-sha-256").start()
    yield server
    server.remove()


@pytest.fixture
def uri(server: servers.Postgres, request: pytest.FixtureRequest) -> str:
    schema = "s" + "".join(c for c in request.node.name if c.isalnum()).lower()[-50:]
    return server.uri(schema, password="right", connect_timeout="5")


def test_nobody_is_there(tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(
        CatalogError, match=r"PostgreSQL catalog db/public on 127\.0\.0\.1 cannot be reached: .*refused.*host and port"
    ):
        deltaduck.connect("deltasql://postgres/me:secret@127.0.0.1:1/db", storage=tmp_path)
    assert time.monotonic() - begin < 5


def test_somebody_is_there_who_does_not_answer(tmp_path: Path) -> None:
    """connect_timeout bounds the wait: here for a socket that accepts, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        with pytest.raises(CatalogError, match=r"cannot be reached: .*timeout"):
            deltaduck.connect(f"deltasql://postgres/me@127.0.0.1:{port}/db?connect_timeout=2", storage=tmp_path)


@pytest.mark.parametrize("change", [("password=right", "password=wrong-one"), ("user=deltaduck", "user=nobody_at_all")])
def test_a_wrong_password_is_said_and_not_shown(uri: str, tmp_path: Path, change: tuple[str, str]) -> None:
    begin = time.monotonic()
    with pytest.raises(CatalogError, match="refuses the connection: password authentication failed") as caught:
        deltaduck.connect(uri.replace(*change), storage=tmp_path)
    assert "wrong-one" not in str(caught.value)
    assert time.monotonic() - begin < 3  # in vain, so not tried again


def test_a_missing_database_is_named(uri: str, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match='refuses the connection: database "nowhere" does not exist'):
        deltaduck.connect(uri.replace("postgres/postgres", "postgres/nowhere"), storage=tmp_path)


def test_a_server_without_tls_is_refused_where_tls_is_asked_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer() -> None:
            connection, _ = plain.accept()
            with connection:
                connection.recv(8)  # SSLRequest
                connection.sendall(b"N")
                connection.recv(1)

        threading.Thread(target=answer, daemon=True).start()
        place = f"me@127.0.0.1:{plain.getsockname()[1]}/db"
        with pytest.raises(CatalogError, match="refuses the connection: server does not support SSL, but SSL was required"):
            deltaduck.connect(f"deltasql://postgres/{place}?sslmode=require", storage=tmp_path)


def test_libpq_options_arrive(uri: str, tmp_path: Path) -> None:
    with deltaduck.connect(f"{uri}&application_name=me&sslmode=disable", storage=tmp_path) as lake:
        assert lake.catalog.fetch("SHOW application_name") == [("me",)]


def test_threads_share_a_bounded_pool(uri: str, tmp_path: Path) -> None:
    with deltaduck.connect(f"{uri}&pool_size=2&application_name=bounded", storage=tmp_path) as lake:
        lake.create_table("t", {"n": "BIGINT"})
        most = []

        def work(n: int) -> None:
            lake.write("t", [{"n": n}])
            query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bounded'"
            most.append(lake.catalog.fetch(query)[0][0])

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(lake.sql("SELECT n FROM t").fetchall()) == [(n,) for n in range(8)]
        assert max(most) <= 2


def test_a_pool_that_is_used_up_says_so(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deltaduck.catalog.pool.WAIT_SECONDS", 0.2)
    with deltaduck.connect(f"{uri}&pool_size=1", storage=tmp_path) as lake:
        lake.write("t", ROWS)
        answers = []

        def ask() -> None:
            try:
                lake.table("t").version()
            except CatalogError as e:
                answers.append(str(e))

        with lake.catalog.transaction():
            thread = threading.Thread(target=ask)
            thread.start()
            thread.join()
        assert "all 1 connections of the pool were in use" in answers[0]
        assert lake.table("t").version() == 0


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_server_that_dies_in_the_middle_of_commits(server: servers.Postgres, uri: str, tmp_path: Path, how: str) -> None:
    """What was acknowledged is there, what raised is not, and the next call works."""
    chance = random.Random()
    with deltaduck.connect(uri, storage=tmp_path / "data") as lake:
        with lake.begin() as tx:
            tx.create_table("left", {"n": "BIGINT"})
            tx.create_table("right", {"n": "BIGINT"})
        said, failed = [], []
        for round_ in range(3):
            stop = threading.Event()

            def write(first: int, stop: threading.Event = stop) -> None:
                n = first
                while not stop.is_set():
                    n += 1
                    try:
                        with lake.begin() as tx:
                            tx.write("left", [{"n": n}])
                            tx.write("right", [{"n": n}])
                        said.append(n)
                    except DeltaduckError as e:
                        failed.append((n, str(e)))
                        stop.wait(0.05)

            thread = threading.Thread(target=write, args=(round_ * 1000,), daemon=True)
            thread.start()
            time.sleep(chance.uniform(0.15, 0.4))
            getattr(server, how)()
            server.start()
            before = len(said)
            while len(said) < before + 2 and thread.is_alive():
                time.sleep(0.02)
            stop.set()
            thread.join()
        left = sorted(n for (n,) in lake.sql("SELECT n FROM left").fetchall())
        assert left == sorted(n for (n,) in lake.sql("SELECT n FROM right").fetchall())
        assert left == sorted(said)
        assert failed == []  # the server was back in time
        assert lake.table("left").version() == lake.table("right").version() == len(said)
        lake.mirror.reconcile()
        assert lake.mirror.verify("left")
        assert lake.mirror.verify("right")


def test_a_server_that_stays_away_is_an_error_and_then_all_is_well(server: servers.Postgres, uri: str, tmp_path: Path) -> None:
    with deltaduck.connect(uri.replace("connect_timeout=5", "connect_timeout=2"), storage=tmp_path / "data") as lake:
        lake.write("t", ROWS)
        server.stop()
        try:
            with pytest.raises(CatalogError, match="cannot be reached"):
                lake.write("t", ROWS)
            with pytest.raises(CatalogError, match="cannot be reached"):
                lake.sql("FROM t")
        finally:
            server.start()
        assert lake.sql("FROM t").fetchall() == [(1,)]
        assert lake.write("t", ROWS) == 1


WRITER = """
import sys, deltaduck
with deltaduck.connect(sys.argv[1], storage=sys.argv[2]) as lake:
    print("open", flush=True)
    for n in range(int(sys.argv[4])):
        with lake.begin() as tx:
            tx.write("debit", [{"writer": int(sys.argv[3]), "n": n}])
            tx.write("credit", [{"writer": int(sys.argv[3]), "n": n}])
"""


def test_restarted_under_load_by_writers(server: servers.Postgres, uri: str, tmp_path: Path) -> None:
    """Twice, while three processes commit: every commit is there once, and none of them has noticed."""
    storage, writers, commits = str(tmp_path / "data"), 3, 12
    with deltaduck.connect(uri, storage=storage) as lake, lake.begin() as tx:
        for table in ("debit", "credit"):
            tx.create_table(table, {"writer": "BIGINT", "n": "BIGINT"})
    command = [sys.executable, "-c", WRITER, uri, storage]
    jobs = [subprocess.Popen([*command, str(w), str(commits)], stdout=subprocess.PIPE, text=True) for w in range(writers)]
    for job in jobs:
        assert job.stdout is not None
        assert job.stdout.readline() == "open\n"
    for mode in ("fast", "immediate"):
        time.sleep(0.3)
        server.stop(mode)
        server.start()
    assert [job.wait(timeout=60) for job in jobs] == [0] * writers
    for job in jobs:
        job.stdout.close()  # type: ignore[union-attr]
    with deltaduck.connect(uri, storage=storage) as lake:
        lake.mirror.reconcile()
        wanted = [(w, n) for w in range(writers) for n in range(commits)]
        for table in ("debit", "credit"):
            assert lake.sql(f"SELECT writer, n FROM {table} ORDER BY ALL").fetchall() == wanted
            assert [h["version"] for h in reversed(lake.table(table).history())] == list(range(len(wanted) + 1))
            assert lake.mirror.verify(table), str(lake.mirror.verify(table))
