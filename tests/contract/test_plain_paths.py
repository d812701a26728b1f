"""Any Delta table by its path, in SQL: no import, no name, and the commits made elsewhere are seen."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from deltalake import write_deltalake

import deltaduck
from deltaduck import Lake
from deltaduck.errors import DeltaduckError


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A table that deltaduck has not made."""
    place = str(tmp_path / "elsewhere" / "orders")
    write_deltalake(place, pa.table({"id": [1, 2]}))
    return place


def test_a_query_reads_the_table_at_a_path_and_follows_its_commits(lake: Lake, path: str) -> None:
    assert lake.sql(f"SELECT sum(id) FROM dl_scan('{path}')").fetchall() == [(3,)]
    write_deltalake(path, pa.table({"id": [10]}), mode="append")
    assert lake.sql(f"SELECT sum(id) FROM dl_scan('{path}')").fetchall() == [(13,)]
    assert lake.sql(f"SELECT sum(id) FROM dl_scan('{path}', version := 0)").fetchall() == [(3,)]
    assert lake.sql(f"SELECT count(*) FROM dl_files('{path}', filter := 'id > 5')").fetchall() == [(1,)]
    assert lake.sql(f"SELECT version FROM dl_history('{path}') ORDER BY 1").fetchall() == [(0,), (1,)]
    assert lake.sql(f"SELECT id FROM dl_changes('{path}', 1)").fetchall() == [(10,)]


def test_a_path_is_no_table_of_the_lake(lake: Lake, path: str) -> None:
    lake.sql(f"FROM dl_scan('{path}')")
    assert list(lake.tables()) == []


def test_a_registered_connection_reads_paths_too(lake: Lake, path: str) -> None:
    with duckdb.connect() as con:
        deltaduck.register(con, lake)
        assert con.sql(f"SELECT num_files FROM dl_detail('{path}')").fetchall() == [(1,)]


def test_a_path_without_a_table_is_an_error_that_says_so(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(DeltaduckError, match="no Delta table at"):
        lake.sql(f"FROM dl_scan('{tmp_path}/nothing')")
