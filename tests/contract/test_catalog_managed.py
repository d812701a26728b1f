"""Tables that the protocol keeps path-based writers away from (``catalogManaged``): our catalog ratifies, the mirror publishes.

https://github.com/delta-io/delta/blob/master/PROTOCOL.md#catalog-managed-tables
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest
from deltalake.exceptions import DeltaError

import deltaduck
from deltaduck import Lake, UnsupportedFeatureError

MANAGED = {"delta.feature.catalogManaged": "supported"}


def folder(lake: Lake) -> Path:
    return Path(lake.table("t").detail()["location"])


def commits(lake: Lake) -> list[list[dict[str, Any]]]:
    files = sorted((folder(lake) / "_delta_log").glob("*.json"))
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


@pytest.fixture
def managed(lake: Lake) -> Lake:
    lake.write("t", [{"n": 1}], configuration=MANAGED | {"delta.checkpointInterval": "2"})
    lake.write("t", [{"n": 2}])
    lake.sql("DELETE FROM t WHERE n = 1")
    return lake


def test_its_protocol_and_its_commits_say_what_the_feature_asks_for(managed: Lake) -> None:
    first, *_ = found = commits(managed)
    (protocol,) = [action["protocol"] for action in first if "protocol" in action]
    assert (protocol["minReaderVersion"], protocol["minWriterVersion"]) == (3, 7)
    assert {"catalogManaged", "vacuumProtocolCheck"} <= {*protocol["readerFeatures"]}
    assert {"catalogManaged", "vacuumProtocolCheck", "inCommitTimestamp"} <= {*protocol["writerFeatures"]}
    (metadata,) = [action["metaData"] for action in first if "metaData" in action]
    assert metadata["configuration"]["delta.enableInCommitTimestamps"] == "true"
    assert "delta.feature.catalogManaged" not in metadata["configuration"]
    infos = [actions[0]["commitInfo"] for actions in found]
    assert all(info["txnId"] for info in infos)
    times = [info["inCommitTimestamp"] for info in infos]
    assert times == sorted({*times})
    assert len(times) == 3


def test_path_based_clients_are_kept_out_and_the_log_is_whole(managed: Lake) -> None:
    before = commits(managed)
    with pytest.raises(DeltaError, match=r"catalog-managed|catalogManaged"):
        deltalake.write_deltalake(folder(managed), pa.table({"n": [9]}), mode="append")
    with pytest.raises(DeltaError, match=r"catalog-managed|catalogManaged"):
        deltalake.DeltaTable(folder(managed)).to_pyarrow_table()
    with pytest.raises(UnsupportedFeatureError, match="managed by a catalog"):
        deltaduck.DeltaTable(str(folder(managed)))
    assert commits(managed) == before
    assert managed.mirror.verify("t").checkpoint == 2
    checksum = json.loads((folder(managed) / "_delta_log" / f"{2:020d}.crc").read_text())
    assert checksum["inCommitTimestampOpt"] == before[2][0]["commitInfo"]["inCommitTimestamp"]
    assert managed.sql("FROM t").fetchall() == [(2,)]
    assert managed.sql("FROM t AT (VERSION => 0)").fetchall() == [(1,)]


def test_commits_are_ratified_first_and_published_later(tmp_path: Path) -> None:
    with deltaduck.connect(tmp_path / "lake.sqlite", mirror="manual") as lake:
        lake.sql("CREATE TABLE t (n BIGINT) TBLPROPERTIES ('delta.feature.catalogManaged' = 'supported')")
        lake.write("t", [{"n": 1}])
        assert commits(lake) == []
        assert lake.sql("FROM t").fetchall() == [(1,)]
        ratified = lake.catalog.fetch("SELECT version, line FROM dl_log_lines ORDER BY version, action_order")
        lake.mirror.reconcile()
        lines = [(v, json.dumps(a)) for v, actions in enumerate(commits(lake)) for a in actions]
        assert [(v, json.loads(line)) for v, line in ratified] == [(v, json.loads(line)) for v, line in lines]


@pytest.mark.parametrize("open_lake", ["duckdb"], indirect=True)
def test_who_lost_the_catalog_takes_the_table_over(managed: Lake, tmp_path: Path) -> None:
    with deltaduck.connect(tmp_path / "other.duckdb") as other:
        with pytest.raises(UnsupportedFeatureError, match=r"managed by a catalog.*force=True"):
            other.import_table(folder(managed), "t")
        other.import_table(folder(managed), "t", force=True)
        assert other.sql("FROM t").fetchall() == [(2,)]
        assert other.write("t", [{"n": 3}]) == 3


@pytest.mark.parametrize("open_lake", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("ALTER TABLE t SET TBLPROPERTIES ('delta.enableInCommitTimestamps' = 'false')", "stays true"),
        ("ALTER TABLE t UNSET TBLPROPERTIES ('delta.enableInCommitTimestamps')", "stays true"),
        ("ALTER TABLE plain SET TBLPROPERTIES ('delta.feature.catalogManaged' = 'supported')", "is given to a new table"),
        (
            "CREATE TABLE x (n BIGINT) TBLPROPERTIES ('delta.feature.catalogManaged' = 'supported', "
            "'delta.enableInCommitTimestamps' = 'false')",
            "stays true",
        ),
        ("CREATE TABLE x (n BIGINT) TBLPROPERTIES ('delta.feature.icebergCompatV1' = 'supported')", "is not supported"),
    ],
)
def test_what_the_feature_does_not_allow(managed: Lake, statement: str, said: str) -> None:
    managed.create_table("plain", {"n": "BIGINT"})
    with pytest.raises(UnsupportedFeatureError, match=said):
        managed.sql(statement)
    managed.sql("ALTER TABLE t SET TBLPROPERTIES ('delta.feature.catalogManaged' = 'supported')")  # it is already
    assert managed.write("t", [{"n": 3}]) == managed.table("t").version()
