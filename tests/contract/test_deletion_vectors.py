"""Rows taken out by deletion vectors: the files stay, every reader sees the same rows, and nothing else is different."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars
import pyarrow as pa
import pytest
from deltalake import DeltaTable as Peer
from deltalake import QueryBuilder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deltaduck import Lake
from deltaduck.errors import CommitConflictError, DeltaduckError

ON = {"delta.enableDeletionVectors": "true"}
ROWS = pa.table({"id": pa.array(range(100), pa.int64()), "v": pa.array([i % 7 for i in range(100)], pa.int64())})


@pytest.fixture
def t(lake: Lake) -> Lake:
    """A lake with table t: one file of 100 rows, with deletion vectors."""
    lake.write("t", ROWS, configuration=ON)
    return lake


def bins(lake: Lake) -> list[Path]:
    return sorted(Path(lake.table("t").detail()["location"]).glob("*.bin"))


def ids(lake: Lake, at: str = "") -> list[int]:
    return [i for (i,) in lake.sql(f"SELECT id FROM t {at} ORDER BY id").fetchall()]


def peers_ids(lake: Lake, version: int) -> list[list[int]]:
    place = lake.table("t").detail()["location"]
    rust = QueryBuilder().register("t", Peer(place, version=version)).execute("SELECT id FROM t ORDER BY id")
    return [pa.table(rust)["id"].to_pylist(), polars.scan_delta(place, version=version).collect()["id"].sort().to_list()]


def test_a_delete_keeps_the_file_and_says_which_rows_are_gone(t: Lake) -> None:
    before = t.table("t").files()["path"].to_pylist()
    t.sql("DELETE FROM t WHERE id % 10 = 3")
    files = t.table("t").files()
    assert files["path"].to_pylist() == before
    assert files["dv_cardinality"].to_pylist() == [10]
    assert ids(t) == [i for i in range(100) if i % 10 != 3]
    assert t.table("t").detail()["num_rows"] == 90


def test_other_readers_see_every_version_as_we_do(t: Lake) -> None:
    t.sql("DELETE FROM t WHERE id % 10 = 3")
    t.sql("UPDATE t SET v = 70 WHERE id IN (5, 6)")
    t.sql("DELETE FROM t WHERE id BETWEEN 50 AND 60")
    for version in range(4):
        expected = ids(t, f"AT (VERSION => {version})")
        assert peers_ids(t, version) == [expected, expected]
    assert t.mirror.verify("t")


def test_a_second_delete_adds_to_the_first(t: Lake) -> None:
    t.sql("DELETE FROM t WHERE id < 3")
    t.sql("DELETE FROM t WHERE id = 50")
    assert t.table("t").files()["dv_cardinality"].to_pylist() == [4]
    assert ids(t, "AT (VERSION => 1)") == list(range(3, 100))


def test_a_file_that_loses_all_its_rows_goes(t: Lake) -> None:
    t.sql("DELETE FROM t WHERE id < 50")
    t.sql("DELETE FROM t WHERE id >= 50")
    assert t.table("t").files().num_rows == 0
    assert len(bins(t)) == 1


def test_statements_of_one_transaction_build_on_each_other(t: Lake) -> None:
    with t.begin() as tx:
        tx.sql("DELETE FROM t WHERE id < 10")
        tx.sql("UPDATE t SET id = id + 1000 WHERE id < 12")
        tx.sql("DELETE FROM t WHERE id = 1011 OR id = 99")
    assert ids(t) == [*range(12, 99), 1010]
    assert peers_ids(t, 1) == [ids(t), ids(t)]


def test_a_rollback_leaves_no_vector_behind(t: Lake) -> None:
    tx = t.begin()
    tx.sql("DELETE FROM t WHERE id < 10")
    tx.rollback()
    assert bins(t) == []
    assert ids(t) == list(range(100))


def test_a_failing_statement_leaves_no_vector_behind(t: Lake) -> None:
    with pytest.raises(DeltaduckError):
        t.sql("UPDATE t SET v = error('no')::BIGINT WHERE id < 10")
    assert bins(t) == []
    assert t.table("t").version() == 0


def test_compaction_writes_the_remaining_rows_and_restore_brings_all_back(t: Lake) -> None:
    t.sql("DELETE FROM t WHERE id < 10")
    t.write("t", ROWS.slice(0, 5))
    t.sql("OPTIMIZE t")
    assert t.table("t").files()["dv_cardinality"].to_pylist() == [None]
    assert ids(t) == sorted([*range(10, 100), *range(5)])
    t.sql("RESTORE t TO VERSION AS OF 0")
    assert ids(t) == list(range(100))
    t.sql("RESTORE t TO VERSION AS OF 1")
    assert ids(t) == list(range(10, 100))


def test_a_table_can_begin_with_them_at_any_time(lake: Lake) -> None:
    lake.write("t", ROWS)
    lake.sql("ALTER TABLE t SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
    lake.sql("DELETE FROM t WHERE id = 1")
    assert lake.table("t").files()["dv_cardinality"].to_pylist() == [1]
    detail = lake.table("t").detail()
    assert (detail["min_reader_version"], detail["min_writer_version"]) == (3, 7)
    assert "deletionVectors" in detail["table_features"]


def test_without_the_property_files_are_written_anew(lake: Lake) -> None:
    lake.write("t", ROWS)
    lake.sql("DELETE FROM t WHERE id = 1")
    assert bins(lake) == []
    assert lake.table("t").detail()["min_reader_version"] == 1


def test_old_files_that_lack_a_column_still_do_after_a_delete(lake: Lake) -> None:
    lake.write("t", ROWS, configuration=ON)
    lake.sql("ALTER TABLE t ADD COLUMN more INT")
    lake.sql("DELETE FROM t WHERE id = 1")
    assert lake.sql("SELECT DISTINCT more FROM t").fetchall() == [(None,)]


# --- two transactions at one file

UPSERT = (
    "MERGE INTO t USING (VALUES (8, 80), (208, 80)) AS s(id, v) ON t.id = s.id "
    "WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT (id, v) VALUES (s.id, s.v)"
)


@pytest.mark.parametrize("isolation", ["write_serializable", "serializable"])
def test_changes_of_other_rows_of_one_file_are_all_done(t: Lake, isolation: str) -> None:
    statements = ["DELETE FROM t WHERE id = 1", "DELETE FROM t WHERE id = 2", "UPDATE t SET v = 70 WHERE id = 3", UPSERT]
    transactions = [t.begin(isolation) for _ in statements]
    for tx, statement in zip(transactions, statements, strict=True):
        tx.sql(statement)
    for tx in transactions:
        tx.commit()
    assert ids(t) == [0, *range(3, 100), 208]
    assert t.sql("SELECT id, v FROM t WHERE v >= 70 ORDER BY id").fetchall() == [(3, 70), (8, 80), (208, 80)]
    assert t.table("t").files()["dv_cardinality"].to_pylist()[-1] == 4
    assert len(bins(t)) == 4
    for version in range(1, 5):
        assert peers_ids(t, version) == [ids(t, f"AT (VERSION => {version})")] * 2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("DELETE FROM t WHERE id IN (1, 2)", "DELETE FROM t WHERE id IN (2, 3)"),
        ("DELETE FROM t WHERE id = 8", UPSERT),
        ("UPDATE t SET v = 6 WHERE id = 1", "DELETE FROM t WHERE v = 6"),  # which should see the new row
        ("DELETE FROM t WHERE id = 8", UPSERT.replace("WHEN MATCHED", "WHEN MATCHED AND s.v < 9")),  # which would insert it
        ("OPTIMIZE t ZORDER BY (v)", "DELETE FROM t WHERE id = 1"),
    ],
)
def test_of_two_changes_to_the_same_rows_one_is_done(t: Lake, first: str, second: str) -> None:
    tx = t.begin()
    tx.sql(second)
    t.sql(first)
    rows = ids(t)
    with pytest.raises(CommitConflictError, match="expected version 0, found version 1"):
        tx.commit()
    assert ids(t) == rows
    assert len(bins(t)) == ("OPTIMIZE" not in first)


def test_threads_take_rows_out_of_one_file_and_none_fails(t: Lake, open_lake: Callable[[], Lake]) -> None:
    failures: list[BaseException] = []

    def take(lake: Lake, start: int) -> None:
        try:
            for i in range(start, start + 4):
                lake.sql(f"DELETE FROM t WHERE id = {i}")
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=take, args=(lake, 10 * n)) for n, lake in enumerate([t, t, open_lake()])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert ids(t) == [*range(4, 10), *range(14, 20), *range(24, 100)]
    assert t.table("t").version() == 12
    assert t.mirror.verify("t")


def test_two_changes_that_leave_no_row_of_a_file_take_it_out(t: Lake) -> None:
    tx = t.begin()
    tx.sql("DELETE FROM t WHERE id < 50")
    t.sql("DELETE FROM t WHERE id >= 50")
    tx.commit()
    assert t.table("t").files().num_rows == 0
    assert t.mirror.verify("t")


def test_rows_that_a_restore_brought_back_are_not_hidden_again(t: Lake) -> None:
    t.sql("DELETE FROM t WHERE id = 1")
    tx = t.begin()
    tx.sql("DELETE FROM t WHERE id = 2")
    t.sql("RESTORE t TO VERSION AS OF 0")
    with pytest.raises(CommitConflictError):
        tx.commit()
    assert ids(t) == list(range(100))


def test_imported_vectors_are_added_to(t: Lake, tmp_path: Path) -> None:
    t.sql("DELETE FROM t WHERE id < 10")
    place = t.table("t").detail()["location"]
    t.drop_table("t")
    t.import_table(place, "again")
    t.sql("DELETE FROM again WHERE id = 50")
    assert t.sql("SELECT count(*) FROM again").fetchall() == [(89,)]
    assert t.table("again").files()["dv_cardinality"].to_pylist() == [11]


def test_pruning_still_finds_what_is_there(t: Lake) -> None:
    t.sql("DELETE FROM t WHERE id = 0 OR id = 99")
    assert t.sql("SELECT count(*) FROM t WHERE id > 97").fetchall() == [(1,)]
    assert t.sql("SELECT count(*) FROM t WHERE id IS NULL").fetchall() == [(0,)]


@pytest.mark.parametrize("files", [3, 70])
def test_a_file_keeps_its_row_of_the_index(lake: Lake, files: int) -> None:
    """Few files or many, however often they are added again; the index has no more rows, and prunes as before."""
    lake.sql("CREATE TABLE t (id INT, p INT) PARTITIONED BY (p) TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
    lake.sql(f"INSERT INTO t SELECT i, i % {files} FROM range(1000) r(i)")
    before = lake.catalog.fetch("SELECT * FROM dl_skip_1")
    lake.sql("BEGIN; ALTER TABLE t ADD COLUMN more BIGINT; DELETE FROM t WHERE id < 500; COMMIT")
    assert lake.table("t").files()["dv_cardinality"].null_count == 0
    lake.sql("DELETE FROM t WHERE id < 501 AND p >= 0")
    lake.sql("ALTER TABLE t SET TBLPROPERTIES ('delta.enableRowTracking' = 'true')")
    after = lake.catalog.fetch("SELECT * FROM dl_skip_1")
    assert after == [(*row, None, None, None) for row in before]  # what a column holds is not known that came later
    for version in range(1, 5):
        assert lake.table("t").as_of(version).files("p = 2").num_rows == 1
        assert lake.sql(f"SELECT count(*) > 2 FROM t AT (VERSION => {version}) WHERE p = 2").fetchall() == [(True,)]
    assert lake.fsck() == []
    assert lake.table("t").rebuild_index() == len(before)
    assert lake.table("t").files("p = 2").num_rows == 1
    assert lake.fsck() == []
    lake.sql("DELETE FROM t WHERE id = 999")
    assert lake.table("t").files(f"p = {999 % files} AND id > 990").num_rows == 1
    assert lake.fsck() == []


def test_statistics_that_are_made_anew_are_what_counts_from_then_on(lake: Lake) -> None:
    lake.write("t", ROWS, configuration=ON | {"delta.dataSkippingNumIndexedCols": "0"})
    table = lake.table("t")
    lake.sql("DELETE FROM t WHERE id < 50")
    lake.sql("ALTER TABLE t SET TBLPROPERTIES ('delta.dataSkippingNumIndexedCols' = '32')")
    assert table.files("id > 1000").num_rows == 1
    lake.sql("ANALYZE TABLE t COMPUTE DELTA STATISTICS")
    assert table.files("id > 1000").num_rows == 0
    lake.sql("DELETE FROM t WHERE id + 0 = 70")
    assert table.files("id > 1000").num_rows == 0
    assert table.files("id = 71").num_rows == table.as_of(1).files("id > 1000").num_rows == 1
    assert lake.fsck() == []


def test_a_clone_is_pruned_by_what_the_index_of_its_source_says(t: Lake) -> None:
    t.sql("DELETE FROM t WHERE id = 50")
    t.sql("CREATE TABLE c SHALLOW CLONE t")
    assert t.table("c").files("id = 51").num_rows == 1
    assert t.table("c").files("id > 1000").num_rows == 0
    assert t.fsck() == []


TOGETHER = [
    ["ALTER TABLE t ADD COLUMN more BIGINT", "DELETE FROM t WHERE id < 50"],
    ["ALTER TABLE t DROP COLUMN v", "ALTER TABLE t ADD COLUMN v VARCHAR", "UPDATE t SET v = 'new' WHERE id < 50"],
    ["ALTER TABLE t ADD COLUMN more BIGINT", "ALTER TABLE t SET TBLPROPERTIES ('delta.enableRowTracking' = 'true')"],
    ["ALTER TABLE t ADD COLUMN more BIGINT", "ANALYZE TABLE t COMPUTE DELTA STATISTICS"],
]


@pytest.mark.parametrize("statements", [*TOGETHER, *(s[::-1] for s in TOGETHER if len(s) == 2)])
def test_files_that_are_added_again_lack_the_columns_of_this_commit(lake: Lake, statements: list[str]) -> None:
    lake.write("t", ROWS, configuration=ON | {"delta.columnMapping.mode": "name"})
    with lake.begin() as tx:
        for statement in statements:
            tx.sql(statement)
        inside = sorted(tx.sql("FROM t").fetchall())
    assert sorted(lake.sql("FROM t").fetchall()) == inside
    assert lake.fsck() == []


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["delete", "update", "merge", "insert"]), st.integers(0, 39), st.integers(0, 12)),
        min_size=1, max_size=6,
    )
)  # fmt: skip
def test_any_statements_leave_what_they_leave_in_duckdb(lake: Lake, steps: list[tuple[str, int, int]]) -> None:
    with duckdb.connect() as plain:
        lake.write("t", ROWS.slice(0, 40), mode="overwrite", configuration=ON) if lake.find("t") is None else lake.write(
            "t", ROWS.slice(0, 40), mode="overwrite"
        )
        rows = ROWS.slice(0, 40)  # noqa: F841  # DuckDB finds it here
        plain.execute("CREATE TABLE t AS FROM rows")
        for kind, start, length in steps:
            statement = {
                "delete": f"DELETE FROM t WHERE id BETWEEN {start} AND {start + length}",
                "update": f"UPDATE t SET v = v + 100 WHERE id BETWEEN {start} AND {start + length}",
                "merge": f"MERGE INTO t USING (SELECT range + {start} AS id, 7 AS v FROM range({length})) AS s ON t.id = s.id "
                "WHEN MATCHED AND s.id % 2 = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET v = s.v "
                "WHEN NOT MATCHED THEN INSERT (id, v) VALUES (s.id, s.v)",
                "insert": f"INSERT INTO t SELECT range + {100 + start}, 1 FROM range({length})",
            }[kind]
            lake.sql(statement)
            plain.execute(statement)
        assert sorted(lake.sql("FROM t").fetchall()) == sorted(plain.execute("FROM t").fetchall())


def test_a_clone_names_vectors_where_they_are(lake: Lake) -> None:
    lake.sql("CREATE TABLE t (n INT) TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
    lake.sql("INSERT INTO t SELECT range FROM range(10); INSERT INTO t SELECT range FROM range(10, 20)")
    lake.sql("DELETE FROM t WHERE n % 5 = 0; INSERT INTO t VALUES (100)")
    lake.sql("CREATE TABLE c SHALLOW CLONE t; DELETE FROM t WHERE n < 100; DELETE FROM c WHERE n % 5 = 1")
    lake.sql("ALTER TABLE t SET TBLPROPERTIES ('delta.deletedFileRetentionDuration' = 'interval 0 hours'); VACUUM t FULL")
    assert lake.sql("SELECT list(n ORDER BY n) FROM c AT (VERSION => 0)").fetchall() == [
        ([n for n in range(20) if n % 5] + [100],)
    ]  # fmt: skip
    left = [n for n in range(20) if n % 5 > 1] + [100]
    assert lake.sql("SELECT list(n ORDER BY n) FROM c").fetchall() == [(left,)]
    theirs = QueryBuilder().register("c", Peer(lake.table("c").detail()["location"])).execute("SELECT n FROM c ORDER BY n")
    assert pa.table(theirs.read_all())["n"].to_pylist() == left
    assert [row for row in lake.fsck() if row["level"] != "note"] == []
    assert lake.mirror.verify("c")
    lake.sql("CREATE TABLE d SHALLOW CLONE c; OPTIMIZE c; RESTORE TABLE c TO VERSION AS OF 0")
    assert lake.sql("SELECT count(*) FROM c").fetchall() == [(17,)]
    assert lake.sql("SELECT list(n ORDER BY n) FROM d").fetchall() == [(left,)]


def test_a_column_that_was_null_all_over(lake: Lake) -> None:
    """Of its files the catalog knows no minimum: SQLite answers such a column without a type."""
    lake.sql(
        "CREATE TABLE t (k INT, v DOUBLE, g VARCHAR) PARTITIONED BY (g) TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')"
    )
    lake.sql("INSERT INTO t VALUES (1, NULL, NULL), (2, NULL, NULL)")
    lake.sql("UPDATE t SET v = 1.5, g = 'a' WHERE k = 1")
    assert lake.sql("FROM t ORDER BY k").fetchall() == [(1, 1.5, "a"), (2, None, None)]
