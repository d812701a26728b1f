"""Files that cannot be written, a disk that is full, clocks that disagree."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest

import deltaduck
from deltaduck import CatalogError, DeltaduckError
from deltaduck.catalog import base

Place = Callable[[str, Path], str]
FILES = pytest.mark.parametrize("kind", ["duckdb", "sqlite"])


def mounted(directory: Path, *options: str) -> Iterator[Path]:
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", *options, "none", str(directory)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small file system can be mounted by root only: {done.stderr.strip()}")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 megabytes: a DuckDB file grows in blocks of a quarter."""
    yield from mounted(tmp_path / "small", "-o", "size=24m")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system to be made read-only: permissions do not stop root."""
    yield from mounted(tmp_path / "disk", "-o", "size=64m")


@FILES
def test_a_read_only_place_says_so(disk: Path, kind: str, place: Place) -> None:
    target = place(kind, disk)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(CatalogError, match=r"cannot be opened|cannot create") as caught:
        deltaduck.connect(target, storage=disk)
    assert target in str(caught.value)


@FILES
def test_a_read_only_lake_is_not_half_opened_and_works_again_when_it_may(disk: Path, kind: str, place: Place) -> None:
    target = place(kind, disk)
    with deltaduck.connect(target) as lake:
        lake.write("t", [{"n": 1}])
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(CatalogError, match=r"lake\.(duckdb|sqlite) .*cannot be (opened for writing|written)"):
        with deltaduck.connect(target) as lake:
            lake.write("t", [{"n": 2}])
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    with deltaduck.connect(target) as lake:
        assert lake.write("t", [{"n": 2}]) == 1
        assert lake.sql("SELECT sum(n) FROM t").fetchall() == [(3,)]


@FILES
def test_a_full_disk_below_the_catalog(small_disk: Path, tmp_path: Path, kind: str, place: Place) -> None:
    """Commits fail, clearly and wholly; when there is room again, the next one works."""
    target, filler = place(kind, small_disk), small_disk / "filler"
    with deltaduck.connect(target, storage=tmp_path / "data") as lake:
        with lake.begin() as tx:
            tx.create_table("left", {"n": "BIGINT", "text": "VARCHAR"})
            tx.create_table("right", {"n": "BIGINT"})
        room = shutil.disk_usage(small_disk).free
        filler.write_bytes(b"x" * (room - 100_000))
        written, failed = [], None
        for n in range(300):
            try:
                with lake.begin() as tx:
                    tx.write("left", [{"n": n, "text": "x" * 2000}], commit_metadata="y" * 20_000)
                    tx.write("right", [{"n": n}])
                written.append(n)
            except DeltaduckError as e:
                failed = e
                break
        assert isinstance(failed, CatalogError), failed
        assert "full" in str(failed) or "No space" in str(failed), failed
        filler.unlink()
    with deltaduck.connect(target) as lake:
        for table in ("left", "right"):
            assert [n for (n,) in lake.sql(f"SELECT n FROM {table} ORDER BY n").fetchall()] == written
        lake.write("right", [{"n": -1}])
        lake.mirror.reconcile()
        assert lake.mirror.verify("left")
        assert lake.mirror.verify("right")


@pytest.mark.parametrize("kind", ["duckdb", "sqlite", "postgres"])
def test_a_full_disk_below_the_data(small_disk: Path, tmp_path: Path, kind: str, place: Place) -> None:
    rows = pa.table({"x": [os.urandom(1000) for _ in range(40_000)]})
    with deltaduck.connect(place(kind, tmp_path), storage=small_disk / "data") as lake:
        lake.write("t", [{"n": 1}])
        with pytest.raises(DeltaduckError, match=r"(?i)no space|full"):
            lake.write("big", rows)
        assert [t["name"] for t in lake.tables()] == ["t"]
        assert lake.write("t", [{"n": 2}]) == 1  # what did not fit is gone
        assert lake.mirror.verify("t")


@pytest.mark.parametrize("kind", ["duckdb", "sqlite", "postgres"])
def test_clocks_that_disagree(tmp_path: Path, kind: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines an hour apart take turns: commit times rise strictly all the same, in both tables of a commit alike."""
    real = base.now_ms
    with deltaduck.connect(place(kind, tmp_path), storage=tmp_path / "data") as lake:
        for turn, offset in enumerate([0, 3_600_000, -3_600_000, 0, 1, -1]):
            monkeypatch.setattr("deltaduck.commit.now_ms", lambda offset=offset: real() + offset)
            with lake.begin() as tx:
                tx.write("left", [{"n": turn}])
                if turn % 2:
                    tx.write("right", [{"n": turn}])
        times = [h["timestamp"] for h in reversed(lake.table("left").history())]
        assert all(a < b for a, b in pairwise(times)), times
        assert len(times) == 6
        shared = lake.catalog.fetch(
            "SELECT commit_id FROM dl_table_versions GROUP BY commit_id HAVING count(*) = 2 AND min(commit_ms) = max(commit_ms)"
        )
        assert len(shared) == 3
        for version, at in enumerate(times):
            assert lake.table("left").as_of(timestamp=at).version() == version
