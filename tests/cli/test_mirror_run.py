"""``deltaduck mirror run``: a process of its own that publishes, and can be told to stop."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import deltaduck
from deltaduck.mirror import reconciler

Place = Callable[[str, Path], str]


def command(target: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "deltaduck.frontends.cli", "mirror", "run", "--lake", target, *options]


@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
def test_once_publishes_and_says_by_its_code_whether_all_is_well(kind: str, tmp_path: Path, place: Place) -> None:
    target = place(kind, tmp_path)
    with deltaduck.connect(target, storage=tmp_path / "data", mirror="manual") as lake:
        for n in range(3):
            lake.write("good", [{"n": n}])
            lake.write("bad", [{"n": n}])
        location = {name: Path(lake.table(name).detail()["location"], "_delta_log") for name in ("good", "bad")}
    shutil.rmtree(location["bad"])
    location["bad"].write_text("in the way")
    failed = subprocess.run(command(target, "--once", "--alert", "0"), capture_output=True, text=True, check=False)
    assert failed.returncode == 1, failed.stderr
    assert "table 'bad' version 0 is committed but not published" in failed.stderr
    assert "the mirror of table 'bad' is" in failed.stderr
    assert len(list(location["good"].glob("*.json"))) == 3
    location["bad"].unlink()
    location["bad"].mkdir()
    assert subprocess.run(command(target, "--once"), check=False).returncode == 0  # whenever its next attempt would be
    assert len(list(location["bad"].glob("*.json"))) == 3


def test_it_follows_until_it_is_told_to_stop(tmp_path: Path) -> None:
    target = str(tmp_path / "lake.sqlite")
    with deltaduck.connect(target, mirror="manual") as lake:
        lake.write("t", [{"n": 0}])
        log = Path(lake.table("t").detail()["location"], "_delta_log")
        with subprocess.Popen(command(target, "--interval", "0.05")) as process:
            for n in range(3):
                while not (log / f"{n:020d}.json").exists():
                    time.sleep(0.02)
                    assert process.poll() is None
                lake.write("t", [{"n": n + 1}])
            while not (log / f"{3:020d}.json").exists():
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        assert lake.mirror.reconcile() in (0, 1)
        assert lake.mirror.verify("t")


def test_a_duckdb_file_lets_only_one_in(tmp_path: Path) -> None:
    deltaduck.connect(tmp_path / "lake.duckdb").close()
    found = subprocess.run(command(str(tmp_path / "lake.duckdb")), capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "lets one process in" in found.stderr


def test_it_says_once_that_a_table_lags_and_once_that_it_does_not(tmp_path: Path) -> None:
    with deltaduck.connect(tmp_path / "lake.sqlite", mirror="manual") as lake:
        lake.write("t", [{"n": 0}])
        log = Path(lake.table("t").detail()["location"], "_delta_log")
        log.rename(log.with_name("aside"))
        log.write_text("in the way")
        lake.catalog.execute("UPDATE dl_table_versions SET commit_ms = commit_ms - 100000")
        said: list[str] = []
        stop = threading.Event()

        def say(text: str) -> None:
            said.append(text)
            if "again" in text:
                stop.set()
            elif "seconds behind" in text:
                log.unlink()
                log.with_name("aside").rename(log)

        found = reconciler.run(lake.mirror, stop, interval=0.02, say=say)
    assert not found.problems
    assert [text.split(":")[0] for text in said] == [
        "the mirror of table 't' is 100 seconds behind",
        f"table 't' version 0 is committed but not published at {os.path.dirname(log)}",
        "the mirror of table 't' is less than 60 seconds behind again",
    ]
