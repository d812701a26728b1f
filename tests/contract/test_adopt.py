"""Somebody else wrote to ``_delta_log``: his commits come in, ours follow, nothing acknowledged is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest

from deltaduck import CommitConflictError, Lake, MirrorError


def folder(lake: Lake, table: str) -> Path:
    return Path(lake.table(table).detail()["location"])


def theirs(lake: Lake, rows: list[dict[str, Any]], **options: Any) -> None:
    """A commit of another engine."""
    deltalake.write_deltalake(folder(lake, "t"), pa.Table.from_pylist(rows), mode="append", **options)


def rows(lake: Lake, version: int | None = None) -> list[int]:
    at = "" if version is None else f" AT (VERSION => {version})"
    return sorted(n for (n,) in lake.sql(f"SELECT n FROM t{at}").fetchall())


def agree(lake: Lake) -> None:
    """The catalog, the log and another reader say the same of every version."""
    assert lake.mirror.verify("t"), str(lake.mirror.verify("t"))
    other = deltalake.DeltaTable(folder(lake, "t"))
    assert other.version() == lake.table("t").version()
    for version in range(other.version() + 1):
        other.load_as_version(version)
        assert sorted(other.to_pyarrow_table()["n"].to_pylist()) == rows(lake, version)


@pytest.fixture
def raced(lake: Lake) -> Lake:
    """A table with two versions, whose versions 2 and 3 were written by us and by somebody else."""
    lake.write("t", [{"n": 0}])
    lake.write("t", [{"n": 1}])
    theirs(lake, [{"n": 100}])
    theirs(lake, [{"n": 101}])
    lake.write("t", [{"n": 2}])
    lake.write("t", [{"n": 3}])
    assert lake.mirror.status("t")[0]["diverged"] == 1
    return lake


def test_theirs_come_in_and_ours_follow(raced: Lake) -> None:
    before = {p.name: p.read_bytes() for p in (folder(raced, "t") / "_delta_log").glob("*.json")}
    assert rows(raced, 2) == [0, 1, 2]
    done = raced.mirror.adopt("t")
    assert done is not None
    assert (done.versions, done.moved) == ((2, 3), {2: 4, 3: 5})
    assert str(done) == "'t': adopted versions 2 to 3 of somebody else; of ours, 2 is now 4, 3 is now 5"
    assert rows(raced) == [0, 1, 2, 3, 100, 101]
    assert rows(raced, 2) == [0, 1, 100]  # though it was read under that number before
    assert {p.name: p.read_bytes() for p in (folder(raced, "t") / "_delta_log").glob("*.json") if p.name in before} == before
    assert next(h["operation"] for h in raced.table("t").history()) == "ADOPT"
    assert [h["readVersion"] for h in raced.table("t").history() if "readVersion" in h][:3] == [5, 4, 1]
    agree(raced)
    times = [h["timestamp"] for h in raced.table("t").history()]
    assert times == sorted(times, reverse=True)
    assert raced.write("t", [{"n": 4}]) == 7
    assert raced.mirror.status("t")[0]["pending"] == 0
    agree(raced)


def test_theirs_alone_come_in(lake: Lake) -> None:
    lake.write("t", [{"n": 0}])
    theirs(lake, [{"n": 100}])
    done = lake.mirror.adopt("t")
    assert done is not None
    assert (done.versions, done.moved) == ((1, 1), {})
    assert rows(lake) == [0, 100]
    assert lake.write("t", [{"n": 1}]) == 2
    agree(lake)
    assert lake.mirror.adopt("t") is None


def test_files_of_ours_that_lost_rows_since_are_found_by_the_index(lake: Lake) -> None:
    """Where the index has a file that is added again follows the commit that wrote it."""
    lake.write("t", [{"n": n} for n in range(10)], configuration={"delta.enableDeletionVectors": "true"})
    theirs(lake, [{"n": 100}])
    lake.write("t", [{"n": n} for n in range(20, 30)])
    lake.sql("DELETE FROM t WHERE n IN (3, 21)")
    done = lake.mirror.adopt("t")
    assert done is not None
    assert done.moved == {1: 2, 2: 3}
    lake.sql("DELETE FROM t WHERE n IN (4, 22)")
    table = lake.table("t")
    assert rows(lake) == [0, 1, 2, *range(5, 10), 20, *range(23, 30), 100]
    places = {row["indexed_version"] for row in table.files().to_pylist()}
    assert places == {0, 2, None}
    for n in (5, 23, 100):
        assert table.files(f"n = {n}").num_rows == 1
    assert table.as_of(2).files("n = 21").num_rows == 1
    assert lake.fsck() == []


@pytest.mark.parametrize("open_lake", ["sqlite"], indirect=True)
def test_again_and_again(raced: Lake) -> None:
    raced.mirror.adopt("t")
    theirs(raced, [{"n": 102}])
    raced.write("t", [{"n": 4}])
    with pytest.raises(MirrorError, match=r"somebody else.*lake\.mirror\.adopt"):
        raced.mirror.reconcile()
    raced.mirror.adopt("t")
    assert rows(raced) == [0, 1, 2, 3, 4, 100, 101, 102]
    agree(raced)


@pytest.mark.parametrize("open_lake", ["sqlite"], indirect=True)
def test_a_delete_of_theirs_and_an_append_of_ours(lake: Lake) -> None:
    lake.write("t", [{"n": 0}])
    lake.write("t", [{"n": 1}])
    deltalake.DeltaTable(folder(lake, "t")).delete("n = 0")
    lake.write("t", [{"n": 2}])
    lake.mirror.adopt("t")
    assert rows(lake) == [1, 2]
    agree(lake)


def test_a_delete_of_ours_and_an_append_of_theirs(lake: Lake) -> None:
    lake.write("t", [{"n": 0}])
    lake.write("t", [{"n": 1}])
    theirs(lake, [{"n": 100}])
    lake.sql("DELETE FROM t WHERE n = 0")
    lake.sql("DELETE FROM t WHERE n = 1")
    lake.mirror.adopt("t")
    assert rows(lake) == [100]
    agree(lake)


def conflict(lake: Lake, how: str) -> None:
    other = deltalake.DeltaTable(folder(lake, "t"))
    match how:
        case "both delete the same file":
            other.delete("n = 0")
            lake.sql("DELETE FROM t WHERE n = 0")
        case "ours read what theirs changed":
            other.delete("n = 1")
            lake.sql("DELETE FROM t WHERE n = 0")
        case "theirs changes the schema":
            theirs(lake, [{"n": 5, "m": 1}], schema_mode="merge")
            lake.write("t", [{"n": 2}])
        case "ours changes the schema":
            theirs(lake, [{"n": 5}])
            lake.sql("ALTER TABLE t ADD COLUMN m BIGINT")
        case "the same application":
            loader = deltalake.CommitProperties(app_transactions=[deltalake.Transaction("loader", 1)])
            theirs(lake, [{"n": 5}], commit_properties=loader)
            lake.write("t", [{"n": 2}], app_transaction=("loader", 1))


@pytest.mark.parametrize("open_lake", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("both delete the same file", "both sides took out part-"),
        ("ours read what theirs changed", "version 2, ours, read rows"),
        ("theirs changes the schema", "version 2, theirs, changes its"),
        ("ours changes the schema", "version 2, ours, changes its schema"),
        ("the same application", "version 2, ours, is by an application"),
    ],
)
def test_what_cannot_follow_stays_as_it_is(lake: Lake, how: str, said: str) -> None:
    lake.write("t", [{"n": 0}])
    lake.write("t", [{"n": 1}])
    conflict(lake, how)
    found, state = rows(lake), lake.mirror.status("t")[0]
    log = lake.catalog.fetch("SELECT version, line FROM dl_log_lines ORDER BY version, action_order")
    with pytest.raises(MirrorError, match=rf"'t' cannot adopt.*{said}.*Nothing was changed.*import_table"):
        lake.mirror.adopt("t")
    assert rows(lake) == found
    assert (lake.mirror.status("t")[0]["version"], lake.mirror.status("t")[0]["diverged"]) == (state["version"], 1)
    assert lake.catalog.fetch("SELECT version, line FROM dl_log_lines ORDER BY version, action_order") == log


def test_who_read_the_old_numbers_cannot_commit(raced: Lake) -> None:
    """He might take out files by numbers that are others' now."""
    tx = raced.begin()
    tx.sql("DELETE FROM t WHERE n = 3")
    late = raced.begin()
    late.write("t", [{"n": 9}])
    raced.mirror.adopt("t")
    for transaction in (tx, late):
        with pytest.raises(CommitConflictError, match="schema or properties"):
            transaction.commit()
    agree(raced)


@pytest.mark.parametrize("open_lake", ["sqlite"], indirect=True)
def test_the_commit_says_what_was_done(raced: Lake) -> None:
    raced.mirror.adopt("t")
    (first, *_) = (folder(raced, "t") / "_delta_log" / f"{6:020d}.json").read_text().splitlines()
    said = json.loads(first)["commitInfo"]["operationParameters"]
    assert said == {"versions": "[2,3]", "moved": '{"2":4,"3":5}'}


NO_COMMIT = {"text": "garbage\n", "bytes": b"\xff\xfe", "no action": "[1]\n", "a string": '"add"\n', "deep": "[" * 100_000}


@pytest.mark.parametrize("open_lake", ["duckdb"], indirect=True)
@pytest.mark.parametrize("content", NO_COMMIT.values(), ids=NO_COMMIT)
def test_what_is_no_commit_is_in_the_way_and_is_said_to_be(lake: Lake, content: str | bytes) -> None:
    """Ours is committed whatever lies there; the error names the way out."""
    lake.write("t", [{"n": 0}])
    path = folder(lake, "t") / "_delta_log" / f"{1:020d}.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    lake.write("t", [{"n": 1}])
    assert lake.mirror.status("t")[0]["diverged"] == 1
    with pytest.raises(MirrorError, match=r"version 1 of the log.* Nothing was changed.* as docs/operations.md says"):
        lake.mirror.adopt("t")
    assert rows(lake) == [0, 1]


@pytest.mark.parametrize("open_lake", ["duckdb"], indirect=True)
def test_what_does_not_follow_ours_is_refused(lake: Lake) -> None:
    lake.write("t", [{"n": 0}])
    (folder(lake, "t") / "_delta_log" / f"{3:020d}.json").write_text('{"commitInfo":{}}\n')
    with pytest.raises(MirrorError, match=r"version 2 of the log is missing.* Nothing was changed"):
        lake.mirror.adopt("t")


@pytest.mark.parametrize("noticed", [True, False])
def test_their_files_are_not_vacuumed(lake: Lake, noticed: bool) -> None:
    """The catalog knows of no version that needs them; other readers do."""
    lake.write("t", [{"n": 0}])
    theirs(lake, [{"n": 100}])
    if noticed:
        lake.write("t", [{"n": 1}])
    for dry_run in (True, False):
        with pytest.raises(MirrorError, match=r"somebody else wrote version 1 .* nothing was deleted: lake.mirror.adopt\('t'\)"):
            lake.table("t").vacuum(0, enforce_retention_duration=False, full=True, dry_run=dry_run)
    lake.mirror.adopt("t")
    assert lake.table("t").vacuum(0, enforce_retention_duration=False, full=True, dry_run=False) == []
    assert rows(lake) == ([0, 1, 100] if noticed else [0, 100])
    agree(lake)


@pytest.mark.parametrize("kind", ["data", "vector"])
def test_a_commit_whose_files_are_missing_is_not_adopted(lake: Lake, kind: str) -> None:
    lake.write("t", [{"n": 0}], configuration={"delta.enableDeletionVectors": "true"})
    theirs(lake, [{"n": 1}])
    if kind == "data":
        (file,) = {*deltalake.DeltaTable(folder(lake, "t")).file_uris()} - {*lake.table("t").file_uris()}
        Path(file.removeprefix("file://")).unlink()
    else:
        log = folder(lake, "t") / "_delta_log" / f"{1:020}.json"
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        for line in lines:
            if "add" in line:
                line["add"]["deletionVector"] = {
                    "storageType": "u", "pathOrInlineDv": "vBn[lx{q8@P<9BNH/isA",
                    "offset": 1, "sizeInBytes": 36, "cardinality": 1,
                }  # fmt: skip
        log.write_text("\n".join(map(json.dumps, lines)) + "\n")
    with pytest.raises(MirrorError, match=r"1 files that they name are not there, such as .*To keep"):
        lake.mirror.adopt("t")
    assert rows(lake) == [0]
    assert lake.table("t").version() == 0
