"""What is published: the catalog's rows as a canonical Delta log, whatever went wrong on the way."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import pyarrow as pa
import pytest

from deltaduck import Lake, MirrorError, TableNotFoundError
from deltaduck.mirror.publish import commit_bytes

Log = Callable[[Lake, str, int], list[dict[str, Any]]]


def folder(lake: Lake, table: str) -> Path:
    return Path(lake.table(table).detail()["location"], "_delta_log")


def commit_file(lake: Lake, table: str, version: int) -> Path:
    return folder(lake, table) / f"{version:020d}.json"


def names(lake: Lake, table: str) -> list[str]:
    return sorted(p.name for p in folder(lake, table).iterdir())


def state(lake: Lake, table: str) -> tuple[int, int | None, int, int]:
    """(version, published version, pending, diverged)"""
    (row,) = lake.mirror.status(table)
    return row["version"], row["published_version"], row["pending"], row["diverged"]


def theirs(lake: Lake, table: str) -> deltalake.DeltaTable:
    """The table as delta-rs reads it from the mirror."""
    return deltalake.DeltaTable(folder(lake, table).parent)


@pytest.fixture
def blocked(lake: Lake, people: pa.Table) -> Callable[[], None]:
    """`people` at version 1, committed while its log directory could not be written; call it to let the log in again."""
    lake.write("people", people)
    log = folder(lake, "people")
    away = log.with_name("away")
    log.rename(away)
    log.write_text("something in the way")
    lake.write("people", people)

    def unblock() -> None:
        log.unlink()
        away.rename(log)

    return unblock


# --- what is written


def test_the_bytes_are_determined_by_the_rows(lake: Lake, people: pa.Table) -> None:
    lake.write("people", people, commit_metadata='"quotes" \\ ünï')
    lake.sql("DELETE FROM people WHERE id = 1")
    ((table_id,),) = lake.catalog.fetch("SELECT table_id FROM dl_tables")
    for version in range(2):
        written = commit_file(lake, "people", version).read_bytes()
        assert commit_bytes(lake.catalog, table_id, version) == written
        assert all(len(json.loads(line)) == 1 for line in written.splitlines())


def test_a_commit_says_everything_about_itself(lake: Lake, days: pa.Table, log: Log) -> None:
    lake.write("days", days, partition_by="day")
    lake.sql("DELETE FROM days WHERE n = 1")
    info, remove, add = log(lake, "days", 1)
    assert info["commitInfo"]["operation"] == "DELETE"
    assert info["commitInfo"]["operationParameters"] == {"predicate": "n = 1"}
    assert info["commitInfo"]["readVersion"] == 0
    assert info["commitInfo"]["isBlindAppend"] is False
    assert info["commitInfo"]["engineInfo"].startswith("deltaduck/")
    assert remove["remove"]["partitionValues"] == {"day": "mon"} == add["add"]["partitionValues"]
    assert remove["remove"]["dataChange"] is True
    assert remove["remove"]["extendedFileMetadata"] is True
    assert remove["remove"]["path"] in {a["add"]["path"] for a in log(lake, "days", 0) if "add" in a}
    assert add["add"]["dataChange"] is True
    assert json.loads(add["add"]["stats"])["numRecords"] == 1


def test_others_read_every_version(lake: Lake, people: pa.Table, days: pa.Table) -> None:
    lake.write("days", days, partition_by="day")
    lake.sql("UPDATE days SET n = n * 10 WHERE day = 'tue'")
    lake.write("days", days.append_column("new", days["n"]), schema_mode="merge")
    lake.sql("DELETE FROM days WHERE day IS NULL")
    for version in range(4):
        table = theirs(lake, "days")
        table.load_as_version(version)
        found = duckdb.from_arrow(table.to_pyarrow_table()).order("ALL").fetchall()
        assert found == lake.sql(f"FROM days AT (VERSION => {version}) ORDER BY ALL").fetchall()
    assert [h["version"] for h in theirs(lake, "days").history()] == [3, 2, 1, 0]


def test_file_times_are_commit_times(lake: Lake, people: pa.Table) -> None:
    """Readers without the catalog travel by the time of the log's files."""
    lake.write("people", people)
    lake.write("people", people)
    for row in lake.table("people").history():
        ns = os.stat(commit_file(lake, "people", row["version"])).st_mtime_ns
        assert ns // 1_000_000 == round(row["committed"].timestamp() * 1000)


def test_checkpoints_come_at_their_interval(lake: Lake, people: pa.Table) -> None:
    lake.write("t", people, configuration={"delta.checkpointInterval": "3"}, app_transaction=("loader", 1))
    for _ in range(6):
        lake.write("t", people)
    lake.sql("DELETE FROM t WHERE id = 1")
    lake.write("t", people, mode="overwrite")
    assert [n for n in names(lake, "t") if "checkpoint" in n] == [
        "00000000000000000003.checkpoint.parquet", "00000000000000000006.checkpoint.parquet", "_last_checkpoint",
    ]  # fmt: skip
    lake.write("t", people)
    last = json.loads((folder(lake, "t") / "_last_checkpoint").read_text())
    file = folder(lake, "t") / f"{9:020d}.checkpoint.parquet"
    kinds = ("add", "remove", "txn", "protocol", '"metaData"')
    counts = f"SELECT count(*), {', '.join(f'count({kind})' for kind in kinds)} FROM read_parquet($1)"
    actions = duckdb.execute(counts, [str(file)]).fetchall()
    assert actions == [(last["size"], 2, 8, 1, 1, 1)]
    assert (last["version"], last["numOfAddFiles"], last["sizeInBytes"]) == (9, 2, file.stat().st_size)
    assert lake.mirror.verify("t").checkpoint == 9
    for early in range(9):
        commit_file(lake, "t", early).unlink()  # the checkpoint alone must do
    assert sorted(theirs(lake, "t").to_pyarrow_table()["id"].to_pylist()) == [1, 1, 2, 2, 3, 3]
    assert theirs(lake, "t").transaction_version("loader") == 1


def test_no_traces_of_work_are_left(lake: Lake, people: pa.Table) -> None:
    for _ in range(11):
        lake.write("t", people)
    assert names(lake, "t") == [
        *(f"{v:020d}.{kind}" for v in range(11) for kind in (("checkpoint.parquet", "crc", "json") if v == 10 else ("json",))),
        "_last_checkpoint",
    ]  # fmt: skip


def test_status_of_everything(lake: Lake, people: pa.Table) -> None:
    lake.write("a", people)
    lake.write("b", people)
    lake.write("b", people)
    assert [(r["table"], r["version"], r["published_version"], r["pending"]) for r in lake.mirror.status()] == [
        ("a", 0, 0, 0), ("b", 1, 1, 0),
    ]  # fmt: skip
    assert state(lake, "B") == (1, 1, 0, 0)
    for call in (lake.mirror.status, lake.mirror.verify, lake.mirror.reconcile):
        with pytest.raises(TableNotFoundError, match="'c'"):
            call("c")


# --- what goes wrong


def test_a_commit_survives_a_mirror_that_cannot_be_written(lake: Lake, people: pa.Table, blocked: Callable[[], None]) -> None:
    assert lake.table("people").version() == 1
    assert lake.sql("SELECT count(*) FROM people").fetchall() == [(6,)]
    assert state(lake, "people") == (1, 0, 1, 0)
    assert "_delta_log" in lake.mirror.status("people")[0]["last_error"]
    assert not lake.mirror.verify("people")
    with pytest.raises(MirrorError, match=r"'people' version 1.*not published.*_delta_log"):
        lake.mirror.reconcile()
    blocked()
    assert lake.mirror.reconcile() == 1
    assert state(lake, "people") == (1, 1, 0, 0)
    assert lake.mirror.status("people")[0]["last_error"] is None
    assert lake.mirror.verify("people")
    assert theirs(lake, "people").version() == 1
    assert lake.mirror.reconcile() == 0


def test_the_failure_is_logged_with_the_way_out(lake: Lake, people: pa.Table, caplog: pytest.LogCaptureFixture) -> None:
    lake.write("people", people)
    shutil.rmtree(folder(lake, "people"))
    with caplog.at_level(logging.WARNING, "deltaduck.mirror"):
        lake.write("people", people)
    assert "'people' version 1 is committed but not published" in caplog.text
    assert "lake.mirror.reconcile()" in caplog.text


def test_the_next_commit_publishes_what_is_owed_first(lake: Lake, people: pa.Table, blocked: Callable[[], None]) -> None:
    lake.write("people", people)  # version 2, not published before 1 is
    assert state(lake, "people") == (2, 0, 2, 0)
    blocked()
    lake.write("people", people)
    assert state(lake, "people") == (3, 3, 0, 0)
    assert lake.mirror.verify("people")
    assert theirs(lake, "people").version() == 3


def test_other_tables_of_the_commit_are_published(lake: Lake, people: pa.Table, blocked: Callable[[], None]) -> None:
    with lake.begin() as tx:
        tx.write("people", people)
        tx.write("other", people)
    assert (state(lake, "people")[1], state(lake, "other")) == (0, (0, 0, 0, 0))
    with pytest.raises(MirrorError, match="people") as e:
        lake.mirror.reconcile()
    assert "table 'other'" not in str(e.value)


def test_what_is_owed_is_owed_after_reopening(lake: Lake, open_lake: Callable[[], Lake], blocked: Callable[[], None]) -> None:
    lake.close()
    again = open_lake()
    assert state(again, "people") == (1, 0, 1, 0)
    blocked()
    assert again.mirror.reconcile("people") == 1
    assert again.mirror.verify("people")


def test_a_lost_mark_is_made_again(lake: Lake, people: pa.Table) -> None:
    """As after a crash between publishing and recording it: the bytes are there already, and that is success."""
    lake.write("people", people)
    lake.mirror.flush()
    before = commit_file(lake, "people", 0).stat()
    lake.catalog.execute("UPDATE dl_mirror_status SET status = 'PENDING', published_ms = NULL")
    assert lake.mirror.reconcile() == 1
    assert state(lake, "people") == (0, 0, 0, 0)
    after = commit_file(lake, "people", 0).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_the_same_actions_written_otherwise_are_the_same(lake: Lake, people: pa.Table) -> None:
    lake.write("people", people)
    lake.mirror.flush()
    file = commit_file(lake, "people", 0)
    file.write_text("\n".join(json.dumps(json.loads(line), sort_keys=True) for line in file.read_text().splitlines()))
    lake.catalog.execute("UPDATE dl_mirror_status SET status = 'PENDING'")
    assert lake.mirror.reconcile() == 1
    assert lake.mirror.verify("people")


def test_somebody_elses_commit_is_never_overwritten(lake: Lake, people: pa.Table, caplog: pytest.LogCaptureFixture) -> None:
    lake.write("people", people)
    deltalake.write_deltalake(folder(lake, "people").parent, people, mode="append")
    foreign = commit_file(lake, "people", 1).read_bytes()
    lake.write("people", people.slice(0, 1))
    lake.write("people", people.slice(0, 1))
    assert commit_file(lake, "people", 1).read_bytes() == foreign
    assert not commit_file(lake, "people", 2).exists()  # nothing after it either
    assert state(lake, "people") == (2, 0, 1, 1)
    assert "holds another commit" in caplog.text
    for _ in range(2):
        with pytest.raises(MirrorError, match=r"'people'.*somebody else.*version 1.*nothing is overwritten"):
            lake.mirror.reconcile()
    assert commit_file(lake, "people", 1).read_bytes() == foreign
    assert lake.table("people").to_arrow().num_rows == 5  # the lake goes on
    assert not lake.mirror.verify("people")


def test_divergence_of_one_table_does_not_stop_others(lake: Lake, people: pa.Table) -> None:
    lake.write("bad", people)
    lake.write("good", people)
    commit_file(lake, "bad", 1).write_text('{"commitInfo":{}}\n')
    with lake.begin() as tx:
        tx.write("bad", people)
        tx.write("good", people)
    assert state(lake, "good") == (1, 1, 0, 0)
    assert state(lake, "bad") == (1, 0, 0, 1)
    assert lake.mirror.verify("good")


# --- verify


def tamper(lake: Lake, how: str) -> None:
    file = commit_file(lake, "t", 1)
    checkpoint = folder(lake, "t") / f"{2:020d}.checkpoint.parquet"
    match how:
        case "a commit is gone":
            file.unlink()
        case "a value is changed":
            file.write_text(file.read_text().replace('"dataChange":true', '"dataChange":false'))
        case "an action is gone":
            file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
        case "it is cut":
            file.write_bytes(file.read_bytes()[:-20])
        case "it is not json":
            file.write_text("not json\n")
        case "a commit was added":
            commit_file(lake, "t", 3).write_text('{"commitInfo":{"operation":"x"}}\n')
        case "the log is gone":
            shutil.rmtree(folder(lake, "t"))
        case "the checkpoint is gone":
            checkpoint.unlink()
        case "the checkpoint is of something else":
            duckdb.execute(
                f"COPY (SELECT * REPLACE (CASE WHEN add IS NOT NULL THEN struct_update(add, size := 1::BIGINT) END AS add) "
                f"FROM '{checkpoint}') TO '{checkpoint}' (FORMAT parquet)"
            )
        case "the checkpoint is no parquet":
            checkpoint.write_text("nothing")


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ("a commit is gone", "00000000000000000001.json is missing"),
        ("a value is changed", "00000000000000000001.json differs"),
        ("an action is gone", "00000000000000000001.json differs"),
        ("it is cut", "00000000000000000001.json differs"),
        ("it is not json", "00000000000000000001.json differs"),
        ("a commit was added", "00000000000000000003.json was written by somebody else"),
        ("the log is gone", "00000000000000000000.json is missing"),
        ("the checkpoint is gone", "00000000000000000002.checkpoint.parquet is missing"),
        ("the checkpoint is of something else", "00000000000000000002.checkpoint.parquet lacks"),
        ("the checkpoint is no parquet", "00000000000000000002.checkpoint.parquet"),
    ],
)
def test_verify_sees_what_was_tampered_with(lake: Lake, people: pa.Table, how: str, named: str) -> None:
    lake.write("t", people, configuration={"delta.checkpointInterval": "2"})
    lake.write("t", people)
    lake.write("t", people)
    found = lake.mirror.verify("t")
    assert found, str(found)
    assert (found.versions, found.checkpoint, found.problems) == (3, 2, [])
    assert "equal to the catalog" in str(found)
    tamper(lake, how)
    found = lake.mirror.verify("t")
    assert not found
    assert named in str(found)


def test_a_dropped_tables_log_stays_and_owes_nothing(lake: Lake, people: pa.Table) -> None:
    lake.write("t", people)
    log = folder(lake, "t")
    lake.drop_table("t")
    assert (log / f"{0:020d}.json").exists()
    assert lake.mirror.status() == []
    assert lake.mirror.reconcile() == 0
    assert deltalake.DeltaTable(log.parent).to_pyarrow_table().num_rows == 3
