"""fsck finds each way in which a lake can be damaged, repairs what is derived, and says the way out for the rest."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest
from typer.testing import CliRunner

import deltaduck
from deltaduck import Lake, TableNotFoundError
from deltaduck.frontends import cli
from deltaduck.operations import fsck


@pytest.fixture
def t(lake: Lake) -> Lake:
    """A table `t` of three files, one of them removed at version 2; version 1 has added one."""
    lake.write("t", [{"day": "mon", "n": 1}, {"day": "tue", "n": 2}], partition_by="day")
    lake.write("t", [{"day": "mon", "n": 3}])
    lake.sql("DELETE FROM t WHERE day = 'tue'")
    return lake


def checks(lake: Lake) -> set[str]:
    return {row["check"] for row in lake.fsck()}


def files(lake: Lake, table: str = "t") -> list[Path]:
    return sorted(Path(lake.storage, table).rglob("*.parquet"))


def test_nothing_is_wrong_with_all_that_a_table_can_have_seen(lake: Lake, tmp_path: Path) -> None:
    lake.create_table(
        "t", {"day": "VARCHAR", "n": "BIGINT", "at": "TIMESTAMPTZ", "x": "DOUBLE", "s": "VARCHAR"}, partition_by="day"
    )
    lake.sql("ALTER TABLE t SET TBLPROPERTIES ('delta.checkpointInterval' = '2')")
    lake.sql(
        "INSERT INTO t SELECT 'd ' || n % 3, n, TIMESTAMPTZ '2024-01-01' + to_days(n), n / 7, repeat('z', n) FROM range(50) r(n)"
    )
    lake.sql("ALTER TABLE t ADD COLUMN d DECIMAL(10, 2)")
    lake.sql("INSERT INTO t VALUES (NULL, NULL, NULL, 'NaN', 'a''b', 1.25), ('', -1, '1900-01-01', 'inf', NULL, NULL)")
    lake.sql("UPDATE t SET n = n + 1 WHERE n < 9")
    lake.sql("CREATE TABLE copy SHALLOW CLONE t")
    lake.sql("ALTER TABLE t SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
    lake.sql("DELETE FROM t WHERE n = 30")
    lake.sql("DELETE FROM t WHERE n = 31 OR x = 'inf'")
    lake.sql("OPTIMIZE t")
    lake.sql("RESTORE TABLE t TO VERSION AS OF 3")
    lake.write("u", [{"n": "one"}])
    lake.write("u", [{"n": 1, "m": {"k": [1]}}], mode="overwrite", schema_mode="overwrite")
    lake.sql("ALTER TABLE u RENAME TO v")
    lake.mirror.reconcile()
    shutil.copytree(Path(lake.storage, "t"), tmp_path / "elsewhere")
    lake.import_table(tmp_path / "elsewhere", "seen")
    lake.sql("DROP TABLE v")
    lake.write("nulls", "SELECT range AS n, NULL::VARCHAR AS nothing FROM range(2)")
    assert lake.fsck() == []


# check -> SQL that brings it about in the table of an id, on any catalog
DAMAGE = {
    "version_gap": "DELETE FROM dl_table_versions WHERE version = 1 AND table_id = {id}",
    "commit_time": "UPDATE dl_table_versions SET commit_ms = 1 WHERE version = 1 AND table_id = {id}",
    "lost_commit": "DELETE FROM dl_table_versions WHERE version = 2 AND table_id = {id}",
    "definition": "DELETE FROM dl_protocol_updates WHERE table_id = {id}",
    "action_of_no_commit": (
        "INSERT INTO dl_txn_actions (table_id, version, action_order, app_id, app_version) VALUES ({id}, 9, 3, 'a', 1)"
    ),
    "interval": "UPDATE dl_add_files SET removed_version = 0 WHERE version = 1 AND table_id = {id}",
    "two_lives": "UPDATE dl_add_files SET path = 'same', removed_version = NULL WHERE table_id = {id}",
    "counts": "UPDATE dl_add_files SET dv_cardinality = 1000 WHERE version = 1 AND table_id = {id}",
    "end_without_remove": "DELETE FROM dl_remove_files WHERE table_id = {id}",
    "remove_without_end": "UPDATE dl_add_files SET removed_version = NULL WHERE table_id = {id}",
    "shared_location": "UPDATE dl_tables SET location = (SELECT max(location) FROM dl_tables) WHERE table_id = {id}",
    "same_place": "UPDATE dl_add_files SET action_order = 0 WHERE version = 1 AND table_id = {id}",
    "record_count": "UPDATE dl_add_files SET num_records = 100 WHERE version = 1 AND table_id = {id}",
}


# what is damaged -> the check that sees it, and SQL
REPAIRABLE = {
    "an old version": ("head", "UPDATE dl_tables SET version = 1, commit_ms = 5 WHERE table_id = {id}"),
    "a time": ("head", "UPDATE dl_tables SET commit_ms = 5 WHERE table_id = {id}"),
    "the metadata of another version": ("head", "UPDATE dl_tables SET metadata_version = 1 WHERE table_id = {id}"),
    "the protocol of another version": ("head", "UPDATE dl_tables SET protocol_version = 2 WHERE table_id = {id}"),
    "a wrong bound": ("skip_index", "UPDATE dl_skip_{id} SET c1_max = 0"),
    "a wrong partition": ("skip_index", "UPDATE dl_skip_{id} SET c0_value = 'sun'"),
    "a file that the index lacks": ("skip_index", "DELETE FROM dl_skip_{id} WHERE version = 1"),
    "a file that it has twice": ("skip_index", "INSERT INTO dl_skip_{id} SELECT * FROM dl_skip_{id}"),
    "a file that it has elsewhere": (
        "indexed",
        "UPDATE dl_add_files SET indexed_version = 7, indexed_action_order = 3 WHERE version = 1 AND table_id = {id}",
    ),
    "no index": ("skip_index", "DROP TABLE dl_skip_{id}"),
    "an index without a column": ("skip_index", "ALTER TABLE dl_skip_{id} DROP COLUMN c1_min"),
    "a commit that is owed by nobody": ("not_owed", "DELETE FROM dl_mirror_status WHERE version = 1 AND table_id = {id}"),
}


@pytest.fixture
def damage(lake: Lake) -> Callable[[dict[str, str]], dict[str, str]]:
    """SQL by what it damages -> the table that it was done to: each may be done to one of five tables."""

    def do_it(what: dict[str, str]) -> dict[str, str]:
        tables = dict(zip(what, cycle(f"t{i}" for i in range(5))))
        with lake.begin() as tx:
            for name in sorted({*tables.values()}):
                tx.write(name, [{"day": "mon", "n": 1}, {"day": "tue", "n": 2}], partition_by="day")
        with lake.begin() as tx:
            for name in sorted({*tables.values()}):
                tx.write(name, [{"day": "mon", "n": 3}])
        with lake.begin() as tx:
            for name in sorted({*tables.values()}):
                tx.sql(f"DELETE FROM \"{name}\" WHERE day = 'tue'")
        lake.mirror.flush()
        ids = dict(lake.catalog.fetch("SELECT table_name, table_id FROM dl_tables"))
        for name, sql in what.items():
            lake.catalog.execute(sql.format(id=ids[tables[name]]))
        lake.catalog.scans.clear()
        return tables

    return do_it


def test_lost_truth_is_found_and_not_made_up(lake: Lake, damage: Callable[[dict[str, str]], dict[str, str]]) -> None:
    tables = damage(DAMAGE)
    orphan = "INSERT INTO dl_table_versions (table_id, version, commit_ms, commit_id) VALUES (77, 0, 1, 'lost')"
    lake.catalog.execute(orphan)
    state = (
        "SELECT table_id, count(*), min(removed_version), max(num_records) FROM dl_add_files GROUP BY table_id ORDER BY table_id"
    )
    before = lake.catalog.fetch(state)
    found = {(row["table"], row["check"]): row for row in lake.fsck(repair=True)}
    for table, check in [*((table, check) for check, table in tables.items()), ("#77", "commit_of_no_table")]:
        row = found[table, check]
        assert (row["level"], row["repaired"]) == ("error", False), check
        assert row["found"] >= 1
        assert row["way_out"]
    assert lake.catalog.fetch(state) == before


def test_what_is_derived_is_made_again(lake: Lake, damage: Callable[[dict[str, str]], dict[str, str]]) -> None:
    tables = damage({name: sql for name, (_, sql) in REPAIRABLE.items()})
    found = {(row["table"], row["check"]): row["repaired"] for row in lake.fsck(repair=True)}
    for name, (check, _) in REPAIRABLE.items():
        assert found[tables[name], check], name
    names = sorted({*tables.values()})
    for name in names:
        assert sorted(lake.sql(f"SELECT n FROM \"{name}\" WHERE n > 0 AND day = 'mon'").fetchall()) == [(1,), (3,)]
    with lake.begin() as tx:
        for name in names:
            tx.write(name, [{"day": "wed", "n": 4}])
    assert {c.version for c in tx.committed} == {3}
    assert lake.fsck() == []


def test_a_published_commit_that_is_gone_is_published_again(t: Lake) -> None:
    path = Path(t.storage, "t", "_delta_log", f"{1:020d}.json")
    content = path.read_bytes()
    path.unlink()
    (found,) = t.fsck()
    assert (found["check"], found["example"]) == ("mirror", f"_delta_log/{1:020d}.json is missing")
    (found,) = t.fsck(repair=True)
    assert found["repaired"]
    assert path.read_bytes() == content


def test_a_published_commit_that_was_changed_is_kept_aside_and_published_again(t: Lake) -> None:
    path = Path(t.storage, "t", "_delta_log", f"{2:020d}.json")
    content = path.read_bytes()
    path.write_text('{"commitInfo":{"operation":"foreign"}}\n')
    assert checks(t) == {"mirror"}
    assert [row["repaired"] for row in t.fsck(repair=True)] == [True]
    assert path.read_bytes() == content
    assert any("foreign" in other.read_text() for other in path.parent.glob(".*found*"))


def test_a_commit_of_somebody_else_is_left_to_people(t: Lake) -> None:
    path = Path(t.storage, "t", "_delta_log", f"{3:020d}.json")
    path.write_text('{"commitInfo":{"operation":"foreign"}}\n')
    (found,) = t.fsck(repair=True)
    assert (found["check"], found["repaired"]) == ("mirror", False)
    assert "adopt" in found["way_out"]
    assert "foreign" in path.read_text()
    t.write("t", [{"day": "mon", "n": 9}])
    assert "diverged" in checks(t)


def test_files_that_are_missing_cut_or_nobodys(t: Lake) -> None:
    live = {row["path"] for row in t.table("t").files().to_pylist()}
    first, second = [f for f in files(t) if str(f.relative_to(Path(t.storage, "t"))) in live]
    (past,) = [f for f in files(t) if f not in (first, second)]
    orphan = first.with_name("nobodys.parquet")
    orphan.write_bytes(first.read_bytes())
    assert [(row["check"], row["level"]) for row in t.fsck()] == [("orphan", "note")]
    first.unlink()
    past.unlink()
    second.write_bytes(second.read_bytes()[:-10])
    found = {row["check"]: (row["found"], row["example"], row["repaired"]) for row in t.fsck(repair=True)}
    assert found == {
        "missing_file": (1, str(first), False),
        "missing_past": (1, str(past), False),
        "other_size": (1, str(second), False),
        "orphan": (1, f"day=mon/{orphan.name}", False),
    }
    assert orphan.exists()


def test_files_that_vacuum_has_deleted_are_not_missed(t: Lake) -> None:
    t.table("t").vacuum(0, dry_run=False, enforce_retention_duration=False)
    assert t.fsck() == []


def test_a_deletion_vector_and_a_clones_file_can_be_missing(lake: Lake) -> None:
    lake.write("t", [{"n": n} for n in range(9)], configuration={"delta.enableDeletionVectors": "true"})
    lake.sql("CREATE TABLE copy SHALLOW CLONE t")
    lake.sql("DELETE FROM t WHERE n = 3")
    assert lake.fsck() == []
    (vector,) = Path(lake.storage, "t").glob("*.bin")
    vector.unlink()
    files(lake)[0].unlink()
    assert [(row["table"], row["check"], row["found"]) for row in lake.fsck()] == [
        ("copy", "missing_file", 1), ("t", "missing_file", 2),
    ]  # fmt: skip


def test_views_of_plain_clients(tmp_path: Path) -> None:
    with deltaduck.connect(tmp_path / "lake.duckdb") as lake:
        lake.write("it's", [{"n": 1}])
        lake.write("other", [{"n": 1}])
        lake.catalog.execute('DROP VIEW "it\'s"')
        lake.catalog.execute("DROP MACRO TABLE other_at")
        assert [(row["table"], row["check"], row["repaired"]) for row in lake.fsck(repair=True)] == [
            ("it's", "row_view", True), ("other", "row_view", True),
        ]  # fmt: skip
        assert lake.catalog.fetch('FROM "it\'s"') == lake.catalog.fetch("FROM other_at(0)") == [(1,)]
        assert lake.fsck() == []


def test_some_tables_only(t: Lake) -> None:
    t.write("u", [{"n": 1}])
    t.catalog.execute("UPDATE dl_tables SET commit_ms = 5")
    assert [row["table"] for row in t.fsck("U")] == ["u"]
    with pytest.raises(TableNotFoundError, match="nothing"):
        t.fsck("nothing")


def test_every_check_says_what_it_means_and_what_to_do(t: Lake) -> None:
    assert all(meaning and way_out for meaning, way_out in (fsck.INVARIANTS | fsck.OTHERS).values())
    assert t.fsck(repair=True).columns == fsck.COLUMNS


def test_the_command(tmp_path: Path, place: Callable[[str, Path], str]) -> None:
    target = place("sqlite", tmp_path)
    with deltaduck.connect(target) as lake:
        lake.write("t", [{"n": 1}])
    run = CliRunner().invoke
    whole = run(cli.app, ["fsck", "--lake", target])
    assert (whole.exit_code, whole.output) == (0, "nothing is wrong\n")
    with deltaduck.connect(target) as lake:
        lake.catalog.execute("DROP TABLE dl_skip_1")
    broken = run(cli.app, ["fsck", "t", "--lake", target, "--format", "csv"])
    assert broken.exit_code == 1
    assert "t,skip_index,error,1,,dl_skip_1 is missing" in broken.output
    repaired = run(cli.app, ["fsck", "--lake", target, "--repair"])
    assert repaired.exit_code == 0
    assert "dl_skip_1 is missing" in repaired.output
    assert run(cli.app, ["fsck", "--lake", target]).exit_code == 0
