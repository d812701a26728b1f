"""Other people's readers of a mirrored table, all alike: (path, version) -> Arrow."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder

Read = Callable[[str, int | None], pa.Table]


class DuckDBDelta:
    """The delta extension of another DuckDB, in an environment of its own; one process answers every question."""

    def __init__(self, python: str, scratch: Path) -> None:
        self._out = scratch / "rows.arrow"
        script = Path(__file__).with_name("peer.py")
        self._process = subprocess.Popen([python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def query(self, sql: str) -> pa.Table:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"sql": sql, "out": str(self._out)}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert answer.get("ok"), answer
        with pa.OSFile(str(self._out), "rb") as file:
            return pa.ipc.open_stream(file).read_all()

    def scan(self, path: str, version: int | None) -> str:
        at = "" if version is None else f", version => {version}"
        return f"delta_scan('{path.replace(chr(39), chr(39) * 2)}'{at})"

    def read(self, path: str, version: int | None) -> pa.Table:
        return self.query(f"FROM {self.scan(path, version)}")

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=60)


@pytest.fixture(scope="session")
def duckdb_delta(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBDelta]:
    python = os.environ.get("DELTADUCK_PEERS_PYTHON")
    if not python:
        pytest.skip("DELTADUCK_PEERS_PYTHON names no Python that has DuckDB 1.5 and its delta extension; `make test` sets it")
    peer = DuckDBDelta(python, tmp_path_factory.mktemp("peer"))
    yield peer
    peer.close()


def delta_rs_sql(table: DeltaTable, sql: str = "SELECT * FROM t") -> pa.Table:
    """delta-rs, through its own query engine."""
    return pa.table(QueryBuilder().register("t", table).execute(sql).read_all())


READERS: dict[str, Read] = {
    "delta-rs": lambda path, version: delta_rs_sql(DeltaTable(path, version=version)),
    "delta-rs-arrow": lambda path, version: DeltaTable(path, version=version).to_pyarrow_table(),
    "polars": lambda path, version: pl.scan_delta(path, version=version).collect().to_arrow(),
}


@pytest.fixture(params=[*READERS, "duckdb-delta"])
def reader(request: pytest.FixtureRequest) -> Read:
    """Each reader in turn."""
    if request.param == "duckdb-delta":
        peer: DuckDBDelta = request.getfixturevalue("duckdb_delta")
        return peer.read
    return READERS[request.param]


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """The peers' own deprecation warnings are theirs to mend."""
    for item in items:
        if Path(__file__).parent in Path(item.path).parents:
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning:deltalake"))
