"""VACUUM, RESTORE, shallow clones and converted directories."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import deltaduck
from deltaduck import Lake
from deltaduck.errors import (
    CommitConflictError,
    ConstraintViolationError,
    QueryError,
    SchemaMismatchError,
    StorageError,
    TableExistsError,
    UnsupportedFeatureError,
    VersionNotFoundError,
)

NO_RETENTION = "TBLPROPERTIES ('delta.deletedFileRetentionDuration' = 'interval 0 hours')"


@pytest.fixture
def t(lake: Lake) -> Lake:
    """`t`, whose versions 1 to 4 are an append, an overwrite, an append and a delete; nothing is retained."""
    lake.sql(f"CREATE TABLE t (n INT) {NO_RETENTION}")
    lake.sql("INSERT INTO t VALUES (1), (2)")
    lake.write("t", pa.table({"n": [3]}), mode="overwrite")
    lake.sql("INSERT INTO t VALUES (4)")
    lake.sql("DELETE FROM t WHERE n = 3")
    time.sleep(0.005)
    return lake


def place(lake: Lake, table: str = "t") -> Path:
    return Path(lake.table(table).detail()["location"])


def on_disk(lake: Lake, table: str = "t") -> set[str]:
    root = place(lake, table)
    return {str(p.relative_to(root)) for p in root.rglob("*.parquet") if "_delta_log" not in p.parts}


def numbers(lake: Lake, table: str = "t") -> list[int]:
    return [n for (n,) in lake.sql(f"SELECT n FROM {table} ORDER BY n").fetchall()]


# --- VACUUM


def test_a_dry_run_only_tells(t: Lake) -> None:
    before = on_disk(t)
    assert len(t.table("t").vacuum()) == 2
    assert len(t.sql("VACUUM t DRY RUN").fetchall()) == 2
    assert on_disk(t) == before
    assert numbers(t, "t AT (VERSION => 1)") == [1, 2]


def test_what_no_version_within_the_retention_needs_is_deleted(t: Lake) -> None:
    gone = t.table("t").vacuum(dry_run=False)
    assert len(gone) == 2
    assert on_disk(t) == set(t.table("t").files()["path"].to_pylist())
    assert numbers(t) == [4]
    assert t.table("t").vacuum() == []  # it is on record
    assert t.mirror.verify("t")


def test_old_versions_say_that_their_files_are_deleted(t: Lake) -> None:
    t.sql("VACUUM t")
    with pytest.raises(
        VersionNotFoundError, match=r"'t' cannot be read at version 1: VACUUM has deleted 1 .* from 4 on are whole"
    ):
        numbers(t, "t AT (VERSION => 1)")
    with pytest.raises(VersionNotFoundError, match="VACUUM"):
        t.table("t").as_of(version=3).to_arrow()
    assert t.sql("SELECT n FROM t AT (VERSION => 3) WHERE n = 4").fetchall() == [(4,)]  # asks for none of them
    assert numbers(t, "t AT (VERSION => 4)") == [4]


def test_the_retention_is_kept(lake: Lake) -> None:
    lake.write("t", pa.table({"n": [1]}))
    lake.write("t", pa.table({"n": [2]}), mode="overwrite")
    assert lake.table("t").vacuum() == []
    for ask in (lambda: lake.table("t").vacuum(0), lambda: lake.sql("VACUUM t RETAIN 1 HOURS")):
        with pytest.raises(ConstraintViolationError, match=r"below the 168 of delta.deletedFileRetentionDuration"):
            ask()
    time.sleep(0.005)
    assert len(lake.table("t").vacuum(0, enforce_retention_duration=False)) == 1


def test_versions_may_be_kept(t: Lake) -> None:
    t.table("t").vacuum(dry_run=False, keep_versions=[1])
    assert numbers(t, "t AT (VERSION => 1)") == [1, 2]
    with pytest.raises(VersionNotFoundError, match="VACUUM"):
        numbers(t, "t AT (VERSION => 2)")
    assert len(t.table("t").vacuum()) == 1


def test_a_file_that_came_back_stays(t: Lake) -> None:
    t.sql("RESTORE TABLE t TO VERSION AS OF 1")
    time.sleep(0.005)
    t.sql("VACUUM t")
    assert numbers(t) == [1, 2]


def test_a_full_vacuum_finds_what_crashed_writers_left(t: Lake) -> None:
    root = place(t)
    for name in ("part-orphan.parquet", "day=1/orphan.parquet", ".part-x.parquet.0123.tmp", "_hidden/x.parquet", "_notes.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    (root / "inner" / "_delta_log").mkdir(parents=True)
    (root / "inner" / "_delta_log" / f"{0:020}.json").write_bytes(b"another table's")
    (root / "inner" / "x.parquet").write_bytes(b"another table's")
    os.symlink(root.parent, root / "link")
    (root.parent / "outside.parquet").write_bytes(b"x")
    for path in root.rglob("*"):
        os.utime(path, (time.time() - 3600,) * 2, follow_symlinks=False)
    (root / "being-written.parquet").write_bytes(b"x")
    os.utime(root / "being-written.parquet", (time.time() + 60,) * 2)
    assert len(t.table("t").vacuum()) == 2
    found = t.table("t").vacuum(dry_run=False, full=True)
    assert {".part-x.parquet.0123.tmp", "day=1/orphan.parquet", "part-orphan.parquet"} < {*found}
    assert len(found) == 5
    kept = {"being-written.parquet", "_hidden/x.parquet", "inner/x.parquet", *t.table("t").files()["path"].to_pylist()}
    assert {
        str(p.relative_to(root)) for p in root.rglob("*.parquet") if "_delta_log" not in p.parts and "link" not in p.parts
    } == kept
    assert (root / "_notes.txt").exists()
    assert (root.parent / "outside.parquet").exists()
    assert numbers(t) == [4]


def test_names_are_decoded_once(lake: Lake) -> None:
    lake.sql(f"CREATE TABLE t (n INT, p VARCHAR) PARTITIONED BY (p) {NO_RETENTION}")
    rows = pa.table({"n": pa.array([1, 2, 3], pa.int32()), "p": ["a b", "50%25", "ü/ö=x"]})
    lake.write("t", rows)
    lake.write("t", rows, mode="overwrite")
    time.sleep(0.005)
    assert len(lake.table("t").vacuum(dry_run=False)) == 3
    assert len(on_disk(lake)) == 3
    assert lake.sql("SELECT list(n ORDER BY n) FROM t").fetchall() == [([1, 2, 3],)]
    assert lake.table("t").vacuum(full=True) == []


def test_nothing_outside_of_the_table_is_deleted(t: Lake, tmp_path: Path) -> None:
    victims = [tmp_path / "victim.parquet", place(t) / "_delta_log" / "victim.parquet"]
    for victim in victims:
        victim.write_bytes(b"x")
    paths = [
        "../../victim.parquet",
        str(victims[0]),
        f"file://{victims[0]}",
        "%2E%2E/%2E%2E/victim.parquet",
        "_delta_log/victim.parquet",
    ]
    for i, path in enumerate(paths):
        t.catalog.execute(
            "INSERT INTO dl_add_files (table_id, version, action_order, removed_version, path, partition_values, size, "
            f"modification_time, data_change) VALUES (1, 1, {100 + i}, 2, '{path}', '{{}}', 1, 0, TRUE)"
        )
    assert len(t.table("t").vacuum(dry_run=False)) == 2
    assert all(victim.exists() for victim in victims)


def test_vacuum_is_no_part_of_a_transaction(t: Lake) -> None:
    with pytest.raises(UnsupportedFeatureError, match="no transaction can take back"), t.begin() as tx:
        tx.sql("VACUUM t")
    with pytest.raises(QueryError, match="expected HOURS"):
        t.sql("VACUUM t RETAIN 5 DAYS")


# --- RESTORE


def test_a_table_is_what_it_was(t: Lake) -> None:
    assert t.table("t").restore(1) == {"numRemovedFile": 1, "numRestoredFile": 1}
    assert numbers(t) == [1, 2]
    assert t.sql("RESTORE TABLE t TO VERSION AS OF 3").fetchall() == [(1, 2)]
    assert numbers(t) == [3, 4]
    assert t.table("t").files("n = 4").num_rows == 1  # the index knows the files that came back
    assert [numbers(t, f"t AT (VERSION => {v})") for v in range(7)] == [[], [1, 2], [3], [3, 4], [4], [1, 2], [3, 4]]
    assert t.mirror.verify("t")
    assert t.table("t").history(1)[0]["operation"] == "RESTORE"


def test_by_time(t: Lake) -> None:
    at = t.table("t").history()[2]["committed"]
    t.sql(f"RESTORE t TO TIMESTAMP AS OF '{at.isoformat()}'")
    assert numbers(t) == [3]
    t.table("t").restore(at - dt.timedelta(milliseconds=1))
    assert numbers(t) == [1, 2]
    with pytest.raises(VersionNotFoundError):
        t.sql("RESTORE t TO TIMESTAMP AS OF '2001-01-01'")
    with pytest.raises(VersionNotFoundError, match="no version 99"):
        t.table("t").restore(99)


def test_schema_and_properties_come_back_and_the_protocol_stays(lake: Lake) -> None:
    lake.write("t", pa.table({"n": [1]}))
    lake.sql("ALTER TABLE t ADD COLUMN more INT; ALTER TABLE t ADD CONSTRAINT c CHECK (n > 0); INSERT INTO t VALUES (2, 2)")
    lake.table("t").restore(0)
    assert lake.sql("FROM t").fetchall() == [(1,)]
    d = lake.table("t").detail()
    assert (d["properties"], d["min_writer_version"]) == ({}, 7)
    lake.table("t").restore(3)
    assert lake.sql("FROM t ORDER BY n").fetchall() == [(1, None), (2, 2)]
    lake.table("t").restore(0, protocol_downgrade_allowed=True)
    assert lake.table("t").detail()["min_writer_version"] == 2


def test_files_that_are_deleted_are_listed(t: Lake) -> None:
    (gone,) = t.table("t").as_of(version=1).files()["path"].to_pylist()
    t.sql("VACUUM t")
    for target in (1, 3):
        with pytest.raises(
            StorageError, match=f"'t' cannot be restored to version {target}: 1 of its files are deleted: "
        ) as caught:
            t.table("t").restore(target)
        assert (gone in str(caught.value)) == (target == 1)
    assert t.table("t").version() == 4
    assert t.table("t").restore(3, ignore_missing_files=True) == {"numRemovedFile": 0, "numRestoredFile": 0}


def test_a_restore_has_seen_every_other_commit(t: Lake) -> None:
    tx = t.begin()
    tx.sql("RESTORE TABLE t TO VERSION AS OF 1")
    t.sql("DELETE FROM t")
    with pytest.raises(CommitConflictError):
        tx.commit()


def test_a_restored_table_goes_on_in_the_same_transaction(t: Lake) -> None:
    with t.begin() as tx:
        tx.sql("RESTORE TABLE t TO VERSION AS OF 3")
        tx.sql("DELETE FROM t WHERE n = 3; INSERT INTO t VALUES (5)")
        assert tx.sql("SELECT list(n ORDER BY n) FROM t").fetchall() == [([4, 5],)]
    assert numbers(t) == [4, 5]
    assert t.mirror.verify("t")


# --- SHALLOW CLONE


def test_a_clone_goes_its_own_way(t: Lake, open_lake: Callable[[], Lake]) -> None:
    assert t.sql("CREATE TABLE c SHALLOW CLONE t VERSION AS OF 3").fetchall() == [(2, 3)]
    assert on_disk(t, "c") == set()
    t.sql("INSERT INTO c VALUES (9)")
    t.sql("DELETE FROM c WHERE n = 3")
    t.sql("DELETE FROM t")
    assert numbers(t, "c") == [4, 9]
    assert numbers(t, "c AT (VERSION => 0)") == [3, 4]
    assert t.sql("SELECT count(*) FROM t WHERE n NOT IN (SELECT n FROM c)").fetchall() == [(0,)]
    assert t.table("c").files("n = 4").num_rows == 1
    assert t.mirror.verify("c")
    t.sql("CREATE TABLE IF NOT EXISTS c SHALLOW CLONE t")
    with pytest.raises(TableExistsError):
        t.sql("CREATE TABLE c SHALLOW CLONE t")
    t.close()
    assert numbers(open_lake(), "c") == [4, 9]


def test_a_vacuum_leaves_what_a_clone_needs(t: Lake) -> None:
    t.sql("CREATE TABLE c SHALLOW CLONE t VERSION AS OF 1")
    t.sql("VACUUM t")
    assert numbers(t, "c") == [1, 2]
    t.sql("INSERT INTO c VALUES (7)")
    t.table("c").optimize.compact()  # the clone's rows are its own now
    assert numbers(t, "c") == [1, 2, 7]
    t.sql("VACUUM c FULL")
    assert t.sql("SELECT count(*) FROM c AT (VERSION => 2)").fetchall() == [(3,)]
    assert numbers(t) == [4]


def test_a_clone_of_a_clone_and_of_partitions(lake: Lake, days: pa.Table) -> None:
    lake.write("t", days, partition_by="day")
    lake.sql("CREATE TABLE c SHALLOW CLONE t; CREATE TABLE d SHALLOW CLONE c")
    rows = [*zip(*days.to_pydict().values(), strict=True)]
    assert lake.sql("SELECT day, n FROM d ORDER BY n").fetchall() == rows
    assert lake.table("d").files("day = 'mon'").num_rows == 1


def test_a_deep_clone_is_refused_with_the_way(t: Lake) -> None:
    with pytest.raises(UnsupportedFeatureError, match="CREATE TABLE d AS SELECT"):
        t.sql("CREATE TABLE d DEEP CLONE t")


# --- CONVERT

EVERY_TYPE = pa.table(
    {
        "id": [1, 2, 3], "name": ["Ada", None, "x" * 100],
        "price": pa.array([Decimal("1.50"), None, Decimal("-2.25")], pa.decimal128(10, 2)),
        "at": pa.array([dt.datetime(2024, 1, d, 12, tzinfo=dt.UTC) for d in (1, 2, 3)], pa.timestamp("us", tz="UTC")),
        "on": [dt.date(2024, 1, 1), dt.date(1969, 1, 1), None],
        "x": [1.5, float("nan"), -0.0], "st": [{"y": 1}, None, {"y": 3}],
        "l": [[1], [], None],
    }
)  # fmt: skip


def test_a_directory_of_files_becomes_a_table_where_it_is(lake: Lake, tmp_path: Path) -> None:
    root = tmp_path / "files"
    (root / "sub").mkdir(parents=True)
    pq.write_table(EVERY_TYPE, root / "a.parquet", row_group_size=2)
    pq.write_table(EVERY_TYPE.slice(0, 1), root / "sub" / "b c.parquet")
    (root / "_SUCCESS").write_bytes(b"")
    assert lake.sql(f"CONVERT TO DELTA parquet.`{root}` AS t").fetchall() == [(2, 4)]
    assert lake.table("t").detail()["location"] == str(root)
    back = lake.table("t").to_arrow().sort_by("id").drop_columns("x")
    wanted = pa.concat_tables([EVERY_TYPE.slice(0, 1), EVERY_TYPE]).drop_columns("x")
    assert back.equals(wanted.cast(back.schema))
    assert lake.table("t").files("id = 3").num_rows == 1
    assert lake.table("t").files("st.y > 1").num_rows == 1
    assert lake.table("t").files("name < 'Ada'").num_rows == 0
    assert lake.table("t").files("x > 100").num_rows == 2  # a footer says nothing of NaN
    lake.sql("INSERT INTO t (id) VALUES (9); DELETE FROM t WHERE id = 1")
    assert lake.sql("SELECT list(id ORDER BY id) FROM t").fetchall() == [([2, 3, 9],)]
    assert lake.mirror.verify("t")


def test_hive_partitions_are_read_from_the_directories(lake: Lake, tmp_path: Path) -> None:
    for day in ("2024-01-01", "2024-01-02", "__HIVE_DEFAULT_PARTITION__"):
        (tmp_path / "h" / f"day={day}" / "g=a%20b").mkdir(parents=True)
        pq.write_table(pa.table({"n": [1]}), tmp_path / "h" / f"day={day}" / "g=a%20b" / "x.parquet")
    lake.sql(f"CONVERT TO DELTA '{tmp_path / 'h'}' PARTITIONED BY (day DATE, g VARCHAR)")
    assert lake.sql("SELECT day, g, n FROM h ORDER BY day").fetchall() == [
        (dt.date(2024, 1, 1), "a b", 1), (dt.date(2024, 1, 2), "a b", 1), (None, "a b", 1),
    ]  # fmt: skip
    assert lake.table("h").detail()["partition_columns"] == ["day", "g"]
    assert lake.table("h").files("day = DATE '2024-01-02'").num_rows == 1
    lake.sql("INSERT INTO h VALUES (2, DATE '2024-01-02', 'c')")
    assert lake.mirror.verify("h")


def test_files_of_several_schemas(lake: Lake, tmp_path: Path) -> None:
    root = tmp_path / "files"
    root.mkdir()
    pq.write_table(pa.table({"a": pa.array([1], pa.int32())}), root / "1.parquet")
    pq.write_table(pa.table({"b": ["x"], "a": [2**40]}), root / "2.parquet")
    lake.convert(root, "t")
    assert lake.sql("SELECT a, b FROM t ORDER BY a").fetchall() == [(1, None), (2**40, "x")]
    assert lake.table("t").files("a < 100").num_rows == 1


def test_a_directory_converted_with_no_lake_is_a_delta_table(tmp_path: Path) -> None:
    root = tmp_path / "events"
    for n in (1, 2):
        (root / f"day=2024-01-0{n}").mkdir(parents=True)
        pq.write_table(pa.table({"n": [n]}), root / f"day=2024-01-0{n}" / "a.parquet")
    told = deltaduck.CommitProperties({"why": "to see it"})
    for mode in ("error", "ignore"):
        deltaduck.convert_to_deltalake(
            root, mode, pa.schema({"day": pa.date32()}), "hive", description="what happened",
            configuration={"delta.appendOnly": "true"}, commit_properties=told,
        )  # fmt: skip
    table = deltalake.DeltaTable(root)
    rows = pa.table(deltalake.QueryBuilder().register("t", table).execute("SELECT day, n FROM t ORDER BY n")).to_pylist()
    assert rows == [{"day": dt.date(2024, 1, n), "n": n} for n in (1, 2)]
    assert (table.metadata().name, table.metadata().description) == ("events", "what happened")
    assert table.metadata().configuration == {"delta.appendOnly": "true"}
    assert table.history()[0]["why"] == "to see it"
    with pytest.raises(TableExistsError, match="already"):
        deltaduck.convert_to_deltalake(root)
    for wrong in ({"partition_strategy": "directory"}, {"uri": "deltasql://duckdb/x.duckdb?table=t"}):
        with pytest.raises(UnsupportedFeatureError):
            deltaduck.convert_to_deltalake(**{"uri": root} | wrong)


def test_every_commit_can_be_told_more(lake: Lake) -> None:
    told = deltaduck.CommitProperties({"why": "to see it"}, app_transactions=[deltaduck.AppTransaction("job", 7)])
    for n in (1, 2):
        lake.write("t", pa.table({"n": [n]}))
    t = lake.table("t")
    t.alter.set_table_properties({"delta.targetFileSize": "1mb"}, commit_properties=told)
    t.alter.add_columns({"more": "INT"}, commit_properties=told)
    t.optimize.compact(writer_properties=deltaduck.WriterProperties(compression="ZSTD"), commit_properties=told)
    t.optimize.z_order(["n"], commit_properties=told)
    t.restore(0, commit_properties=told)
    assert t.vacuum(commit_properties=told) == []
    assert [h.get("why") for h in t.history()] == ["to see it"] * 5 + [None] * 2
    assert t.transaction_version("job") == 7


def test_what_is_no_directory_of_files_is_refused(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no Parquet files"):
        lake.convert(tmp_path / "nothing")
    for path in ("p/day=1/a.parquet", "p/b.parquet"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"n": [1]}), tmp_path / path)
    with pytest.raises(SchemaMismatchError, match="partitioned by"):
        lake.convert(tmp_path / "p")
    lake.write("t", pa.table({"n": [1]}))
    with pytest.raises(TableExistsError, match="'again'"):
        lake.convert(place(lake), "again")
    assert [row["name"] for row in lake.tables()] == ["t"]
    assert not (tmp_path / "p" / "_delta_log").exists()
