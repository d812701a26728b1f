"""What a catalog holds, and how it goes from one schema version to the next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import deltaduck
from deltaduck import CatalogError, Lake, statements

NEWEST = max(version for version, _ in statements.migrations())


def columns(con: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
    return con.execute(
        """SELECT table_name, column_name, data_type, is_nullable, column_default FROM duckdb_columns()
           JOIN duckdb_tables() USING (database_name, schema_name, table_name) ORDER BY table_name, column_index"""
    ).fetchall()


def test_a_fresh_catalog_is_all_migrations_applied(tmp_path: Path) -> None:
    deltaduck.connect(tmp_path / "lake.duckdb").close()
    with duckdb.connect(tmp_path / "lake.duckdb", read_only=True) as ours, duckdb.connect() as plain:
        for _, script in statements.migrations():
            plain.execute(script)
        assert columns(ours) == columns(plain)
        assert ours.execute("SELECT schema_version FROM dl_lake").fetchall() == [(NEWEST,)]


def test_the_tables_of_the_contract_are_there(lake: Lake) -> None:
    for table in (
        "dl_tables", "dl_table_versions", "dl_add_files", "dl_remove_files", "dl_metadata_updates", "dl_protocol_updates",
        "dl_txn_actions", "dl_domain_metadata", "dl_cdc_files", "dl_mirror_status",
    ):  # fmt: skip
        assert lake.catalog.fetch(f"SELECT count(*) FROM {table}") == [(0,)]


def test_a_catalog_of_a_newer_deltaduck_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "lake.duckdb"
    deltaduck.connect(path).close()
    with duckdb.connect(path) as con:
        con.execute("UPDATE dl_lake SET schema_version = 99")
        before = columns(con)
    with pytest.raises(CatalogError, match=r"lake\.duckdb.*newer deltaduck.*schema 99.*upgrade"):
        deltaduck.connect(path)
    with duckdb.connect(path) as con:
        assert columns(con) == before
        assert con.execute("SELECT schema_version FROM dl_lake").fetchall() == [(99,)]


def test_an_older_catalog_is_brought_forward_with_its_rows(
    tmp_path: Path, people: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lake.duckdb"
    with deltaduck.connect(path) as lake:
        lake.write("people", people)
    found = statements.migrations()
    addition = (
        NEWEST + 1,
        "-- One more; forward.\nALTER TABLE dl_tables ADD COLUMN colour TEXT;\nCREATE TABLE dl_new (x BIGINT);",
    )
    monkeypatch.setattr(statements, "migrations", lambda: [*found, addition])
    with deltaduck.connect(path) as lake:
        assert lake.catalog.fetch("SELECT table_name, colour FROM dl_tables") == [("people", None)]
        assert lake.catalog.fetch("SELECT schema_version FROM dl_lake") == [(NEWEST + 1,)]
        assert lake.table("people").to_arrow() == people
        lake.write("people", people)
    with deltaduck.connect(path) as lake:  # and only once
        assert lake.table("people").version() == 1


def test_a_migration_that_fails_leaves_the_catalog_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lake.duckdb"
    deltaduck.connect(path).close()
    with duckdb.connect(path) as con:
        before = columns(con)
    found = statements.migrations()
    bad = (NEWEST + 1, "CREATE TABLE dl_new (x BIGINT);\nALTER TABLE dl_nothing ADD COLUMN y TEXT;")
    with monkeypatch.context() as patch:
        patch.setattr(statements, "migrations", lambda: [*found, bad])
        with pytest.raises(CatalogError, match="dl_nothing"):
            deltaduck.connect(path)
    with duckdb.connect(path) as con:
        assert columns(con) == before
    deltaduck.connect(path).close()


@pytest.fixture
def busy(lake: Lake, days: pa.Table) -> Lake:
    """Two tables with a past: a partitioned one with a delete, and one written with it in one transaction."""
    with lake.begin() as tx:
        tx.write("days", days, partition_by=["day"])
        tx.write("other", pa.table({"x": [1]}))
    lake.sql("DELETE FROM days WHERE day = 'mon'")
    lake.write("days", days.slice(0, 1), commit_metadata="one more")
    return lake


def query(lake: Lake, sql: str) -> list[tuple[Any, ...]]:
    return lake.catalog.fetch(sql)  # what the catalog's own database answers


def test_live_files(busy: Lake) -> None:
    found = query(busy, "SELECT partition_values, num_records, added_version FROM dl_live_files WHERE table_name = 'days'")
    assert sorted(found) == [('{"day":"mon"}', 1, 2), ('{"day":"tue"}', 2, 0), ('{"day":"wed"}', 1, 0), ('{"day":null}', 1, 0)]


def test_history(busy: Lake) -> None:
    assert query(busy, "SELECT version, operation, user_metadata FROM dl_history WHERE table_name = 'days' ORDER BY version") == [
        (0, "CREATE TABLE AS SELECT", None),
        (1, "DELETE", None),
        (2, "WRITE", "one more"),
    ]


def test_transactions_say_which_tables_were_committed_together(busy: Lake) -> None:
    together = query(busy, "SELECT table_name, version FROM dl_transactions WHERE tables_in_commit = 2 ORDER BY table_name")
    assert together == [("days", 0), ("other", 0)]
    assert query(busy, "SELECT count(DISTINCT commit_id) FROM dl_transactions") == [(3,)]


def test_audit_says_who_did_what_per_table_and_per_transaction(busy: Lake) -> None:
    busy.sql("ALTER TABLE other ADD COLUMN y BIGINT")
    busy.drop_table("other")
    found = query(
        busy,
        """SELECT table_name, version, operation, tables_in_commit, files_added, files_removed, rows_added, rows_removed,
                  changes_metadata, user_metadata
           FROM dl_audit ORDER BY table_name, commit_ms, version""",
    )
    assert found == [
        ("days", 0, "CREATE TABLE AS SELECT", 2, 4, 0, 6, 0, True, None),
        ("days", 1, "DELETE", 1, 0, 1, 0, 2, False, None),
        ("days", 2, "WRITE", 1, 1, 0, 1, 0, False, "one more"),
        ("other", 0, "CREATE TABLE AS SELECT", 2, 1, 0, 1, 0, True, None),
        ("other", 1, "ADD COLUMNS", 1, 0, 0, 0, 0, True, None),
        ("other", None, "DROP TABLE", 1, 0, 0, 0, 0, False, None),
    ]
    by_transaction = query(
        busy,
        "SELECT max(tables_in_commit), count(*), sum(rows_added) FROM dl_audit WHERE version = 0 AND user_name IS NOT NULL "
        "GROUP BY commit_id",
    )
    assert by_transaction == [(2, 2, 7)]


def test_file_lifetimes(busy: Lake) -> None:
    dead = query(
        busy,
        """SELECT added_version, added_by, removed_version, removed_by, removed_ms > added_ms
           FROM dl_file_lifetimes WHERE table_name = 'days' AND removed_version IS NOT NULL""",
    )
    assert dead == [(0, "CREATE TABLE AS SELECT", 1, "DELETE", True)]


def test_storage_growth(busy: Lake) -> None:
    growth = query(
        busy,
        """SELECT version, files_added, files_removed, live_files, live_bytes > 0
           FROM dl_storage_growth WHERE table_name = 'days' ORDER BY version""",
    )
    assert growth == [(0, 4, 0, 4, True), (1, 0, 1, 3, True), (2, 1, 0, 4, True)]
    ((live,),) = query(busy, "SELECT live_bytes FROM dl_storage_growth WHERE table_name = 'days' AND version = 2")
    assert live == busy.table("days").detail()["size_in_bytes"]


def test_mirror_lag(busy: Lake) -> None:
    busy.mirror.flush()
    lag = query(busy, "SELECT table_name, version, published_version, versions_behind, behind_since_ms FROM dl_mirror_lag")
    assert sorted(lag) == [("days", 2, 2, 0, None), ("other", 0, 0, 0, None)]


def test_log_lines_are_what_is_published(busy: Lake, log: Callable[[Lake, str, int], list[dict[str, Any]]]) -> None:
    ((table_id,),) = query(busy, "SELECT table_id FROM dl_tables WHERE table_name = 'days'")
    for version in range(3):
        lines = query(
            busy, f"SELECT line FROM dl_log_lines WHERE table_id = {table_id} AND version = {version} ORDER BY action_order"
        )
        assert [list(action) for action in log(busy, "days", version)] == [[line[0].split('"')[1]] for line in lines]


def test_the_views_are_queried_with_lake_sql_too(busy: Lake) -> None:
    assert busy.sql("SELECT count(*) FROM dl_history").fetchall() == [(4,)]
    assert busy.sql("SELECT versions_behind FROM dl_mirror_lag").fetchall() == [(0,), (0,)]
