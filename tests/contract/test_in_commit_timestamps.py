"""In-commit timestamps: commits say in themselves when they were made, whatever a file's own time says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import deltalake
import pytest

from deltaduck import Lake
from deltaduck.errors import UnsupportedFeatureError

Log = Callable[[Lake, str, int], list[dict[str, Any]]]
KEY = "delta.enableInCommitTimestamps"


def test_every_commit_begins_with_its_time(lake: Lake, log: Log) -> None:
    lake.write("t", [{"id": 1}], configuration={KEY: "true"})
    for n in range(3):
        lake.write("t", [{"id": n}])
    lake.sql("DELETE FROM t WHERE id = 1")
    times = []
    for version in range(5):
        info = log(lake, "t", version)[0]["commitInfo"]
        assert next(iter(info)) == "inCommitTimestamp"
        times.append(info["inCommitTimestamp"])
    assert times == sorted({*times})
    assert times == [ms for (ms,) in lake.sql("SELECT in_commit_timestamp FROM dl_table_versions ORDER BY version").fetchall()]
    assert not any(key.startswith("delta.inCommitTimestampEnablement") for key in lake.table("t").detail()["properties"])
    assert lake.sql(f"SELECT count(*) FROM t AT (TIMESTAMP => epoch_ms({times[2]}::BIGINT))").fetchall() == [(3,)]
    assert deltalake.DeltaTable(lake.table("t").detail()["location"]).version() == 4


def test_a_table_says_since_when_it_has_them(lake: Lake, log: Log) -> None:
    lake.write("t", [{"id": 1}])
    lake.sql(f"ALTER TABLE t SET TBLPROPERTIES ('{KEY}' = 'true')")
    lake.write("t", [{"id": 2}])
    assert "inCommitTimestamp" not in log(lake, "t", 0)[0]["commitInfo"]
    (metadata,) = [a["metaData"] for a in log(lake, "t", 1) if "metaData" in a]
    began = log(lake, "t", 1)[0]["commitInfo"]["inCommitTimestamp"]
    assert metadata["configuration"] == {
        KEY: "true",
        "delta.inCommitTimestampEnablementVersion": "1",
        "delta.inCommitTimestampEnablementTimestamp": str(began),
    }
    assert log(lake, "t", 2)[0]["commitInfo"]["inCommitTimestamp"] > began
    detail = lake.table("t").detail()
    assert (detail["min_reader_version"], detail["min_writer_version"]) == (1, 7)
    assert "inCommitTimestamp" in detail["table_features"]
    assert lake.mirror.verify("t")


def test_a_time_that_is_none_is_refused(lake: Lake) -> None:
    with pytest.raises(UnsupportedFeatureError, match=KEY):
        lake.write("t", [{"id": 1}], configuration={KEY: "sometimes"})
