"""Many statements over many tables: all at once, or nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder

from deltaduck import CommitConflictError, DeltaduckError, Lake, TableExistsError, TableNotFoundError
from deltaduck import snapshot as snapshots


def numbers(*values: int) -> pa.Table:
    return pa.table({"n": list(values)})


def read(lake: Lake, table: str) -> list[int]:
    return sorted(row[0] for row in lake.sql(f"SELECT n FROM {table}").fetchall())


def versions(lake: Lake) -> dict[str, int]:
    return {t["name"]: t["version"] for t in lake.tables()}


def files_on_disk(lake: Lake) -> list[Path]:
    return [p for p in Path(lake.storage).rglob("*.parquet") if "_delta_log" not in p.parts]


@pytest.fixture
def two(lake: Lake) -> Lake:
    lake.write("a", numbers(1, 2))
    lake.write("b", numbers(10, 20))
    return lake


# --- all or nothing


def test_all_tables_are_committed_at_once(two: Lake) -> None:
    with two.begin() as tx:
        tx.write("a", numbers(3))
        tx.sql("DELETE FROM b WHERE n = 10")
        tx.write("c", numbers(100))
        assert versions(two) == {"a": 0, "b": 0}  # nobody sees it before the end
        assert read(two, "a") == [1, 2]
    assert versions(two) == {"a": 1, "b": 1, "c": 0}
    assert (read(two, "a"), read(two, "b"), read(two, "c")) == ([1, 2, 3], [20], [100])
    ids = {two.table(name).history(1)[0]["commit_id"] for name in "abc"}
    assert len(ids) == 1
    assert sorted(c.name for c in tx.committed) == ["a", "b", "c"]


def test_an_exception_rolls_everything_back(two: Lake) -> None:
    before = files_on_disk(two)
    with pytest.raises(RuntimeError, match="changed my mind"):  # noqa: PT012
        with two.begin() as tx:
            tx.write("a", numbers(3))
            tx.delete("b")
            tx.create_table("c", {"n": "BIGINT"})
            tx.drop_table("b")
            raise RuntimeError("changed my mind")
    assert versions(two) == {"a": 0, "b": 0}
    assert (read(two, "a"), read(two, "b")) == ([1, 2], [10, 20])
    assert files_on_disk(two) == before


def test_commit_and_rollback_by_hand(two: Lake) -> None:
    tx = two.begin()
    tx.write("a", numbers(3))
    tx.commit()
    assert read(two, "a") == [1, 2, 3]
    tx = two.begin()
    tx.write("a", numbers(4))
    tx.rollback()
    assert read(two, "a") == [1, 2, 3]
    for call in (tx.commit, lambda: tx.write("a", numbers(5)), lambda: tx.sql("DELETE FROM a"), lambda: tx.drop_table("a")):
        with pytest.raises(DeltaduckError, match="begin another"):
            call()
    assert versions(two) == {"a": 1, "b": 0}


def test_a_statement_that_fails_fails_the_block(two: Lake) -> None:
    with pytest.raises(DeltaduckError, match="other"):  # noqa: PT012
        with two.begin() as tx:
            tx.write("a", numbers(3))
            tx.write("b", pa.table({"other": [1]}))
    assert versions(two) == {"a": 0, "b": 0}


def test_many_statements_on_a_table_are_one_version(two: Lake) -> None:
    with two.begin() as tx:
        tx.write("a", numbers(3))
        tx.write("a", numbers(4))
        tx.sql("UPDATE a SET n = n * 10 WHERE n > 1")
        tx.sql("DELETE FROM a WHERE n = 40")
    assert versions(two) == {"a": 1, "b": 0}
    assert read(two, "a") == [1, 20, 30]
    assert len(files_on_disk(two)) >= two.table("a").detail()["num_files"] + 2
    assert two.mirror.verify("a")


def test_deletes_among_many_staged_files_take_the_right_ones(two: Lake) -> None:
    """Files are told apart by their place in a list, which threads must not shuffle."""
    with two.begin() as tx:
        for n in range(3, 15):
            tx.write("a", numbers(n))
        for n in range(1, 15, 2):
            assert tx.delete("a", f"n = {n}")["rows"] == 1
        assert sorted(tx.sql("SELECT n FROM a").fetchall()) == [(n,) for n in range(2, 15, 2)]
    assert read(two, "a") == list(range(2, 15, 2))


def test_nothing_staged_is_no_commit(two: Lake) -> None:
    with two.begin() as tx:
        assert tx.sql("SELECT count(*) FROM a").fetchall() == [(2,)]
        assert tx.delete("a", "n = 1000") == {"rows": 0, "files": 0}
        tx.write("a", numbers())
    assert tx.committed == []
    assert versions(two) == {"a": 0, "b": 0}


def test_versions_rise_by_one_and_times_with_them(two: Lake) -> None:
    for n in range(5):
        two.write("a", numbers(n))
    history = two.table("a").history()
    assert [h["version"] for h in history] == [5, 4, 3, 2, 1, 0]
    times = [h["committed"] for h in history]
    assert times == sorted(set(times), reverse=True)


# --- reading inside


def test_a_transaction_reads_its_own_writes(two: Lake) -> None:
    with two.begin() as tx:
        tx.write("a", numbers(3))
        assert sorted(tx.sql("SELECT n FROM a").fetchall()) == [(1,), (2,), (3,)]
        tx.sql("DELETE FROM a WHERE n = 3")  # of what was just written
        tx.sql("UPDATE a SET n = 20 WHERE n = 2")
        assert sorted(tx.sql("SELECT n FROM a").fetchall()) == [(1,), (20,)]
        tx.write("new", "SELECT n + 100 AS n FROM a")
        assert sorted(tx.sql("SELECT n FROM new WHERE n > 101").fetchall()) == [(120,)]
        assert tx.sql("SELECT count(*) FROM a AT (VERSION => 0)").fetchall() == [(2,)]
        tx.write("a", numbers(7), mode="overwrite")
        assert tx.sql("SELECT n FROM a").fetchall() == [(7,)]
    assert read(two, "a") == [7]
    assert read(two, "new") == [101, 120]


def test_reads_inside_repeat_themselves(two: Lake) -> None:
    with two.begin() as tx:
        assert tx.sql("SELECT count(*) FROM a").fetchall() == [(2,)]
        two.write("a", numbers(3))
        two.write("b", numbers(30))
        two.write("later", numbers(1))
        assert tx.sql("SELECT count(*) FROM a").fetchall() == [(2,)]
        assert tx.sql("SELECT count(*) FROM b").fetchall() == [(2,)]  # never read before, and still of the same point
        with pytest.raises(TableNotFoundError, match="later"):
            tx.sql("SELECT * FROM later").fetchall()
    assert tx.committed == []


def test_a_table_dropped_meanwhile_is_still_read(two: Lake) -> None:
    with two.begin() as tx:
        tx.sql("SELECT count(*) FROM b").fetchall()
        two.write("a", numbers(3))
        assert tx.sql("SELECT count(*) FROM a").fetchall() == [(2,)]


# --- tables that come and go


def test_create_write_and_drop_in_one_transaction(two: Lake) -> None:
    with two.begin() as tx:
        tx.create_table("c", {"n": "BIGINT"})
        tx.write("c", numbers(5))
        with pytest.raises(TableExistsError, match="'C'"):
            tx.create_table("C", {"n": "BIGINT"})
        tx.drop_table("b")
        with pytest.raises(TableNotFoundError, match="'b'"):
            tx.sql("SELECT * FROM b").fetchall()
        tx.write("b", numbers(99))  # a new table of the old name
        assert tx.sql("SELECT n FROM b").fetchall() == [(99,)]
    assert versions(two) == {"a": 0, "b": 0, "c": 0}
    assert (read(two, "b"), read(two, "c")) == ([99], [5])
    assert two.mirror.verify("b")
    assert two.mirror.verify("c")


def test_created_and_dropped_is_as_if_it_had_never_been(two: Lake) -> None:
    with two.begin() as tx:
        tx.write("c", numbers(5))
        tx.drop_table("c")
    assert versions(two) == {"a": 0, "b": 0}


def test_sql_creates_and_drops_inside_too(two: Lake) -> None:
    with two.begin() as tx:
        tx.sql("CREATE TABLE c AS SELECT * FROM a")
        tx.sql("INSERT INTO c VALUES (3)")
        tx.sql("DROP TABLE a")
    assert versions(two) == {"b": 0, "c": 0}
    assert read(two, "c") == [1, 2, 3]


# --- conflicts


def test_blind_appends_never_conflict(two: Lake) -> None:
    one, other = two.begin(), two.begin()
    one.write("a", numbers(3))
    other.write("a", numbers(4))
    other.commit()
    one.commit()
    assert read(two, "a") == [1, 2, 3, 4]
    assert versions(two)["a"] == 2
    assert two.mirror.verify("a")


def test_a_delete_conflicts_with_a_delete_of_what_it_read(two: Lake) -> None:
    one, other = two.begin(), two.begin()
    one.delete("a", "n = 1")
    one.write("b", numbers(30))
    other.delete("a", "n = 2")
    other.commit()
    with pytest.raises(CommitConflictError) as e:
        one.commit()
    assert (e.value.table, e.value.expected, e.value.actual, e.value.retryable) == ("a", 0, 1, True)
    for part in ("'a'", "expected version 0", "found version 1", "version 1 removed"):
        assert part in str(e.value)
    assert (read(two, "a"), read(two, "b")) == ([1], [10, 20])  # nothing of it, in no table
    with two.begin() as again:
        again.delete("a", "n = 1")
    assert read(two, "a") == []


def test_deletes_of_different_files_commute(two: Lake) -> None:
    two.write("a", numbers(100, 200))
    one, other = two.begin(), two.begin()
    one.delete("a", "n = 1")
    other.delete("a", "n = 200")
    other.commit()
    one.commit()
    assert read(two, "a") == [2, 100]
    assert two.mirror.verify("a")


def test_a_delete_lets_a_blind_append_go_first_unless_serializable(two: Lake) -> None:
    for isolation, conflicts in ((None, False), ("serializable", True)):
        tx = two.begin(isolation)
        tx.delete("a", "n = 1")
        two.write("a", numbers(1))
        if conflicts:
            with pytest.raises(CommitConflictError, match="added rows that this commit read"):
                tx.commit()
        else:
            tx.commit()
        assert read(two, "a") == [1, 2] if not conflicts else [1, 1, 2]


def test_a_serializable_delete_lets_other_rows_be_added(two: Lake) -> None:
    tx = two.begin("serializable")
    tx.delete("a", "n = 1")
    two.write("a", numbers(1000))
    tx.commit()
    assert read(two, "a") == [2, 1000]


def test_isolation_is_a_property_of_the_table_too(two: Lake) -> None:
    two.write("s", numbers(1, 2), configuration={"delta.isolationLevel": "Serializable"})
    tx = two.begin()
    tx.delete("s", "n = 1")
    two.write("s", numbers(1))
    with pytest.raises(CommitConflictError):
        tx.commit()
    assert two.table("s").history()[0]["isolation_level"] == "Serializable"


def test_serializable_guards_what_was_only_read(two: Lake) -> None:
    """The balance that a decision rests on must still be the same when it is made."""
    for isolation, conflicts in (("write_serializable", False), ("serializable", True)):
        tx = two.begin(isolation)
        ((total,),) = tx.sql("SELECT sum(n) FROM b").fetchall()
        tx.write("a", numbers(total))
        two.write("b", numbers(1))
        if conflicts:
            with pytest.raises(CommitConflictError, match="'b'"):
                tx.commit()
        else:
            tx.commit()


def test_an_overwrite_conflicts_with_an_overwrite(two: Lake) -> None:
    tx = two.begin()
    tx.write("a", numbers(7), mode="overwrite")
    two.write("a", numbers(8), mode="overwrite")
    with pytest.raises(CommitConflictError, match=r"'a'.*expected version 0, found version 1"):
        tx.commit()
    assert read(two, "a") == [8]


def test_an_append_conflicts_with_a_change_of_schema(two: Lake) -> None:
    tx = two.begin()
    tx.write("a", numbers(7))
    two.write("a", pa.table({"n": [8], "new": ["x"]}), schema_mode="merge")
    with pytest.raises(CommitConflictError, match="schema"):
        tx.commit()


def test_a_change_of_schema_conflicts_with_any_commit(two: Lake) -> None:
    tx = two.begin()
    tx.write("a", pa.table({"n": [8], "new": ["x"]}), schema_mode="merge")
    two.write("a", numbers(7))
    with pytest.raises(CommitConflictError, match="schema"):
        tx.commit()


def test_dropping_conflicts_with_a_commit_to_the_table(two: Lake) -> None:
    tx = two.begin()
    tx.drop_table("a")
    two.write("a", numbers(7))
    with pytest.raises(CommitConflictError, match=r"'a'.*drop"):
        tx.commit()
    assert read(two, "a") == [1, 2, 7]


def test_writing_to_a_table_that_was_dropped(two: Lake) -> None:
    tx = two.begin()
    tx.write("a", numbers(7))
    two.drop_table("a")
    with pytest.raises(DeltaduckError, match=r"'a'.*dropped"):
        tx.commit()
    assert versions(two) == {"b": 0}


def test_creating_what_somebody_else_created(two: Lake) -> None:
    tx = two.begin()
    tx.write("c", numbers(1))
    tx.write("a", numbers(7))
    two.write("c", numbers(2))
    with pytest.raises(TableExistsError, match="'c'"):
        tx.commit()
    assert versions(two) == {"a": 0, "b": 0, "c": 0}
    assert (read(two, "a"), read(two, "c")) == ([1, 2], [2])


def test_an_unknown_isolation(lake: Lake) -> None:
    with pytest.raises(DeltaduckError, match=r"'chaos'.*'serializable'"):
        lake.begin("chaos")


def test_threads_append_at_the_same_time(open_lake: Callable[[], Lake]) -> None:
    lakes = [open_lake() for _ in range(3)]
    lakes[0].create_table("a", numbers(1).schema)
    failures: list[BaseException] = []

    def append(lake: Lake, start: int) -> None:
        try:
            for n in range(6):
                lake.write("a", numbers(start + n))
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=append, args=(lake, 100 * i)) for i, lake in enumerate(lakes)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert failures == []
    assert versions(lakes[0])["a"] == 18
    assert read(lakes[1], "a") == sorted(100 * i + n for i in range(3) for n in range(6))
    assert lakes[2].mirror.verify("a")


def test_one_lake_serves_many_threads(lake: Lake) -> None:
    lake.create_table("a", numbers(1).schema)
    failures: list[BaseException] = []

    def work(start: int) -> None:
        try:
            for n in range(4):
                lake.write("a", numbers(start + n))
                assert (start + n,) in lake.sql("SELECT n FROM a").fetchall()
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=work, args=(100 * i,)) for i in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert failures == []
    assert len(read(lake, "a")) == 12


def test_counters_lose_no_increment(open_lake: Callable[[], Lake]) -> None:
    """Read-modify-write in threads, retried on conflict: every increment counts."""
    lakes = [open_lake() for _ in range(2)]
    lakes[0].write("counter", numbers(0))
    conflicts = []

    def count(lake: Lake) -> None:
        done = 0
        while done < 5:
            try:
                with lake.begin() as tx:
                    tx.sql("UPDATE counter SET n = n + 1")
                done += 1
            except CommitConflictError as e:
                conflicts.append(e)

    threads = [threading.Thread(target=count, args=(lake,)) for lake in lakes]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert read(lakes[0], "counter") == [10]
    assert all(e.retryable and e.table == "counter" for e in conflicts)


def test_serializable_what_is_read_after_a_write_of_ones_own_counts_too(lake: Lake) -> None:
    lake.write("t", pa.table({"k": [0, 1], "v": [0, 0]}), partition_by="k")
    tx = lake.begin("serializable")
    tx.write("t", pa.table({"k": [1], "v": [5]}))
    assert tx.sql("SELECT v FROM t WHERE k = 0").fetchall() == [(0,)]
    lake.sql("UPDATE t SET v = 7 WHERE k = 0")
    with pytest.raises(CommitConflictError, match="version 1 removed rows that this commit read"):
        tx.commit()
    assert lake.table("t").version() == 1


def test_rows_that_were_written_before_a_column_was_added_in_the_same_transaction(lake: Lake) -> None:
    lake.sql("CREATE TABLE t (n INTEGER)")
    with lake.begin() as tx:
        tx.sql("INSERT INTO t VALUES (1)")
        tx.sql("ALTER TABLE t ADD COLUMN more VARCHAR")
        assert tx.sql("FROM t").fetchall() == [(1, None)]
    assert lake.sql("FROM t").fetchall() == [(1, None)]
    lake.sql("INSERT INTO t VALUES (2, 'x')")
    assert lake.sql("FROM t ORDER BY n").fetchall() == [(1, None), (2, "x")]


@pytest.mark.parametrize("features", [{}, {"delta.enableChangeDataFeed": "true"}])
@pytest.mark.parametrize("statements", [
    ["ANALYZE TABLE t COMPUTE DELTA STATISTICS", "DELETE FROM t WHERE n = 1"],
    ["ANALYZE TABLE t COMPUTE DELTA STATISTICS", "OPTIMIZE t ZORDER BY (n)"],
    ["UPDATE t SET n = 9 WHERE n = 2", "ANALYZE TABLE t COMPUTE DELTA STATISTICS", "DELETE FROM t"],
    ["DELETE FROM t WHERE n > 1", "ANALYZE TABLE t COMPUTE DELTA STATISTICS", "RESTORE TABLE t TO VERSION AS OF 2"],
    ["OPTIMIZE t ZORDER BY (n)", "RESTORE TABLE t TO VERSION AS OF 1"],
    ["OPTIMIZE t ZORDER BY (n)", "UPDATE t SET n = 9 WHERE n = 2", "RESTORE TABLE t TO VERSION AS OF 1"],
    ["INSERT INTO t VALUES (6)", "OPTIMIZE t ZORDER BY (n)", "DELETE FROM t"],
    ["ANALYZE TABLE t COMPUTE DELTA STATISTICS", "INSERT INTO t VALUES (6)", "UPDATE t SET n = 9 WHERE n = 2", "DELETE FROM t"],
])  # fmt: skip
def test_statements_about_the_same_files_in_one_transaction(lake: Lake, features: dict[str, str], statements: list[str]) -> None:
    lake.create_table("t", {"n": "INT"}, configuration=features)
    for rows in ("(1), (2)", "(3), (4)"):
        lake.sql(f"INSERT INTO t VALUES {rows}")
    with lake.begin() as tx:
        for statement in statements:
            tx.sql(statement)
        rows = tx.sql("FROM t ORDER BY n").fetchall()
    assert lake.sql("FROM t ORDER BY n").fetchall() == rows
    assert [row for row in lake.fsck("t") if row["level"] != "note"] == []  # files of a statement that another one undid
    assert lake.mirror.verify("t")
    table = lake.table("t")
    theirs = QueryBuilder().register("t", DeltaTable(table.detail()["location"])).execute("SELECT n FROM t ORDER BY n")
    assert pa.table(theirs.read_all())["n"].to_pylist() == [n for (n,) in rows]
    if table.version() == 3:
        came, gone = (
            sorted(n for n, kind in table.changes(3).project("n, _change_type").fetchall() if kind in kinds)
            for kinds in (("insert", "update_postimage"), ("delete", "update_preimage"))
        )
        assert sorted([1, 2, 3, 4, *came]) == sorted([*(n for (n,) in rows), *gone])


KINDS = {
    "plain": "(id BIGINT, s STRUCT(a INT, b VARCHAR))",
    "parts": "(id BIGINT, day DATE) PARTITIONED BY (day) COMMENT 'by day'",
    "ruled": "(id BIGINT GENERATED ALWAYS AS IDENTITY, n INT DEFAULT 3 CHECK (n > 0), at TIMESTAMP)",
    "mapped": "(id BIGINT, n INT) CLUSTER BY (n) TBLPROPERTIES ('delta.columnMapping.mode' = 'name')",
    "tracked": "(id BIGINT) TBLPROPERTIES ('delta.enableRowTracking' = 'true')",
}


def test_what_a_commit_knows_of_its_tables_is_what_the_catalog_says(lake: Lake) -> None:
    """Definitions and rows of tables that are kept in memory, beside the same read anew."""
    catalog = lake.catalog

    def check(*names: str) -> None:
        for name in names:
            assert catalog.head(name) == next(iter(catalog.rows("head", name_key=name)), None)
            if catalog.head(name) is not None:
                known = snapshots.load(catalog, name)
                skip = snapshots.skip_columns(catalog, known), snapshots.all_skip_columns(catalog, known)
                catalog.definitions.clear()
                assert snapshots.load(catalog, name) == known
                assert (snapshots.skip_columns(catalog, known), snapshots.all_skip_columns(catalog, known)) == skip

    for name, definition in KINDS.items():
        lake.sql(f"CREATE TABLE {name} {definition}")
        check(*KINDS)
    with lake.begin() as tx:
        tx.sql("INSERT INTO plain VALUES (1, NULL)")
        tx.sql("DROP TABLE parts")
        tx.sql("ALTER TABLE ruled RENAME TO rules")
        tx.sql("CREATE TABLE ruled (x INT)")
    check(*KINDS, "rules")
    tx = lake.begin()
    tx.sql("DROP TABLE plain")
    tx.rollback()
    check(*KINDS, "rules")


def test_rows_in_chunks_of_which_some_are_empty(lake: Lake) -> None:
    rows = pa.table({"table_id": [7, 8], "column_name": ["a", "b"], "next_value": [1, 2]})
    lake.catalog.ingest("dl_identity", pa.concat_tables([rows.slice(0, 0), rows.slice(0, 1), rows.slice(0, 0), rows.slice(1)]))
    assert lake.catalog.fetch("SELECT * FROM dl_identity ORDER BY table_id") == [(7, "a", 1), (8, "b", 2)]
