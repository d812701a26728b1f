"""What the ``deltalake`` package does about logs and files, the change feed as Arrow, and queries over registered tables."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import deltaduck
from deltaduck import (
    AddAction,
    ConstraintViolationError,
    DeltaTable,
    Field,
    QueryBuilder,
    QueryError,
    RemoveAction,
    Schema,
    SchemaMismatchError,
    StorageError,
    TableNotFoundError,
    UnsupportedFeatureError,
    VersionNotFoundError,
    write_deltalake,
)

Uri = Callable[[str], str]
FEED = {"delta.enableChangeDataFeed": "true"}


@pytest.fixture
def days_table(uri: Uri, days: pa.Table) -> DeltaTable:
    write_deltalake(uri("days"), days, partition_by="day", configuration=FEED)
    return DeltaTable(uri("days"))


def place(table: DeltaTable) -> Path:
    return Path(table.detail()["location"])


def numbers(table: DeltaTable) -> list[int]:
    return sorted(table.to_arrow()["n"].to_pylist())


# --- the change feed


def test_the_change_feed_as_arrow(days_table: DeltaTable) -> None:
    days_table.update(predicate="n = 1", new_values={"n": 10})
    days_table.delete("n = 2")
    feed = days_table.load_cdf(1).read_all()
    assert [(f.name, f.type) for f in feed.schema][2:] == [
        ("_change_type", pa.string()), ("_commit_version", pa.int64()), ("_commit_timestamp", pa.timestamp("us", "UTC")),
    ]  # fmt: skip
    told = sorted(zip(*(feed[c].to_pylist() for c in ("_commit_version", "_change_type", "n")), strict=True))
    assert told == [(1, "update_postimage", 10), (1, "update_preimage", 1), (2, "delete", 2)]
    some = days_table.load_cdf(0, 1, columns=["_change_type", "n"], predicate="_change_type <> 'insert' AND day = 'mon'")
    assert sorted(some.read_all().to_pylist(), key=str) == [
        {"_change_type": "update_postimage", "n": 10},
        {"_change_type": "update_preimage", "n": 1},
    ]
    times = [c["committed"] for c in reversed(days_table.history())]
    assert days_table.load_cdf(starting_timestamp=times[1].isoformat(), ending_timestamp=times[1]).read_all().num_rows == 2
    assert days_table.load_cdf(2, 99).read_all().num_rows == 1


def test_where_the_change_feed_ends(days_table: DeltaTable) -> None:
    late = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    for start in ({"starting_version": 7}, {"starting_timestamp": late}):
        with pytest.raises(VersionNotFoundError, match="changes from version 0 to 0"):
            days_table.load_cdf(**start)  # type: ignore[arg-type]
        assert days_table.load_cdf(**start, allow_out_of_range=True).read_all().num_rows == 0  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="nope"):
        days_table.load_cdf(predicate="nope = 1")


def test_a_change_feed_of_nested_and_renamed_columns(uri: Uri) -> None:
    rows = pa.table(
        {"s": [{"a": 1}, None], "l": [["x"], []], "m": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64()))}
    )
    write_deltalake(uri("t"), rows, configuration=FEED | {"delta.columnMapping.mode": "name"})
    table = DeltaTable(uri("t"))
    table.alter.rename_column("l", "items")
    table.delete("s IS NULL")
    feed = table.load_cdf(0, columns=["items", "s", "m", "_change_type"]).read_all()
    assert feed.schema.types[:3] == [table.to_arrow().schema.field(n).type for n in ("items", "s", "m")]
    assert sorted(zip(feed["items"].to_pylist(), feed["_change_type"].to_pylist(), strict=True)) == [
        ([], "delete"), ([], "insert"), (["x"], "insert"),
    ]  # fmt: skip


# --- queries


def test_queries_over_registered_tables(uri: Uri, tmp_path: Path, people: pa.Table, days: pa.Table) -> None:
    write_deltalake(uri("people"), people)
    write_deltalake(uri("people"), people, mode="append")
    elsewhere = f"deltasql://sqlite/{tmp_path}/other.sqlite?table=people"
    write_deltalake(elsewhere, days)
    queries = QueryBuilder().register("a", DeltaTable(uri("people"))).register("Old", DeltaTable(uri("people"), version=0))
    queries.register("days", DeltaTable(elsewhere))
    found = queries.execute("SELECT count(*) AS n, count(DISTINCT old.id) AS ids FROM a JOIN old USING (id)").read_all()
    assert found.to_pydict() == {"n": [6], "ids": [3]}
    assert queries.execute("WITH x AS (FROM days WHERE n > 4) SELECT n FROM x ORDER BY n").read_all()["n"].to_pylist() == [5, 6]
    assert queries.execute("SELECT count(*) AS n FROM a AT (VERSION => 0)").read_all()["n"].to_pylist() == [3]
    with pytest.raises(TableNotFoundError, match="'people' is not registered: a, old, days"):
        queries.execute("SELECT * FROM people")
    with pytest.raises(TableNotFoundError):
        queries.execute("SELECT * FROM nowhere")
    for statement in ("DELETE FROM a", "DROP TABLE a", "SELECT 1; SELECT 2"):
        with pytest.raises(UnsupportedFeatureError, match="runs one query"):
            queries.execute(statement)
    with pytest.raises(QueryError, match="register"):
        QueryBuilder().execute("SELECT 1")
    with pytest.raises(QueryError):
        queries.execute("SELEC 1 FROM a")
    with pytest.raises(UnsupportedFeatureError, match="DataFusion"):
        QueryBuilder({"datafusion.execution.batch_size": "1024"})
    assert DeltaTable(uri("people")).version() == 1


# --- the log


def test_the_log_is_compacted_and_cleaned(days_table: DeltaTable, days: pa.Table) -> None:
    for _ in range(2):
        write_deltalake(days_table, days, mode="append")
    days_table.compact_logs(0, 2)
    assert (place(days_table) / "_delta_log" / f"{0:020d}.{2:020d}.compacted.json").exists()
    days_table.cleanup_metadata()  # nothing is old enough
    assert (place(days_table) / "_delta_log" / f"{0:020d}.json").exists()
    with pytest.raises(deltaduck.MirrorError, match="cannot be compacted"):
        days_table.compact_logs(1, 9)


# --- manifests


def test_a_manifest_names_the_live_files(uri: Uri, people: pa.Table) -> None:
    write_deltalake(uri("t"), people)
    write_deltalake(uri("t"), people, mode="append")
    table = DeltaTable(uri("t"))
    table.generate()
    manifest = place(table) / "_symlink_format_manifest" / "manifest"
    assert sorted(manifest.read_text().splitlines()) == sorted(table.file_uris())
    table.delete()
    table.generate()
    assert manifest.read_text() == ""


def test_a_manifest_per_partition(uri: Uri) -> None:
    write_deltalake(uri("t"), pa.table({"p": ["a b", "x/y", None], "q": [1, 1, 2], "n": [1, 2, 3]}), partition_by=["p", "q"])
    table = DeltaTable(uri("t"))
    table.generate()
    root = place(table) / "_symlink_format_manifest"
    found = sorted(str(p.parent.relative_to(root)) for p in root.rglob("manifest"))
    assert found == ["p=__HIVE_DEFAULT_PARTITION__/q=2", "p=a b/q=1", "p=x%2Fy/q=1"]
    named = [name for p in root.rglob("manifest") for name in p.read_text().splitlines()]
    assert sorted(named) == sorted(table.file_uris())
    table.delete("p = 'a b'")
    table.generate()
    assert len(list(root.rglob("manifest"))) == 2
    assert table.vacuum(full=True) == []  # they are nobody's orphans


def test_no_manifest_of_rows_that_are_not_the_files(uri: Uri, people: pa.Table) -> None:
    write_deltalake(uri("t"), people, configuration={"delta.enableDeletionVectors": "true"})
    table = DeltaTable(uri("t"))
    table.delete("id = 1")
    with pytest.raises(UnsupportedFeatureError, match="no manifest can be written"):
        table.generate()


# --- files that went


def test_files_that_are_gone_are_taken_out(days_table: DeltaTable) -> None:
    assert days_table.repair() == {"dry_run": False, "files_removed": []}
    assert days_table.version() == 0
    (gone,) = days_table.file_uris([("day", "=", "tue")])
    path = str(Path(gone).relative_to(place(days_table)))
    Path(gone).unlink()
    assert days_table.repair(dry_run=True) == {"dry_run": True, "files_removed": [path]}
    assert days_table.version() == 0
    assert days_table.repair() == {"dry_run": False, "files_removed": [path]}
    assert (days_table.version(), numbers(days_table)) == (1, [1, 2, 5, 6])
    assert days_table.history(1)[0]["operation"] == "FSCK"
    assert days_table.place.lake.mirror.verify("days")


def test_a_disk_that_is_not_there_takes_nothing_out(days_table: DeltaTable, tmp_path: Path) -> None:
    there = place(days_table)
    there.rename(tmp_path / "away")
    with pytest.raises(StorageError, match="not mounted"):
        days_table.repair()
    (tmp_path / "away").rename(there)
    assert (days_table.version(), days_table.count()) == (0, 6)


# --- files that came


def written(table: DeltaTable, path: str, rows: dict[str, Any], parts: dict[str, str | None], **told: Any) -> AddAction:
    """A file that something else wrote."""
    file = place(table) / path
    file.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(rows), file)
    stats = {"numRecords": len(next(iter(rows.values())))} | told
    return AddAction(path, file.stat().st_size, parts, 1_700_000_000_000, True, json.dumps(stats))


def test_files_of_others_are_added(days_table: DeltaTable) -> None:
    bounds = {"minValues": {"n": 70}, "maxValues": {"n": 71}, "nullCount": {"n": 0}}
    actions = [
        written(days_table, "day=thu/theirs.parquet", {"n": [70, 71]}, {"day": "thu"}, **bounds),
        written(days_table, "day=mon/theirs.parquet", {"n": [80]}, {"day": "mon"}),
    ]
    told = deltaduck.CommitProperties({"by": "them"})
    days_table.create_write_transaction(actions, "append", days_table.schema(), ["day"], commit_properties=told)
    assert (days_table.version(), numbers(days_table)) == (1, [1, 2, 3, 4, 5, 6, 70, 71, 80])
    assert days_table.files("n = 71").num_rows == 2  # the one that could, and the one that says nothing
    assert days_table.history(1)[0]["by"] == "them"
    assert [r["n"] for r in days_table.load_cdf(1).read_all().to_pylist()] == [70, 71, 80]
    lake = days_table.place.lake
    assert lake.mirror.verify("days")
    assert [f["check"] for f in lake.fsck("days")] == []
    days_table.delete("n = 71")
    assert numbers(days_table)[-2:] == [70, 80]


def test_files_of_others_take_the_place_of_ours(days_table: DeltaTable) -> None:
    schema = pa.schema({"day": pa.string(), "n": pa.int64()})
    mine = written(days_table, "day=mon/theirs.parquet", {"n": [80]}, {"day": "mon"})
    days_table.create_write_transaction([mine], "overwrite", schema, "day", [("day", "=", "mon")])
    assert numbers(days_table) == [3, 4, 5, 6, 80]
    (tue,) = days_table.files("day = 'tue'")["path"].to_pylist()
    days_table.create_write_transaction([RemoveAction(tue)], "append", schema)
    assert numbers(days_table) == [5, 6, 80]
    days_table.create_write_transaction(
        [written(days_table, "day=x/theirs.parquet", {"n": [9]}, {"day": "x"})], "overwrite", days_table.schema()
    )
    assert numbers(days_table) == [9]
    assert days_table.place.lake.mirror.verify("days")


def test_files_that_do_not_fit_are_refused(days_table: DeltaTable) -> None:
    schema = days_table.schema()
    fine = written(days_table, "day=x/theirs.parquet", {"n": [9]}, {"day": "x"})
    live = days_table.files()["path"][0].as_py()
    for actions, more, error, says in (
        ([fine, fine], {}, SchemaMismatchError, "twice"),
        ([AddAction(live, 1, {"day": "mon"}, 0, True, "{}")], {}, SchemaMismatchError, "twice"),
        ([AddAction("nowhere.parquet", 1, {"day": "mon"}, 0, True, "{}")], {}, StorageError, "no file nowhere.parquet"),
        ([AddAction(fine.path, 1, {}, 0, True, "{}")], {}, SchemaMismatchError, "no partition column"),
        ([AddAction(fine.path, 1, {"day": "x"}, 0, True, "{")], {}, SchemaMismatchError, "no JSON object"),
        ([RemoveAction("nowhere.parquet")], {}, StorageError, "has no file nowhere.parquet"),
        ([fine], {"schema": pa.schema({"n": pa.int64()})}, SchemaMismatchError, "other columns"),
        ([fine], {"partition_by": []}, SchemaMismatchError, "partitioned by"),
        ([fine], {"mode": "error"}, SchemaMismatchError, "'append' or 'overwrite'"),
        ([fine], {"partition_filters": [("day", "=", "x")]}, SchemaMismatchError, "mode='overwrite'"),
        ([fine], {"mode": "overwrite", "partition_filters": [("n", "=", 1)]}, QueryError, "no partition column"),
    ):
        with pytest.raises(error, match=says):
            days_table.create_write_transaction(actions, **({"mode": "append", "schema": schema} | more))  # type: ignore[arg-type]
    assert (days_table.version(), days_table.count()) == (0, 6)
    assert (place(days_table) / fine.path).exists()


def test_files_that_nobody_could_read_are_refused(days_table: DeltaTable, uri: Uri) -> None:
    (place(days_table) / "junk.parquet").write_bytes(b"junk")
    junk = AddAction("junk.parquet", 4, {"day": "x"}, 0, True, "{}")
    text = written(days_table, "day=x/text.parquet", {"n": ["nine"]}, {"day": "x"})
    others = written(days_table, "day=x/others.parquet", {"m": [9]}, {"day": "x"})
    narrow = written(days_table, "day=x/narrow.parquet", {"n": pa.array([9], pa.int32()), "m": [9]}, {"day": "x"})
    for action, error, says in (
        (junk, deltaduck.LogCorruptError, "junk"),
        (text, SchemaMismatchError, "'n' is BIGINT in the table and VARCHAR"),
        (others, SchemaMismatchError, "none of the columns that its files have: n"),
    ):
        with pytest.raises(error, match=says):
            days_table.create_write_transaction([narrow, action], "append", days_table.schema())
    days_table.create_write_transaction([narrow], "append", days_table.schema())
    assert numbers(days_table) == [1, 2, 3, 4, 5, 6, 9]
    write_deltalake(uri("mapped"), pa.table({"n": [1]}), configuration={"delta.columnMapping.mode": "name"})
    mapped = DeltaTable(uri("mapped"))
    with pytest.raises(SchemaMismatchError, match="none of the columns that its files have: col-"):
        mapped.create_write_transaction([written(mapped, "theirs.parquet", {"n": [2]}, {})], "append", mapped.schema())
    name = mapped.schema().fields[0].physical_name
    mapped.create_write_transaction([written(mapped, "theirs.parquet", {name: [2]}, {})], "append", mapped.schema())
    assert numbers(mapped) == [1, 2]


def test_files_of_others_keep_the_rules(uri: Uri) -> None:
    write_deltalake(uri("t"), pa.table({"n": [1]}))
    table = DeltaTable(uri("t"))
    lake = table.place.lake
    lake.sql("CREATE TABLE ruled (n BIGINT NOT NULL, twice BIGINT GENERATED ALWAYS AS (n * 2), CONSTRAINT pos CHECK (n > 0))")
    lake.sql("CREATE TABLE counted (id BIGINT GENERATED ALWAYS AS IDENTITY, n BIGINT)")
    ruled = lake.table("ruled")
    for n, twice, says in ((-1, -2, "'pos'"), (1, 3, "'twice' is not"), (None, None, "'n' is NOT NULL")):
        rows = {"n": pa.array([n], pa.int64()), "twice": pa.array([twice], pa.int64())}
        with pytest.raises(ConstraintViolationError, match=says):
            ruled.create_write_transaction([written(ruled, "theirs.parquet", rows, {})], "append", ruled.schema())
    good = written(ruled, "theirs.parquet", {"n": [4], "twice": [8]}, {})
    ruled.create_write_transaction([good], "append", ruled.schema())
    assert ruled.to_arrow().to_pylist() == [{"n": 4, "twice": 8}]
    counted = lake.table("counted")
    with pytest.raises(UnsupportedFeatureError, match="identity column 'id'"):
        counted.create_write_transaction([good], "append", counted.schema())


# --- schemas, values


def test_schemas_are_made_of_fields(uri: Uri) -> None:
    schema = Schema([Field("id", "long", nullable=False), Field("price", "decimal(10,2)", metadata={"comment": "in EUR"})])
    table = DeltaTable.create(uri("t"), schema)
    assert (table.schema(), table.schema().fields) == (schema, schema.fields)
    table.alter.add_columns([Field("s", "string"), *Schema.from_json(table.schema().to_json()).fields[:0]])
    assert table.schema().names == ["id", "price", "s"]
    assert json.loads(schema.fields[1].to_json()) == {
        "name": "price", "type": "decimal(10,2)", "nullable": True, "metadata": {"comment": "in EUR"},
    }  # fmt: skip
    with pytest.raises(SchemaMismatchError, match="'int' is no type of Delta's"):
        Schema([Field("n", "int")])


def test_structs_get_the_fields_that_they_lack(uri: Uri) -> None:
    write_deltalake(uri("t"), pa.table({"s": [{"a": 1, "b": {"c": 1}}]}))
    table = DeltaTable(uri("t"))
    more = pa.struct({"a": pa.int64(), "b": pa.struct({"d": pa.string()}), "e": pa.bool_()})
    table.alter.add_columns(pa.schema({"s": more, "n": pa.int32()}))
    assert table.to_arrow().to_pylist() == [{"s": {"a": 1, "b": {"c": 1, "d": None}, "e": None}, "n": None}]
    for again in (pa.schema({"n": pa.int32()}), pa.schema({"s": pa.struct({"a": pa.string()})})):
        with pytest.raises(SchemaMismatchError, match="exists already"):
            table.alter.add_columns(again)


def test_values_that_do_not_fit_become_null_where_asked(uri: Uri) -> None:
    write_deltalake(uri("t"), pa.table({"n": [1, 2], "s": ["7", "x"]}))
    table = DeltaTable(uri("t"))
    with pytest.raises(SchemaMismatchError, match="'x'"):
        table.update({"n": "s"})
    assert table.update({"n": "s"}, error_on_type_mismatch=False)["num_updated_rows"] == 2
    assert table.to_arrow().to_pydict() == {"n": [7, None], "s": ["7", "x"]}
    table.update(new_values={"n": "many"}, predicate="n = 7", error_on_type_mismatch=False)
    assert table.to_arrow()["n"].to_pylist() == [None, None]
