"""Other people's tables: a set of real ones, each with what it must read as, and the set's own runner.

The set is read from where it lies, ``DELTADUCK_CONFORMANCE`` or ``../shared/conformance`` beside the repository.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SET = Path(os.environ.get("DELTADUCK_CONFORMANCE") or REPOSITORY.parent / "shared" / "conformance")
pytestmark = pytest.mark.skipif(
    not (SET / "run_conformance.py").is_file(),
    reason=f"there is no conformance set at {SET}; DELTADUCK_CONFORMANCE names another place",
)


def failures(out: Path, *options: str) -> list[str]:
    """The tables that the runner says are wrong, with its reasons."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(SET / "run_conformance.py"), "--quiet", "--timeout", "120", "--json", str(out), *options]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600, check=False)
    assert ended.returncode in (0, 1), ended.stderr
    return [f"{r['suite']}/{r['name']}: {r['why']}" for r in json.loads(out.read_text())["results"] if not r["ok"]]


def test_every_core_table(tmp_path: Path) -> None:
    assert failures(tmp_path / "results.json", "--tier", "core") == []


def test_every_exotic_table(tmp_path: Path) -> None:
    """DuckDB 1.5 takes a variant that holds null for none at all."""
    known = [] if duckdb.__version__ >= "2" else ["trino/databricks154__test_variant_null"]
    assert [failed.split(":")[0] for failed in failures(tmp_path / "results.json", "--tier", "exotic")] == known


def test_uncertain_tables(tmp_path: Path) -> None:
    """All but the one whose lines end in stray text: see docs/conformance.md."""
    found = failures(tmp_path / "results.json", "--tier", "uncertain")
    assert [failed.split(":")[0] for failed in found] == ["trino/databricks73__person"]
