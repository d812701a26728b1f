"""Row tracking: ``_metadata`` says where a row stands and which it is, and it stays that row when its file is written anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deltaduck import Lake

MATERIALIZED = "_row-id-col-1"


def tracked(place: Path) -> str:
    """A table that tracks rows: one file whose ids follow from its base, one that was rewritten and kept them."""
    (place / "_delta_log").mkdir(parents=True)
    pq.write_table(pa.table({"v": ["a", "b"]}), place / "fresh.parquet")
    pq.write_table(pa.table({"v": ["c", "d"], MATERIALIZED: [7, None]}), place / "moved.parquet")
    schema = {"type": "struct", "fields": [{"name": "v", "type": "string", "nullable": True, "metadata": {}}]}
    configuration = {
        "delta.enableRowTracking": "true",
        "delta.rowTracking.materializedRowIdColumnName": MATERIALIZED,
        "delta.rowTracking.materializedRowCommitVersionColumnName": "_row-commit-version-col-1",
    }
    actions = [
        {"protocol": {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": ["rowTracking", "domainMetadata"]}},
        {"metaData": {"id": "1", "format": {"provider": "parquet", "options": {}}, "schemaString": json.dumps(schema),
                      "partitionColumns": [], "configuration": configuration}},
    ]  # fmt: skip
    for name, base in (("fresh", 100), ("moved", 200)):
        actions.append(
            {"add": {"path": f"{name}.parquet", "partitionValues": {}, "size": (place / f"{name}.parquet").stat().st_size,
                     "modificationTime": 1, "dataChange": True, "baseRowId": base, "defaultRowCommitVersion": 3}}
        )  # fmt: skip
    (place / "_delta_log" / f"{0:020d}.json").write_text("\n".join(json.dumps(action) for action in actions))
    return str(place)


def test_rows_have_the_ids_that_their_file_gives_them_or_that_they_kept(lake: Lake, tmp_path: Path) -> None:
    lake.import_table(tracked(tmp_path / "t"), "t")
    rows = lake.sql("SELECT v, _metadata.row_id, _metadata.row_commit_version FROM t ORDER BY v").fetchall()
    assert rows == [("a", 100, 3), ("b", 101, 3), ("c", 7, 3), ("d", 201, 3)]


def test_a_row_says_which_file_holds_it(lake: Lake) -> None:
    lake.write("t", [{"id": 1}, {"id": 2}])
    ((path, index, row_id),) = lake.sql(
        "SELECT t._metadata.file_path, _metadata.row_index, _metadata.row_id FROM t WHERE id = 2"
    ).fetchall()
    assert (Path(path).is_file(), index, row_id) == (True, 1, None)


def test_it_is_no_column_of_the_table(lake: Lake) -> None:
    lake.write("t", [{"id": 1}])
    assert lake.sql("FROM t").columns == ["id"]


# --- writing

ON = {"delta.enableRowTracking": "true"}
ROWS = pa.table({"id": pa.array(range(6), pa.int64()), "v": pa.array([0] * 6, pa.int64())})
UPSERT = (
    "MERGE INTO t USING (VALUES (5, 50), (30, 30)) AS s(id, v) ON t.id = s.id "
    "WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT (id, v) VALUES (s.id, s.v)"
)


def identities(lake: Lake, table: str = "t") -> dict[int, tuple[int, int]]:
    """id -> (row id, the version that last changed the row)"""
    rows = lake.sql(f"SELECT id, _metadata.row_id, _metadata.row_commit_version FROM {table}").fetchall()
    found = {row[0]: row[1:] for row in rows}
    assert len({row_id for row_id, _ in found.values()} - {None}) == len(rows)  # each its own
    return found


@pytest.mark.parametrize("vectors", [False, True], ids=["files", "vectors"])
def test_rows_stay_themselves_when_their_files_are_written_anew(lake: Lake, vectors: bool) -> None:
    lake.write("t", ROWS, configuration=ON | ({"delta.enableDeletionVectors": "true"} if vectors else {}))
    lake.write("t", pa.table({"id": [20], "v": [0]}))
    wanted = {**{i: (i, 0) for i in range(6)}, 20: (6, 1)}
    assert identities(lake) == wanted
    lake.sql("UPDATE t SET v = v + 1 WHERE id IN (3, 20)")
    lake.sql("DELETE FROM t WHERE id = 4")
    lake.sql(UPSERT)
    del wanted[4]
    wanted |= {3: (3, 2), 20: (6, 2), 5: (5, 4)}
    now = identities(lake)
    assert now.pop(30)[1] == 4
    assert now == wanted
    with lake.begin() as tx:  # a row of this transaction's own, changed before it is committed
        tx.sql("INSERT INTO t VALUES (40, 0)")
        tx.sql("UPDATE t SET v = 9 WHERE id IN (40, 1)")
    assert {i: version for i, (_, version) in identities(lake).items() if version == 5} == {40: 5, 1: 5}
    assert identities(lake)[1] == (1, 5)
    before = identities(lake)
    lake.write("t", pa.table({"id": [50], "v": [0]}))
    lake.sql("OPTIMIZE t")
    lake.sql("OPTIMIZE t ZORDER BY (v)")
    after = identities(lake)
    del after[50]
    assert after == before
    assert lake.mirror.verify("t")


def test_restored_files_have_the_ids_that_they_had(lake: Lake, log: Callable[[Lake, str, int], list[dict[str, Any]]]) -> None:
    lake.write("t", ROWS)
    lake.sql("ALTER TABLE t SET TBLPROPERTIES ('delta.enableRowTracking' = 'true')")
    lake.sql("DELETE FROM t WHERE id = 3")
    assert lake.sql("SELECT max(_metadata.row_id) FROM t").fetchall() == [(5,)]
    for version in (0, 1):  # before rows were tracked, and after
        lake.sql(f"RESTORE t TO VERSION AS OF {version}")
        (add,) = [a["add"] for a in log(lake, "t", lake.table("t").version()) if "add" in a] or [None]
        assert add is None or (add["baseRowId"], add["defaultRowCommitVersion"]) == (0, 1)
    assert identities(lake) == {i: (i, 1) for i in range(6)}
    assert log(lake, "t", 2)[0]["commitInfo"]["tags"] == {"delta.rowTracking.preserved": "true"}


def test_appends_at_the_same_time_get_ids_of_their_own(lake: Lake) -> None:
    lake.write("t", ROWS, configuration=ON)
    one, other = lake.begin(), lake.begin()
    one.write("t", pa.table({"id": [10, 11], "v": [0, 0]}))
    other.write("t", pa.table({"id": [20], "v": [0]}))
    other.commit()
    one.commit()
    assert identities(lake) == {**{i: (i, 0) for i in range(6)}, 20: (6, 1), 10: (7, 2), 11: (8, 2)}


def test_a_table_can_begin_to_track_its_rows(lake: Lake, log: Callable[[Lake, str, int], list[dict[str, Any]]]) -> None:
    lake.write("t", ROWS, configuration={"delta.enableDeletionVectors": "true"})
    lake.write("t", pa.table({"id": [20], "v": [0]}))
    lake.sql("DELETE FROM t WHERE id = 1")
    with lake.begin() as tx:
        tx.sql("ALTER TABLE t SET TBLPROPERTIES ('delta.enableRowTracking' = 'true')")
        tx.sql("DELETE FROM t WHERE id = 2")
    assert set(identities(lake)) == {0, 3, 4, 5, 20}
    actions = log(lake, "t", 3)
    assert {a["add"]["path"] for a in actions if "add" in a} == set(lake.table("t").files()["path"].to_pylist())
    assert all("baseRowId" in a["add"] and a["add"]["defaultRowCommitVersion"] == 3 for a in actions if "add" in a)
    assert len([a for a in actions if "remove" in a]) == 1  # of the file that lost a row, under its old vector
    assert {"rowTracking", "domainMetadata"} <= {*lake.table("t").detail()["table_features"]}
    before = identities(lake)
    lake.sql("OPTIMIZE t")
    assert identities(lake) == before
    place = lake.table("t").detail()["location"]
    rows = pa.table(deltalake.QueryBuilder().register("t", deltalake.DeltaTable(place)).execute("SELECT id FROM t"))
    assert sorted(rows["id"].to_pylist()) == [0, 3, 4, 5, 20]
    assert lake.mirror.verify("t")


def test_an_imported_table_and_a_clone_go_on_counting(lake: Lake, tmp_path: Path) -> None:
    lake.import_table(tracked(tmp_path / "imported"), "imported")
    lake.sql("INSERT INTO imported VALUES ('e')")
    ids = dict(lake.sql("SELECT v, _metadata.row_id FROM imported").fetchall())
    assert ids.pop("e") > 201
    assert ids == {"a": 100, "b": 101, "c": 7, "d": 201}
    lake.write("t", ROWS, configuration=ON)
    lake.sql("CREATE TABLE copy SHALLOW CLONE t")
    lake.sql("INSERT INTO copy VALUES (9, 9)")
    assert {i: row for i, (row, _) in identities(lake, "copy").items()} == {**{i: i for i in range(6)}, 9: 6}
