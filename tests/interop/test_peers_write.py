"""What we publish is good enough to write on: a peer appends to, changes and describes a copy of a mirrored table."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder, write_deltalake

from deltaduck import Lake, MirrorError

AsText = Callable[[pa.Table], list[str]]

ROWS = pa.table(
    {
        "id": [1, 2, 3], "g": ["a", None, "x y"], "at": pa.array([dt.datetime(2024, 1, 1, tzinfo=dt.UTC)] * 3,
          pa.timestamp("us", tz="UTC")),
        "st": pa.array([{"x": 1}, None, {"x": None}], pa.struct({"x": pa.int32()})), "price": pa.array([None] * 3,
          pa.decimal128(10, 2)),
    }
)  # fmt: skip


def copy_of(lake: Lake, name: str, to: Path) -> str:
    return str(shutil.copytree(lake.table(name).detail()["location"], to / "copy"))


def rows(table: DeltaTable) -> pa.Table:
    return pa.table(QueryBuilder().register("t", table).execute("SELECT * FROM t").read_all())


@pytest.mark.parametrize("ntz", [False, True], ids=["legacy protocol", "table features"])
@pytest.mark.parametrize("partition_by", [None, "g"])
def test_delta_rs_appends_updates_and_deletes(
    lake: Lake, tmp_path: Path, as_text: AsText, partition_by: str | None, ntz: bool
) -> None:
    ours = ROWS.append_column("local", pa.array([dt.datetime(2024, 1, 1)] * 3, pa.timestamp("us"))) if ntz else ROWS
    lake.write("t", ours, partition_by=partition_by)
    lake.table("t").update({"id": "id + 10"}, predicate="id = 1")
    path = copy_of(lake, "t", tmp_path)
    write_deltalake(path, ours, mode="append")
    assert as_text(rows(DeltaTable(path))) == as_text(pa.concat_tables([lake.table("t").to_arrow().cast(ours.schema), ours]))
    DeltaTable(path).delete("id = 2")
    DeltaTable(path).update(updates={"g": "'new'"}, predicate="id = 11")
    assert sorted(rows(DeltaTable(path))["id"].to_pylist()) == [1, 3, 3, 11]
    DeltaTable(path).optimize.compact()
    DeltaTable(path).create_checkpoint()
    assert sorted(rows(DeltaTable(path))["id"].to_pylist()) == [1, 3, 3, 11]


def test_a_checkpointed_table_can_be_appended_to(lake: Lake, tmp_path: Path) -> None:
    for n in range(12):
        lake.write("t", pa.table({"n": [n]}))
    path = copy_of(lake, "t", tmp_path)
    write_deltalake(path, pa.table({"n": [99]}), mode="append")
    assert DeltaTable(path).version() == 12
    assert sorted(rows(DeltaTable(path))["n"].to_pylist()) == [*range(12), 99]


def test_what_somebody_else_commits_is_reported_and_kept(lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    lake.write("t", pa.table({"n": [1]}))
    path = lake.table("t").detail()["location"]
    write_deltalake(path, pa.table({"n": [2]}), mode="append")
    theirs = Path(path, "_delta_log", f"{1:020d}.json").read_bytes()
    lake.write("t", pa.table({"n": [3]}))
    assert Path(path, "_delta_log", f"{1:020d}.json").read_bytes() == theirs
    assert not lake.mirror.verify("t")
    with pytest.raises(MirrorError, match="'t'"):
        lake.mirror.reconcile()
    assert lake.sql("SELECT n FROM t ORDER BY n").fetchall() == [(1,), (3,)]


def test_history_tells_our_operations(lake: Lake) -> None:
    lake.write("t", ROWS, partition_by="g", commit_metadata="first load")
    lake.write("t", ROWS)
    lake.table("t").delete("id = 1")
    lake.table("t").update({"id": "7"}, predicate="id = 2")
    lake.write("t", ROWS, mode="overwrite")
    theirs = DeltaTable(lake.table("t").detail()["location"]).history()
    ours = lake.table("t").history()
    assert [h["version"] for h in theirs] == [h["version"] for h in ours] == [4, 3, 2, 1, 0]
    assert [h["operation"] for h in theirs] == [h["operation"] for h in ours]
    assert [h["operation"] for h in ours] == ["WRITE", "UPDATE", "DELETE", "WRITE", "CREATE TABLE AS SELECT"]
    assert [dt.datetime.fromtimestamp(h["timestamp"] / 1000, dt.UTC) for h in theirs] == [h["committed"] for h in ours]
    assert theirs[-1]["userMetadata"] == "first load"
    assert theirs[2]["operationParameters"]["predicate"] == "id = 1"


def test_metadata_protocol_and_transactions(lake: Lake) -> None:
    properties = {"delta.appendOnly": "true", "delta.checkpointInterval": "5", "owner": "ducks"}
    lake.write("t", ROWS, partition_by="g", configuration=properties, description="Three rows", app_transaction=("loader", 41))
    lake.write("t", ROWS, app_transaction=("loader", 42))
    lake.write("plain", ROWS)
    lake.write("local", pa.table({"at": [dt.datetime(2024, 1, 1)]}))
    theirs, detail = DeltaTable(lake.table("t").detail()["location"]), lake.table("t").detail()
    assert theirs.metadata().name == "t"
    assert theirs.metadata().description == "Three rows"
    assert theirs.metadata().partition_columns == ["g"]
    assert theirs.metadata().configuration == properties
    assert str(theirs.metadata().id) == detail["id"]
    assert theirs.transaction_version("loader") == 42
    assert pa.schema(theirs.schema().to_arrow()).names == ROWS.column_names
    plain, local = (DeltaTable(lake.table(n).detail()["location"]).protocol() for n in ("plain", "local"))
    assert (plain.min_reader_version, plain.min_writer_version) == (1, 2)
    assert (local.min_reader_version, local.min_writer_version, local.reader_features) == (3, 7, ["timestampNtz"])


def test_an_append_only_table_is_so_for_others(lake: Lake, tmp_path: Path) -> None:
    lake.write("t", ROWS, configuration={"delta.appendOnly": "true"})
    path = copy_of(lake, "t", tmp_path)
    with pytest.raises(Exception, match="append"):
        DeltaTable(path).delete("id = 1")
    write_deltalake(path, ROWS, mode="append")


def test_the_log_is_json_that_ends_in_a_newline(lake: Lake) -> None:
    lake.write("t", ROWS, commit_metadata='a "quoted" \\ \n 🦆 \u2028')
    commit = Path(lake.table("t").detail()["location"], "_delta_log", f"{0:020d}.json").read_text(encoding="utf-8")
    assert commit.endswith("\n")
    actions = [json.loads(line) for line in commit.split("\n")[:-1]]
    assert actions[0]["commitInfo"]["userMetadata"] == 'a "quoted" \\ \n 🦆 \u2028'
    assert [next(iter(a)) for a in actions] == ["commitInfo", "protocol", "metaData", "add"]
