"""UPDATE … FROM, DELETE … USING, the forms of INSERT, COPY … FROM, and BEGIN / COMMIT / ROLLBACK."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import handmade as h
import pyarrow as pa
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
def shop(lake: Lake) -> Lake:
    lake.write("items", pa.table({"id": [1, 2, 3, 4], "kind": ["a", "b", "b", None], "price": [10, 20, 30, 40]}))
    lake.write("sale", pa.table({"kind": ["a", "b", None], "cut": [1, 2, 3]}))
    lake.write("sold", pa.table({"id": [3, 3, 9], "cut": [7, 7, 7]}))
    return lake


def items(lake: Lake) -> list[tuple[Any, ...]]:
    return lake.sql("SELECT id, price FROM items ORDER BY ALL").fetchall()


def test_rows_go_by_position_whatever_their_columns_are_called(shop: Lake) -> None:
    shop.sql("CREATE TABLE pairs (a INTEGER, b INTEGER)")
    shop.sql("INSERT INTO pairs SELECT 0::INTEGER, 0::INTEGER")
    shop.sql("INSERT INTO pairs SELECT id AS x, id AS x FROM items WHERE id = 1")
    assert shop.sql("FROM pairs ORDER BY a").fetchall() == [(0, 0), (1, 1)]
    with pytest.raises(SchemaMismatchError, match="stand more than once"):
        shop.sql("INSERT INTO pairs BY NAME SELECT id AS a, id AS a FROM items")


# --- other tables in UPDATE and DELETE

UPDATES = {
    "a table": ("UPDATE items SET price = price - cut FROM sale WHERE items.kind = sale.kind", [9, 18, 28, 40]),
    "with aliases": ("UPDATE items AS i SET price = i.price - s.cut FROM sale AS s WHERE i.kind = s.kind", [9, 18, 28, 40]),
    "a join": (
        "UPDATE items SET price = price - s.cut FROM sale s JOIN sold ON sold.cut > s.cut "
        "WHERE items.kind = s.kind AND items.id = sold.id",
        [10, 20, 28, 40],
    ),
    "several": ("UPDATE items SET price = 0 FROM sale s, sold WHERE items.kind = s.kind AND items.id = sold.id", [10, 20, 0, 40]),
    "a subquery": (
        "UPDATE items SET price = m FROM (SELECT kind, max(cut) AS m FROM sale GROUP BY kind) x WHERE x.kind = items.kind",
        [1, 2, 2, 40],
    ),
    "itself": ("UPDATE items SET price = o.price FROM items o WHERE o.id = items.id + 1", [20, 30, 40, 40]),
    "WITH": ("WITH x AS (SELECT 2 AS id) UPDATE items SET price = 0 FROM x WHERE x.id = items.id", [10, 0, 30, 40]),
    "WITH, in a subquery": ("WITH x AS (SELECT 2 AS id) UPDATE items SET price = 0 WHERE id IN (FROM x)", [10, 0, 30, 40]),
    "WITH upon WITH": (
        "WITH x AS (SELECT 1 AS id), y AS (SELECT id + 1 AS id FROM x) "
        "UPDATE items SET price = 0 FROM y AS z WHERE z.id = items.id",
        [10, 0, 30, 40],
    ),
    "a join with a subquery": (
        "UPDATE items SET price = 0 FROM sale s JOIN (SELECT kind AS k, id AS i FROM items WHERE id = 3) x ON x.k = s.kind "
        "WHERE x.i = items.id AND s.kind = items.kind",
        [10, 20, 0, 40],
    ),
    "a sample": ("UPDATE items SET price = 0 FROM sold TABLESAMPLE 100% WHERE sold.id = items.id", [10, 20, 0, 40]),
    "values": (
        "UPDATE items SET price = v.p FROM (VALUES (1, 100), (4, 400)) v(id, p) WHERE v.id = items.id",
        [100, 20, 30, 400],
    ),
    "a past version": ("UPDATE items SET price = 0 FROM sold AT (VERSION => 0) o WHERE o.id = items.id", [10, 20, 0, 40]),
    "a subquery as a value": (
        "UPDATE items SET price = (SELECT max(cut) FROM sale s WHERE s.kind = items.kind)",
        [1, 2, 2, None],
    ),
    "a tuple": ("UPDATE items SET (price, kind) = (id, 'x') WHERE id < 3", [1, 2, 30, 40]),
    "DEFAULT": ("UPDATE items SET price = DEFAULT WHERE id = 1", [None, 20, 30, 40]),
    "random": ("UPDATE items SET price = 7 WHERE random() < 2", [7, 7, 7, 7]),
}


@pytest.mark.parametrize(("statement", "prices"), UPDATES.values(), ids=UPDATES)
def test_update(shop: Lake, statement: str, prices: list[int]) -> None:
    shop.sql(statement)
    assert items(shop) == list(zip([1, 2, 3, 4], prices, strict=True))


DELETES = {
    "a table": ("DELETE FROM items USING sold WHERE items.id = sold.id", [1, 2, 4]),
    "aliases": ("DELETE FROM items i USING sold s WHERE i.id = s.id AND s.cut = 7", [1, 2, 4]),
    "several": ("DELETE FROM items USING sale, sold WHERE items.kind = sale.kind AND sold.id = items.id", [1, 2, 4]),
    "no condition": ("DELETE FROM items USING sold", []),
    "EXISTS": ("DELETE FROM items WHERE EXISTS (SELECT 1 FROM sold WHERE sold.id = items.id)", [1, 2, 4]),
    "NOT IN": ("DELETE FROM items WHERE id NOT IN (SELECT id FROM sold)", [3]),
    "itself": ("DELETE FROM items WHERE price > (SELECT avg(price) FROM items)", [1, 2]),
    "the past": ("DELETE FROM items WHERE id IN (SELECT o.id FROM sold AT (VERSION => 0) o)", [1, 2, 4]),
    "WITH": ("WITH x AS (FROM sold) DELETE FROM items USING x WHERE x.id = items.id", [1, 2, 4]),
    "TRUNCATE": ("TRUNCATE items", []),
}


@pytest.mark.parametrize(("statement", "ids"), DELETES.values(), ids=DELETES)
def test_delete(shop: Lake, statement: str, ids: list[int]) -> None:
    assert shop.sql(statement).fetchall() == [(4 - len(ids), 1)]
    assert [i for i, _ in items(shop)] == ids
    assert shop.mirror.verify("items")


def test_several_sources_of_one_update_must_agree(shop: Lake) -> None:
    shop.sql("UPDATE items SET price = price + cut FROM sold WHERE sold.id = items.id")  # the same twice
    assert items(shop)[2] == (3, 37)
    with pytest.raises(ConstraintViolationError, match=r"'items': several rows.*id=3"):
        shop.sql("UPDATE items SET price = x FROM (VALUES (3, 1), (3, 2)) s(i, x) WHERE s.i = items.id")
    assert items(shop)[2] == (3, 37)


def test_one_row_of_many_files_opens_one(lake: Lake) -> None:
    lake.write("t", pa.table({"id": range(100), "p": [i // 2 for i in range(100)], "v": [0] * 100}), partition_by="p")
    for statement in (
        "UPDATE t SET v = v + 1 WHERE id = 31",
        "UPDATE t SET v = v + s.n FROM (SELECT 31 AS id, 1 AS n) s WHERE s.id = t.id",
        "MERGE INTO t USING (SELECT 31 AS id) s ON s.id = t.id WHEN MATCHED THEN UPDATE SET v = v + 1",
    ):
        lake.sql(statement)
        metrics = lake.table("t").history(1)[0]["operation_metrics"]
        assert (metrics["numFiles"], metrics["numRemovedFiles"], metrics["numOutputRows"]) == ("1", "1", "2")
    assert lake.table("t").update({"v": "0"}, predicate="id = 31")["num_removed_files"] == 1
    assert lake.table("t").delete("p = 7") | {"execution_time_ms": 0, "scan_time_ms": 0, "rewrite_time_ms": 0} == {
        "num_added_files": 0, "num_removed_files": 1, "num_deleted_rows": 2, "num_copied_rows": 0,
        "execution_time_ms": 0, "scan_time_ms": 0, "rewrite_time_ms": 0,
    }  # fmt: skip


def test_one_row_of_ten_thousand_files_opens_one(lake: Lake, tmp_path: Path) -> None:
    """All the other files are not there: whoever opened one would fail."""
    path, there = tmp_path / "t", 6_000
    stats = '{{"numRecords":2,"minValues":{{"id":{0}}},"maxValues":{{"id":{1}}},"nullCount":{{"id":0}}}}'
    adds = [h.add(path, f"{n}.parquet", stats=stats.format(2 * n, 2 * n + 1)) for n in range(10_000) if n != there]
    rows = pa.table({"id": [2 * there, 2 * there + 1], "v": [0, 0]})
    adds.append(h.add(path, f"{there}.parquet", rows, stats=stats.format(2 * there, 2 * there + 1)))
    h.commit(path, 0, h.protocol(), h.metadata(h.field("id", "long"), h.field("v", "long")), *adds)
    lake.import_table(path)
    lake.sql(f"UPDATE t SET v = 1 WHERE id = {2 * there}")
    lake.sql(f"MERGE INTO t USING (SELECT {2 * there} AS id) s ON s.id = t.id WHEN MATCHED THEN UPDATE SET v = v + 1")
    assert lake.sql(f"SELECT id, v FROM t WHERE id BETWEEN {2 * there} AND {2 * there + 1} ORDER BY id").fetchall() == [
        (2 * there, 2), (2 * there + 1, 0),
    ]  # fmt: skip
    assert lake.table("t").detail()["num_files"] == 10_000
    lake.sql("ALTER TABLE t SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
    lake.sql(f"UPDATE t SET v = 3 WHERE id = {2 * there}")
    assert lake.sql(f"SELECT v FROM t WHERE id = {2 * there}").fetchall() == [(3,)]


def test_an_error_in_the_middle_changes_nothing(lake: Lake) -> None:
    lake.sql("CREATE TABLE t AS SELECT range AS n FROM range(10000)")
    for sql in (
        "UPDATE t SET n = CASE WHEN n = 9999 THEN error('by zero') ELSE 10 // n END",
        "DELETE FROM t WHERE n = error('by zero')",
    ):
        with pytest.raises(QueryError, match="by zero"):
            lake.sql(sql)
    assert lake.sql("SELECT sum(n) FROM t").fetchall() == [(49995000,)]
    assert lake.table("t").version() == 0
    assert len(list(Path(lake.storage).rglob("*.parquet"))) == 1


def test_an_update_with_values_from_python(lake: Lake) -> None:
    import datetime as dt
    from decimal import Decimal

    zone = dt.UTC
    values = {
        "i": 7, "f": float("inf"), "s": "it's", "b": True, "d": dt.date(2024, 1, 31), "t": dt.datetime(2024, 1, 1, tzinfo=zone),
        "n": dt.datetime(2024, 1, 1, 1), "l": [1, 2], "x": b"\x00'", "m": Decimal("1.25"), "r": {"a": 1}, "z": None,
    }  # fmt: skip
    scalars = "i BIGINT, f DOUBLE, s VARCHAR, b BOOLEAN, d DATE, t TIMESTAMPTZ, n TIMESTAMP"
    lake.sql(f"CREATE TABLE t ({scalars}, l BIGINT[], x BLOB, m DECIMAL(9,2), r STRUCT(a INT), z INT)")
    lake.sql("INSERT INTO t DEFAULT VALUES")
    assert lake.table("t").update(new_values=values)["num_updated_rows"] == 1
    assert lake.table("t").to_arrow().to_pylist() == [values]
    with pytest.raises(SchemaMismatchError, match="a set has no SQL literal"):
        lake.table("t").update(new_values={"i": set()})
    for wrong in ({}, {"updates": {"i": "1"}, "new_values": {"i": 1}}):
        with pytest.raises(QueryError, match="either"):
            lake.table("t").update(**wrong)


# --- INSERT

INSERTS = {
    "BY NAME": "INSERT INTO t BY NAME SELECT 'x' AS b, 2 AS a",
    "columns": "INSERT INTO t (b, a) VALUES ('x', 2)",
    "DEFAULT": "INSERT INTO t VALUES (2, 'x', DEFAULT)",
    "omitted": "INSERT INTO t (a, b) SELECT 2, 'x'",
    "from the past": "INSERT INTO t SELECT p.a + 1, 'x', NULL FROM t AT (VERSION => 1) p",
}


@pytest.mark.parametrize("statement", INSERTS.values(), ids=INSERTS)
def test_insert(lake: Lake, statement: str) -> None:
    lake.sql("CREATE TABLE t (a BIGINT, b VARCHAR, c DOUBLE); INSERT INTO t VALUES (1, 'w', 0.5)")
    lake.sql(statement)
    assert lake.sql("FROM t ORDER BY a").fetchall() == [(1, "w", 0.5), (2, "x", None)]


def test_insert_default_values_and_overwrite(lake: Lake) -> None:
    lake.sql("CREATE TABLE t (a BIGINT, b VARCHAR); INSERT INTO t DEFAULT VALUES; INSERT INTO t VALUES (1, 'b')")
    assert lake.sql("FROM t ORDER BY a").fetchall() == [(1, "b"), (None, None)]
    lake.sql("INSERT OVERWRITE t SELECT a + 1, b FROM t WHERE a IS NOT NULL")
    assert lake.sql("FROM t").fetchall() == [(2, "b")]
    lake.sql("INSERT OVERWRITE TABLE t BY NAME SELECT 'only' AS b")
    assert lake.sql("FROM t").fetchall() == [(None, "only")]


def test_insert_replace_where(lake: Lake) -> None:
    lake.write("t", pa.table({"day": ["mon", "mon", "tue"], "n": [1, 2, 3]}), partition_by="day")
    lake.sql("INSERT INTO t REPLACE WHERE day = 'mon' SELECT 'mon', 10")
    assert lake.sql("SELECT day, n FROM t ORDER BY n").fetchall() == [("tue", 3), ("mon", 10)]
    assert lake.table("t").history(1)[0]["operation_metrics"]["numRemovedFiles"] == "1"
    with pytest.raises(ConstraintViolationError, match="does not match the predicate"):
        lake.sql("INSERT INTO t REPLACE WHERE day = 'mon' SELECT 'wed', 11")
    assert lake.sql("SELECT sum(n) FROM t").fetchall() == [(13,)]


def test_copy_from_files(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id;name\n1;x\n2;y\n")
    lake.con.execute(f"COPY (SELECT 3 AS id, 'z' AS name) TO '{tmp_path / 'b.parquet'}'")
    (tmp_path / "c.json").write_text('{"id": 4, "name": "j"}\n')
    (tmp_path / "d.csv").write_text("w,5\n")
    lake.sql('CREATE TABLE "my t" (id BIGINT NOT NULL, name VARCHAR)')
    for statement in (
        f"COPY \"my t\" FROM '{tmp_path / 'a.csv'}' (HEADER, DELIMITER ';')",
        f"COPY \"my t\" FROM '{tmp_path / 'b.parquet'}'",
        f"COPY \"my t\" FROM '{tmp_path / 'c.json'}' (FORMAT json)",
        f"COPY \"my t\" (name, id) FROM '{tmp_path / 'd.csv'}' (HEADER false)",
    ):
        assert lake.sql(statement).columns == ["rows", "files"]
    assert lake.sql('FROM "my t" ORDER BY id').fetchall() == [(1, "x"), (2, "y"), (3, "z"), (4, "j"), (5, "w")]
    (tmp_path / "bad.csv").write_text("id,name\nseven,x\n")
    for statement, error in (
        (f"COPY \"my t\" FROM '{tmp_path / 'bad.csv'}' (HEADER)", "seven"),
        (f"COPY \"my t\" (name) FROM '{tmp_path / 'd.csv'}' (HEADER false, DELIMITER '|')", "'id' is NOT NULL"),
        (f"COPY nowhere FROM '{tmp_path / 'd.csv'}'", "nowhere"),
        (f"COPY \"my t\" (nope) FROM '{tmp_path / 'd.csv'}'", "nope"),
        (f"COPY \"my t\" FROM '{tmp_path / 'no such.csv'}'", "no such.csv"),
    ):
        with pytest.raises(DeltaduckError, match=error):
            lake.sql(statement)
    assert lake.table("my t").version() == 4
    lake.sql(f"COPY (SELECT * FROM \"my t\" WHERE id = 1) TO '{tmp_path / 'out.csv'}'")
    assert (tmp_path / "out.csv").read_text() == "id,name\n1,x\n"


# --- what cannot be


@pytest.mark.parametrize(
    ("statement", "error", "named"),
    [
        ("UPDATE items SET price = 1 FROM nowhere", TableNotFoundError, "nowhere"),
        ("DELETE FROM items USING nowhere", TableNotFoundError, "nowhere"),
        ("DELETE FROM items WHERE id IN (SELECT id FROM nowhere)", TableNotFoundError, "nowhere"),
        ("UPDATE items SET price = nope FROM sold WHERE sold.id = items.id", QueryError, "nope"),
        ("UPDATE items SET price = 1, price = 2", QueryError, "'price' is set twice"),
        ("UPDATE items SET price.x = 1", SchemaMismatchError, "'price' has no field 'x'"),
        ("UPDATE items SET (id, price) = (SELECT 1, 2)", UnsupportedFeatureError, "each column one value"),
        ("UPDATE items SET price = 'abc'", SchemaMismatchError, "abc"),
        ("UPDATE items SET price = 1 WHERE", QueryError, "(?s)Line 1, Col: .*UPDATE items"),
        ("UPDATE items SET price = = 1", QueryError, "(?s)Line 1, Col: "),
        ("DELETE FROM items WHERE id = 1 RETURNING *", UnsupportedFeatureError, "RETURNING"),
        ("UPDATE items SET price = 1 RETURNING *", UnsupportedFeatureError, "RETURNING"),
        ("INSERT INTO items PARTITION (kind = 'a') SELECT 1, 2", UnsupportedFeatureError, "PARTITION"),
        ("INSERT INTO items VALUES (1, 'a', 1) ON CONFLICT DO NOTHING", UnsupportedFeatureError, "ON CONFLICT"),
        ("INSERT INTO items (id, nope) VALUES (1, 2)", SchemaMismatchError, "nope"),
    ],
)
def test_statements_that_fail_change_nothing(shop: Lake, statement: str, error: type[DeltaduckError], named: str) -> None:
    with pytest.raises(error, match=named):
        shop.sql(statement)
    assert items(shop) == [(1, 10), (2, 20), (3, 30), (4, 40)]
    assert {t["version"] for t in shop.tables()} == {0}


# --- transactions


def test_subqueries_see_what_the_transaction_staged(shop: Lake) -> None:
    with shop.begin() as tx:
        tx.write("sold", pa.table({"id": [1], "cut": [0]}))
        tx.delete("items", "id IN (SELECT id FROM sold)")
        tx.sql("DELETE FROM items WHERE price = (SELECT max(price) FROM items)")
        assert tx.sql("SELECT id FROM items").fetchall() == [(2,)]
        tx.update("items", {"price": "(SELECT count(*) FROM sold)"})
        tx.create_table("fresh", {"id": "BIGINT"})
        tx.sql("INSERT INTO fresh VALUES (2)")
        tx.sql("UPDATE items SET kind = 'seen' FROM fresh WHERE fresh.id = items.id")
        tx.drop_table("sale")
        with pytest.raises(TableNotFoundError, match="'sale'"):
            tx.sql("DELETE FROM items WHERE id IN (SELECT cut FROM sale)")
    assert shop.sql("SELECT * FROM items").fetchall() == [(2, "seen", 4)]


def test_a_failed_statement_leaves_the_transaction_as_it_was(shop: Lake) -> None:
    with shop.begin() as tx:
        tx.delete("items", "id = 1")
        for statement in ("INSERT OVERWRITE items SELECT 1, 'x', error('no')", "UPDATE items SET price = error('no')"):
            with pytest.raises(QueryError, match="no"):
                tx.sql(statement)
        with pytest.raises(SchemaMismatchError):
            tx.write("items", pa.table({"other": [1]}), mode="overwrite")
        assert tx.sql("SELECT count(*) FROM items").fetchall() == [(3,)]
    assert items(shop) == [(2, 20), (3, 30), (4, 40)]
    assert len(list(Path(shop.storage, "items").rglob("part-*.parquet"))) == 2


def test_begin_and_commit(shop: Lake) -> None:
    shop.sql("BEGIN TRANSACTION")
    shop.sql("DELETE FROM items WHERE id < 3")
    shop.sql("INSERT INTO sold SELECT id, 0 FROM items; CREATE TABLE c AS SELECT 1 AS x")
    assert items(shop) == [(3, 30), (4, 40)]
    assert {t["version"] for t in shop.tables()} == {0}
    assert len(shop.tables()) == 3  # nobody else sees any of it
    with pytest.raises(QueryError, match="open on this thread already"):
        shop.sql("BEGIN")
    with pytest.raises(QueryError, match="no"):
        shop.sql("UPDATE items SET price = error('no')")
    assert sorted(shop.sql("COMMIT").fetchall()) == [("c", 0), ("items", 1), ("sold", 1)]
    assert items(shop) == [(3, 30), (4, 40)]
    assert len({shop.table(name).history(1)[0]["commit_id"] for name in ("items", "sold", "c")}) == 1
    assert shop.sql("BEGIN; DROP TABLE c; ROLLBACK; SELECT x FROM c").fetchall() == [(1,)]
    assert shop.sql("START TRANSACTION; END").fetchall() == []
    for verb in ("COMMIT", "ROLLBACK", "ABORT"):
        with pytest.raises(QueryError, match="BEGIN one first"):
            shop.sql(verb)


def test_a_transaction_belongs_to_its_thread(shop: Lake) -> None:
    shop.sql("BEGIN; DELETE FROM items")
    seen: list[Any] = []

    def look() -> None:
        seen.append(shop.sql("SELECT count(*) FROM items").fetchall())
        with pytest.raises(QueryError, match="BEGIN one first"):
            shop.sql("COMMIT")

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [[(4,)]]
    shop.sql("ROLLBACK")
    assert len(items(shop)) == 4


def test_begin_inside_of_a_block_is_refused(shop: Lake) -> None:
    with shop.begin() as tx:
        for verb in ("BEGIN", "COMMIT", "ROLLBACK"):
            with pytest.raises(UnsupportedFeatureError, match=r"tx\.commit\(\) or tx\.rollback\(\)"):
                tx.sql(verb)
        tx.delete("items")
    assert items(shop) == []


def test_a_commit_that_conflicts_ends_the_transaction(open_lake: Callable[[], Lake], tmp_path: Path) -> None:
    lake = open_lake()
    lake.write("t", pa.table({"n": [1, 2]}))
    lake.sql("BEGIN; UPDATE t SET n = 10 WHERE n = 1")
    other = threading.Thread(target=lambda: lake.sql("UPDATE t SET n = 20 WHERE n = 2"))
    other.start()
    other.join()
    with pytest.raises(CommitConflictError, match="'t'"):
        lake.sql("COMMIT")
    lake.sql("BEGIN; UPDATE t SET n = 10 WHERE n = 1; COMMIT")
    assert sorted(lake.sql("FROM t").fetchall()) == [(10,), (20,)]


def test_closing_rolls_back(open_lake: Callable[[], Lake], tmp_path: Path) -> None:
    lake = open_lake()
    lake.write("t", pa.table({"n": [1]}))
    lake.sql("BEGIN; INSERT INTO t VALUES (2)")
    lake.close()
    assert open_lake().sql("FROM t").fetchall() == [(1,)]
    assert len(list(tmp_path.rglob("part-*.parquet"))) == 1


# --- what was read decides what conflicts


def test_a_table_that_feeds_itself_is_no_blind_append(shop: Lake) -> None:
    one, other = shop.begin(), shop.begin()
    for tx in (one, other):
        tx.sql("INSERT INTO sold SELECT id + 1, cut FROM sold WHERE id >= 9")
    one.commit()
    with pytest.raises(CommitConflictError, match="added rows that this commit read"):
        other.commit()


def test_a_subquery_on_the_same_table_is_read(shop: Lake) -> None:
    tx = shop.begin()
    tx.sql("DELETE FROM items WHERE id = 1 AND price < (SELECT max(price) FROM items)")
    shop.sql("DELETE FROM items WHERE id = 4")
    with pytest.raises(CommitConflictError, match=r"removed (rows that this commit read|files that this commit removes)"):
        tx.commit()


def test_serializable_guards_what_a_source_was(shop: Lake) -> None:
    for isolation, conflicts in ((None, False), ("serializable", True)):
        tx = shop.begin(isolation)
        tx.sql("UPDATE items SET price = price - cut FROM sale WHERE sale.kind = items.kind AND sale.kind = 'a'")
        shop.write("sale", pa.table({"kind": ["z"], "cut": [5]}))
        if conflicts:
            with pytest.raises(CommitConflictError, match="'sale'"):
                tx.commit()
        else:
            tx.commit()
