"""Random work on two tables, step by step beside plain DuckDB tables; at the end every version is looked at again."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

import deltaduck

EXAMPLES = int(os.environ.get("DELTADUCK_EXAMPLES", "8"))
SCHEMA = pa.schema({"k": pa.int32(), "g": pa.string(), "v": pa.float64(), "s": pa.struct({"t": pa.string()})})
TABLES = st.sampled_from(["parted", "flat"])

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "k": st.one_of(st.none(), st.integers(-3, 9)),
            "g": st.sampled_from([None, "a", "b", "c d", "50%"]),
            "v": st.sampled_from([None, 0.5, -1.0, float("nan"), float("inf"), 1e300]),
            "s": st.sampled_from([None, {"t": None}, {"t": "a"}, {"t": "x" * 40}]),
        }
    ),
    max_size=4,
).map(lambda rows: pa.Table.from_pylist(rows, schema=SCHEMA))

PREDICATES = st.recursive(
    st.one_of(
        st.builds("k {} {}".format, st.sampled_from(["=", "<", ">=", "<>"]), st.integers(-3, 9)),
        st.builds("k BETWEEN {} AND {}".format, st.integers(-3, 3), st.integers(0, 9)),
        st.builds("g {} '{}'".format, st.sampled_from(["=", "<>", ">"]), st.sampled_from(["a", "b", "c d", "50%", "zz"])),
        st.builds("v {} {}".format, st.sampled_from(["=", "<", ">="]), st.sampled_from(["0.5", "0", "1e300", "'nan'::DOUBLE"])),
        st.builds("s.t {} '{}'".format, st.sampled_from(["=", "<", "LIKE"]), st.sampled_from(["a", "x" * 40, "x%"])),
        st.builds("{} IS {}NULL".format, st.sampled_from(["k", "g", "v", "s", "s.t"]), st.sampled_from(["", "NOT "])),
        st.builds("g IN ('{}', '{}')".format, st.sampled_from(["a", "b"]), st.sampled_from(["c d", "50%"])),
    ),
    lambda p: st.one_of(
        st.tuples(p, st.sampled_from(["AND", "OR"]), p).map(lambda t: f"({t[0]} {t[1]} {t[2]})"), p.map("NOT ({})".format)
    ),
    max_leaves=3,
)

SETS = st.dictionaries(st.sampled_from(["k", "g", "v"]), st.sampled_from([0, 1, 2]), min_size=1, max_size=2).map(
    lambda chosen: {
        c: {"k": ["k + 1", "NULL", "7"], "g": ["'b'", "NULL", "concat(g, 'x')"], "v": ["v * 2", "k", "0"]}[c][n]
        for c, n in chosen.items()
    }
)


class Work(RuleBasedStateMachine):
    open_transactions = Bundle("open_transactions")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.lake = deltaduck.connect(":memory:", storage=self.folder / "data")
        self.plain = duckdb.connect()
        self.versions: dict[str, list[list[str]]] = {"parted": [], "flat": []}  # what each version held
        for name, by in (("parted", ["g"]), ("flat", None)):
            self.lake.create_table(name, SCHEMA, partition_by=by, configuration={"delta.checkpointInterval": "4"})
            self.plain.register("frame", SCHEMA.empty_table())
            self.plain.execute(f"CREATE TABLE {name} AS FROM frame")
            self.note(name)

    # --- both sides

    def held(self, source: str) -> list[str]:
        return self.render(self.plain.sql(f"FROM {source}").to_arrow_table())

    def render(self, rows: pa.Table) -> list[str]:
        cursor = self.plain.cursor()
        cursor.register("frame", rows)
        columns = ", ".join(f'CAST("{c}" AS VARCHAR)' for c in SCHEMA.names)
        return sorted(map(repr, cursor.execute(f"SELECT {columns} FROM frame").fetchall()))

    def note(self, name: str) -> None:
        """Record a version where one was made; work that changes nothing makes none."""
        made = self.lake.table(name).version() + 1 - len(self.versions[name])
        assert made in (0, 1), f"{name}: {made} versions by one commit"
        if made:
            self.versions[name].append(self.held(name))
        assert self.versions[name][-1] == self.held(name)

    def insert(self, name: str, rows: pa.Table) -> None:
        self.plain.register("frame", rows)
        self.plain.execute(f"INSERT INTO {name} FROM frame")

    def update(self, name: str, sets: dict[str, str], predicate: str) -> None:
        self.plain.execute(f"UPDATE {name} SET {', '.join(f'{c} = {v}' for c, v in sets.items())} WHERE {predicate}")

    def replace_where(self, to: Any, name: str, rows: pa.Table, predicate: str) -> None:
        self.plain.register("frame", rows)
        self.plain.execute("CREATE OR REPLACE TEMP TABLE rows AS FROM frame")
        fitting = self.plain.sql(f"SELECT * FROM rows WHERE {predicate}").to_arrow_table().cast(SCHEMA)
        to.write(name, fitting, mode="overwrite", predicate=predicate)
        self.plain.execute(f"DELETE FROM {name} WHERE {predicate}")
        self.insert(name, fitting)

    # --- one statement, one commit

    @rule(name=TABLES, rows=ROWS)
    def append(self, name: str, rows: pa.Table) -> None:
        self.lake.write(name, rows)
        self.insert(name, rows)
        self.note(name)

    @rule(name=TABLES, rows=ROWS)
    def overwrite(self, name: str, rows: pa.Table) -> None:
        self.lake.write(name, rows, mode="overwrite")
        self.plain.execute(f"DELETE FROM {name}")
        self.insert(name, rows)
        self.note(name)

    @rule(name=TABLES, rows=ROWS, predicate=PREDICATES)
    def overwrite_where(self, name: str, rows: pa.Table, predicate: str) -> None:
        self.replace_where(self.lake, name, rows, predicate)
        self.note(name)

    @rule(name=TABLES, predicate=PREDICATES, in_sql=st.booleans())
    def delete(self, name: str, predicate: str, in_sql: bool) -> None:
        if in_sql:
            self.lake.sql(f"DELETE FROM {name} WHERE {predicate}")
        else:
            self.lake.table(name).delete(predicate)
        self.plain.execute(f"DELETE FROM {name} WHERE {predicate}")
        self.note(name)

    @rule(name=TABLES, sets=SETS, predicate=PREDICATES, in_sql=st.booleans())
    def change(self, name: str, sets: dict[str, str], predicate: str, in_sql: bool) -> None:
        if in_sql:
            self.lake.sql(f"UPDATE {name} SET {', '.join(f'{c} = {v}' for c, v in sets.items())} WHERE {predicate}")
        else:
            self.lake.table(name).update(sets, predicate=predicate)
        self.update(name, sets, predicate)
        self.note(name)

    @rule(source=TABLES, into=TABLES, predicate=PREDICATES)
    def insert_select(self, source: str, into: str, predicate: str) -> None:
        query = f"INSERT INTO {into} SELECT * FROM {source} WHERE {predicate}"
        self.lake.sql(query)
        self.plain.execute(query)
        self.note(into)

    # --- many statements on both tables, one commit or none

    @rule(
        steps=st.lists(
            st.tuples(
                st.sampled_from(["append", "delete", "update", "replace", "overwrite", "look"]), TABLES, ROWS, PREDICATES, SETS
            ),
            min_size=1,
            max_size=5,
        ),
        keep=st.booleans(),
    )
    def transaction(self, steps: list[Any], keep: bool) -> None:
        self.plain.execute("BEGIN")
        tx = self.lake.begin()
        for what, name, rows, predicate, sets in steps:
            if what == "append":
                tx.write(name, rows)
                self.insert(name, rows)
            elif what == "delete":
                tx.delete(name, predicate)
                self.plain.execute(f"DELETE FROM {name} WHERE {predicate}")
            elif what == "update":
                tx.sql(f"UPDATE {name} SET {', '.join(f'{c} = {v}' for c, v in sets.items())} WHERE {predicate}")
                self.update(name, sets, predicate)
            elif what == "replace":
                self.replace_where(tx, name, rows, predicate)
            elif what == "overwrite":
                tx.write(name, rows, mode="overwrite")
                self.plain.execute(f"DELETE FROM {name}")
                self.insert(name, rows)
            query = f"SELECT * FROM {name} WHERE {predicate}"
            assert self.render(tx.sql(query).to_arrow_table()) == self.held(f"({query})")
            assert self.render(self.lake.table(name).to_arrow()) == self.versions[name][-1], "others see it before its commit"
        if keep:
            tx.commit()
            self.plain.execute("COMMIT")
        else:
            tx.rollback()
            self.plain.execute("ROLLBACK")
        for name in self.versions:
            self.note(name)

    @rule(target=open_transactions, name=TABLES, rows=ROWS)
    def begin_an_append(self, name: str, rows: pa.Table) -> tuple[Any, str, pa.Table]:
        tx = self.lake.begin()
        tx.write(name, rows)
        return tx, name, rows

    @rule(opened=consumes(open_transactions))
    def commit_the_append_after_others(self, opened: tuple[Any, str, pa.Table]) -> None:
        tx, name, rows = opened
        tx.commit()  # nothing here changes a schema, so a blind append follows whatever came between
        self.insert(name, rows)
        self.note(name)

    # --- looking

    @rule(
        predicate=PREDICATES,
        other=PREDICATES,
        how=st.sampled_from(["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "SEMI JOIN", "ANTI JOIN"]),
    )
    def join(self, predicate: str, other: str, how: str) -> None:
        missing = "" if how == "JOIN" else "a.k IS NULL OR"
        query = f"SELECT * FROM (SELECT * FROM parted WHERE {predicate}) a {how} flat b ON a.k = b.k WHERE {missing} a.k > 1"
        assert sorted(map(repr, self.lake.sql(query).fetchall())) == sorted(map(repr, self.plain.execute(query).fetchall()))

    @precondition(lambda self: len(self.versions["parted"]) > 1)
    @rule(predicate=PREDICATES, back=st.integers(0, 30))
    def look_back(self, predicate: str, back: int) -> None:
        version = max(0, len(self.versions["parted"]) - 1 - back)
        whole = self.lake.sql(f"FROM parted AT (VERSION => {version})").to_arrow_table()
        assert self.render(whole) == self.versions["parted"][version]
        self.plain.register("frame", whole)
        self.plain.execute("CREATE OR REPLACE TEMP TABLE old AS FROM frame")
        found = self.lake.sql(f"SELECT * FROM parted AT (VERSION => {version}) WHERE {predicate}").to_arrow_table()
        assert self.render(found) == self.held(f"(SELECT * FROM old WHERE {predicate})")

    @invariant()
    def tables_are_equal(self) -> None:
        for name in self.versions:
            assert self.render(self.lake.sql(f"FROM {name}").to_arrow_table()) == self.held(name)

    def teardown(self) -> None:
        for name, versions in self.versions.items():
            path = self.lake.table(name).detail()["location"]
            assert self.lake.table(name).version() == len(versions) - 1
            for version, wanted in enumerate(versions):
                assert self.render(self.lake.table(name).as_of(version).to_arrow()) == wanted
                theirs = QueryBuilder().register("t", DeltaTable(path, version=version)).execute("SELECT * FROM t").read_all()
                assert self.render(pa.table(theirs)) == wanted
            assert self.lake.mirror.verify(name)
        self.lake.close()
        self.plain.close()
        shutil.rmtree(self.folder)


TestWork = Work.TestCase
TestWork.settings = settings(max_examples=EXAMPLES, stateful_step_count=20)


def test_a_transaction_rewrites_the_very_files_that_match(tmp_path: Path) -> None:
    """Staged files come in many small pieces, which threads may look at in any order."""
    with deltaduck.connect(":memory:", storage=tmp_path) as lake:
        for attempt in range(30):
            with lake.begin() as tx:
                for n in range(8):
                    tx.write(f"t{attempt}", pa.table({"n": [n]}))
                tx.delete(f"t{attempt}", f"n = {attempt % 8}")
            left = [n for (n,) in lake.sql(f"SELECT n FROM t{attempt} ORDER BY n").fetchall()]
            assert left == [n for n in range(8) if n != attempt % 8]
