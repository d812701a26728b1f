"""Statistics of files that are there already: what a writer would have said, and no row changes."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable as Peer
from deltalake import write_deltalake

from deltaduck import Lake

EVERYTHING = """
    SELECT range AS n, CAST(range AS TINYINT) AS small, range * 1.5 AS x, CAST(range AS FLOAT) / 3 AS f,
           CASE WHEN range = 7 THEN 'NaN'::DOUBLE ELSE range END AS maybe, CAST(range AS DECIMAL(20, 4)) / 7 AS d,
           repeat('long text ', CAST(range AS INT)) AS s, DATE '2024-01-01' + CAST(range AS INT) AS day,
           TIMESTAMP '2024-01-01 00:00:00.123456' + to_microseconds(range) AS naive,
           TIMESTAMPTZ '2024-01-01 00:00:00.123456+00' + to_microseconds(range) AS moment, range % 2 = 0 AS flag,
           CASE WHEN range > 3 THEN range END AS gaps, {'a': range, 'b': {'c': 'x' || range}} AS deep,
           [range] AS listed, encode('x' || range) AS bytes, range % 3 AS p
    FROM range(10)
"""


@pytest.mark.parametrize("mapped", [False, True])
def test_they_are_what_the_writer_said(lake: Lake, mapped: bool) -> None:
    options = {"delta.columnMapping.mode": "name"} if mapped else {}
    lake.write("t", EVERYTHING, partition_by="p", configuration=options)
    before = lake.table("t").files()
    assert lake.sql("ANALYZE TABLE t COMPUTE DELTA STATISTICS").fetchall() == [(3,)]
    after = lake.table("t").files()
    assert after["path"].to_pylist() == before["path"].to_pylist()
    assert [json.loads(s) for s in after["stats"].to_pylist()] == [json.loads(s) for s in before["stats"].to_pylist()]
    assert lake.table("t").files("day = '2024-01-05' AND p = 1").num_rows == 1
    assert lake.table("t").history()[0]["operation"] == "COMPUTE STATS"
    assert lake.fsck() == []
    assert lake.mirror.verify("t")


@pytest.fixture
def silent(lake: Lake, tmp_path: Path) -> Lake:
    """A lake with an imported table t, whose log says nothing of its files."""
    for n in range(3):
        write_deltalake(
            tmp_path / "t", pa.table({"n": [10 * n, 10 * n + 9], "s": ["a", "b"]}), mode="append",
            configuration={"delta.dataSkippingNumIndexedCols": "0"},
        )  # fmt: skip
    lake.import_table(tmp_path / "t")
    lake.sql("ALTER TABLE t UNSET TBLPROPERTIES ('delta.dataSkippingNumIndexedCols')")
    return lake


def test_files_that_came_without_any(silent: Lake) -> None:
    assert silent.table("t").files("n = 12").num_rows == 3
    assert silent.table("t").optimize.statistics() == {"num_files": 3}
    assert silent.table("t").files("n = 12").num_rows == 1
    assert silent.sql("SELECT n FROM t WHERE n BETWEEN 9 AND 12 ORDER BY n").fetchall() == [(9,), (10,)]
    place = silent.table("t").detail()["location"]
    assert Peer(place).to_pyarrow_table().num_rows == 6
    assert sorted(pa.table(Peer(place).get_add_actions(flatten=True))["max.n"].to_pylist()) == [9, 19, 29]


def test_nobody_sees_a_change_of_rows(silent: Lake) -> None:
    before = silent.table("t").version()
    silent.table("t").optimize.statistics()
    assert silent.table("t").changes(before + 1).fetchall() == []
    assert silent.table("t").as_of(before).files("n = 12").num_rows == 3


def test_a_deletion_vector_stays(lake: Lake) -> None:
    lake.write("t", "SELECT range AS n FROM range(10)", configuration={"delta.enableDeletionVectors": "true"})
    lake.sql("DELETE FROM t WHERE n IN (0, 9)")
    lake.table("t").optimize.statistics()
    (file,) = lake.table("t").files().to_pylist()
    assert (file["dv_cardinality"], file["num_records"]) == (2, 10)
    assert json.loads(file["stats"])["tightBounds"] is False
    assert lake.table("t").detail()["num_rows"] == 8
    assert Peer(lake.table("t").detail()["location"]).version() == 2


def test_inside_of_a_transaction(silent: Lake) -> None:
    with silent.begin() as tx:
        tx.sql("DELETE FROM t WHERE n < 10")
        tx.sql("ANALYZE TABLE t COMPUTE DELTA STATISTICS")
        tx.write("t", [{"n": 100, "s": "c"}])
    assert silent.table("t").files("n = 12").num_rows == 1
    assert silent.sql("SELECT count(*) FROM t").fetchall() == [(5,)]


@pytest.mark.parametrize("statement", ["ANALYZE TABLE t COMPUTE DELTA STATISTICS", "DELETE FROM t WHERE n = 1"])
def test_files_from_before_a_column_came_are_read_in_the_transaction_that_adds_them_again(lake: Lake, statement: str) -> None:
    lake.write("t", [{"n": 1}, {"n": 2}], configuration={"delta.enableDeletionVectors": "true"})
    lake.sql("ALTER TABLE t ADD COLUMN more VARCHAR")
    with lake.begin() as tx:
        tx.sql(statement)
        assert tx.sql("SELECT more FROM t WHERE n = 2").fetchall() == [(None,)]
    assert lake.sql("SELECT more FROM t WHERE n = 2").fetchall() == [(None,)]


def test_a_table_without_files(lake: Lake) -> None:
    lake.create_table("t", {"n": "INT"})
    assert lake.table("t").optimize.statistics() == {"num_files": 0}
    assert lake.table("t").version() == 0
