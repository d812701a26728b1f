"""Clustered tables: OPTIMIZE lays rows near each other by columns that the table names, and leaves alone what lies so already."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from deltaduck import Lake
from deltaduck.errors import SchemaMismatchError, UnsupportedFeatureError

Log = Callable[[Lake, str, int], list[dict[str, Any]]]


def domain(actions: list[dict[str, Any]]) -> Any:
    """The clustering columns that a commit writes."""
    found = [a["domainMetadata"] for a in actions if "domainMetadata" in a]
    assert all(d["domain"] == "delta.clustering" and d["removed"] is False for d in found)
    return [json.loads(d["configuration"])["clusteringColumns"] for d in found]


def providers(actions: list[dict[str, Any]]) -> set[str | None]:
    return {a["add"].get("clusteringProvider") for a in actions if "add" in a}


def rows(lake: Lake, first: int, count: int) -> None:
    """Rows whose x and y have no order."""
    values = f"range AS id, hash(range) % 1000 AS x, hash(range + 7) % 1000 AS y FROM range({first}, {first + count})"
    lake.sql(f"INSERT INTO t SELECT {values}")


@pytest.fixture
def t(lake: Lake) -> Lake:
    lake.sql("CREATE TABLE t (id BIGINT, x BIGINT, y BIGINT) CLUSTER BY (x, y)")
    return lake


def test_what_the_log_says(t: Lake, log: Log) -> None:
    actions = log(t, "t", 0)
    assert actions[1]["protocol"] == {
        "minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": ["clustering", "domainMetadata"],
    }  # fmt: skip
    assert domain(actions) == [[["x"], ["y"]]]
    rows(t, 0, 10)
    assert providers(log(t, "t", 1)) == {None}
    t.sql("OPTIMIZE t")
    assert providers(log(t, "t", 2)) == {"liquid"}
    assert all(a[kind]["dataChange"] is False for a in log(t, "t", 2) for kind in ("add", "remove") if kind in a)


def test_optimize_sorts_what_is_new_and_leaves_the_rest(t: Lake) -> None:
    rows(t, 0, 300_000)
    t.sql("ALTER TABLE t SET TBLPROPERTIES ('delta.targetFileSize' = '200kb'); OPTIMIZE t")
    sorted_files = set(t.table("t").files()["path"].to_pylist())
    assert len(sorted_files) >= 2  # a file is no smaller than a row group
    assert t.table("t").files("x < 100 AND y < 100").num_rows < len(sorted_files)
    assert t.table("t").optimize()["numFilesAdded"] == 0
    rows(t, 300_000, 1000)
    rows(t, 301_000, 1000)
    assert t.table("t").optimize.cluster()["numFilesRemoved"] == 2
    assert sorted_files < set(t.table("t").files()["path"].to_pylist())
    assert t.sql("SELECT count(*), count(DISTINCT id) FROM t").fetchall() == [(302_000, 302_000)]
    t.sql("OPTIMIZE t FULL")
    assert not sorted_files & set(t.table("t").files()["path"].to_pylist())
    assert t.sql("SELECT count(*), sum(id) FROM t").fetchall() == [(302_000, 302_000 * 301_999 // 2)]
    assert not t.fsck()


def test_other_columns_and_none(t: Lake, log: Log) -> None:
    rows(t, 0, 100)
    t.sql("ALTER TABLE t CLUSTER BY (id); OPTIMIZE t")
    assert domain(log(t, "t", 2)) == [[["id"]]]
    assert t.table("t").files("id = 77").num_rows == 1
    t.table("t").alter.cluster_by(None)
    assert domain(log(t, "t", 4)) == [[]]
    t.sql("OPTIMIZE t ZORDER BY (x)")
    t.sql("RESTORE TABLE t TO VERSION AS OF 3")
    assert domain(log(t, "t", 6)) == [[["id"]]]


def test_a_table_that_is_there_and_names_that_change(lake: Lake, log: Log) -> None:
    lake.sql("CREATE TABLE t (x BIGINT, s STRUCT(y INT, z INT)) TBLPROPERTIES ('delta.columnMapping.mode' = 'name')")
    lake.sql("INSERT INTO t SELECT range, {'y': range % 7, 'z': 1} FROM range(100)")
    lake.sql("ALTER TABLE t CLUSTER BY (s.y, x); ALTER TABLE t RENAME COLUMN s.y TO why; ALTER TABLE t RENAME COLUMN x TO ex")
    ((inner, outer),) = domain(log(lake, "t", 2))
    assert [len(inner), len(outer)] == [2, 1]
    assert all(name.startswith("col-") for name in (*inner, *outer))
    lake.sql("OPTIMIZE t; INSERT INTO t VALUES (100, {'why': 1, 'z': 1}); OPTIMIZE t")
    assert lake.sql("SELECT count(*), sum(ex), sum(s.why) FROM t").fetchall() == [(101, 5050, 296)]
    for statement, says in (("DROP COLUMN ex", "clustered by 'ex'"), ("DROP COLUMN s", "clustered by 's.why'")):
        with pytest.raises(SchemaMismatchError, match=says):
            lake.sql(f"ALTER TABLE t {statement}")
    with pytest.raises(SchemaMismatchError, match=r"clustered by 's\.why'"):
        lake.write("t", pa.table({"new": [1]}), mode="overwrite", schema_mode="overwrite")
    lake.sql("ALTER TABLE t DROP COLUMN s.z; ALTER TABLE t CLUSTER BY NONE; ALTER TABLE t DROP COLUMN s")


def test_as_select_clone_and_import(lake: Lake, tmp_path: Path, log: Log) -> None:
    lake.sql("CREATE TABLE t CLUSTER BY (n) AS SELECT range AS n FROM range(10); CREATE TABLE c SHALLOW CLONE t")
    shutil.copytree(lake.table("t").detail()["location"], tmp_path / "i")
    lake.import_table(tmp_path / "i")
    lake.create_table("p", {"n": "BIGINT"}, cluster_by=["n"])
    assert domain(log(lake, "t", 0)) == domain(log(lake, "c", 0)) == domain(log(lake, "p", 0)) == [[["n"]]]
    lake.sql("OPTIMIZE i; OPTIMIZE c; DELETE FROM i WHERE n = 3; OPTIMIZE i")
    assert providers(log(lake, "i", 1)) == providers(log(lake, "c", 1)) == {"liquid"}
    assert lake.sql("SELECT sum(n) FROM i").fetchall() == [(42,)]


def test_what_cannot_be_clustered(lake: Lake) -> None:
    lake.sql("CREATE TABLE t (a INT, b INT, c INT, d INT, e INT, f BOOLEAN, l INT[])")
    lake.sql("CREATE TABLE p (a INT, b INT) PARTITIONED BY (b)")
    for statement, error, says in (
        ("ALTER TABLE t CLUSTER BY (nothing)", SchemaMismatchError, "no column 'nothing' to cluster by"),
        ("ALTER TABLE t CLUSTER BY (f)", SchemaMismatchError, "cannot be clustered by 'f'"),
        ("ALTER TABLE t CLUSTER BY (l)", SchemaMismatchError, "cannot be clustered by 'l'"),
        ("ALTER TABLE t CLUSTER BY (a, A)", SchemaMismatchError, "named twice"),
        ("ALTER TABLE t CLUSTER BY (a, b, c, d, e)", SchemaMismatchError, "4 columns .* not 5"),
        ("ALTER TABLE p CLUSTER BY (a)", SchemaMismatchError, "either partitioned or clustered"),
        ("CREATE TABLE n (a INT, b INT) PARTITIONED BY (a) CLUSTER BY (b)", SchemaMismatchError, "either partitioned or"),
        ("OPTIMIZE t FULL", SchemaMismatchError, "not clustered"),
        ("OPTIMIZE t FULL ZORDER BY (a)", UnsupportedFeatureError, "FULL is of all files"),
    ):
        with pytest.raises(error, match=says):
            lake.sql(statement)
    assert [lake.table(n).version() for n in "tp"] == [0, 0]
    lake.sql("ALTER TABLE t CLUSTER BY (a, b)")
    with pytest.raises(SchemaMismatchError, match="clustered by a, b: OPTIMIZE it without ZORDER BY"):
        lake.sql("OPTIMIZE t ZORDER BY (c)")
    with lake.begin() as tx:
        tx.sql("INSERT INTO t (a) VALUES (1); INSERT INTO t (a) VALUES (2); OPTIMIZE t")
    assert lake.sql("SELECT sum(a) FROM t").fetchall() == [(3,)]
