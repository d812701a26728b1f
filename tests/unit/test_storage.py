"""Where files live: whole or absent, never overwritten unless asked."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from deltaduck import storage
from deltaduck.errors import StorageError


def visible(root: Path) -> list[str]:
    return sorted(p.name for p in root.rglob("*") if p.is_file())


def test_a_file_is_put_once(tmp_path: Path) -> None:
    assert storage.put_if_absent(str(tmp_path), "a.json", b"first")
    assert not storage.put_if_absent(str(tmp_path), "a.json", b"second")
    assert storage.read(str(tmp_path), "a.json") == b"first"
    assert visible(tmp_path) == ["a.json"]  # no traces of either attempt


def test_of_many_writers_one_wins_and_its_bytes_are_whole(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)
    wins: list[int] = []

    def put(n: int) -> None:
        barrier.wait()
        if storage.put_if_absent(str(tmp_path), "a.json", bytes([n]) * 100_000):
            wins.append(n)

    threads = [threading.Thread(target=put, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(wins) == 1
    assert storage.read(str(tmp_path), "a.json") == bytes(wins) * 100_000
    assert visible(tmp_path) == ["a.json"]


def test_a_file_can_say_when_it_was_committed(tmp_path: Path) -> None:
    storage.put_if_absent(str(tmp_path), "a.json", b"x", modified_ms=1_700_000_000_123)
    assert os.stat(tmp_path / "a.json").st_mtime_ns == 1_700_000_000_123_000_000


def test_a_finished_file_is_moved_into_place_once(tmp_path: Path) -> None:
    for content, expected in ((b"first", True), (b"second", False)):
        source = tmp_path / "hidden"
        source.write_bytes(content)
        assert storage.put_file_if_absent(str(tmp_path), "c.parquet", str(source)) is expected
        assert visible(tmp_path) == ["c.parquet"]
    assert storage.read(str(tmp_path), "c.parquet") == b"first"


def test_replacing_is_asked_for_by_name(tmp_path: Path) -> None:
    storage.replace(str(tmp_path), "_last_checkpoint", b"1")
    storage.replace(str(tmp_path), "_last_checkpoint", b"2")
    assert storage.read(str(tmp_path), "_last_checkpoint") == b"2"
    assert visible(tmp_path) == ["_last_checkpoint"]


def test_what_is_not_there_reads_as_none(tmp_path: Path) -> None:
    assert storage.read(str(tmp_path), "nothing") is None
    assert not storage.exists(str(tmp_path), "nothing")


def test_removing_what_is_gone_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    storage.remove([str(tmp_path / "a"), str(tmp_path / "b")])
    assert visible(tmp_path) == []


def test_what_a_failed_writer_left_is_removed_by_its_prefix(tmp_path: Path) -> None:
    for name in ("part-1-a", "day=x/part-1-b", "part-2-a", "day=x/part-10-b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    storage.remove_begun(str(tmp_path), "part-1-")
    assert visible(tmp_path) == ["part-10-b", "part-2-a"]


@pytest.mark.parametrize("call", ["put_if_absent", "replace"])
def test_storage_that_refuses_is_named(tmp_path: Path, call: str) -> None:
    (tmp_path / "_delta_log").write_text("a file where a directory should be")
    with pytest.raises(StorageError, match=r"_delta_log/0\.json") as e:
        getattr(storage, call)(str(tmp_path), "_delta_log/0.json", b"x")
    assert isinstance(e.value.__cause__, OSError)


def test_roots_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.normalize("data/") == str(tmp_path / "data")
    assert storage.normalize(f"file://{tmp_path}/data") == str(tmp_path / "data")


def test_a_store_that_is_not_there_yet_is_refused_without_its_secrets() -> None:
    with pytest.raises(StorageError, match="s3://") as e:
        storage.normalize("s3://key:secret@bucket/path")
    assert "secret" not in str(e.value)


def test_what_goes_while_it_is_listed_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody publishes: names under construction come and go."""
    log = tmp_path / "_delta_log"
    log.mkdir()
    for name in ("a.json", ".b.tmp", "c.json"):
        (log / name).write_bytes(b"x")
    (log / ".a link to nothing").symlink_to(log / "nothing")
    scandir, lstat = os.scandir, os.lstat

    class Entries(list[Any]):
        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    def scan(path: str) -> Any:
        with scandir(path) as entries:
            found = Entries(entries)
        (log / ".b.tmp").unlink(missing_ok=True)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scan)
        assert {*(storage.list_log(str(tmp_path)) or ())} == {"a.json", "c.json"}
    (log / ".b.tmp").write_bytes(b"x")

    def look(path: str) -> os.stat_result:
        if path.endswith(".tmp"):
            (log / ".b.tmp").unlink()
        return lstat(path)

    monkeypatch.setattr(os, "lstat", look)
    assert {*storage.list_files(str(tmp_path))} == {f"_delta_log/{name}" for name in ("a.json", "c.json", ".a link to nothing")}
    assert storage.list_log(str(tmp_path / "nowhere")) is None
