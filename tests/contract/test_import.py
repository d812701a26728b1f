"""Existing Delta tables in the lake: whole history, what is refused, and what follows."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deltalake
import handmade as h
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import deltaduck
from deltaduck import (
    DeltaduckError,
    Lake,
    LogCorruptError,
    MirrorError,
    SchemaMismatchError,
    TableExistsError,
    TableNotFoundError,
    UnsupportedFeatureError,
    VersionNotFoundError,
)
from deltaduck.mirror.publish import same_actions

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:deltalake")
ID, NAME = h.field("id", "long"), h.field("name", "string")


def rows(*ids: int) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "name": [f"n{i}" for i in ids]})


def ids(lake: Lake, table: str = "t", version: int | None = None) -> list[int]:
    at = "" if version is None else f" AT (VERSION => {version})"
    return [row[0] for row in lake.sql(f"SELECT id FROM {table}{at} ORDER BY id").fetchall()]


def theirs(path: Path, version: int | None = None) -> list[int]:
    return sorted(deltalake.DeltaTable(path, version=version).to_pyarrow_table()["id"].to_pylist())


def contents(lake: Lake) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of the catalog's tables."""
    tables = [
        "dl_tables",
        "dl_table_versions",
        "dl_add_files",
        "dl_remove_files",
        "dl_metadata_updates",
        "dl_protocol_updates",
        "dl_txn_actions",
        "dl_domain_metadata",
        "dl_cdc_files",
        "dl_other_actions",
        "dl_mirror_status",
        "dl_skip_columns",
    ]
    return {t: sorted(lake.catalog.fetch(f"SELECT * FROM {t}"), key=repr) for t in tables}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Written by delta-rs: three appends, a delete, an overwrite with another column; versions 0 to 4."""
    path = tmp_path / "t"
    for n in range(3):
        deltalake.write_deltalake(
            path, rows(n, n + 10), mode="append", commit_properties=deltalake.CommitProperties({"n": str(n)})
        )
    deltalake.DeltaTable(path).delete("id = 1")
    wider = rows(20, 21).append_column("extra", pa.array([1.5, None]))
    deltalake.write_deltalake(path, wider, mode="overwrite", schema_mode="overwrite")
    return path


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """By hand: two files in versions 0 and 1, the first removed in version 2."""
    path = tmp_path / "plain"
    h.commit(path, 0, h.protocol(), h.metadata(ID, NAME), h.add(path, "a.parquet", rows(1, 2)), h.info())
    h.commit(path, 1, h.add(path, "b.parquet", rows(3)))
    h.commit(path, 2, h.remove("a.parquet"))
    return path


# --- the whole history


def test_every_version_is_what_delta_rs_reads(lake: Lake, source: Path) -> None:
    done = lake.import_table(source)
    assert (done.table, done.versions, done.files, done.checkpoint, done.warnings) == ("t", (0, 4), 1, None, [])
    assert done.size_in_bytes == sum(lake.table("t").files()["size"].to_pylist())
    assert "versions 0 to 4, 1 live files" in str(done)
    for version in range(5):
        assert ids(lake, version=version) == theirs(source, version)
        schema = lake.table("t").as_of(version).schema()
        assert schema.names == deltalake.DeltaTable(source, version=version).to_pyarrow_table().schema.names


def test_history_is_the_logs_own(lake: Lake, source: Path) -> None:
    lake.import_table(source)
    for ours, other in zip(lake.table("t").history(), deltalake.DeltaTable(source).history(), strict=True):
        assert ours["version"] == other["version"]
        assert ours["operation"] == other["operation"]
        assert ours["timestamp"] == other["timestamp"]
        assert ours["engine_info"] == other["engineInfo"]
    assert lake.table("t").as_of(2).history()[0]["operation_parameters"]["mode"] == "Append"


def test_what_was_there_is_untouched(lake: Lake, source: Path) -> None:
    def state() -> dict[Path, tuple[int, int]]:
        return {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in source.rglob("*")}

    before = state()
    lake.import_table(source)
    lake.sql("FROM t").fetchall()
    lake.mirror.verify("t")
    assert state() == before


def test_times_rise_with_versions_whatever_the_log_says(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "t"
    h.commit(path, 0, h.protocol(), h.metadata(ID), h.info(ms=5_000))
    h.commit(path, 1, h.info(ms=3_000))
    h.commit(path, 2, h.info(ms=5_001))
    h.commit(path, 3, h.info(ms=9_000, inCommitTimestamp=7_000))
    h.commit(path, 4, {"txn": {"appId": "a", "version": 1}})
    os.utime(path / "_delta_log" / f"{4:020d}.json", ns=(10**16, 10**16))
    lake.import_table(path)
    times = [ms for (ms,) in lake.catalog.fetch("SELECT commit_ms FROM dl_table_versions ORDER BY version")]
    assert times == [5_000, 5_001, 5_002, 7_000, 10**10]
    at = lake.table("t").as_of(timestamp=dt.datetime.fromtimestamp(6, dt.UTC))
    assert at.version() == 2


def test_application_transactions_come_along(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "t"
    properties = deltalake.CommitProperties(app_transactions=[deltalake.Transaction("loader", 7)])
    deltalake.write_deltalake(path, rows(1), commit_properties=properties)
    lake.import_table(path)
    assert lake.write("t", rows(2), app_transaction=("loader", 7)) == 0
    assert lake.write("t", rows(2), app_transaction=("loader", 8)) == 1


def test_partitions_and_odd_names(lake: Lake, tmp_path: Path, days: pa.Table) -> None:
    path = tmp_path / "a table: 100%"
    odd = pa.table({"day": ["a b", "c/d", "e%20f", "ü=&?#", None], "n": [1, 2, 3, 4, 5]})
    deltalake.write_deltalake(path, odd, partition_by=["day"])
    lake.import_table(path, "odd")
    assert lake.sql("SELECT day, n FROM odd ORDER BY n").fetchall() == list(zip(*odd.to_pydict().values(), strict=True))
    assert lake.sql("SELECT n FROM odd WHERE day = 'c/d'").fetchall() == [(2,)]


def test_a_table_of_ours_is_identical_in_another_lake(lake: Lake, tmp_path: Path, days: pa.Table) -> None:
    """Import of what our own mirror wrote: the same lines, byte for byte, and the same files."""

    def known(of: Lake) -> tuple[Any, ...]:
        files = of.table("days").files().drop_columns(["action_order"]).to_pylist()
        lines = of.catalog.fetch("SELECT version, line FROM dl_log_lines ORDER BY version, action_order")
        return (
            lines,
            files,
            of.table("days").detail(),
            of.sql("SELECT n, day FROM days WHERE day > 'mon' ORDER BY ALL").fetchall(),
        )

    with deltaduck.connect(tmp_path / "other.duckdb") as other:
        other.write("days", days, partition_by="day", configuration={"delta.checkpointInterval": "2"})
        other.sql("UPDATE days SET n = n * 10 WHERE day = 'tue'")
        other.write("days", days, app_transaction=("loader", 3), commit_metadata="again")
        other.sql("DELETE FROM days WHERE day IS NULL")
        location = other.table("days").detail()["location"]
        wanted = known(other)
    lake.import_table(location)
    for found, other_s in zip(known(lake), wanted, strict=True):
        assert found == other_s
    assert lake.mirror.verify("days")


# --- options


def test_a_dry_run_changes_nothing(lake: Lake, source: Path) -> None:
    before = contents(lake)
    would = lake.import_table(source, dry_run=True)
    assert contents(lake) == before
    assert would == lake.import_table(source)


def test_up_to_a_version(lake: Lake, source: Path) -> None:
    assert lake.import_table(source, up_to_version=2).versions == (0, 2)
    assert ids(lake) == theirs(source, 2)
    with pytest.raises(VersionNotFoundError):
        lake.table("t").as_of(3)
    with pytest.raises(LogCorruptError, match="ends at version 4: there is no version 9"):
        lake.import_table(source, "u", up_to_version=9)


def test_resume_brings_in_what_came_since_and_we_go_on(lake: Lake, source: Path) -> None:
    lake.import_table(source, up_to_version=1)
    assert lake.import_table(source, resume=True).versions == (2, 4)
    assert [ids(lake, version=v) for v in range(5)] == [theirs(source, v) for v in range(5)]
    nothing = lake.import_table(source, resume=True)
    assert (nothing.versions, "nothing new" in str(nothing)) == (None, True)

    deltalake.write_deltalake(source, rows(30, 31).append_column("extra", pa.nulls(2, pa.float64())), mode="append")
    deltalake.DeltaTable(source).delete("id = 30")
    assert lake.import_table(source, resume=True).versions == (5, 6)
    assert ids(lake) == [20, 21, 31] == theirs(source)

    assert lake.write("t", rows(40)) == 7
    lake.sql("DELETE FROM t WHERE id = 20")
    lake.sql("UPDATE t SET id = 22 WHERE id = 21")
    assert theirs(source) == [22, 31, 40] == ids(lake)
    assert deltalake.DeltaTable(source).version() == 9
    assert lake.mirror.verify("t")
    deltalake.write_deltalake(source, rows(50).append_column("extra", pa.nulls(1, pa.float64())), mode="append")
    assert lake.import_table(source, resume=True).versions == (10, 10)
    assert ids(lake) == [22, 31, 40, 50]


def test_resume_follows_schema_and_protocol(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "t"
    deltalake.write_deltalake(path, rows(1))
    lake.import_table(path)
    more = rows(2).append_column("seen", pa.array([dt.datetime(2024, 1, 1)], pa.timestamp("us")))
    deltalake.write_deltalake(path, more, mode="append", schema_mode="merge")
    lake.import_table(path, resume=True)
    assert lake.table("t").schema().names == ["id", "name", "seen"]
    assert lake.table("t").detail()["min_reader_version"] == deltalake.DeltaTable(path).protocol().min_reader_version
    assert ids(lake, version=0) == [1]
    assert lake.sql("SELECT count(*) FROM t WHERE seen >= TIMESTAMP '2024-01-01'").fetchall() == [(1,)]


def test_resume_asks_for_the_same_place_and_a_settled_log(lake: Lake, source: Path, tmp_path: Path) -> None:
    with pytest.raises(TableNotFoundError):
        lake.import_table(source, resume=True)
    lake.import_table(source)
    with pytest.raises(TableExistsError, match=r"is at .*another name"):
        lake.import_table(tmp_path, "t", resume=True)
    log = source / "_delta_log"
    log.rename(source / "away")
    lake.write("t", rows(1))
    (source / "away").rename(log)
    with pytest.raises(MirrorError, match=r"not in the log yet.*reconcile"):
        lake.import_table(source, resume=True)
    assert lake.mirror.reconcile() == 1
    assert lake.import_table(source, resume=True).versions is None


def test_resume_when_the_log_has_been_cleaned_past_us(lake: Lake, source: Path) -> None:
    lake.import_table(source, up_to_version=1)
    deltalake.DeltaTable(source).create_checkpoint()
    for v in range(4):
        (source / "_delta_log" / f"{v:020d}.json").unlink()
    with pytest.raises(LogCorruptError, match=r"version 2 of the log .*cleaned up: force=True"):
        lake.import_table(source, resume=True)
    assert lake.import_table(source, force=True).versions == (4, 4)
    assert ids(lake) == theirs(source)


def test_names_and_places_are_taken_once(lake: Lake, source: Path) -> None:
    lake.import_table(source)
    with pytest.raises(TableExistsError, match=r"resume=True.*force=True"):
        lake.import_table(source)
    with pytest.raises(TableExistsError, match="is in this lake already, as table 't'"):
        lake.import_table(source, "u")
    first = contents(lake)["dl_tables"]
    lake.import_table(source, force=True)
    assert ids(lake) == theirs(source)
    assert len(contents(lake)["dl_tables"]) == len(first) + 1  # the old one is dropped
    assert [row["name"] for row in lake.tables()] == ["t"]


def test_checkpoint_only(lake: Lake, source: Path) -> None:
    deltalake.DeltaTable(source, version=3).create_checkpoint()
    done = lake.import_table(source, checkpoint_only=True)
    assert (done.versions, done.checkpoint) == ((3, 4), 3)
    assert "from the checkpoint of version 3 on" in str(done)
    with pytest.raises(VersionNotFoundError, match="no version 2: it has versions 3 to"):
        lake.table("t").as_of(2)
    assert [ids(lake, version=v) for v in (3, 4)] == [theirs(source, v) for v in (3, 4)]
    assert lake.mirror.verify("t"), str(lake.mirror.verify("t"))


def test_progress_is_told(lake: Lake, source: Path) -> None:
    told: list[tuple[str, int, int]] = []
    lake.import_table(source, progress=lambda *step: told.append(step))
    assert {what for what, _, _ in told} == {"reading the log", "storing the files"}
    assert all(0 <= done <= total for _, done, total in told)


# --- checkpoints


def test_history_begins_where_the_log_was_cleaned(lake: Lake, source: Path) -> None:
    wanted = {v: theirs(source, v) for v in (2, 3, 4)}
    deltalake.DeltaTable(source, version=2).create_checkpoint()
    for v in range(3):
        (source / "_delta_log" / f"{v:020d}.json").unlink()
    done = lake.import_table(source)
    assert (done.versions, done.checkpoint) == ((2, 4), 2)
    assert {v: ids(lake, version=v) for v in wanted} == wanted
    (state,) = lake.mirror.status("t")
    assert (state["version"], state["published_version"], state["pending"], state["diverged"]) == (4, 4, 0, 0)
    assert lake.mirror.verify("t"), str(lake.mirror.verify("t"))


def files_of(plain: Path) -> list[h.Action]:
    return [h.add(plain, "b.parquet"), h.remove("a.parquet")]


def written(kind: str, plain: Path) -> None:
    """A checkpoint of version 2 of `plain`, of every kind that there is."""
    head = [h.protocol(), h.metadata(ID, NAME), {"txn": {"appId": "x", "version": 3}}]
    modern = [h.protocol(3, 7, "v2Checkpoint"), *head[1:]]
    files = files_of(plain)
    match kind:
        case "classic":
            h.checkpoint(plain, 2, *head, *files)
        case "multi-part":
            h.checkpoint(plain, 2, *head, part=(1, 2))
            h.checkpoint(plain, 2, *files, part=(2, 2))
        case "v2 json":
            h.checkpoint_v2(plain, 2, *modern, *files)
        case "v2 parquet":
            h.checkpoint_v2(plain, 2, *modern, *files, kind="parquet")
        case "v2 json, sidecars":
            h.checkpoint_v2(plain, 2, *modern, sidecars=[files[:1], files[1:]])
        case "v2 parquet, sidecars":
            h.checkpoint_v2(plain, 2, *modern, sidecars=[files[:1], files[1:]], kind="parquet")


KINDS = ["classic", "multi-part", "v2 json", "v2 parquet", "v2 json, sidecars", "v2 parquet, sidecars"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_checkpoint(lake: Lake, plain: Path, kind: str) -> None:
    written(kind, plain)
    for v in range(3):
        (plain / "_delta_log" / f"{v:020d}.json").unlink()
    h.commit(plain, 3, h.add(plain, "c.parquet", rows(4)))
    done = lake.import_table(plain, "t")
    assert (done.versions, done.checkpoint) == ((2, 3), 2)
    assert (ids(lake, version=2), ids(lake, version=3)) == ([3], [3, 4])
    assert lake.catalog.rows("transaction_version", table_id=1, app_id="x") == [(3,)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_that_cannot_be_read_is_passed_over(lake: Lake, plain: Path, kind: str) -> None:
    """The commits are all there, and say the same; a reader that needs it falls back to what is older, with a warning."""
    written(kind, plain)
    for file in [*plain.glob("_delta_log/*.checkpoint*"), *plain.glob("_delta_log/_sidecars/*")]:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    done = lake.import_table(plain, "t")
    assert done.versions == (0, 2)
    assert any("not compared with the checkpoint of version 2" in w for w in done.warnings)
    assert done.files == 1


def test_an_unreadable_checkpoint_falls_back_to_an_older_one(lake: Lake, source: Path) -> None:
    for v in (1, 3):
        deltalake.DeltaTable(source, version=v).create_checkpoint()
    (source / "_delta_log" / f"{0:020d}.json").unlink()
    (source / "_delta_log" / f"{1:020d}.json").unlink()
    newest = source / "_delta_log" / f"{3:020d}.checkpoint.parquet"
    newest.write_bytes(b"PAR1 this is none PAR1")
    done = lake.import_table(source)
    assert (done.versions, done.checkpoint) == ((1, 4), 1)
    assert done.warnings
    oldest = source / "_delta_log" / f"{1:020d}.checkpoint.parquet"
    oldest.write_bytes(b"")
    before = contents(lake)
    with pytest.raises(LogCorruptError):
        lake.import_table(source, force=True)
    assert contents(lake) == before


def test_a_half_written_multi_part_checkpoint_is_none(lake: Lake, plain: Path) -> None:
    h.checkpoint(plain, 2, h.protocol(), h.metadata(ID, NAME), part=(1, 2))
    assert lake.import_table(plain, "t", checkpoint_only=True).checkpoint is None
    assert ids(lake) == [3]


def test_compacted_commits(lake: Lake, plain: Path) -> None:
    h.commit(plain, 3, h.add(plain, "c.parquet", rows(4)))
    compacted = plain / "_delta_log" / f"{1:020d}.{2:020d}.compacted.json"
    compacted.write_text("\n".join(json.dumps(a) for a in [h.add(plain, "b.parquet"), h.remove("a.parquet")]))
    assert lake.import_table(plain, "whole").versions == (0, 3)
    lake.drop_table("whole")
    (plain / "_delta_log" / f"{1:020d}.json").unlink()  # whoever has the compacted file needs neither
    done = lake.import_table(plain, "t")
    assert done.versions == (2, 3)
    assert (ids(lake, version=2), ids(lake)) == ([3], [3, 4])


# --- what is refused


def refusal(lake: Lake, path: Path | str, kind: type[DeltaduckError], match: str) -> None:
    before = contents(lake)
    with pytest.raises(kind, match=match):
        lake.import_table(path, "refused")
    assert contents(lake) == before
    if lake.catalog.database == "duckdb":
        assert not lake.catalog.fetch("SELECT 1 FROM duckdb_tables() WHERE regexp_full_match(table_name, 'dl_skip_[0-9]+')")


def test_a_version_is_missing(lake: Lake, plain: Path) -> None:
    (plain / "_delta_log" / f"{1:020d}.json").unlink()
    refusal(
        lake, plain, LogCorruptError, f"{plain}: version 1 of the log is missing, and no checkpoint replaces it: bring its file"
    )


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (b'{"add":{"path":"x"', "version 1 .* line 1 is not one JSON action"),
        (b'{"commitInfo":{}}\n[1,2]\n', "version 1 .* line 2"),
        (b"\xff\xfe\x00", "version 1 .*UTF-8"),
        (b'{"add":{"partitionValues":{},"size":1}}', "version 1 .* add .*path"),
        (b'{"add":{"path":"x","partitionValues":{}}}', "version 1 .* add .*size"),
        (b'{"add":{"path":"x","partitionValues":{},"size":-1}}', "version 1 .* add .*"),
        (b'{"add":{"path":"x","partitionValues":[],"size":1}}', "version 1 .* add .*partitionValues"),
        (b'{"add":"x"}', "version 1 .* add .*path"),
    ],
)
def test_a_commit_that_cannot_be_read(lake: Lake, plain: Path, broken: bytes, named: str) -> None:
    (plain / "_delta_log" / f"{1:020d}.json").write_bytes(broken)
    refusal(lake, plain, LogCorruptError, named)


@pytest.mark.parametrize("shape", ["pretty", "one line", "carriage returns"])
def test_commits_whose_actions_do_not_stand_on_lines(lake: Lake, plain: Path, shape: str) -> None:
    """The protocol wants a line for each; whatever is built on the kernel reads JSON values in any layout, delta-rs too."""
    for file in (plain / "_delta_log").iterdir():
        actions = [json.loads(line) for line in file.read_text().splitlines()]
        match shape:
            case "pretty":
                file.write_text("\n\n".join(json.dumps(a, indent=2) for a in actions))
            case "one line":
                file.write_text(" ".join(map(json.dumps, actions)))
            case _:
                file.write_text("".join(json.dumps(a, indent=1) + "\r\n" for a in actions), newline="")
    lake.import_table(plain, "t")
    assert ids(lake) == theirs(plain) == [3]


def test_text_behind_the_json_is_refused(lake: Lake, plain: Path) -> None:
    """As delta-rs does. Spark stops reading a line where its JSON ends."""
    file = plain / "_delta_log" / f"{1:020d}.json"
    file.write_text("".join(line + "x\n" for line in file.read_text().splitlines()))
    refusal(lake, plain, LogCorruptError, "version 1 .* line 1 is not one JSON action")
    with pytest.raises(Exception, match=r"(?i)json|parse|expected"):
        deltalake.DeltaTable(plain)


def test_logs_that_describe_no_table(lake: Lake, tmp_path: Path) -> None:
    h.commit(tmp_path / "a", 0, h.protocol())
    refusal(lake, tmp_path / "a", LogCorruptError, "no metaData action")
    h.commit(tmp_path / "b", 0, h.metadata(ID))
    refusal(lake, tmp_path / "b", LogCorruptError, "no protocol action")
    (tmp_path / "c" / "_delta_log").mkdir(parents=True)
    refusal(lake, tmp_path / "c", LogCorruptError, "no commit and no checkpoint")
    refusal(lake, tmp_path / "nowhere", TableNotFoundError, "no _delta_log")
    refusal(lake, "s3://bucket/table", DeltaduckError, "s3://")


@pytest.mark.parametrize(
    ("actions", "kind", "match"),
    [
        ([h.protocol(4, 7), h.metadata(ID)], UnsupportedFeatureError, "reader version 4"),
        ([h.protocol(3, 7, "timeMachine"), h.metadata(ID)], UnsupportedFeatureError, "timeMachine"),
        ([h.protocol(), h.metadata(h.field("id", "quaternion"))], LogCorruptError, "quaternion"),
        ([h.protocol(), h.metadata(h.field("id", {"type": "tuple"}))], LogCorruptError, "tuple"),
        ([h.protocol(), {"metaData": {"id": "x", "schemaString": "{", "partitionColumns": []}}], LogCorruptError, "schema"),
        ([h.protocol(), {"metaData": {"id": "x", "partitionColumns": []}}], LogCorruptError, "schemaString"),
        ([h.protocol(), h.metadata(ID, partition_by=["day"])], LogCorruptError, "day"),
        ([h.protocol(), h.metadata(ID, NAME, partition_by=["Name"])], LogCorruptError, "Name"),
        (
            [{"protocol": {"minReaderVersion": 3, "minWriterVersion": 7}}, h.metadata(ID)],
            LogCorruptError,
            "version 3.*readerFeatures",
        ),
        ([h.protocol(3, 5), h.metadata(ID)], LogCorruptError, "reader version 3.*writer version 5"),
        (
            [
                {"protocol": {"minReaderVersion": 1, "minWriterVersion": 7, "readerFeatures": ["x"], "writerFeatures": ["x"]}},
                h.metadata(ID),
            ],
            LogCorruptError,
            "version 1.*readerFeatures",
        ),
        (
            [{"protocol": {"minReaderVersion": 1, "minWriterVersion": 7}}, h.metadata(ID)],
            LogCorruptError,
            "version 7.*writerFeatures",
        ),
        (
            [{"protocol": {"minReaderVersion": 1, "minWriterVersion": 2, "writerFeatures": ["x"]}}, h.metadata(ID)],
            LogCorruptError,
            "writerFeatures",
        ),
        ([{"protocol": {"minReaderVersion": "many"}}, h.metadata(ID)], LogCorruptError, "protocol"),
        (
            [{"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": 5}}, h.metadata(ID)],
            LogCorruptError,
            "protocol",
        ),
    ],
)
def test_tables_that_cannot_be_read(
    lake: Lake, tmp_path: Path, actions: list[h.Action], kind: type[DeltaduckError], match: str
) -> None:
    h.commit(tmp_path / "t", 0, *actions)
    refusal(lake, tmp_path / "t", kind, match)


def test_a_log_that_contradicts_itself(lake: Lake, plain: Path) -> None:
    """The commits say one thing, the checkpoint another: it is told, and the checkpoint counts, unless nobody looks."""
    h.checkpoint(plain, 2, h.protocol(), h.metadata(ID, NAME), h.add(plain, "a.parquet"), h.add(plain, "b.parquet"))
    h.commit(plain, 3, h.info())
    done = lake.import_table(plain, "t")
    assert (done.versions, done.checkpoint, ids(lake)) == ((2, 3), 2, [1, 2, 3])  # as all who start from the checkpoint read it
    assert ids(lake) == theirs(plain)
    assert any("contradicts itself at version 3" in w and "a.parquet" in w for w in done.warnings)
    lake.import_table(plain, "t", force=True, skip_validation=True)
    assert ids(lake) == [3]


# --- afterwards


def test_features_stand_in_any_order(lake: Lake, tmp_path: Path) -> None:
    """Spark's checkpoints order them anew: that is no contradiction, and the history stays."""
    path, features = tmp_path / "t", ("appendOnly", "invariants", "changeDataFeed")
    h.commit(path, 0, h.protocol(1, 7, *features), h.metadata(ID, NAME))
    h.commit(path, 1, h.add(path, "a.parquet"))
    h.checkpoint(path, 1, h.protocol(1, 7, *reversed(features)), h.metadata(ID, NAME), h.add(path, "a.parquet"))
    done = lake.import_table(path, "t")
    assert (done.versions, done.checkpoint, done.warnings) == ((0, 1), None, [])


def test_our_writes_continue_the_log(lake: Lake, source: Path) -> None:
    lake.import_table(source)
    for n in range(7):
        lake.write("t", rows(100 + n))
    checkpoints = [p.name for p in (source / "_delta_log").glob("*.checkpoint.parquet")]
    assert checkpoints == [f"{10:020d}.checkpoint.parquet"]
    lake.sql("DELETE FROM t WHERE id = 103")
    lake.sql("UPDATE t SET name = 'x' WHERE id = 104")
    assert theirs(source) == ids(lake)
    assert [theirs(source, v) for v in (4, 8, 10, 11)] == [ids(lake, version=v) for v in (4, 8, 10, 11)]
    assert lake.mirror.verify("t"), str(lake.mirror.verify("t"))
    for v in range(10):
        (source / "_delta_log" / f"{v:020d}.json").unlink()
    assert theirs(source) == ids(lake)  # our checkpoint alone will do


def test_two_writers_are_noticed(lake: Lake, source: Path) -> None:
    lake.import_table(source)
    deltalake.write_deltalake(source, rows(1).append_column("extra", pa.nulls(1, pa.float64())), mode="append")
    found = lake.mirror.verify("t")
    assert not found
    assert "was written by somebody else" in str(found)
    lake.write("t", rows(2))
    assert lake.mirror.status("t")[0]["diverged"] == 1
    with pytest.raises(MirrorError, match="not in the log yet"):
        lake.import_table(source, resume=True)


def test_an_imported_table_refuses_frames_that_do_not_fit(lake: Lake, source: Path) -> None:
    lake.import_table(source)
    with pytest.raises(SchemaMismatchError):
        lake.write("t", pa.table({"id": ["text"]}))


# --- round trip


UNKNOWN = [
    {"commitInfo": {"operation": "X", "strange": {"deep": [1, None, {"a": 1}]}, "operationMetrics": {"n": "1"}}},
    {"frobnicate": {"everything": [True, 1.5, "ü"]}},
    {"txn": {"appId": "a", "version": 1, "lastUpdated": 5, "flavour": "x"}},
    {"txn": {"nobody": 1}},
    {"domainMetadata": {"domain": "d", "configuration": '{"a":1}', "removed": False, "note": 1}},
    {
        "cdc": {
            "path": "_change_data/c.parquet",
            "partitionValues": {},
            "size": 5,
            "dataChange": False,
            "tags": {"a": "b"},
            "q": 1,
        }
    },
]


def test_every_action_comes_back(lake: Lake, tmp_path: Path) -> None:
    """Unknown actions, unknown members, members of members, nulls, doubles: what was read is what would be written."""
    path = tmp_path / "t"
    vector = {**h.inline_vector([0]), "maxRowIndex": 3}
    table = h.metadata(ID, NAME, appendOnly="false")
    table["metaData"]["format"]["compression"] = "none"
    table["metaData"]["invented"] = {"x": [1]}
    first = h.add(
        path, "a%20b.parquet", rows(1, 2), tags={"k": "v"}, clusteringProvider="z", baseRowId=0, defaultRowCommitVersion=0
    )
    first["add"] |= {"unknown": None, "also": {"nested": [1, 2]}, "": 0, "a/b~1": 1, '$."': 2, "stats": '{"numRecords":2}'}
    first["add"] |= {"deletionTimestamp": 3, "extendedFileMetadata": True}  # what a remove has
    h.commit(path, 0, h.protocol(3, 7, "deletionVectors"), table, first, *UNKNOWN)
    again = {"add": {**first["add"], "deletionVector": vector}}
    gone = h.remove(
        first["add"]["path"],
        partitionValues={},
        size=9,
        tags={"k": "v"},
        stats="{}",
        reason="dv",
        extendedFileMetadata=False,
        modificationTime=1,
        clusteringProvider="z",
    )
    h.commit(path, 1, gone, again, h.info("DELETE"))
    h.commit(path, 2, h.metadata(ID), h.metadata(ID, NAME), h.info(), h.info("SECOND"))
    h.commit(path, 3, h.remove("never/there.parquet", dataChange=False))
    lake.import_table(path)
    lake.mirror.export("t", tmp_path / "copy")
    for v in range(4):
        name = f"_delta_log/{v:020d}.json"
        assert same_actions((path / name).read_bytes(), (tmp_path / "copy" / name).read_bytes()), v
    assert lake.mirror.verify("t"), str(lake.mirror.verify("t"))


def test_an_exported_log_is_the_table(lake: Lake, source: Path, tmp_path: Path) -> None:
    lake.import_table(source)
    lake.write("t", rows(7))
    copy = tmp_path / "copy"
    assert lake.mirror.export("t", copy) == 6
    for file in source.glob("*.parquet"):
        shutil.copy(file, copy)
    for v in range(6):
        assert theirs(copy, v) == theirs(source, v)
        name = f"_delta_log/{v:020d}.json"
        assert same_actions((source / name).read_bytes(), (copy / name).read_bytes())
        assert (copy / name).stat().st_mtime_ns // 10**6 == lake.table("t").as_of(v).history()[0]["timestamp"]
    with pytest.raises(MirrorError, match="holds a _delta_log already"):
        lake.mirror.export("t", copy)


def test_an_exported_log_begins_with_its_checkpoint(lake: Lake, source: Path, tmp_path: Path) -> None:
    deltalake.DeltaTable(source, version=3).create_checkpoint()
    for v in range(4):
        (source / "_delta_log" / f"{v:020d}.json").unlink()
    lake.import_table(source)
    copy = tmp_path / "copy"
    lake.mirror.export("t", copy)
    for file in source.glob("*.parquet"):
        shutil.copy(file, copy)
    assert sorted(p.name for p in (copy / "_delta_log").iterdir()) == [
        f"{3:020d}.checkpoint.parquet",
        f"{3:020d}.crc",
        f"{4:020d}.json",
        "_last_checkpoint",
    ]
    assert [theirs(copy, v) for v in (3, 4)] == [theirs(source, v) for v in (3, 4)]

    def adds(root: Path) -> list[tuple[Any, ...]]:
        found = pq.read_table(root / "_delta_log" / f"{3:020d}.checkpoint.parquet")["add"].to_pylist()
        return sorted((a["path"], a["size"], json.dumps(json.loads(a["stats"]), sort_keys=True)) for a in found if a)

    assert adds(copy) == adds(source)


def test_reopened(lake: Lake, open_lake: Callable[[], Lake], source: Path) -> None:
    lake.import_table(source)
    lake.close()
    assert ids(open_lake()) == theirs(source)


@pytest.mark.parametrize("version", [3, 4, 5])
def test_tables_of_writers_before_features_are_written_as_they_are(lake: Lake, tmp_path: Path, version: int) -> None:
    """What a legacy version implies is supported; the protocol stays, for the readers that the table has."""
    path = tmp_path / "t"
    deltalake.write_deltalake(path, pa.table({"id": [1, 2]}))
    first = path / "_delta_log" / f"{0:020d}.json"
    text = first.read_text(encoding="utf-8")
    assert '"minWriterVersion":2' in text
    first.write_text(text.replace('"minWriterVersion":2', f'"minWriterVersion":{version}'), encoding="utf-8")
    lake.import_table(path, "t")
    lake.write("t", pa.table({"id": [3]}))
    lake.sql("DELETE FROM t WHERE id = 1")
    assert sorted(lake.sql("FROM t").fetchall()) == [(2,), (3,)]
    assert lake.table("t").detail()["min_writer_version"] == version
    rows = pa.table(deltalake.QueryBuilder().register("t", deltalake.DeltaTable(path)).execute("SELECT id FROM t"))
    assert sorted(rows["id"].to_pylist()) == [2, 3]
