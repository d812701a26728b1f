"""The catalog file in any DuckDB client, without this package: tables are views, versions are macros, the log is SQL."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import deltaduck

CLIENT = """
import json, sys
import duckdb
con = duckdb.connect(sys.argv[1], read_only=True)
print(json.dumps([con.execute(q).fetchall() for q in sys.argv[2:]], default=str))
assert not any(name.split(".")[0] == "deltaduck" for name in sys.modules)
"""


def ask(path: Path, *queries: str) -> list[list[list[Any]]]:
    """The rows of each query, from another process that knows only DuckDB."""
    command = [sys.executable, "-c", CLIENT, str(path), *queries]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake, closed: `orders` (partitioned, grown, corrected), an empty table, odd names, a dropped table."""
    path = tmp_path_factory.mktemp("lake [1] ünï") / "lake.duckdb"
    with deltaduck.connect(path) as lake:
        orders = pa.table({"day": ["mon", "tue", None], "id": [1, 2, 3]})
        lake.write("orders", orders, partition_by="day")
        lake.write("orders", pa.table({"day": ["wed"], "id": [4], "note": ["new"]}), schema_mode="merge")
        lake.sql("DELETE FROM orders WHERE id = 1")
        lake.create_table("empty", {"a": "INT", "b": "STRUCT(x DATE)"})
        lake.write('odd "name"; ünï', pa.table({"filename": ["f"], "it's": [1]}), partition_by="it's")
        for n in range(5):
            lake.write("big", f"SELECT range + {n} AS n FROM range(20_000)", mode="overwrite")
        lake.write("gone", orders)
        lake.drop_table("gone")
    return path


def test_a_table_is_a_view_of_its_live_rows(path: Path) -> None:
    rows, described = ask(path, "FROM orders ORDER BY id", "SELECT column_name, column_type FROM (DESCRIBE orders)")
    assert rows == [["tue", 2, None], [None, 3, None], ["wed", 4, "new"]]
    assert described == [["day", "VARCHAR"], ["id", "BIGINT"], ["note", "VARCHAR"]]


def test_a_version_is_a_macro(path: Path) -> None:
    found = ask(path, *(f"SELECT list(id ORDER BY id) FROM orders_at({v})" for v in range(3)))
    assert found == [[[[1, 2, 3]]], [[[1, 2, 3, 4]]], [[[2, 3, 4]]]]


def test_an_empty_table_has_its_columns(path: Path) -> None:
    assert ask(path, "SELECT count(*) FROM empty", "SELECT column_type FROM (DESCRIBE empty)") == [
        [[0]], [["INTEGER"], ["STRUCT(x DATE)"]],
    ]  # fmt: skip


def test_odd_names(path: Path) -> None:
    assert ask(path, 'FROM "odd ""name""; ünï"', 'SELECT "it\'s" FROM "odd ""name""; ünï_at"(0)') == [[["f", 1]], [[1]]]


def test_a_dropped_table_is_gone(path: Path) -> None:
    assert ask(path, "SELECT count(*) FROM duckdb_views() WHERE view_name = 'gone'") == [[[0]]]


def test_the_log_is_audited_in_sql(path: Path) -> None:
    found = ask(
        path,
        "SELECT version, operation FROM dl_history WHERE table_name = 'orders' ORDER BY version",
        "SELECT count(*) FROM dl_live_files WHERE table_name = 'orders'",
        "SELECT DISTINCT removed_by FROM dl_file_lifetimes WHERE table_name = 'orders' AND removed_by IS NOT NULL",
        "SELECT sum(versions_behind) FROM dl_mirror_lag",
        "SELECT max(live_files) FROM dl_storage_growth WHERE table_name = 'orders'",
    )
    assert found == [[[0, "CREATE TABLE AS SELECT"], [1, "WRITE"], [2, "DELETE"]], [[3]], [["DELETE"]], [[0]], [[4]]]


@pytest.mark.xfail(
    tuple(map(int, duckdb.__version__.split(".")[:3])) < (2, 0, 1),
    strict=True, reason="read_parquet with schema= has no row estimate, so DuckDB joins from its side and opens every file",
)  # fmt: skip
def test_files_that_are_not_live_are_not_opened(path: Path) -> None:
    for query in ("FROM big", "FROM big_at(0)"):
        (plan,) = ask(path, f"EXPLAIN ANALYZE SELECT sum(n) {query}")
        assert "Total Files Read: 1 " in str(plan)


def test_rows_that_a_view_cannot_leave_out_are_not_shown(tmp_path: Path) -> None:
    """Deletion vectors written once stay in the way when the property is taken back, and when the table is imported."""
    path, other = tmp_path / "lake.duckdb", tmp_path / "other.duckdb"
    with deltaduck.connect(path) as lake:
        lake.write("t", "SELECT range AS n FROM range(100)", configuration={"delta.enableDeletionVectors": "true"})
        lake.sql("DELETE FROM t WHERE n < 9")
        lake.sql("ALTER TABLE t SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'false')")
        place = lake.table("t").detail()["location"]
    with deltaduck.connect(other) as lake:
        lake.import_table(place, "t")
    for catalog in (path, other):
        with duckdb.connect(catalog, read_only=True) as client:
            for rows in ("t", "t_at(0)"):
                with pytest.raises(duckdb.Error, match="not by a view: it takes rows out by deletion vectors"):
                    client.execute(f"FROM {rows}").fetchall()
