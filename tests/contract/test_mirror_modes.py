"""When a commit is published: before it returns, soon after, or when asked. And who does it, where many could."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest

import deltaduck
from deltaduck import Lake, MirrorError, UriError
from deltaduck.catalog.base import now_ms
from deltaduck.mirror import leases

Place = Callable[[str, Path], str]


@pytest.fixture(params=["duckdb", "sqlite", "postgres"])
def open_as(request: pytest.FixtureRequest, tmp_path: Path, place: Place) -> Iterator[Callable[[str], Lake]]:
    """Opens this test's lake with a mode of its mirror."""
    opened: list[Lake] = []

    def open_it(mode: str) -> Lake:
        opened.append(deltaduck.connect(place(request.param, tmp_path), storage=tmp_path / "data", mirror=mode))
        return opened[-1]

    yield open_it
    for lake in opened:
        lake.close()


def folder(lake: Lake, table: str) -> Path:
    return Path(lake.table(table).detail()["location"], "_delta_log")


def commits(lake: Lake, table: str) -> list[int]:
    return sorted(int(path.stem) for path in folder(lake, table).glob("*.json"))


def test_manual_publishes_when_asked(open_as: Callable[[str], Lake], people: pa.Table) -> None:
    lake = open_as("manual")
    for _ in range(3):
        lake.write("t", people)
    assert commits(lake, "t") == []
    assert (lake.mirror.status("t")[0]["published_version"], lake.mirror.status("t")[0]["pending"]) == (None, 3)
    assert lake.mirror.reconcile() == 3
    assert commits(lake, "t") == [0, 1, 2]
    assert lake.mirror.verify("t")


def test_async_publishes_all_of_it_in_order(open_as: Callable[[str], Lake], people: pa.Table) -> None:
    """Commits of four threads to two tables; closing waits for them."""
    lake = open_as("async")
    lake.write("a", people, configuration={"delta.checkpointInterval": "5"})
    lake.write("b", people)
    last = threading.Barrier(4)

    def write() -> None:
        last.wait()
        for _ in range(6):
            with lake.begin() as tx:
                tx.write("a", people)
                tx.write("b", people)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    location = {name: folder(lake, name) for name in "ab"}
    lake.close()
    for name, log in location.items():
        assert sorted(int(p.stem) for p in log.glob("*.json")) == list(range(25))
        assert deltalake.DeltaTable(log.parent).to_pyarrow_table().num_rows == 25 * 3, name
    again = open_as("sync")
    assert again.mirror.reconcile() == 0
    assert again.mirror.verify("a")
    assert again.mirror.verify("b")


def test_async_writers_do_not_wait_for_the_mirror(open_as: Callable[[str], Lake], people: pa.Table) -> None:
    """Whatever keeps the publisher busy: here, that somebody holds its lock."""
    lake = open_as("async")
    lake.write("t", people)
    lake.mirror.reconcile()
    with lake.mirror._lock:
        for _ in range(3):
            lake.write("t", people)
        assert commits(lake, "t") == [0]
    lake.mirror.reconcile()
    assert commits(lake, "t") == [0, 1, 2, 3]


def test_async_says_what_it_cannot_publish(
    open_as: Callable[[str], Lake], people: pa.Table, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure is logged, is in the status with the time of the next try, and is owed after the lake is closed."""
    lake = open_as("async")
    lake.write("t", people)
    lake.mirror.reconcile()
    log = folder(lake, "t")
    shutil.rmtree(log)
    log.write_text("in the way")
    with caplog.at_level(logging.WARNING, "deltaduck.mirror"):
        lake.write("t", people)
        lake.close()
    assert "'t' version 1 is committed but not published" in caplog.text
    log.unlink()
    log.mkdir()
    again = open_as("manual")
    (state,) = again.mirror.status("t")
    assert (state["pending"], "_delta_log" in state["last_error"]) == (1, True)
    assert state["next_attempt"] is not None
    assert again.mirror.reconcile() == 1
    assert again.mirror.status("t")[0]["next_attempt"] is None


def test_async_tries_again_by_itself(open_as: Callable[[str], Lake], people: pa.Table) -> None:
    lake = open_as("async")
    lake.write("t", people)
    lake.mirror.reconcile()
    log = folder(lake, "t")
    log.rename(log.with_name("aside"))
    log.write_text("in the way")
    lake.write("t", people)
    done = threading.Event()
    while not lake.mirror.status("t")[0]["last_error"]:
        done.wait(0.01)
    log.unlink()
    log.with_name("aside").rename(log)
    while lake.mirror.status("t")[0]["pending"]:  # nobody asks it to
        done.wait(0.05)
    assert commits(lake, "t") == [0, 1]


def test_pauses_grow_and_end_growing(open_as: Callable[[str], Lake], people: pa.Table) -> None:
    lake = open_as("manual")
    lake.write("t", people)
    lake.mirror.reconcile()
    log = folder(lake, "t")
    shutil.rmtree(log)
    log.write_text("in the way")
    lake.write("t", people)
    pauses = []
    for attempts in (None, None, None, 8, 9, 60):
        if attempts is not None:
            lake.catalog.execute(f"UPDATE dl_mirror_status SET attempts = {attempts} WHERE status = 'PENDING'")
        before = now_ms()
        with pytest.raises(MirrorError):
            lake.mirror.reconcile()
        ((at,),) = lake.catalog.fetch("SELECT next_attempt_ms FROM dl_mirror_status WHERE status = 'PENDING'")
        pauses.append((at - before, at - now_ms()))
    for (most, least), wanted in zip(pauses, (500, 1_000, 2_000, 128_000, 300_000, 300_000), strict=True):
        assert least <= wanted <= most


def test_a_lease_keeps_others_away_until_it_ends(open_as: Callable[[str], Lake], monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = open_as("manual").catalog
    if catalog.database == "duckdb":
        pytest.skip("a DuckDB file lets one process in: nobody else is there")
    assert leases.take(catalog, 1, "me")
    assert leases.take(catalog, 1, "me")
    assert not leases.take(catalog, 1, "you", patience=0.05)
    assert leases.take(catalog, 2, "you")
    leases.release(catalog, 1, "you")  # which is not yours
    assert not leases.take(catalog, 1, "you")
    leases.release(catalog, 1, "me")
    assert leases.take(catalog, 1, "you")
    catalog.execute("UPDATE dl_mirror_leases SET expires_ms = 1")  # its holder died
    assert leases.take(catalog, 1, "me")


def test_who_holds_no_lease_still_publishes(open_as: Callable[[str], Lake], people: pa.Table) -> None:
    """A holder who died, or sleeps, delays a commit by a moment."""
    lake, other = open_as("sync"), open_as("sync")
    lake.write("t", people)
    other.write("t", people)
    leases.take(lake.catalog, 1, "somebody who sleeps")
    lake.write("t", people)  # not after the one that it knows to be published
    assert commits(lake, "t") == [0, 1, 2]


def test_async_leaves_a_table_to_who_is_at_it(open_as: Callable[[str], Lake], people: pa.Table) -> None:
    """The thread looks again until the other has done it, or has gone; a lake that closes does not wait so long."""
    lake, other = open_as("async"), open_as("sync")
    lake.write("t", people)
    lake.mirror.reconcile()
    other.write("t", people)
    leases.take(lake.catalog, 1, "somebody who is slow")
    lake.write("t", people)
    leases.release(lake.catalog, 1, "somebody who is slow")
    while lake.mirror.status("t")[0]["pending"]:
        threading.Event().wait(0.01)
    assert commits(lake, "t") == [0, 1, 2]
    other.write("t", people)
    leases.take(lake.catalog, 1, "somebody who died")
    lake.write("t", people)
    log = folder(lake, "t")
    lake.close()
    assert sorted(int(p.stem) for p in log.glob("*.json")) == [0, 1, 2, 3, 4]


def test_an_unknown_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UriError, match="mirror is 'later': it is sync, async or manual"):
        deltaduck.connect(tmp_path / "lake.duckdb", mirror="later")
    with pytest.raises(UriError, match="mirror is 'later'"):
        deltaduck.connect(f"deltasql://sqlite/{tmp_path}/lake.sqlite?mirror=later")


def test_a_uri_may_say_the_mode(tmp_path: Path) -> None:
    with deltaduck.connect(f"deltasql://sqlite/{tmp_path}/lake.sqlite?mirror=manual&storage={tmp_path}/data") as lake:
        lake.write("t", [{"n": 1}])
        assert lake.mirror.status("t")[0]["pending"] == 1
