"""Random SQL on two tables of a lake, the same statements on two tables of a plain DuckDB. Whatever was done, both hold the same
rows, other readers see them in the mirror, and at the end every version is what it was.

DELTADUCK_EXAMPLES says how many sequences of statements are tried on each catalog.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from interop.conftest import DuckDBDelta

import deltaduck

EXAMPLES = int(os.environ.get("DELTADUCK_EXAMPLES", "3"))
STEPS = 10
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:deltalake")

TABLES = st.sampled_from(["t", "u"])
KEYS = st.integers(-2, 6)
WORDS = st.sampled_from(["NULL", "'a'", "'b'", "'c d'", "'50%'", "'é'"])
NUMBERS = st.sampled_from(["NULL", "0.5", "-1", "1e300", "0"])
ROWS = st.lists(st.tuples(st.one_of(KEYS.map(str), st.just("NULL")), WORDS, NUMBERS), min_size=1, max_size=4)
PREDICATES = st.recursive(
    st.one_of(
        st.builds("k {} {}".format, st.sampled_from(["=", "<", ">=", "<>"]), KEYS),
        st.builds("g {} {}".format, st.sampled_from(["=", "<>", ">"]), WORDS),
        st.builds("v {} {}".format, st.sampled_from(["=", "<", ">="]), NUMBERS),
        st.builds("{} IS {}NULL".format, st.sampled_from("kgv"), st.sampled_from(["", "NOT "])),
        st.builds("k IN (SELECT k FROM {})".format, TABLES),
    ),
    lambda p: st.one_of(st.builds("({} {} {})".format, p, st.sampled_from(["AND", "OR"]), p), p.map("NOT ({})".format)),
    max_leaves=2,
)
SETS = st.sampled_from(["k = k + 1", "g = 'b'", "g = NULL", "v = v / 2, g = concat(g, 'x')", "v = k", "k = 3, v = NULL"])


def values(rows: list[tuple[str, ...]]) -> str:
    return ", ".join(f"({', '.join(row)})" for row in rows)


def inserts(table: str) -> st.SearchStrategy[str]:
    plain = ROWS.map(lambda rows: f"INSERT INTO {table} (k, g, v) VALUES {values(rows)}")
    other = st.builds("INSERT INTO {} BY NAME SELECT k, v, g FROM {} WHERE {}".format, st.just(table), TABLES, PREDICATES)
    return plain | other


def merges(table: str) -> st.SearchStrategy[str]:
    """Keys of the source are all different: no row matches two."""
    source = st.dictionaries(KEYS.map(str), st.tuples(WORDS, NUMBERS), min_size=1, max_size=4).map(
        lambda found: f"(VALUES {values([(k, *rest) for k, rest in found.items()])}) AS s(k, g, v)"
    )
    matched = st.sampled_from([
        "WHEN MATCHED THEN UPDATE SET v = s.v, g = s.g", "WHEN MATCHED AND s.v IS NULL THEN DELETE",
        "WHEN MATCHED AND t.v > 0 THEN DELETE WHEN MATCHED THEN UPDATE SET v = s.v", "",
    ])  # fmt: skip
    others = st.sampled_from([
        "WHEN NOT MATCHED THEN INSERT (k, g, v) VALUES (s.k, s.g, s.v)",
        "WHEN NOT MATCHED AND s.g = 'a' THEN INSERT (k, v) VALUES (s.k, s.v)",
        "WHEN NOT MATCHED BY SOURCE THEN UPDATE SET v = 7", "WHEN NOT MATCHED BY SOURCE AND t.k < 1 THEN DELETE",
    ])  # fmt: skip
    return st.builds(f"MERGE INTO {table} AS t USING {{}} ON t.k = s.k {{}} {{}}".format, source, matched, others)


def changes(table: str) -> st.SearchStrategy[str]:
    """A statement that changes rows."""
    return st.one_of(
        inserts(table), merges(table), st.builds(f"DELETE FROM {table} WHERE {{}}".format, PREDICATES),
        st.builds(f"UPDATE {table} SET {{}} WHERE {{}}".format, SETS, PREDICATES),
    )  # fmt: skip


class Work(RuleBasedStateMachine):
    place: Callable[[Path], str]
    peer: DuckDBDelta | None

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.lake = deltaduck.connect(self.place(self.folder), storage=self.folder / "data")
        self.plain = duckdb.connect()
        self.versions: dict[str, list[pa.Table]] = {"t": [], "u": []}  # what each version held

    @initialize(vectors=st.booleans(), parted=st.sampled_from(["", "PARTITIONED BY (g)"]), mapped=st.booleans())
    def create(self, vectors: bool, parted: str, mapped: bool) -> None:
        said = [f"'delta.enableDeletionVectors' = '{str(vectors).lower()}'", "'delta.checkpointInterval' = '3'"]
        said += ["'delta.columnMapping.mode' = 'name'"] if mapped else []
        for name, by in (("t", parted), ("u", "")):
            columns = "(k INTEGER, g VARCHAR, v DOUBLE)"
            self.lake.sql(f"CREATE TABLE {name} {columns} {by} TBLPROPERTIES ({', '.join(said)})")
            self.plain.execute(f"CREATE TABLE {name} {columns}")
            self.note(name)

    # --- both sides

    def held(self, name: str) -> pa.Table:
        return self.plain.sql(f"FROM {name}").to_arrow_table()

    def text(self, rows: pa.Table) -> list[str]:
        cursor = self.plain.cursor()
        cursor.register("frame", rows)
        columns = ", ".join(f'CAST("{c}" AS VARCHAR)' for c in sorted(rows.column_names))
        return [str(sorted(rows.column_names)), *sorted(map(repr, cursor.execute(f"SELECT {columns} FROM frame").fetchall()))]

    def note(self, name: str) -> None:
        """Record a version where one was made; work that changes nothing makes none."""
        made = self.lake.table(name).version() + 1 - len(self.versions[name])
        assert made in (0, 1), f"{name}: {made} versions by one commit"
        if made:
            self.versions[name].append(self.held(name))
        assert self.text(self.versions[name][-1]) == self.text(self.held(name))

    def both(self, statement: str) -> None:
        self.lake.sql(statement)
        self.plain.execute(statement)
        for name in self.versions:
            self.note(name)

    # --- statements

    @rule(statement=TABLES.flatmap(changes))
    def change(self, statement: str) -> None:
        self.both(statement)

    @rule(name=TABLES, kind=st.sampled_from(["BIGINT", "VARCHAR", "DATE", "DECIMAL(10,2)"]))
    def add_column(self, name: str, kind: str) -> None:
        """RESTORE may have taken a column of that name, of another type."""
        if (number := self.held(name).num_columns - 3) < 3:
            self.both(f"ALTER TABLE {name} ADD COLUMN c{number} {kind}")
            example = {"BIGINT": "5", "VARCHAR": "'x'", "DATE": "DATE '2024-02-29'", "DECIMAL(10,2)": "1.25"}[kind]
            self.both(f"UPDATE {name} SET c{number} = {example} WHERE k > 1")

    @rule(name=TABLES, order=st.sampled_from(["", "ZORDER BY (k, v)"]))
    def optimize(self, name: str, order: str) -> None:
        self.lake.sql(f"OPTIMIZE {name} {order}")
        self.note(name)

    @rule(name=TABLES, back=st.integers(0, 9))
    def restore(self, name: str, back: int) -> None:
        version = max(0, len(self.versions[name]) - 1 - back)
        self.lake.sql(f"RESTORE TABLE {name} TO VERSION AS OF {version}")
        self.plain.register("frame", self.versions[name][version])
        self.plain.execute(f"CREATE OR REPLACE TABLE {name} AS FROM frame")
        self.note(name)

    @rule(
        statements=st.lists(TABLES.flatmap(changes) | TABLES.map("OPTIMIZE {}".format), min_size=1, max_size=4),
        keep=st.booleans(), predicate=PREDICATES,
    )  # fmt: skip
    def transaction(self, statements: list[str], keep: bool, predicate: str) -> None:
        self.plain.execute("BEGIN")
        tx = self.lake.begin()
        for statement in statements:
            tx.sql(statement)
            if not statement.startswith("OPTIMIZE"):
                self.plain.execute(statement)
            query = f"SELECT * FROM t WHERE {predicate}"
            assert self.text(tx.sql(query).to_arrow_table()) == self.text(self.held(f"({query})"))
        for name, versions in self.versions.items():
            seen = self.lake.sql(f"FROM {name}").to_arrow_table()
            assert self.text(seen) == self.text(versions[-1]), "others see it before its commit"
        tx.commit() if keep else tx.rollback()
        self.plain.execute("COMMIT" if keep else "ROLLBACK")
        for name in self.versions:
            self.note(name)

    # --- looking

    @rule(name=TABLES, predicate=PREDICATES, back=st.integers(0, 9))
    def look_back(self, name: str, predicate: str, back: int) -> None:
        version = max(0, len(self.versions[name]) - 1 - back)
        self.plain.register("frame", self.versions[name][version])
        where = predicate.replace("IN (SELECT k FROM t)", "> 0").replace("IN (SELECT k FROM u)", "> 0")
        found = self.lake.sql(f"SELECT * FROM {name} AT (VERSION => {version}) WHERE {where}").to_arrow_table()
        assert self.text(found) == self.text(self.held(f"(SELECT * FROM frame WHERE {where})"))

    @rule(name=TABLES)
    def others_read_the_mirror(self, name: str) -> None:
        path = str(self.lake.table(name).detail()["location"])
        assert self.text(delta_rs(path, None)) == self.text(self.held(name))
        if self.peer is not None:
            assert self.text(self.peer.read(path, None)) == self.text(self.held(name))

    @invariant()
    def tables_are_equal(self) -> None:
        for name in self.versions:
            assert self.text(self.lake.sql(f"FROM {name}").to_arrow_table()) == self.text(self.held(name))

    def teardown(self) -> None:
        try:
            for name, versions in self.versions.items():
                path = str(self.lake.table(name).detail()["location"])
                assert self.lake.table(name).version() == len(versions) - 1
                for version, wanted in enumerate(versions):
                    then = self.lake.sql(f"FROM {name} AT (VERSION => {version})").to_arrow_table()
                    assert self.text(then) == self.text(wanted)
                    assert self.text(delta_rs(path, version)) == self.text(wanted)
                assert self.lake.mirror.verify(name)
        finally:
            self.lake.close()
            self.plain.close()
            shutil.rmtree(self.folder)


def delta_rs(path: str, version: int | None) -> pa.Table:
    return pa.table(QueryBuilder().register("t", DeltaTable(path, version=version)).execute("SELECT * FROM t").read_all())


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBDelta | None]:
    """DuckDB's delta extension, where there is one."""
    python = os.environ.get("DELTADUCK_PEERS_PYTHON")
    found = DuckDBDelta(python, tmp_path_factory.mktemp("peer")) if python else None
    yield found
    if found is not None:
        found.close()


def test_random_sql(kind: str, place: Callable[[str, Path], str], peer: DuckDBDelta | None) -> None:
    place(kind, Path())  # skips where there is no PostgreSQL
    here: dict[str, Any] = {"place": staticmethod(lambda folder: place(kind, folder)), "peer": peer}
    machine = type(f"On{kind.title()}", (Work,), here)
    run_state_machine_as_test(machine, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS))
