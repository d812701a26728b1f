"""Other people's readers of tables whose columns are mapped, widened, counted or clustered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder

from deltaduck import Lake

Read = Callable[[str, int | None], pa.Table]
AsText = Callable[[pa.Table], list[str]]

MAPPED = [
    "CREATE TABLE t (n INT, g VARCHAR, s STRUCT(x INT, y INT), l STRUCT(x INT)[]) PARTITIONED BY (g)",
    "INSERT INTO t VALUES (1, 'a', {'x': 1, 'y': 2}, [{'x': 1}]), (2, 'b', NULL, NULL)",
    "ALTER TABLE t SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name')",
    "ALTER TABLE t RENAME COLUMN n TO number",
    "ALTER TABLE t RENAME COLUMN s.x TO z",
    "ALTER TABLE t RENAME COLUMN g TO kind",
    "ALTER TABLE t DROP COLUMN s.y",
    "ALTER TABLE t ADD COLUMN n DOUBLE",
    "INSERT INTO t VALUES (3, 'a', {'z': 3}, [{'x': 3}], 0.5)",
    "UPDATE t SET n = number WHERE kind = 'a'",
    "ALTER TABLE t DROP COLUMN l",
    "OPTIMIZE t ZORDER BY (number, n)",
]


@pytest.fixture(params=["delta-rs", "duckdb-delta"])
def able(request: pytest.FixtureRequest) -> Read:
    """The readers that know these features."""
    if request.param == "duckdb-delta":
        return request.getfixturevalue("duckdb_delta").read  # type: ignore[no-any-return]
    return delta_rs


def delta_rs(path: str, version: int | None) -> pa.Table:
    table = DeltaTable(path, version=version)
    return pa.table(QueryBuilder().register("t", table).execute("SELECT * FROM t").read_all())


def check(lake: Lake, steps: list[str], read: Read, as_text: AsText) -> None:
    if read != delta_rs:  # DuckDB's extension answers NULL for partition columns that are mapped
        steps = [s.replace("PARTITIONED BY (g)", "") for s in steps]
    for step in steps:
        lake.sql(step)
    path = lake.table("t").detail()["location"]
    for version in range(lake.table("t").version() + 1):
        assert as_text(read(path, version)) == as_text(lake.table("t").as_of(version=version).to_arrow()), steps[version]


def test_renamed_and_dropped_columns(lake: Lake, able: Read, as_text: AsText) -> None:
    check(lake, MAPPED, able, as_text)


def test_wider_columns(lake: Lake, duckdb_delta: Any, as_text: AsText) -> None:  # delta-rs does not know them
    check(lake, [
        "CREATE TABLE t (n SMALLINT, x FLOAT, s STRUCT(y INT), d DECIMAL(5, 2))",
        "ALTER TABLE t SET TBLPROPERTIES ('delta.enableTypeWidening' = 'true')",
        "INSERT INTO t VALUES (1, 0.1, {'y': 1}, 1.25)",
        "ALTER TABLE t ALTER COLUMN n TYPE BIGINT",
        "ALTER TABLE t ALTER COLUMN x TYPE DOUBLE",
        "ALTER TABLE t ALTER COLUMN s.y TYPE BIGINT",
        "ALTER TABLE t ALTER COLUMN d TYPE DECIMAL(12, 4)",
        "INSERT INTO t VALUES (4294967296, 0.1, {'y': 4294967296}, 0.0001)",
    ], duckdb_delta.read, as_text)  # fmt: skip


def test_clustered_and_counted(lake: Lake, able: Read, as_text: AsText) -> None:
    check(lake, [
        "CREATE TABLE t (id BIGINT GENERATED ALWAYS AS IDENTITY, x INT, y INT) CLUSTER BY (x, y)",
        "INSERT INTO t VALUES (3, 1), (1, 2)",
        "INSERT INTO t VALUES (2, 2)",
        "OPTIMIZE t",
        "ALTER TABLE t CLUSTER BY (id)",
        "INSERT INTO t VALUES (0, 0)",
        "OPTIMIZE t",
    ], able, as_text)  # fmt: skip


def test_columns_mapped_by_number(lake: Lake, able: Read, as_text: AsText) -> None:
    check(lake, [
        "CREATE TABLE t (n INT, g VARCHAR, s STRUCT(x INT)) PARTITIONED BY (g) TBLPROPERTIES ('delta.columnMapping.mode' = 'id')",
        "INSERT INTO t VALUES (1, 'a', {'x': 1}), (2, 'b', NULL)",
        "ALTER TABLE t RENAME COLUMN n TO number",
        "ALTER TABLE t ADD COLUMN n INT",
        "INSERT INTO t VALUES (3, 'b', {'x': 5}, 4)",
    ], able, as_text)  # fmt: skip
