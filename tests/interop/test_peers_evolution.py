"""Other people's readers after each change of a table, and delta-rs writing to a table with our constraints."""

from __future__ import annotations

import datetime as dt
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltaduck import Lake

Read = Callable[[str, int | None], pa.Table]
AsText = Callable[[pa.Table], list[str]]

STEPS = [
    "CREATE TABLE t (n INT, g VARCHAR, s STRUCT(x INT)) PARTITIONED BY (g)",
    "INSERT INTO t VALUES (1, 'a', {'x': 1}), (2, 'b', NULL)",
    "INSERT INTO t VALUES (3, 'a', {'x': 3})",
    "ALTER TABLE t ADD COLUMN more DOUBLE",
    "ALTER TABLE t ADD COLUMN s.y VARCHAR",
    "INSERT INTO t VALUES (4, 'b', {'x': 4, 'y': 'four'}, 0.5)",
    "ALTER TABLE t ALTER COLUMN n SET NOT NULL",
    "ALTER TABLE t ADD CONSTRAINT positive CHECK (n > 0)",
    "ALTER TABLE t ALTER COLUMN more SET DEFAULT 1.5",
    "INSERT INTO t (n, g) VALUES (5, 'a')",
    "OPTIMIZE t",
    "ALTER TABLE t SET TBLPROPERTIES ('delta.checkpointInterval' = '3')",
    "DELETE FROM t WHERE n = 1",
    "OPTIMIZE t ZORDER BY (n, more)",
    "RESTORE TABLE t TO VERSION AS OF 5",
    "COMMENT ON COLUMN t.n IS 'a number'",
    "INSERT INTO t VALUES (6, NULL, NULL, NULL)",
]


def test_every_reader_sees_every_step(lake: Lake, reader: Read, as_text: AsText) -> None:
    for version, step in enumerate(STEPS):
        lake.sql(step)
        assert lake.table("t").version() == version, step
        path = lake.table("t").detail()["location"]
        assert as_text(reader(path, None)) == as_text(lake.table("t").to_arrow()), step
    for version in (0, 2, 5, 9, 12, 14):
        assert as_text(reader(path, version)) == as_text(lake.table("t").as_of(version=version).to_arrow()), version


def test_every_reader_after_a_vacuum(lake: Lake, reader: Read, as_text: AsText) -> None:
    lake.write("t", pa.table({"n": [1, 2]}), configuration={"delta.deletedFileRetentionDuration": "interval 0 days"})
    lake.write("t", pa.table({"n": [3]}))
    lake.sql("OPTIMIZE t; DELETE FROM t WHERE n = 1")
    time.sleep(0.005)
    assert lake.sql("VACUUM t FULL").fetchall() == [(3,)]
    assert as_text(reader(lake.table("t").detail()["location"], None)) == as_text(lake.table("t").to_arrow())


def test_every_reader_of_a_converted_directory(lake: Lake, reader: Read, as_text: AsText, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    for day in ("2024-01-01", "2024-01-02"):
        (tmp_path / f"t/day={day}").mkdir(parents=True)
        pq.write_table(pa.table({"n": [1, 2], "s": ["x", None]}), tmp_path / f"t/day={day}/f.parquet")
    lake.convert(tmp_path / "t")
    assert as_text(reader(str(tmp_path / "t"), None)) == as_text(lake.table("t").to_arrow())


@pytest.fixture
def copied(lake: Lake, tmp_path: Path) -> str:
    """A copy of a table with every rule that delta-rs knows; one row is in it."""
    lake.sql("""CREATE TABLE t (n INT NOT NULL, at TIMESTAMPTZ, day DATE GENERATED ALWAYS AS (CAST(at AS DATE)),
                CONSTRAINT positive CHECK (n > 0))""")
    lake.sql("INSERT INTO t (n, at) VALUES (1, '2024-01-01 00:00:00+00')")
    lake.sql("ALTER TABLE t ADD CONSTRAINT small CHECK (n < 100 OR at IS NULL)")
    return str(shutil.copytree(lake.table("t").detail()["location"], tmp_path / "copy"))


def test_delta_rs_keeps_our_rules(copied: str) -> None:
    assert DeltaTable(copied).protocol().min_writer_version == 7
    at = pa.array([dt.datetime(2024, 5, 6, tzinfo=dt.UTC)], pa.timestamp("us", tz="UTC"))
    good = pa.table({"n": pa.array([2], pa.int32()), "at": at, "day": pa.array([dt.date(2024, 5, 6)])})
    write_deltalake(copied, good, mode="append")
    for bad in (-1, 100):
        with pytest.raises(Exception, match=r"(?i)n > 0|n < 100|check"):
            write_deltalake(copied, good.set_column(0, "n", pa.array([bad], pa.int32())), mode="append")
    assert sorted(DeltaTable(copied).to_pyarrow_table()["n"].to_pylist()) == [1, 2]


def test_rows_of_delta_rs_come_back_under_our_rules(lake: Lake, copied: str) -> None:
    at = pa.array([dt.datetime(2024, 5, 6, tzinfo=dt.UTC)], pa.timestamp("us", tz="UTC"))
    write_deltalake(
        copied, pa.table({"n": pa.array([2], pa.int32()), "at": at, "day": pa.array([dt.date(2024, 5, 6)])}), mode="append"
    )
    DeltaTable(copied).alter.add_constraint({"few": "n <= 50"})
    lake.import_table(copied, "back")
    assert lake.sql("SELECT n, day FROM back ORDER BY n").fetchall() == [(1, dt.date(2024, 1, 1)), (2, dt.date(2024, 5, 6))]
