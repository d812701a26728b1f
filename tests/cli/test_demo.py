"""The demo runs to its end on real data, and fails when another reader sees other rows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from rich.console import Console
from typer.testing import CliRunner

from deltaduck import MirrorError, demo
from deltaduck.errors import DeltaduckError
from deltaduck.frontends import cli


@pytest.fixture(scope="module")
def toured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The demo, run as a newcomer runs it, in an empty directory."""
    home = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-W", "error", "-m", "deltaduck.frontends.cli", "demo", "--dir", "tour"]
    variables = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        command, cwd=home, env=variables, capture_output=True, text=True, encoding="utf-8", check=False, timeout=300
    )
    return home / "tour", done


def test_the_demo_runs_to_its_end(toured: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    directory, done = toured
    assert (done.returncode, done.stderr) == (0, "")
    assert "Done in" in done.stdout
    assert "✘" not in done.stdout
    assert done.stdout.count("✔ equal") == 2 * 8
    assert "29 flights corrected: 15 files written anew, 21 of 36 left alone." in done.stdout
    assert "1 of 36 files opened,\n   35 skipped by the log's partition values" in done.stdout
    assert "flights still at version 10, still 16 airlines" in done.stdout
    assert (directory / demo.MARKER).exists()


def test_the_readme_shows_what_it_prints(toured: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    shown = readme.split("$ deltaduck demo\n")[1].split("```")[0]
    printed = {_timeless(line) for line in toured[1].stdout.splitlines()}
    assert [line for line in shown.splitlines() if line.strip() != "..." and _timeless(line) not in printed] == []


def _timeless(line: str) -> str:
    return re.sub(r"\d+ ms", "? ms", line.rstrip())


def test_the_lake_it_leaves_holds_the_data(toured: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    directory, _ = toured
    with duckdb.connect(str(directory / "lake.duckdb"), read_only=True) as con:
        for name in demo.DATASETS:
            assert con.execute(f"SELECT count(*) FROM {name}").fetchall() == [(demo.read(name).num_rows,)]
        assert con.execute("SELECT count(*) FROM flights WHERE dep_time = 2400").fetchall() == [(0,)]
        assert con.execute("SELECT count(*) FROM flights_at(11) WHERE dep_time = 2400").fetchall() == [(29,)]
        together = "SELECT table_name FROM dl_transactions WHERE tables_in_commit = 3 ORDER BY table_name"
        assert con.execute(together).fetchall() == [("daily",), ("flights",), ("weather",)]


def test_a_directory_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    result = CliRunner().invoke(cli.app, ["demo", "--dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "not the demo's" in result.stderr
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_place_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(cli.app, ["demo", "--dir", str(tmp_path / "file" / "below")])
    assert result.exit_code == 1
    assert "cannot make" in result.stderr


def test_only_its_own_directory_is_replaced(tmp_path: Path) -> None:
    own, link = tmp_path / "own", tmp_path / "link"
    demo.fresh_directory(own)
    (own / "old.parquet").write_text("x")
    link.symlink_to(own)
    with pytest.raises(DeltaduckError, match="no directory"):
        demo.fresh_directory(link)
    demo.fresh_directory(own)
    assert [p.name for p in own.iterdir()] == [demo.MARKER]


def test_a_reader_that_sees_other_rows_fails_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo.fresh_directory(tmp_path / "tour")
    tour = demo.Tour(tmp_path / "tour", Console(quiet=True))
    try:
        tour.lake.write("airlines", demo.read("airlines"))
        tour.lake.write("flights", [{"x": 1}])
        tour.lake.write("flights", [{"x": 2}])
        tour.others()
        honest = demo.READERS["Polars"]
        monkeypatch.setitem(demo.READERS, "Polars", lambda location, version: honest(location, version).slice(1))
        with pytest.raises(MirrorError, match="airlines version 0, flights version 1"):
            tour.others()
    finally:
        tour.lake.close()


def test_differing_rows_counts_duplicates_and_columns() -> None:
    airlines = demo.read("airlines")
    assert demo.differing_rows(airlines, airlines.select(["name", "carrier"])) == 0
    assert demo.differing_rows(airlines, airlines.slice(1)) == 1
    assert demo.differing_rows(airlines, airlines.select(["name"])) > 16
