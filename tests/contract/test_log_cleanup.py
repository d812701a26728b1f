"""The published log is shortened as its retention says; the catalog, and whoever reads what is retained, notice nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltaduck import Lake
from deltaduck.errors import TableNotFoundError

SOON = {"delta.logRetentionDuration": "interval 0 days", "delta.checkpointInterval": "4"}


def log_files(lake: Lake) -> list[str]:
    return sorted(p.name.removeprefix("0" * 18) for p in Path(lake.table("t").detail()["location"], "_delta_log").iterdir())


@pytest.fixture
def t(lake: Lake) -> Lake:
    """Ten commits, with checkpoints of versions 4 and 8."""
    for n in range(10):
        lake.write("t", pa.table({"n": [n]}), configuration=SOON if n == 0 else None)
    time.sleep(0.005)
    return lake


def test_what_is_before_the_last_expired_checkpoint_goes(t: Lake) -> None:
    assert t.mirror.clean_up("t") == 10
    assert log_files(t) == ["08.checkpoint.parquet", "08.crc", "08.json", "09.json", "_last_checkpoint"]
    assert t.mirror.verify("t")
    assert t.mirror.clean_up() == 0
    assert t.sql("SELECT count(*) FROM t AT (VERSION => 2)").fetchall() == [(3,)]
    assert [row["version"] for row in t.table("t").history()] == list(range(9, -1, -1))
    for version, rows in ((8, 9), (9, 10)):
        assert DeltaTable(t.table("t").detail()["location"], version=version).to_pyarrow_table().num_rows == rows
    t.write("t", pa.table({"n": [10]}))
    assert t.mirror.status()[0]["published_version"] == 10


def test_nothing_goes_before_its_time_or_when_told_not_to(t: Lake) -> None:
    before = log_files(t)
    t.sql("ALTER TABLE t SET TBLPROPERTIES ('delta.enableExpiredLogCleanup' = 'false')")
    assert t.mirror.clean_up() == 0
    t.sql("ALTER TABLE t SET TBLPROPERTIES ('delta.enableExpiredLogCleanup' = 'true', 'delta.logRetentionDuration' = '30 days')")
    assert t.mirror.clean_up() == 0
    assert {*before} < {*log_files(t)}
    with pytest.raises(TableNotFoundError):
        t.mirror.clean_up("nothing")


def test_the_index_is_derived_anew(t: Lake) -> None:
    assert t.table("t").rebuild_index() == 10
    assert t.table("t").files("n = 3").num_rows == 1


def test_what_others_wrote_before_goes_too(lake: Lake, tmp_path: Path) -> None:
    """Their checkpoints are where ours would not be, and the oldest version of an imported log may be one."""
    options = {"delta.logRetentionDuration": "interval 0 days", "delta.checkpointInterval": "5"}
    for n in range(8):
        write_deltalake(tmp_path / "t", pa.table({"n": [n]}), mode="append", configuration=None if n else options)
    DeltaTable(tmp_path / "t").create_checkpoint()
    lake.import_table(tmp_path / "t", "t")
    for n in range(8, 12):
        lake.write("t", pa.table({"n": [n]}))
    time.sleep(0.005)
    lake.mirror.clean_up()
    left = {p.name[:20] for p in (tmp_path / "t" / "_delta_log").glob("0*")}
    assert left == {f"{v:020}" for v in (10, 11)}
    assert lake.mirror.verify("t")
    assert sorted(DeltaTable(tmp_path / "t").to_pyarrow_table()["n"].to_pylist()) == list(range(12))
