"""What lies beside the commits: V2 checkpoints, version checksums, log compactions; and how all of it is proved and repaired."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import deltalake
import pyarrow.parquet as pq
import pytest

import deltaduck
from deltaduck import Lake, MirrorError, StorageError
from deltaduck.mirror import checkpoint

EVERY_THIRD = {"delta.checkpointInterval": "3"}


def folder(lake: Lake) -> Path:
    return Path(lake.table("t").detail()["location"], "_delta_log")


@pytest.fixture
def t(lake: Lake) -> Lake:
    """Eight versions, with deletes, an application's transaction, and checkpoints of versions 3 and 6."""
    lake.write("t", [{"n": 0}], configuration=EVERY_THIRD, app_transaction=("loader", 1))
    for n in range(1, 7):
        lake.write("t", [{"n": n}], app_transaction=("loader", n + 1))
    lake.sql("DELETE FROM t WHERE n = 5")
    return lake


@pytest.mark.parametrize("few", [checkpoint.BATCH, 1], ids=["copied", "streamed"])
def test_a_v2_checkpoint_has_its_files_in_a_sidecar(lake: Lake, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "BATCH", few)
    lake.write("t", [{"n": 0}], configuration=EVERY_THIRD | {"delta.checkpointPolicy": "v2"})
    protocol = lake.table("t").protocol()
    assert "v2Checkpoint" in (protocol.reader_features or ())
    lake.write("t", [{"n": 1}])
    lake.sql("DELETE FROM t WHERE n = 0")
    lake.write("t", [{"n": 3}], app_transaction=("loader", 1))
    (sidecar,) = (folder(lake) / "_sidecars").iterdir()
    files = pq.read_table(sidecar)
    assert [kind for row in files.to_pylist() for kind, action in row.items() if action] == ["remove", "add", "add"]
    rows = pq.read_table(folder(lake) / f"{3:020d}.checkpoint.parquet").to_pylist()
    (said,) = [row["sidecar"] for row in rows if row["sidecar"]]
    assert (said["path"], said["sizeInBytes"]) == (sidecar.name, sidecar.stat().st_size)
    assert [row["checkpointMetadata"]["version"] for row in rows if row["checkpointMetadata"]] == [3]
    assert [row["txn"]["appId"] for row in rows if row["txn"]] == ["loader"]
    assert not any(row["add"] or row["remove"] for row in rows), "columns that Spark asks for, without a file in them"
    last = json.loads((folder(lake) / "_last_checkpoint").read_text())
    assert last == {
        "version": 3, "size": len(rows) + files.num_rows, "numOfAddFiles": 2,
        "sizeInBytes": sidecar.stat().st_size + (folder(lake) / f"{3:020d}.checkpoint.parquet").stat().st_size,
    }  # fmt: skip
    assert lake.mirror.verify("t")
    sidecar.unlink()
    assert "checkpoint.parquet cannot be read" in str(lake.mirror.verify("t"))
    assert lake.mirror.verify("t", repair=True)
    assert sidecar.exists()


@pytest.mark.parametrize("open_lake", ["duckdb"], indirect=True)
def test_a_table_may_change_its_mind(t: Lake) -> None:
    t.sql("ALTER TABLE t SET TBLPROPERTIES ('delta.checkpointPolicy' = 'v2')")
    t.write("t", [{"n": 8}])
    t.sql("ALTER TABLE t SET TBLPROPERTIES ('delta.checkpointPolicy' = 'classic')")
    for n in range(3):
        t.write("t", [{"n": n}])
    kinds = {int(p.name[:20]): "sidecar" in pq.ParquetFile(p).schema_arrow.names for p in folder(t).glob("*.checkpoint.parquet")}
    assert kinds == {3: False, 6: False, 9: True, 12: False}
    assert t.mirror.verify("t", range(20))


@pytest.mark.parametrize("open_lake", ["duckdb"], indirect=True)
def test_old_sidecars_go_with_their_checkpoints(lake: Lake) -> None:
    old = EVERY_THIRD | {"delta.checkpointPolicy": "v2", "delta.logRetentionDuration": "interval 0 days"}
    lake.write("t", [{"n": 0}], configuration=old)
    for n in range(6):
        lake.write("t", [{"n": n}])
    lake.mirror.compact("t", 0, 2)
    assert len(list((folder(lake) / "_sidecars").iterdir())) == 2
    while not lake.mirror.clean_up("t"):  # within a millisecond of the last commit nothing is older
        pass
    assert [p.name.removeprefix("0" * 19) for p in sorted(folder(lake).iterdir())] == [
        "6.checkpoint.parquet", "6.crc", "6.json", "_last_checkpoint", "_sidecars",
    ]  # fmt: skip
    assert len(list((folder(lake) / "_sidecars").iterdir())) == 1
    assert len(deltalake.DeltaTable(folder(lake).parent).get_add_actions()["path"]) == 7


def test_a_checksum_stands_beside_each_checkpoint(t: Lake) -> None:
    assert sorted(p.name for p in folder(t).glob("*.crc")) == [f"{3:020d}.crc", f"{6:020d}.crc"]
    said = json.loads((folder(t) / f"{6:020d}.crc").read_text())
    files = t.table("t").as_of(version=6).files()
    assert (said["numFiles"], said["tableSizeBytes"]) == (files.num_rows, sum(files["size"].to_pylist()))
    assert (said["numMetadata"], said["numProtocol"]) == (1, 1)
    assert [(x["appId"], x["version"]) for x in said["setTransactions"]] == [("loader", 7)]
    metadata = json.loads((folder(t) / f"{0:020d}.json").read_text().splitlines()[2])["metaData"]
    assert said["metadata"] == metadata
    assert said["protocol"] == {"minReaderVersion": 1, "minWriterVersion": 2}
    assert "inCommitTimestampOpt" not in said


def test_a_compaction_says_what_its_commits_come_to(t: Lake, tmp_path: Path) -> None:
    """A reader that has it needs none of those before the last."""
    assert t.mirror.compact("t", 1, 7) == f"{1:020d}.{7:020d}.compacted.json"
    lines = [json.loads(line) for line in (folder(t) / f"{1:020d}.{7:020d}.compacted.json").read_text().splitlines()]
    kinds = [kind for line in lines for kind in line]
    assert {kind: kinds.count(kind) for kind in kinds} == {"add": 5, "remove": 1, "txn": 1}
    place = folder(t).parent
    wanted = sorted(t.sql("SELECT n FROM t").fetchall())
    for file in folder(t).glob("*checkpoint*"):
        file.unlink()
    for version in range(1, 7):  # a version is there when its commit is
        (folder(t) / f"{version:020d}.json").unlink()
    with deltaduck.connect(tmp_path / "other.duckdb") as other:
        other.import_table(place, "t")
        assert sorted(other.sql("SELECT n FROM t").fetchall()) == wanted


def test_a_compaction_begins_after_the_last_checkpoint(t: Lake) -> None:
    t.write("t", [{"n": 8}])
    assert t.mirror.compact("t") == f"{7:020d}.{8:020d}.compacted.json"
    assert deltalake.DeltaTable(folder(t).parent).version() == 8
    for first, last in ((4, 4), (5, 9), (3, 2)):
        with pytest.raises(MirrorError, match=f"versions {first} to {last} of table 't' cannot be compacted"):
            t.mirror.compact("t", first, last)


def test_versions_are_verified_by_range(t: Lake) -> None:
    (folder(t) / f"{2:020d}.json").unlink()
    (folder(t) / f"{3:020d}.checkpoint.parquet").unlink()
    assert [p.split("/")[-1] for p in t.mirror.verify("t", range(4)).problems] == [
        f"{2:020d}.json is missing", f"{3:020d}.checkpoint.parquet is missing",
    ]  # fmt: skip
    later = t.mirror.verify("t", (4, 7))
    assert later
    assert (later.versions, later.checkpoint) == (4, 6)
    assert len(t.mirror.verify("t").problems) == 1  # of the checkpoints, the newest


@pytest.mark.parametrize("open_lake", ["duckdb"], indirect=True)
@pytest.mark.parametrize("what", ["gone", "changed", "cut"])
def test_what_is_wrong_is_repaired_byte_for_byte(t: Lake, what: str) -> None:
    names = [*(f"{v:020d}.json" for v in (0, 4, 7)), f"{6:020d}.checkpoint.parquet", f"{6:020d}.crc"]
    before = {name: ((folder(t) / name).read_bytes(), (folder(t) / name).stat().st_mtime_ns) for name in names}
    for name in names:
        file = folder(t) / name
        content = file.read_bytes()
        match what:
            case "gone" if not name.endswith(".crc"):
                file.unlink()
            case "changed" if not name.endswith(".parquet"):
                file.write_bytes(content.replace(b"1", b"2"))
            case "cut":
                file.write_bytes(content[: len(content) // 2])
    assert not t.mirror.verify("t")
    found = t.mirror.verify("t", repair=True)
    assert found, str(found)
    assert len(found.repaired) >= 4
    assert "repaired" in str(found)
    for name in names:
        assert name.endswith(".parquet") or (folder(t) / name).read_bytes() == before[name][0]
        if name.endswith(".json"):
            assert (folder(t) / name).stat().st_mtime_ns == before[name][1]
    kept = [p for p in folder(t).iterdir() if p.name.endswith(".found")]
    assert len(kept) == (0 if what == "gone" else 3)
    assert deltalake.DeltaTable(folder(t).parent).to_pyarrow_table().num_rows == 6
    assert t.mirror.verify("t", range(8), repair=True).repaired == []


HINTS = {
    "gone": None, "empty": "", "cut": '{"vers', "no object": "[6]", "no number": '{"version":null}', "nothing": '{"version":99}',
}  # fmt: skip


@pytest.mark.parametrize("open_lake", ["duckdb"], indirect=True)
@pytest.mark.parametrize("hint", HINTS.values(), ids=HINTS)
def test_a_last_checkpoint_that_leads_nowhere_is_mended(t: Lake, hint: str | None) -> None:
    """Some readers refuse a table whose _last_checkpoint is damaged. The next checkpoint mends it, or a repair."""
    path = folder(t) / "_last_checkpoint"

    def damage() -> None:
        path.unlink() if hint is None else path.write_text(hint)

    damage()
    assert t.mirror.verify("t").problems == ["_delta_log/_last_checkpoint is missing, or names no checkpoint that is there"]
    assert t.mirror.verify("t", repair=True).repaired == ["_delta_log/_last_checkpoint"]
    assert json.loads(path.read_text())["version"] == 6
    damage()
    for n in (8, 9):
        t.write("t", [{"n": n}])
    assert json.loads(path.read_text())["version"] == 9
    assert t.mirror.verify("t")


@pytest.mark.parametrize("open_lake", ["duckdb"], indirect=True)
@pytest.mark.parametrize("damage", ["cut", "footer", "name"])
def test_a_damaged_checkpoint_is_a_finding_and_no_crash(t: Lake, damage: str) -> None:
    """Whatever library stumbles over it, each with errors of its own."""
    path = folder(t) / f"{6:020d}.checkpoint.parquet"
    content = bytearray(path.read_bytes())
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    match damage:
        case "cut":
            del content[footer:]
        case "footer":
            content[footer] = 0xFF
        case "name":
            content[content.index(b"minReaderVersion", footer)] = 0xE4
    path.write_bytes(content)
    (problem,) = t.mirror.verify("t").problems
    assert problem.startswith(f"_delta_log/{path.name} cannot be read: ")
    assert t.mirror.verify("t", repair=True).repaired == [f"_delta_log/{path.name}"]


@pytest.mark.parametrize("open_lake", ["duckdb"], indirect=True)
def test_a_log_that_is_gone_is_written_anew(t: Lake) -> None:
    before = {p.name: p.read_bytes() for p in folder(t).glob("*.json")}
    shutil.rmtree(folder(t))
    assert t.mirror.verify("t", range(8), repair=True)
    assert {p.name: p.read_bytes() for p in folder(t).glob("*.json")} == before
    assert deltalake.DeltaTable(folder(t).parent).to_pyarrow_table().num_rows == 6
    shutil.rmtree(folder(t).parent)
    with pytest.raises(StorageError, match=r"cannot write .* check that the directory exists"):
        t.mirror.verify("t", repair=True)  # a disk that is not mounted, perhaps


@pytest.mark.parametrize("open_lake", ["duckdb"], indirect=True)
def test_a_commit_of_somebody_else_is_not_repaired_away(t: Lake) -> None:
    foreign = folder(t) / f"{8:020d}.json"
    foreign.write_text('{"commitInfo":{"operation":"x"}}\n')
    found = t.mirror.verify("t", repair=True)
    assert not found
    assert "somebody else" in str(found)
    assert foreign.exists()


def test_repair_publishes_what_is_owed(tmp_path: Path) -> None:
    with deltaduck.connect(tmp_path / "lake.sqlite", mirror="manual") as lake:
        lake.write("t", [{"n": 1}])
        assert not lake.mirror.verify("t")
        assert lake.mirror.verify("t", repair=True)
