"""VACUUM beside deletion vectors, change files, absolute names and others' commits. The rest is in test_maintenance.py."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deltaduck import Lake
from deltaduck.errors import CommitConflictError, StorageError, VersionNotFoundError

NO_RETENTION = "'delta.deletedFileRetentionDuration' = 'interval 0 hours'"


def place(lake: Lake, table: str = "t") -> Path:
    return Path(lake.table(table).detail()["location"])


def numbers(lake: Lake, table: str = "t") -> list[int]:
    return [n for (n,) in lake.sql(f"SELECT n FROM {table} ORDER BY n").fetchall()]


def age(root: Path) -> None:
    """Let the files of a table be old."""
    time.sleep(0.005)
    for path in root.rglob("*"):
        if "_delta_log" not in path.parts:
            os.utime(path, (time.time() - 3600,) * 2, follow_symlinks=False)


def is_whole(lake: Lake, table: str = "t") -> bool:
    return bool(lake.mirror.verify(table)) and [row for row in lake.fsck(table) if row["level"] != "note"] == []


@pytest.fixture
def marked(lake: Lake) -> Lake:
    """`t`, one file whose rows 0, 1 and 2 were hidden one by one, in versions 2 to 4."""
    lake.sql(f"CREATE TABLE t (n INT) TBLPROPERTIES ({NO_RETENTION}, 'delta.enableDeletionVectors' = 'true')")
    lake.sql("INSERT INTO t SELECT range FROM range(6)")
    for n in range(3):
        lake.sql(f"DELETE FROM t WHERE n = {n}")
    age(place(lake))
    return lake


def test_vectors_that_no_version_needs_go_and_their_data_stay(marked: Lake) -> None:
    (now,) = {name.name for name in place(marked).glob("*.bin")} - {*marked.table("t").vacuum()}
    gone = marked.table("t").vacuum(dry_run=False)
    assert (len(gone), [name.name for name in place(marked).glob("*.bin")]) == (2, [now])
    assert numbers(marked) == [3, 4, 5]
    with pytest.raises(VersionNotFoundError, match=r"'t' cannot be read at version 3: VACUUM .* from 4 on are whole"):
        numbers(marked, "t AT (VERSION => 3)")
    with pytest.raises(StorageError, match="cannot be restored to version 2"):
        marked.sql("RESTORE t TO VERSION AS OF 2")
    assert numbers(marked, "t AT (VERSION => 1)") == [0, 1, 2, 3, 4, 5]  # which had none
    assert marked.table("t").vacuum(full=True) == []
    assert is_whole(marked)
    marked.sql("RESTORE t TO VERSION AS OF 1")
    assert numbers(marked) == [0, 1, 2, 3, 4, 5]


def test_vectors_and_change_files_that_crashed_writers_left(marked: Lake) -> None:
    root = place(marked)
    left = ["deletion_vector_5f715885-f513-41b9-b2d3-dd8716ced652.bin", "_change_data/part-left.parquet"]
    for name in [*left, "somebody-elses.bin", "_change_data_of_mine/x.parquet"]:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    age(root)
    marked.table("t").vacuum(dry_run=False)
    assert marked.table("t").vacuum(dry_run=False, full=True) == sorted(left)
    assert (root / "somebody-elses.bin").exists()
    assert numbers(marked) == [3, 4, 5]
    assert is_whole(marked)


@pytest.mark.parametrize(
    "name", ["file://{}/a%20b.parquet", "file:{}/a%20b.parquet", "{}/link/a%20b.parquet", "link/a%20b.parquet"]
)
def test_a_full_vacuum_knows_its_files_by_whatever_names(lake: Lake, tmp_path: Path, name: str) -> None:
    """Absolute names are in a log that was cloned back or moved, and links are anywhere."""
    root = tmp_path / "imported"
    (root / "_delta_log").mkdir(parents=True)
    os.symlink(root, root / "link")
    pq.write_table(pa.table({"n": [1, 2]}), root / "a b.parquet")
    schema = {"type": "struct", "fields": [{"name": "n", "type": "long", "nullable": True, "metadata": {}}]}
    actions = [
        {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
        {"metaData": {
            "id": "5f715885-f513-41b9-b2d3-dd8716ced652", "format": {"provider": "parquet", "options": {}},
            "schemaString": json.dumps(schema), "partitionColumns": [], "createdTime": 0,
            "configuration": {"delta.deletedFileRetentionDuration": "interval 0 hours"},
        }},
        {"add": {
            "path": name.format(root), "partitionValues": {}, "size": (root / "a b.parquet").stat().st_size,
            "modificationTime": 0, "dataChange": True,
        }},
    ]  # fmt: skip
    (root / "_delta_log" / f"{0:020}.json").write_text("\n".join(map(json.dumps, actions)) + "\n")
    (root / "left.parquet").write_bytes(b"x")
    lake.import_table(root, "t")
    age(root)
    assert lake.table("t").vacuum(dry_run=False, full=True) == ["left.parquet"]
    assert numbers(lake) == [1, 2]


def test_a_version_that_was_read_before_says_so_too(lake: Lake) -> None:
    lake.sql(f"CREATE TABLE t (n INT) TBLPROPERTIES ({NO_RETENTION}); INSERT INTO t VALUES (1); DELETE FROM t")
    assert numbers(lake, "t AT (VERSION => 1)") == [1]
    age(place(lake))
    lake.table("t").vacuum(dry_run=False)
    with pytest.raises(VersionNotFoundError, match="VACUUM"):
        numbers(lake, "t AT (VERSION => 1)")


@pytest.mark.parametrize("statement", ["RESTORE t TO VERSION AS OF 1", "CREATE TABLE c SHALLOW CLONE t VERSION AS OF 1"])
def test_whatever_comes_first_of_a_vacuum_and_what_brings_files_back(lake: Lake, statement: str) -> None:
    lake.sql(f"CREATE TABLE t (n INT) TBLPROPERTIES ({NO_RETENTION}); INSERT INTO t VALUES (1); DELETE FROM t")
    age(place(lake))
    lake.sql(statement)
    assert lake.table("t").vacuum(dry_run=False) == []
    lake.sql("DROP TABLE IF EXISTS c; DELETE FROM t")
    age(place(lake))
    late = lake.begin()
    late.sql(statement)
    assert len(lake.table("t").vacuum(dry_run=False)) == 1
    with pytest.raises(CommitConflictError, match="VACUUM deletes files that this commit brings back, such as part-"):
        late.commit()
    assert numbers(lake) == []
    assert lake.find("c") is None
    assert is_whole(lake)
