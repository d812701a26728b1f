"""MERGE INTO, in SQL and from Python: every clause, pruning, ambiguity, schema evolution, conflicts."""

from __future__ import annotations

import datetime as dt
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deltaduck import (
    CommitConflictError,
    ConstraintViolationError,
    DeltaduckError,
    Lake,
    QueryError,
    SchemaMismatchError,
    TableNotFoundError,
    UnsupportedFeatureError,
)


@pytest.fixture
def stock(lake: Lake) -> Lake:
    """A table `stock` and what comes in, `delivery`."""
    lake.write("stock", pa.table({"id": [1, 2, 3, None], "name": ["nail", "screw", "bolt", "?"], "n": [10, 20, 30, 40]}))
    lake.write("delivery", pa.table({"id": [2, 3, 7, None], "name": ["screw", "BOLT", "nut", "!"], "n": [5, 0, 70, 1]}))
    return lake


def rows(lake: Lake, query: str = "SELECT id, name, n FROM stock") -> list[tuple[Any, ...]]:
    return lake.sql(f"FROM ({query}) ORDER BY ALL").fetchall()


UNTOUCHED = [(1, "nail", 10), (2, "screw", 20), (3, "bolt", 30), (None, "?", 40)]

CLAUSES = {
    "update": (
        "WHEN MATCHED THEN UPDATE SET n = t.n + s.n",
        [(1, "nail", 10), (2, "screw", 25), (3, "bolt", 30), (None, "?", 40)],
    ),
    "the table's alias, a column's case, a row as it was": (
        "WHEN MATCHED THEN UPDATE SET t.N = length(t.name), NAME = t.n || s.name",
        [(1, "nail", 10), (2, "20screw", 5), (3, "30BOLT", 4), (None, "?", 40)],
    ),
    "update with everything": (
        "WHEN MATCHED THEN UPDATE SET *",
        [(1, "nail", 10), (2, "screw", 5), (3, "BOLT", 0), (None, "?", 40)],
    ),
    "delete": ("WHEN MATCHED THEN DELETE", [(1, "nail", 10), (None, "?", 40)]),
    "the first that holds": (
        "WHEN MATCHED AND s.n = 0 THEN DELETE WHEN MATCHED AND t.n > 1000 THEN DELETE WHEN MATCHED THEN UPDATE SET n = s.n",
        [(1, "nail", 10), (2, "screw", 5), (None, "?", 40)],
    ),
    "a condition that is NULL does not hold": ("WHEN MATCHED AND NULL THEN DELETE", UNTOUCHED),
    "nothing": ("WHEN MATCHED AND s.n = 0 THEN DO NOTHING WHEN MATCHED THEN DELETE", [UNTOUCHED[0], *UNTOUCHED[2:]]),
    "insert": (
        "WHEN NOT MATCHED THEN INSERT (id, n) VALUES (s.id, s.n * 2)",
        [*UNTOUCHED[:3], (7, None, 140), (None, "?", 40), (None, None, 2)],
    ),
    "insert everything": (
        "WHEN NOT MATCHED BY TARGET THEN INSERT *",
        [*UNTOUCHED[:3], (7, "nut", 70), (None, "!", 1), UNTOUCHED[3]],
    ),
    "insert by position": (
        "WHEN NOT MATCHED AND s.id > 0 THEN INSERT VALUES (s.id, 'new', -1)",
        [*UNTOUCHED[:3], (7, "new", -1), UNTOUCHED[3]],
    ),
    "insert's names are the source's": (
        "WHEN NOT MATCHED AND id IS NOT NULL THEN INSERT (id, name, n) VALUES (id, upper(name), n)",
        [*UNTOUCHED[:3], (7, "NUT", 70), UNTOUCHED[3]],
    ),
    "inserts in order": (
        "WHEN NOT MATCHED AND s.id = 7 THEN INSERT (id) VALUES (77) WHEN NOT MATCHED THEN INSERT (name) VALUES ('other')",
        [*UNTOUCHED[:3], (77, None, None), (None, "?", 40), (None, "other", None)],
    ),
    "not matched by source": ("WHEN NOT MATCHED BY SOURCE THEN DELETE", [(2, "screw", 20), (3, "bolt", 30)]),
    "not matched by source, names are the table's": (
        "WHEN NOT MATCHED BY SOURCE AND n > 10 THEN UPDATE SET n = n + 1",
        [*UNTOUCHED[:3], (None, "?", 41)],
    ),
    "all at once": (
        "WHEN MATCHED AND s.n = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET n = s.n "
        "WHEN NOT MATCHED AND s.id IS NOT NULL THEN INSERT * "
        "WHEN NOT MATCHED BY SOURCE AND t.id IS NULL THEN DELETE WHEN NOT MATCHED BY SOURCE THEN UPDATE SET name = 'old'",
        [(1, "old", 10), (2, "screw", 5), (7, "nut", 70)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("partitioned", [False, True], ids=["", "partitioned"])
@pytest.mark.parametrize(("clauses", "expected"), CLAUSES.values(), ids=CLAUSES)
def test_clauses(lake: Lake, clauses: str, expected: list[Any], partitioned: bool) -> None:
    """A table of several files, whole or partitioned by what an update may change."""
    for part in ([1, 2], [3, None]):
        frame = pa.table(
            {"id": part, "name": ["nail", "screw"] if 1 in part else ["bolt", "?"], "n": [10, 20] if 1 in part else [30, 40]}
        )
        lake.write("stock", frame, partition_by=["name"] if partitioned else None)
    lake.write("delivery", pa.table({"n": [5, 0, 70, 1], "id": [2, 3, 7, None], "name": ["screw", "BOLT", "nut", "!"]}))
    before = lake.table("stock").version()
    lake.sql(f"MERGE INTO stock AS t USING delivery AS s ON t.id = s.id {clauses}")
    assert rows(lake) == sorted(expected, key=lambda r: [(v is None, v) for v in r])
    assert lake.table("stock").version() == before + (rows(lake) != UNTOUCHED)
    assert lake.mirror.verify("stock")


def test_it_says_what_it_did(stock: Lake) -> None:
    answer = stock.sql(
        "MERGE INTO stock t USING delivery s ON t.id = s.id WHEN MATCHED AND s.n = 0 THEN DELETE "
        "WHEN MATCHED THEN UPDATE SET n = s.n WHEN NOT MATCHED THEN INSERT *"
    )
    said = dict(zip(answer.columns, answer.fetchall()[0], strict=True))
    assert said == {"rows": 4, "files": 1, "inserted": 2, "updated": 1, "deleted": 1, "files_added": 1, "files_removed": 1}
    commit = stock.table("stock").history(1)[0]
    assert commit["operation"] == "MERGE"
    metrics = {k: v for k, v in commit["operation_metrics"].items() if k.startswith(("numTarget", "numSource"))}
    assert metrics == {
        "numSourceRows": "4", "numTargetRowsInserted": "2", "numTargetRowsUpdated": "1", "numTargetRowsDeleted": "1",
        "numTargetRowsCopied": "2", "numTargetFilesAdded": "1", "numTargetFilesRemoved": "1",
    }  # fmt: skip
    assert commit["operation_parameters"]["predicate"] == "t.id = s.id"


SOURCES = {
    "a table": "delivery",
    "a table under its own name": "main.delivery",
    "a table with new names for its columns": "delivery AS delivery(id, name, n)",
    "a past version": "delivery AT (VERSION => 0) AS delivery",
    "a subquery": "(SELECT * FROM delivery WHERE n < 1000) AS delivery",
    "values": "(VALUES (2, 'screw', 5), (3, 'BOLT', 0), (7, 'nut', 70), (NULL, '!', 1)) AS delivery(id, name, n)",
    "a frame": "arrow AS delivery",
    "a stream": "stream AS delivery",
    "a lazy frame": "lazy AS delivery",
    "a temporary table": "mine AS delivery",
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_sources(stock: Lake, source: str) -> None:
    arrow = stock.table("delivery").to_arrow()
    stream, lazy = arrow.to_reader(), pl.from_arrow(arrow).lazy()
    stock.sql("CREATE TEMP TABLE mine AS FROM delivery")
    assert [stream, lazy]  # found by name only
    stock.sql(
        f"MERGE INTO stock USING {source} ON stock.id = delivery.id WHEN MATCHED THEN UPDATE SET n = delivery.n "
        "WHEN NOT MATCHED AND delivery.n > 50 THEN INSERT *"
    )
    assert rows(stock) == [(1, "nail", 10), (2, "screw", 5), (3, "bolt", 0), (7, "nut", 70), (None, "?", 40)]


def test_a_source_is_asked_once(lake: Lake) -> None:
    """Keys that change from one look to the next would find rows in files that were ruled out."""
    lake.write("t", pa.table({"id": list(range(1000)), "n": [0] * 1000}))
    for _ in range(5):
        lake.sql(
            "MERGE INTO t USING (SELECT CAST(range + random() * 2 AS BIGINT) AS id FROM range(0, 900, 50)) s ON t.id = s.id "
            "WHEN MATCHED THEN UPDATE SET n = 1 WHEN NOT MATCHED THEN INSERT (id, n) VALUES (-1, -1)"
        )
    assert lake.sql("SELECT count(*) FROM t WHERE n = -1").fetchall() == [(0,)]


@pytest.mark.parametrize(
    ("on", "changed"),
    [
        ("t.id = s.id", 2),
        ("s.id = t.id AND t.n > 20", 1),
        ("t.id IS NOT DISTINCT FROM s.id", 3),
        ("t.id + 0 = s.id", 2),
        ("t.id = s.id + 1", 1),
        ("t.id = s.id AND t.name = s.name", 1),
        ("t.id = s.id OR t.name = 'nail' AND s.id = 7", 3),
        ("false", 0),
        ("t.id = s.id AND NULL", 0),
        ("t.id IN (SELECT id FROM delivery d WHERE d.n > 0) AND t.id = s.id", 1),
    ],
)
def test_conditions(stock: Lake, on: str, changed: int) -> None:
    stock.sql(f"MERGE INTO stock AS t USING delivery AS s ON {on} WHEN MATCHED THEN UPDATE SET name = 'hit'")
    assert stock.sql("SELECT count(*) FROM stock WHERE name = 'hit'").fetchall() == [(changed,)]


def test_using_columns(stock: Lake) -> None:
    stock.sql("MERGE INTO stock USING delivery USING (id, name) WHEN MATCHED THEN DELETE")
    assert rows(stock) == [UNTOUCHED[0], *UNTOUCHED[2:]]


# --- two source rows for one row

TWICE = "(VALUES (2, 100), (2, 200), (8, 1), (8, 2)) AS s(id, n)"


@pytest.mark.parametrize(
    "clauses",
    [
        "WHEN MATCHED THEN UPDATE SET n = s.n",
        "WHEN MATCHED THEN UPDATE SET n = 0",
        "WHEN MATCHED AND s.n > 0 THEN DELETE",
        "WHEN MATCHED AND s.n > 150 THEN DELETE WHEN MATCHED THEN UPDATE SET n = 1",
    ],
)
def test_an_ambiguous_match_is_an_error(stock: Lake, clauses: str) -> None:
    with pytest.raises(
        ConstraintViolationError, match=r"'stock': several rows of the source match one row.*id=2, name='screw', n=20"
    ):
        stock.sql(f"MERGE INTO stock t USING {TWICE} ON t.id = s.id {clauses}")
    assert rows(stock) == UNTOUCHED
    assert stock.table("stock").version() == 0


@pytest.mark.parametrize(
    ("clauses", "count", "inserted", "deleted"),
    [
        ("WHEN MATCHED THEN DELETE", 3, 0, 1),
        ("WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT *", 5, 2, 1),
        ("WHEN MATCHED AND s.n = 100 THEN UPDATE SET n = s.n", 4, 0, 0),
        ("WHEN MATCHED AND s.n = 100 THEN DO NOTHING WHEN MATCHED THEN DELETE", 3, 0, 1),
        ("WHEN NOT MATCHED THEN INSERT *", 6, 2, 0),
    ],
)
def test_what_is_no_ambiguity(stock: Lake, clauses: str, count: int, inserted: int, deleted: int) -> None:
    """A row that is deleted counts once, however many rows of the source find it; one that comes counts each time."""
    said = stock.sql(f"MERGE INTO stock t USING {TWICE} ON t.id = s.id {clauses}")
    assert said.select("inserted", "deleted").fetchall() == [(inserted, deleted)]
    assert len(rows(stock)) == count


# --- only what can match is opened


@pytest.fixture
def parts(lake: Lake) -> Lake:
    """Twenty files of ten ids, in as many partitions."""
    lake.write(
        "parts", pa.table({"id": range(200), "p": [f"p{i // 10:02}" for i in range(200)], "n": [0] * 200}), partition_by="p"
    )
    assert lake.table("parts").detail()["num_files"] == 20
    return lake


@pytest.mark.parametrize(
    ("source", "on", "opened"),
    [
        ("SELECT 55 AS id", "t.id = s.id", 1),
        ("SELECT unnest([5, 195]) AS id", "t.id = s.id", 2),
        ("SELECT range AS id FROM range(40, 140)", "t.id = s.id", 10),
        ("SELECT 55 AS id, 'p05' AS p", "t.id + 0 = s.id AND t.p = s.p", 1),
        ("SELECT 55 AS id", "t.id = s.id AND t.p IN ('p05', 'p06')", 1),
        ("SELECT 55 AS id", "t.id + 0 = s.id AND t.p IN ('p05', 'p06')", 2),
        ("SELECT '5' || '5' AS id", "t.id = CAST(s.id AS BIGINT)", 1),
        ("SELECT 55.0 AS id", "t.id = s.id", 1),
        ("SELECT CAST(NULL AS BIGINT) AS id", "t.id = s.id", 0),
        ("SELECT 55 AS id", "t.id + 0 = s.id", 20),
    ],
)
def test_files_are_pruned_by_the_sources_keys(parts: Lake, source: str, on: str, opened: int) -> None:
    said = (
        parts.table("parts").merge(f"{source}", on, source_alias="s", target_alias="t")
        .when_matched_update({"n": "1"}).when_not_matched_insert({"id": "s.id"}).execute()
    )  # fmt: skip
    assert (said["num_target_files_scanned"], said["num_target_files_skipped_during_scan"]) == (opened, 20 - opened)
    changed = said["num_target_rows_updated"]
    assert parts.sql("SELECT count(*) FROM parts WHERE n = 1").fetchall() == [(changed,)]
    assert said["num_target_files_removed"] == min(changed, opened)
    assert said["num_target_rows_inserted"] == (0 if changed else 1)


def test_rows_that_the_source_lacks_need_all_files_unless_told(parts: Lake) -> None:
    merge = "MERGE INTO parts t USING (SELECT 55 AS id) s ON t.id = s.id WHEN MATCHED THEN UPDATE SET n = 1"
    parts.sql(f"{merge} WHEN NOT MATCHED BY SOURCE AND t.p = 'p07' THEN DELETE")
    assert parts.table("parts").history(1)[0]["operation_metrics"]["numRemovedFiles"] == "2"
    assert parts.sql("SELECT count(*), sum(n) FROM parts").fetchall() == [(190, 1)]
    parts.sql(f"{merge} WHEN NOT MATCHED BY SOURCE THEN DELETE")
    assert parts.sql("SELECT id, n FROM parts").fetchall() == [(55, 1)]


def test_rows_move_between_partitions(parts: Lake) -> None:
    parts.sql("MERGE INTO parts t USING (SELECT 55 AS id) s ON t.id = s.id WHEN MATCHED THEN UPDATE SET p = 'elsewhere'")
    assert parts.sql("SELECT id FROM parts WHERE p = 'elsewhere'").fetchall() == [(55,)]
    assert parts.sql("SELECT count(*) FROM parts WHERE p = 'p05'").fetchall() == [(9,)]
    assert len(parts.table("parts").files("p = 'elsewhere'")) == 1


# --- values and types


def test_names_with_quotes_and_struct_fields(lake: Lake) -> None:
    columns = '"i d" BIGINT, "x""y" VARCHAR, s STRUCT(a BIGINT, b STRUCT(c VARCHAR, d DATE)), place BIGINT, clause INT, c0 INT'
    lake.sql(f'CREATE TABLE "a ""t" ({columns})')
    lake.sql(
        "INSERT INTO \"a \"\"t\" VALUES (1, 'one', {'a': 1, 'b': {'c': 'c', 'd': '2024-01-01'}}, 1, 2, 3), "
        "(2, 'two', NULL, NULL, NULL, NULL)"
    )
    lake.sql(
        'MERGE INTO "a ""t" AS "T t" USING (VALUES (1), (2)) AS "s s"("i d") ON "T t"."i d" = "s s"."i d" WHEN MATCHED THEN '
        'UPDATE SET "x""y" = "T t"."x""y" || \'!\', s.a = place + 10, "T t".s.b.c = \'new\', clause = c0'
    )
    first = lake.sql('FROM "a ""t" ORDER BY "i d"').fetchall()[0]
    assert first[1:] == ("one!", {"a": 11, "b": {"c": "new", "d": dt.date(2024, 1, 1)}}, 1, 3, 3)
    assert lake.sql('SELECT s.b.c, s.b.d, s.a FROM "a ""t" WHERE "i d" = 2').fetchall() == [("new", None, None)]


def test_not_null_holds(lake: Lake) -> None:
    lake.sql("CREATE TABLE t (id BIGINT NOT NULL, v VARCHAR)")
    lake.sql("INSERT INTO t VALUES (1, 'a')")
    for clause, error in (
        ("WHEN MATCHED THEN UPDATE SET id = NULL", ConstraintViolationError),
        ("WHEN NOT MATCHED THEN INSERT (v) VALUES (s.v)", DeltaduckError),
        ("WHEN NOT MATCHED THEN INSERT (id) VALUES (nullif(s.id, 2))", ConstraintViolationError),
    ):
        with pytest.raises(error, match="'id' is NOT NULL"):
            lake.sql(f"MERGE INTO t USING (VALUES (1, 'x'), (2, 'y')) s(id, v) ON t.id = s.id {clause}")
    assert lake.sql("FROM t").fetchall() == [(1, "a")]


def test_a_value_that_fits_no_column_changes_nothing(stock: Lake) -> None:
    with pytest.raises(SchemaMismatchError, match="abc"):
        stock.sql(f"{ON_ID} WHEN MATCHED THEN UPDATE SET n = CASE s.id WHEN 3 THEN 'abc' ELSE '1' END")
    assert rows(stock) == UNTOUCHED


ON_ID = "MERGE INTO stock t USING delivery s ON t.id = s.id"
FAILING = [
    ("MERGE INTO nowhere USING delivery s ON true WHEN MATCHED THEN DELETE", TableNotFoundError, "nowhere"),
    ("MERGE INTO stock USING nowhere s ON true WHEN MATCHED THEN DELETE", TableNotFoundError, "nowhere"),
    ("MERGE INTO stock t USING delivery s ON t.nope = s.id WHEN MATCHED THEN DELETE", QueryError, "nope"),
    (f"{ON_ID} WHEN MATCHED THEN UPDATE SET nope = 1", SchemaMismatchError, "nope.*id, name, n"),
    (f"{ON_ID} WHEN MATCHED THEN UPDATE SET n = nope", QueryError, "nope"),
    (f"{ON_ID} WHEN MATCHED THEN UPDATE SET n = c0", QueryError, "c0"),
    (f"{ON_ID} WHEN MATCHED THEN UPDATE SET n = 1, N = 2", QueryError, "twice"),
    (f"{ON_ID} WHEN MATCHED THEN UPDATE SET name.first = 1", SchemaMismatchError, "'name' has no field 'first'"),
    (f"{ON_ID} WHEN NOT MATCHED THEN INSERT (id) VALUES (1, 2)", QueryError, "2 values for 1"),
    (f"{ON_ID} WHEN MATCHED THEN DELETE RETURNING id", UnsupportedFeatureError, "RETURNING"),
    (f"{ON_ID} WHEN MATCHED THEN FROBNICATE", QueryError, "FROBNICATE.*Line 1, Col: "),
    (f"{ON_ID} WHEN MATCHED THEN INSERT *", QueryError, "MATCHED"),
    (f"{ON_ID} WHEN MATCHED THEN DELETE WHEN MATCHED THEN UPDATE SET n = 1", QueryError, "could never apply"),
    (f"{ON_ID} WHEN NOT MATCHED THEN DELETE", UnsupportedFeatureError, "DELETE"),
    ("MERGE INTO dl_tables t USING delivery s ON true WHEN MATCHED THEN DELETE", UnsupportedFeatureError, "dl_tables"),
    (
        "MERGE INTO stock t USING (SELECT 1 AS id, 2 AS extra) s ON t.id = s.id WHEN NOT MATCHED THEN INSERT *",
        SchemaMismatchError, "'extra'",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "error", "named"), FAILING)
def test_a_merge_that_fails_changes_nothing(stock: Lake, statement: str, error: type[DeltaduckError], named: str) -> None:
    with pytest.raises(error, match=f"(?s){named}"):
        stock.sql(statement)
    assert rows(stock) == UNTOUCHED
    assert [t["version"] for t in stock.tables()] == [0, 0]


def test_an_append_only_table_takes_inserts(lake: Lake) -> None:
    lake.write("log", pa.table({"id": [1]}), configuration={"delta.appendOnly": "true"})
    with pytest.raises(ConstraintViolationError, match="append-only"):
        lake.sql("MERGE INTO log t USING (SELECT 1 AS id) s ON t.id = s.id WHEN MATCHED THEN DELETE")
    lake.sql("MERGE INTO log t USING (VALUES (1), (2)) s(id) ON t.id = s.id WHEN NOT MATCHED THEN INSERT *")
    assert lake.sql("FROM log ORDER BY id").fetchall() == [(1,), (2,)]


# --- schema evolution


def test_new_columns_are_added_when_asked_for(lake: Lake) -> None:
    lake.write("t", pa.table({"id": [1, 2], "s": [{"a": 1}, {"a": 2}]}))
    lake.sql(
        "MERGE WITH SCHEMA EVOLUTION INTO t USING (SELECT 2 AS id, {'a': 20, 'b': 'new'} AS s, 1.5::DOUBLE AS w UNION ALL "
        "SELECT 3, {'a': 30, 'b': NULL}, NULL) x ON t.id = x.id WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
    )
    assert lake.sql("FROM t ORDER BY id").fetchall() == [
        (1, {"a": 1, "b": None}, None), (2, {"a": 20, "b": "new"}, 1.5), (3, {"a": 30, "b": None}, None),
    ]  # fmt: skip
    frame = pa.table({"id": [1], "z": ["zed"], "y": [0]})
    merge = lake.table("t").merge(frame, "target.id = source.id", merge_schema=True)
    merge.when_matched_update({"z": "source.z"}).execute()
    assert lake.sql("SELECT id, z FROM t ORDER BY id").fetchall() == [(1, "zed"), (2, None), (3, None)]
    assert "y" not in lake.table("t").schema().names
    assert lake.mirror.verify("t")


# --- from Python


def test_the_twin_in_python(stock: Lake) -> None:
    frame = stock.table("delivery").to_arrow()
    said = (
        stock.table("stock")
        .merge(frame, "t.id = s.id", source_alias="s", target_alias="t")
        .when_matched_delete("s.n = 0")
        .when_matched_update({"n": "t.n + s.n", "t.name": "upper(t.name)"})
        .when_not_matched_insert_all("s.id IS NOT NULL", except_cols=["name"])
        .when_not_matched_by_source_delete("t.id IS NULL")
        .when_not_matched_by_source_update({"n": "0"})
        .execute()
    )
    assert rows(stock) == [(1, "nail", 0), (2, "SCREW", 25), (7, None, 70)]
    times = {k: said.pop(k) for k in ("execution_time_ms", "scan_time_ms", "rewrite_time_ms")}
    assert all(isinstance(v, int) and v >= 0 for v in times.values())
    assert said == {
        "num_source_rows": 4, "num_target_rows_inserted": 1, "num_target_rows_updated": 2, "num_target_rows_deleted": 2,
        "num_target_rows_copied": 0, "num_output_rows": 3, "num_target_files_scanned": 1,
        "num_target_files_skipped_during_scan": 0, "num_target_files_added": 1, "num_target_files_removed": 1,
    }  # fmt: skip


def test_the_twin_refuses_what_would_lose_something(lake: Lake) -> None:
    lake.write("t", pa.table({"id": [1], "n": [1]}))
    frame = pl.DataFrame({"id": [1], "n": ["1.5"]})
    with pytest.raises(SchemaMismatchError, match="'n' is BIGINT in the table and VARCHAR in the rows"):
        lake.table("t").merge(frame, "target.id = source.id").when_matched_update_all().execute()
    merge = lake.table("t").merge(frame, "target.id = source.id", error_on_type_mismatch=False)
    merge.when_matched_update_all().execute()
    assert lake.table("t").to_arrow().to_pylist() == [{"id": 1, "n": 2}]
    with pytest.raises(QueryError, match="at least one clause"):
        lake.table("t").merge(frame, "target.id = source.id").execute()
    with pytest.raises(UnsupportedFeatureError, match="version 0 is the past"):
        lake.table("t").as_of(version=0).merge(frame, "target.id = source.id")


def test_the_twin_takes_streams_and_sql(stock: Lake) -> None:
    for source in (stock.table("delivery").to_arrow().to_reader(), "SELECT * FROM delivery", pl.scan_delta):
        if callable(source):
            source = stock.table("delivery").to_polars().lazy()
        merge = stock.table("stock").merge(source, "target.id = source.id")
        assert merge.when_matched_update({"n": "source.n"}).execute()["num_target_rows_updated"] == 2
    assert stock.con.sql("SELECT count(*) FROM duckdb_tables() WHERE temporary").fetchall() == [(0,)]  # nothing is left behind


# --- transactions and conflicts


def test_in_a_transaction(stock: Lake) -> None:
    with stock.begin() as tx:
        tx.write("stock", pa.table({"id": [7], "name": ["nut"], "n": [1]}))
        tx.write("delivery", pa.table({"id": [1], "name": ["nail"], "n": [1000]}))
        tx.sql("MERGE INTO stock t USING delivery s ON t.id = s.id WHEN MATCHED THEN UPDATE SET n = t.n + s.n")
        said = tx.merge("stock", "SELECT * FROM delivery WHERE id = 1", "target.id = source.id").when_matched_delete().execute()
        assert said["num_target_rows_deleted"] == 1
        with pytest.raises(ConstraintViolationError):
            tx.sql(f"MERGE INTO stock t USING {TWICE} ON t.id = s.id WHEN MATCHED THEN UPDATE SET n = s.n")
    assert rows(stock) == [(2, "screw", 25), (3, "bolt", 30), (7, "nut", 71), (None, "?", 40)]  # what failed left no trace
    assert stock.table("stock").version() == 1


@pytest.mark.parametrize(
    ("isolation", "appended", "conflicts"),
    [(None, 2, False), ("serializable", 2, True), ("serializable", 1000, False)],
)
def test_a_merge_and_a_concurrent_append(stock: Lake, isolation: str | None, appended: int, conflicts: bool) -> None:
    """Rows that the merge would have matched must not come unseen when it is to be serializable; others may."""
    tx = stock.begin(isolation)
    tx.sql(f"{ON_ID} WHEN MATCHED THEN UPDATE SET n = s.n WHEN NOT MATCHED THEN INSERT *")
    stock.write("stock", pa.table({"id": [appended], "name": ["x"], "n": [1]}))
    if conflicts:
        with pytest.raises(CommitConflictError, match="added rows that this commit read"):
            tx.commit()
    else:
        tx.commit()
    assert stock.table("stock").version() == (1 if conflicts else 2)


def test_two_merges_of_the_same_key_conflict_and_of_different_files_do_not(parts: Lake) -> None:
    merge = "MERGE INTO parts t USING (SELECT {} AS id) s ON t.id = s.id WHEN MATCHED THEN UPDATE SET n = n + 1"
    one, same, other = parts.begin(), parts.begin(), parts.begin()
    one.sql(merge.format(55))
    same.sql(merge.format(56))
    other.sql(merge.format(155))
    one.commit()
    other.commit()
    with pytest.raises(CommitConflictError, match=r"removed (rows that this commit read|files that this commit removes)"):
        same.commit()
    assert parts.sql("SELECT id FROM parts WHERE n = 1 ORDER BY id").fetchall() == [(55,), (155,)]


@pytest.mark.parametrize(("threads", "groups"), [(1, 1), (2, 4), (8, 5)])
def test_changed_rows_give_every_thread_a_row_group(lake: Lake, threads: int, groups: int) -> None:
    """DuckDB writes a row group with one thread: 100,000 rows would be a single one."""
    lake.write("t", "SELECT range AS id, 0 AS n FROM range(1000)", configuration={"delta.enableDeletionVectors": "true"})
    lake.con.execute(f"SET threads = {threads}")
    lake.sql("MERGE INTO t USING range(100000) s(id) ON t.id = s.id WHEN NOT MATCHED THEN INSERT VALUES (s.id, 1)")
    (path,) = [p for p in lake.table("t").file_uris() if "part-" in p and pq.ParquetFile(p).metadata.num_rows == 99_000]
    found = pq.ParquetFile(path).num_row_groups
    assert found == 1 if threads == 1 else groups <= found <= 2 * groups  # each thread hands in what it has
    assert lake.sql("SELECT count(*), count(DISTINCT id), sum(n) FROM t").fetchall() == [(100_000, 100_000, 99_000)]
