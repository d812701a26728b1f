"""What a user can get wrong: one kind of error, which says what and what to do, and nothing has changed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import deltaduck
from deltaduck import (
    CatalogError,
    ConstraintViolationError,
    DeltaduckError,
    Lake,
    LogCorruptError,
    QueryError,
    SchemaMismatchError,
    StorageError,
    TableNotFoundError,
    UnsupportedFeatureError,
    VersionNotFoundError,
)


@pytest.fixture
def unchanged(lake: Lake) -> Iterator[Lake]:
    """A lake with one table, `orders`: after the test it is as it was, on disk too."""
    lake.write("orders", pa.table({"id": [1, 2], "day": ["mon", "tue"], "price": [1.5, 2.5]}), partition_by="day")
    lake.create_table("strict", {"id": "BIGINT NOT NULL", "s": "STRUCT(x BIGINT)", "small": "TINYINT"})

    def look() -> Any:
        rows = lake.sql("FROM orders ORDER BY id").fetchall()
        tables = [(t["name"], t["version"]) for t in lake.tables()]
        counts = [
            lake.catalog.fetch(f"SELECT count(*) FROM {t}") for t in ("dl_table_versions", "dl_add_files", "dl_mirror_status")
        ]
        files = sorted(str(p) for p in Path(lake.storage).rglob("*") if p.is_file())
        return rows, tables, counts, files

    before = look()
    yield lake
    assert look() == before


def rows(**columns: list[Any]) -> pa.Table:
    return pa.table(columns)


Call = Callable[[Lake], Any]

CASES: dict[str, tuple[Call, type[DeltaduckError], list[str]]] = {
    "unknown table": (lambda lake: lake.table("ordres"), TableNotFoundError, ["'ordres'", "did you mean 'orders'?"]),
    "unknown table, nothing near": (lambda lake: lake.table("xyz"), TableNotFoundError, ["'xyz'", "'orders', 'strict'"]),
    "version after the last": (
        lambda lake: lake.table("orders").as_of(version=1),
        VersionNotFoundError,
        ["'orders'", "no version 1", "0 to 0"],
    ),
    "version before the first": (
        lambda lake: lake.table("orders").as_of(version=-1),
        VersionNotFoundError,
        ["'orders'", "no version -1"],
    ),
    "time before creation": (
        lambda lake: lake.table("orders").as_of(timestamp="1999-12-31"),
        VersionNotFoundError,
        ["'orders'", "1999-12-31", "version 0"],
    ),
    "no time at all": (lambda lake: lake.table("orders").as_of(timestamp="soon"), VersionNotFoundError, ["'soon'", "2024-12-31"]),
    "an unknown column": (
        lambda lake: lake.write("orders", rows(id=[3], day=["wed"], colour=["red"], size=[1])),
        SchemaMismatchError,
        ["'orders'", "'colour'", "'size'", "schema_mode='merge'"],
    ),
    "columns of other types": (
        lambda lake: lake.write("orders", rows(id=["three"], day=[4], price=[1.0])),
        SchemaMismatchError,
        ["'orders'", "'id' is BIGINT in the table and VARCHAR in the rows", "'day' is VARCHAR", "cast it"],
    ),
    "a value too big for its column": (
        lambda lake: lake.write("strict", rows(id=[1], small=[300])),
        SchemaMismatchError,
        ["'strict'", "300"],
    ),
    "a column of untyped nulls in a new table": (
        lambda lake: lake.write("new", rows(a=[None, None])),
        SchemaMismatchError,
        ["'a'", "only NULLs", "cast it"],
    ),
    "a type that Delta lacks": (
        lambda lake: lake.write("new", "SELECT TIME '10:00' AS t"),
        SchemaMismatchError,
        ["'t'", "TIME", "VARCHAR"],
    ),
    "partition column missing in a new table": (
        lambda lake: lake.write("new", rows(a=[1], b=[2]), partition_by=["day"]),
        SchemaMismatchError,
        ["'day'", "a, b"],
    ),
    "partition columns that the table does not have": (
        lambda lake: lake.write("orders", rows(id=[1]), partition_by=["colour"]),
        SchemaMismatchError,
        ["'colour'", "id, day, price"],
    ),
    "other partitioning": (
        lambda lake: lake.write("orders", rows(id=[1]), partition_by=["id"]),
        SchemaMismatchError,
        ["'orders'", "['day']", "['id']"],
    ),
    "null in a non-null column": (
        lambda lake: lake.write("strict", rows(id=[1, None])),
        ConstraintViolationError,
        ["'strict'", "'id' is NOT NULL"],
    ),
    "a non-null column is missing": (
        lambda lake: lake.write("strict", rows(small=[1])),
        SchemaMismatchError,
        ["'strict'", "'id' is NOT NULL and is missing"],
    ),
    "null in a non-null column, by SQL": (
        lambda lake: lake.sql("INSERT INTO strict VALUES (1, NULL, 1), (NULL, NULL, 1)"),
        ConstraintViolationError,
        ["'strict'", "'id'"],
    ),
    "a mode that is none": (
        lambda lake: lake.write("orders", rows(id=[1]), mode="replace"),
        SchemaMismatchError,
        ["'replace'", "append, overwrite"],
    ),
    "a predicate that is none": (
        lambda lake: lake.write("orders", rows(id=[1]), mode="overwrite", predicate="id = ("),
        QueryError,
        ["'id = ('", "cannot be parsed"],
    ),
    "a predicate on a column that is not there": (lambda lake: lake.table("orders").delete("colour = 1"), QueryError, ["colour"]),
    "a property that cannot be honoured": (
        lambda lake: lake.create_table("new", {"a": "INT"}, configuration={"delta.universalFormat.enabledFormats": "x"}),
        UnsupportedFeatureError,
        ["'delta.universalFormat.enabledFormats'", "delta.appendOnly"],
    ),
    "a version as Spark names it": (
        lambda lake: lake.sql("SELECT id FROM orders VERSION AS OF 0"),
        QueryError,
        ['"VERSION"', "AT (VERSION => 3)"],
    ),
    "a time as Spark names it": (
        lambda lake: lake.sql("FROM orders\nTIMESTAMP AS OF '2026-01-31'"),
        QueryError,
        ['"TIMESTAMP"', "AT (TIMESTAMP => "],
    ),
    "SQL that is none": (lambda lake: lake.sql("SELEKT 1"), QueryError, ["SELEKT"]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake(unchanged: Lake, case: str) -> None:
    call, error, parts = CASES[case]
    with pytest.raises(DeltaduckError) as e:
        call(unchanged)
    assert type(e.value) is error
    for part in parts:
        assert part in str(e.value)


# --- the catalog file


LOCK = "import sys, deltaduck; lake = deltaduck.connect(sys.argv[1]); print('locked', flush=True); sys.stdin.read()"


def test_a_locked_catalog_says_what_to_use_instead(tmp_path: Path) -> None:
    path = tmp_path / "lake.duckdb"
    command = [sys.executable, "-c", LOCK, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(CatalogError) as e:
            deltaduck.connect(path)
        other.communicate("")
    for part in (str(path), "another process", "SQLite", "PostgreSQL"):
        assert part in str(e.value)
    assert isinstance(e.value.__cause__, duckdb.Error)
    deltaduck.connect(path).close()  # free again


@pytest.mark.parametrize("content", [b"not a database at all, but text", b"", b"\x00" * 10_000])
def test_a_file_that_is_no_catalog_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=r"notes\.txt"):
        deltaduck.connect(path).close()
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_a_database_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "shop.duckdb"
    with duckdb.connect(path) as con:
        con.execute("CREATE TABLE customers (id BIGINT)")
    with pytest.raises(CatalogError, match=r"shop\.duckdb.*no deltaduck catalog.*new file"):
        deltaduck.connect(path)
    with duckdb.connect(path) as con:
        assert con.execute("SELECT table_name FROM duckdb_tables()").fetchall() == [("customers",)]


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"nowhere/lake\.duckdb.*directory"):
        deltaduck.connect(tmp_path / "nowhere" / "lake.duckdb")
    assert os.listdir(tmp_path) == []


def test_a_directory_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=tmp_path.name):
        deltaduck.connect(tmp_path)


def test_a_lake_in_memory_needs_storage(tmp_path: Path, people: pa.Table) -> None:
    with pytest.raises(CatalogError, match="storage="):
        deltaduck.connect()
    with deltaduck.connect(storage=tmp_path) as lake:
        lake.write("people", people)
        assert lake.table("people").to_arrow() == people
    assert (tmp_path / "people" / "_delta_log" / f"{0:020d}.json").exists()


def test_a_closed_lake(lake: Lake, people: pa.Table) -> None:
    lake.write("people", people)
    lake.close()
    lake.close()
    for call in (
        lake.tables, lambda: lake.table("people"), lambda: lake.sql("FROM people"), lambda: lake.write("people", people),
    ):  # fmt: skip
        with pytest.raises(CatalogError, match="closed"):
            call()


def test_secrets_of_a_storage_url_are_not_told(tmp_path: Path) -> None:
    with pytest.raises(DeltaduckError, match="s3") as e:
        deltaduck.connect(tmp_path / "lake.duckdb", storage="s3://AKIA:topsecret@bucket/data")
    assert "topsecret" not in str(e.value)


# --- the storage


def some_file(lake: Lake) -> Path:
    return Path(lake.table("orders").detail()["location"], lake.table("orders").files()["path"][0].as_py())


@pytest.mark.parametrize("content", [b"", b"PAR1 and nothing", os.urandom(4000)])
def test_a_corrupt_data_file_is_named(lake: Lake, people: pa.Table, content: bytes) -> None:
    lake.write("orders", people)
    file = some_file(lake)
    file.write_bytes(content)
    with pytest.raises(LogCorruptError, match=file.name):
        lake.table("orders").to_arrow()
    with pytest.raises(DeltaduckError, match=file.name):
        lake.sql("DELETE FROM orders WHERE id = 1")
    with pytest.raises(LogCorruptError, match=file.name):
        lake.sql("FROM orders")
    assert lake.table("orders").version() == 0


def test_a_missing_data_file_is_named(lake: Lake, people: pa.Table) -> None:
    lake.write("orders", people)
    file = some_file(lake)
    file.unlink()
    with pytest.raises(LogCorruptError, match=file.name):
        lake.table("orders").to_arrow()
    with pytest.raises(LogCorruptError, match=file.name):
        lake.sql("FROM orders")
    with pytest.raises(DeltaduckError, match=file.name):
        lake.sql("UPDATE orders SET id = 0")
    assert lake.table("orders").version() == 0


def test_a_file_of_ones_own_that_is_not_there_is_no_damage(lake: Lake, people: pa.Table) -> None:
    lake.write("orders", people)
    for statement in ("COPY orders FROM '/nowhere/new.csv'", "FROM '/nowhere/new.csv'"):
        with pytest.raises(StorageError, match="no file /nowhere/new"):
            lake.sql(statement)


def test_an_error_shows_nothing_of_the_statement_that_was_made_of_ours(lake: Lake, people: pa.Table) -> None:
    lake.write("orders", people)
    with pytest.raises(DeltaduckError, match='"nope" not found') as caught:
        lake.sql("UPDATE orders SET id = nope")
    assert "dl_" not in str(caught.value)


def test_storage_that_refuses_a_new_table(lake: Lake, people: pa.Table) -> None:
    Path(lake.storage).write_text("a file where the storage should be")
    with pytest.raises(StorageError, match=str(lake.storage)):
        lake.write("orders", people)
    assert lake.tables() == []
    Path(lake.storage).unlink()
    assert lake.write("orders", people) == 0  # and the lake is as good as new


def test_storage_that_refuses_rows(lake: Lake, people: pa.Table) -> None:
    lake.write("orders", people)
    place = Path(lake.table("orders").detail()["location"])
    place.rename(place.with_name("away"))
    place.write_text("a file where the table should be")
    with pytest.raises(StorageError, match=str(place)):
        lake.write("orders", people)
    place.unlink()
    place.with_name("away").rename(place)
    assert lake.table("orders").version() == 0
    assert lake.table("orders").to_arrow() == people
    assert lake.write("orders", people) == 1
    assert lake.mirror.verify("orders")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_storage_that_is_read_only(lake: Lake, people: pa.Table) -> None:
    lake.write("orders", people)
    place = Path(lake.table("orders").detail()["location"])
    place.chmod(0o555)
    try:
        with pytest.raises(StorageError, match=str(place)):
            lake.write("orders", people)
    finally:
        place.chmod(0o755)
    assert lake.table("orders").version() == 0


# --- a log that cannot be honoured


@pytest.fixture
def with_protocol(lake: Lake, open_lake: Callable[[], Lake], people: pa.Table) -> Callable[[str], Lake]:
    """A lake whose table `orders` has another protocol, as an import could bring it in: written by SQL here."""

    def make(protocol: str) -> Lake:
        lake.write("orders", people)
        lake.catalog.execute(f"UPDATE dl_protocol_updates SET {protocol}")
        lake.close()
        return open_lake()

    return make


def test_a_table_that_cannot_be_read_rightly_is_refused(with_protocol: Callable[[str], Lake]) -> None:
    features = "reader_features = '[\"someNews\"]', writer_features = '[\"someNews\"]'"
    lake = with_protocol(f"min_reader_version = 3, min_writer_version = 7, {features}")
    for call in (lambda: lake.table("orders"), lambda: lake.sql("FROM orders"), lambda: lake.sql("DELETE FROM orders")):
        with pytest.raises(UnsupportedFeatureError, match=r"'orders'.*reading.*someNews"):
            call()


def test_a_table_that_cannot_be_written_rightly_is_read(with_protocol: Callable[[str], Lake], people: pa.Table) -> None:
    lake = with_protocol("min_writer_version = 7, writer_features = '[\"someNews\"]'")
    assert lake.table("orders").to_arrow() == people
    for statement in ("DELETE FROM orders", "INSERT INTO orders VALUES (1, 'a')", "UPDATE orders SET id = 0"):
        with pytest.raises(UnsupportedFeatureError, match=r"'orders'.*writing.*someNews"):
            lake.sql(statement)
    with pytest.raises(UnsupportedFeatureError, match=r"'orders'.*writing.*someNews"):
        lake.write("orders", people)
    assert lake.table("orders").version() == 0
