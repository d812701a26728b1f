"""Random SQL on tables of a lake, the same statements on tables of a plain DuckDB. Whatever was done, both hold the same rows,
what breaks a rule changes nothing, other readers see the rows in the mirror, and at the end every version is what it was.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import deltaduck
from deltaduck import DeltaduckError, UnsupportedFeatureError

# somebody else's rows of (path, version); can it read this table of the work at all?
Reader = tuple[Callable[[str, "int | None"], pa.Table], Callable[["Work", str], bool]]

TABLES = st.sampled_from(["@t", "@u", "@w"])  # w is a clone, where there is one, else another name of t
KEYS = st.integers(-2, 6)
WORDS = st.sampled_from(["NULL", "'a'", "'b'", "'c d'", "'50%'", "'é'"])
NUMBERS = st.sampled_from(["NULL", "0.5", "-1", "1e300", "0"])
ROWS = st.lists(st.tuples(st.one_of(KEYS.map(str), st.just("NULL")), WORDS, NUMBERS), min_size=1, max_size=4)
SIMPLE = st.one_of(
    st.builds("k {} {}".format, st.sampled_from(["=", "<", ">=", "<>"]), KEYS),
    st.builds("g {} {}".format, st.sampled_from(["=", "<>", ">"]), WORDS),
    st.builds("v {} {}".format, st.sampled_from(["=", "<", ">="]), NUMBERS),
    st.builds("{} IS {}NULL".format, st.sampled_from("kgv"), st.sampled_from(["", "NOT "])),
)
PREDICATES = st.recursive(
    SIMPLE | st.builds("k IN (SELECT k FROM {})".format, TABLES),
    lambda p: st.one_of(st.builds("({} {} {})".format, p, st.sampled_from(["AND", "OR"]), p), p.map("NOT ({})".format)),
    max_leaves=2,
)
SETS = st.sampled_from([
    "k = k + 1", "g = 'b'", "g = NULL", "v = v / 2, g = concat(g, 'x')", "v = k", "k = 3, v = NULL", "k = CAST(g AS INTEGER)",
])  # fmt: skip
CHECKS = {"few": "k < 6 OR k IS NULL", "other": "g IS NULL OR g <> 'b'", "small": "v IS NULL OR v < 1e200"}
TYPES = {  # a column's type: its values, and what it can become
    "BIGINT": ("5", "7", "DECIMAL(24,2)"), "VARCHAR": ("'x'", "'y'", None), "INTEGER": ("3", "4", "DOUBLE"),
    "DATE": ("DATE '2024-02-29'", "DATE '1969-01-01'", "TIMESTAMP"), "DECIMAL(10,2)": ("1.25", "0", "DECIMAL(12,3)"),
}  # fmt: skip
ADDED = ("c0", "c1", "c2")
LAKE_ONLY = ("id", "twice")  # what the lake makes, and no statement names


def values(rows: list[tuple[str, ...]]) -> str:
    return ", ".join(f"({', '.join(row)})" for row in rows)


def sources(table: str) -> st.SearchStrategy[str]:
    """The columns and rows of an INSERT."""
    plain = ROWS.map(lambda rows: f"(k, g, v) VALUES {values(rows)}")
    return plain | st.builds("BY NAME SELECT k, v, g FROM {} WHERE {}".format, TABLES, PREDICATES)


def merges(table: str) -> st.SearchStrategy[str]:
    """Keys of the source are all different: no row matches two."""
    source = st.dictionaries(KEYS.map(str), st.tuples(WORDS, NUMBERS), min_size=1, max_size=4).map(
        lambda found: f"(VALUES {values([(k, *rest) for k, rest in found.items()])}) AS s(k, g, v)"
    )
    matched = st.sampled_from([
        "WHEN MATCHED THEN UPDATE SET v = s.v, g = s.g", "WHEN MATCHED AND s.v IS NULL THEN DELETE", "",
        "WHEN MATCHED AND t.v > 0 THEN DELETE WHEN MATCHED AND t.g > 'a' THEN UPDATE SET v = s.v "
        "WHEN MATCHED THEN UPDATE SET g = t.g", "WHEN MATCHED THEN UPDATE SET *",
        "WHEN MATCHED AND s.g = t.g THEN DO NOTHING WHEN MATCHED THEN UPDATE SET *",
    ])  # fmt: skip
    missing = st.sampled_from([
        "WHEN NOT MATCHED THEN INSERT (k, g, v) VALUES (s.k, s.g, s.v)", "WHEN NOT MATCHED THEN INSERT *", "",
        "WHEN NOT MATCHED AND s.g = 'a' THEN INSERT (k, v) VALUES (s.k, s.v) WHEN NOT MATCHED AND s.v > 0 THEN INSERT *",
    ])  # fmt: skip
    beyond = st.sampled_from([
        "WHEN NOT MATCHED BY SOURCE THEN UPDATE SET v = 7", "WHEN NOT MATCHED BY SOURCE AND t.k < 1 THEN DELETE", "",
        "WHEN NOT MATCHED BY SOURCE AND t.g = 'a' THEN DELETE WHEN NOT MATCHED BY SOURCE THEN UPDATE SET g = 'b'",
    ])  # fmt: skip
    merge = f"MERGE INTO {table} AS t USING {{}} ON t.k = s.k {{}} {{}} {{}}"
    return st.builds(merge.format, source, matched, missing, beyond).filter(lambda text: "WHEN" in text)


def joins(table: str) -> st.SearchStrategy[str]:
    """Keys of the other rows are all different, too."""
    others = st.dictionaries(KEYS.map(str), st.tuples(WORDS, NUMBERS), min_size=1, max_size=4).map(
        lambda found: f"(VALUES {values([(k, *rest) for k, rest in found.items()])}) AS s(k, g, v) WHERE s.k = {table}.k"
    )
    update = st.builds(f"UPDATE {table} SET {{}} FROM {{}}".format, st.sampled_from(["v = s.v, g = s.g", "k = s.k + 1"]), others)
    return update | st.builds(f"DELETE FROM {table} USING {{}}{{}}".format, others, st.sampled_from(["", " AND s.v > 0"]))


def changes(table: str) -> st.SearchStrategy[str]:
    """A statement that changes rows."""
    return st.one_of(
        sources(table).map(f"INSERT INTO {table} {{}}".format), merges(table), joins(table),
        st.builds(f"DELETE FROM {table} WHERE {{}}".format, PREDICATES), st.just(f"TRUNCATE {table}"),
        st.builds(f"UPDATE {table} SET {{}} WHERE {{}}".format, SETS, PREDICATES),
    )  # fmt: skip


@dataclass(frozen=True)
class Rules:
    """What a version of a table says beside its rows and columns."""

    checks: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    clustered: bool = False


State = dict[str, tuple[pa.Table, Rules]]


class Work(RuleBasedStateMachine):
    place: Callable[[Path], str]
    readers: Mapping[str, Reader]
    reads_all = True  # at the end, do they read every version, or the last?

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.lake = deltaduck.connect(self.place(self.folder), storage=self.folder / "data")
        self.plain = duckdb.connect()
        self.rules: dict[str, Rules] = {}
        self.versions: dict[str, list[tuple[pa.Table, Rules]]] = {}  # what each version was
        self.whole: dict[str, int] = {}  # the first that VACUUM has left whole
        self.tx: Any = None
        self.before: State = {}  # as it was when the transaction began

    @initialize(
        vectors=st.booleans(), parted=st.sampled_from(["", "PARTITIONED BY (g)"]), mapped=st.booleans(), widens=st.booleans(),
        feed=st.booleans(), tracked=st.booleans(), made=st.sampled_from(["", "", "PARTITIONED BY (twice)"]),
    )  # fmt: skip
    def create(
        self, vectors: bool, parted: str, mapped: bool, widens: bool, feed: bool, tracked: bool, made: str
    ) -> None:  # fmt: skip
        self.parted, self.mapped, self.widens, self.feed, self.tracked, self.made = parted, mapped, widens, feed, tracked, made
        said = {"delta.checkpointInterval": "3", "delta.enableDeletionVectors": str(vectors).lower()}
        said |= {"delta.columnMapping.mode": "name"} if mapped else {}
        said |= {"delta.enableTypeWidening": "true"} if widens else {}
        said |= {"delta.enableChangeDataFeed": "true"} if feed else {}
        said |= {"delta.enableRowTracking": "true"} if tracked else {}
        properties = ", ".join(f"'{k}' = '{v}'" for k, v in said.items())
        columns = "k INTEGER, g VARCHAR, v DOUBLE"
        more = ", id BIGINT GENERATED ALWAYS AS IDENTITY, twice INTEGER GENERATED ALWAYS AS (k * 2)"
        for name, own, by in (("t", "", parted), ("u", more, made)):
            self.lake.sql(f"CREATE TABLE {name} ({columns}{own}) {by} TBLPROPERTIES ({properties})")
            self.plainly(f"CREATE TABLE {name} ({columns})")
            self.rules[name] = Rules()
            self.versions[name] = []
        self.settle()

    # --- both sides

    def plainly(self, statement: str) -> list[tuple[Any, ...]]:
        return self.plain.execute(statement).fetchall()

    def held(self, name: str) -> pa.Table:
        return self.plain.sql(f"FROM {name}").to_arrow_table()

    def text(self, rows: pa.Table) -> list[str]:
        """Rows in a spelling that can be compared; what the lake alone has is looked at, and left out."""
        cursor = self.plain.cursor()
        cursor.register("frame", rows)
        if "id" in rows.column_names:
            wrong = "count(*) - count(DISTINCT id), count(*) FILTER (twice IS DISTINCT FROM k * 2)"
            assert cursor.execute(f"SELECT {wrong} FROM frame").fetchone() == (0, 0)
        names = sorted(set(rows.column_names) - {*LAKE_ONLY})
        columns = ", ".join(f'CAST("{c}" AS VARCHAR)' for c in names)
        return [str(names), *sorted(map(repr, cursor.execute(f"SELECT {columns} FROM frame").fetchall()))]

    def seen(self, query: str) -> pa.Table:
        return (self.tx or self.lake).sql(query).to_arrow_table()

    def is_parted(self, name: str) -> bool:
        return bool(self.lake.table(name).metadata().partition_columns)

    def state(self) -> State:
        return {name: (self.held(name), rules) for name, rules in self.rules.items()}

    def put(self, state: State) -> None:
        """Let the plain side be this."""
        for name in self.rules:
            self.plainly(f"DROP TABLE {name}")
        self.rules = {}
        for name, (rows, rules) in state.items():
            self.plain.register("frame", rows)
            self.plainly(f"CREATE TABLE {name} AS FROM frame")
            for column, default in rules.defaults.items():
                self.plainly(f"ALTER TABLE {name} ALTER {column} SET DEFAULT {default}")
            self.rules[name] = rules

    def settle(self) -> None:
        """Record the versions that were made; work that changes nothing makes none."""
        if self.tx is not None:
            return
        for name in [*self.versions]:
            if name not in self.rules:
                assert self.lake.find(name) is None
                del self.versions[name]
                self.whole.pop(name, None)
        for name, rules in self.rules.items():
            made = self.lake.table(name).version() + 1 - len(self.versions.setdefault(name, []))
            assert made in (0, 1), f"{name}: {made} versions by one commit"
            if made:
                self.versions[name].append((self.held(name), rules))
            rows, then = self.versions[name][-1]
            assert self.text(rows) == self.text(self.held(name))
            assert then == rules

    def past(self, name: str, back: int) -> int:
        """A version so many before the last, or the oldest that can be read."""
        return max(self.whole.get(name, 0), len(self.versions[name]) - 1 - back)

    def named(self, text: str) -> str:
        return re.sub("@([a-z])", lambda m: m[1] if m[1] in self.rules else "t", text)

    def do(self, statement: str, *others: str, rules: Mapping[str, Rules] | None = None, refused: bool = False) -> None:
        """A statement, and what it is in plain DuckDB. It fails on both sides, or on neither."""
        before, why = self.state(), "it would break a rule"
        try:
            for one in others or (statement,):
                self.plainly(one)
            after = self.rules | dict(rules or {})
            refused = refused or any(
                self.plainly(f"SELECT count(*) FROM {name} WHERE ({check}) IS NOT TRUE")[0] != (0,)
                for name, rules in after.items() for check in rules.checks.values()
            )  # fmt: skip
        except duckdb.Error as e:
            refused, why = True, str(e)
        if refused:
            self.put(before)
            try:
                (self.tx or self.lake).sql(statement)
            except DeltaduckError:
                pass
            else:
                raise AssertionError(f"the lake did what it should refuse ({why}): {statement}")
        else:
            (self.tx or self.lake).sql(statement)
            self.rules = after
        self.settle()

    # --- rows

    @rule(statement=TABLES.flatmap(changes))
    def change(self, statement: str) -> None:
        statement = self.named(statement)
        plainly = statement.replace("UPDATE SET *", "UPDATE SET g = s.g, v = s.v")
        self.do(statement, plainly.replace("INSERT *", "INSERT (k, g, v) VALUES (s.k, s.g, s.v)"))

    @rule(name=TABLES, rows=TABLES.flatmap(sources), where=st.none() | SIMPLE)
    def replace_rows(self, name: str, rows: str, where: str | None) -> None:
        name, rows = self.named(name), self.named(rows)
        listed, _, query = rows.partition("VALUES" if "VALUES" in rows else "SELECT")
        query = f"FROM (VALUES {query}) s(k, g, v)" if "VALUES" in rows else f"SELECT {query}"
        self.plainly("CREATE OR REPLACE TEMP TABLE fresh (k BIGINT, g VARCHAR, v DOUBLE)")
        self.plainly(f"INSERT INTO fresh BY NAME {query}")
        outside = where and self.plainly(f"SELECT count(*) FROM fresh WHERE ({where}) IS NOT TRUE")[0] != (0,)
        self.do(
            f"INSERT INTO {name} {listed} REPLACE WHERE {where} {query}" if where else f"INSERT OVERWRITE {name} {rows}",
            f"DELETE FROM {name} WHERE {where or 'true'}", f"INSERT INTO {name} BY NAME FROM fresh", refused=bool(outside),
        )  # fmt: skip

    # --- columns and rules

    @rule(name=TABLES, kind=st.sampled_from(sorted(TYPES)), at=st.sampled_from(["", "FIRST", "AFTER k"]))
    def add_column(self, name: str, kind: str, at: str) -> None:
        name = self.named(name)
        if free := [c for c in ADDED if c not in self.held(name).column_names]:
            column = f"ALTER TABLE {name} ADD COLUMN {free[0]} {kind}"
            self.do(f"{column} {at}", column)
            self.do(f"UPDATE {name} SET {free[0]} = {TYPES[kind][0]} WHERE k > 1")

    def added(self, name: str, which: int) -> str | None:
        found = [c for c in ADDED if c in self.held(name).column_names]
        return found[which % len(found)] if found else None

    @precondition(lambda self: self.mapped)
    @rule(name=TABLES, which=st.integers(0, 2), drop=st.booleans())
    def rename_or_drop_column(self, name: str, which: int, drop: bool) -> None:
        name = self.named(name)
        if column := self.added(name, which):
            rules = self.rules[name]
            defaults = {c: d for c, d in rules.defaults.items() if c != column}
            free = [c for c in ADDED if c not in self.held(name).column_names]
            if not drop and free and column in rules.defaults:
                defaults |= {free[0]: rules.defaults[column]}
            if drop or free:
                how = f"DROP COLUMN {column}" if drop else f"RENAME COLUMN {column} TO {free[0]}"
                self.do(f"ALTER TABLE {name} {how}", rules={name: replace(rules, defaults=defaults)})

    @precondition(lambda self: self.widens)
    @rule(name=TABLES, which=st.integers(0, 3))
    def widen(self, name: str, which: int) -> None:
        name = self.named(name)
        kinds = dict(self.plainly(f"SELECT column_name, column_type FROM (DESCRIBE {name})"))
        column = self.added(name, which) if which < 3 else "k"
        if column == "k" and ("twice" in self.seen(f"FROM {name}").column_names or "few" in self.rules[name].checks):
            column = None
        wider = "BIGINT" if column == "k" else TYPES.get(kinds.get(column or ""), (0, 0, None))[2]
        if column and wider and kinds[column] != wider:
            self.do(f"ALTER TABLE {name} ALTER COLUMN {column} TYPE {wider}")

    @rule(name=TABLES, which=st.integers(0, 2), unset=st.booleans())
    def default(self, name: str, which: int, unset: bool) -> None:
        name = self.named(name)
        if column := self.added(name, which):
            rules = self.rules[name]
            (kind,) = self.plainly(f"SELECT column_type FROM (DESCRIBE {name}) WHERE column_name = '{column}'")[0]
            if unset or kind not in TYPES:
                defaults = {c: d for c, d in rules.defaults.items() if c != column}
                self.do(f"ALTER TABLE {name} ALTER COLUMN {column} DROP DEFAULT", rules={name: replace(rules, defaults=defaults)})
            else:
                defaults = {**rules.defaults, column: TYPES[kind][1]}
                how = f"ALTER TABLE {name} ALTER COLUMN {column} SET DEFAULT {TYPES[kind][1]}"
                self.do(how, rules={name: replace(rules, defaults=defaults)})

    @rule(name=TABLES, check=st.sampled_from([*CHECKS, "NOT NULL"]))
    def constrain(self, name: str, check: str) -> None:
        """Set what is not, and drop what is."""
        name = self.named(name)
        rules = self.rules[name]
        checks = {c: e for c, e in rules.checks.items() if c != check}
        if check in rules.checks:
            how = "ALTER COLUMN k DROP NOT NULL" if check == "NOT NULL" else f"DROP CONSTRAINT {check}"
        else:
            how = "ALTER COLUMN k SET NOT NULL" if check == "NOT NULL" else f"ADD CONSTRAINT {check} CHECK ({CHECKS[check]})"
            checks |= {check: CHECKS.get(check, "k IS NOT NULL")}
        self.do(f"ALTER TABLE {name} {how}", "SELECT 1", rules={name: replace(rules, checks=checks)})

    @rule(name=TABLES)
    def cluster(self, name: str) -> None:
        name = self.named(name)
        if not {"t": self.parted, "u": self.made}.get(name, "?"):  # of a clone, it is not known
            rules = self.rules[name]
            by = "NONE" if rules.clustered else "(k, v)"
            self.do(
                f"ALTER TABLE {name} CLUSTER BY {by}", "SELECT 1", rules={name: replace(rules, clustered=not rules.clustered)}
            )

    # --- maintenance

    @rule(
        name=TABLES,
        how=st.sampled_from(
            ["OPTIMIZE @", "OPTIMIZE @ ZORDER BY (k, v)", "OPTIMIZE @ FULL", "ANALYZE TABLE @ COMPUTE DELTA STATISTICS"]
        ),
    )
    def lay_out(self, name: str, how: str) -> None:
        name = self.named(name)
        clustered = self.rules[name].clustered
        self.do(how.replace("@", name), "SELECT 1", refused=("ZORDER" in how and clustered) or ("FULL" in how and not clustered))

    @rule(name=TABLES, vectors=st.booleans())
    def begin_or_end_vectors(self, name: str, vectors: bool) -> None:
        properties = f"('delta.enableDeletionVectors' = '{str(vectors).lower()}')"
        self.do(self.named(f"ALTER TABLE {name} SET TBLPROPERTIES {properties}"), "SELECT 1")

    @precondition(lambda self: self.tx is None)
    @rule(name=TABLES, full=st.booleans())
    def vacuum(self, name: str, full: bool) -> None:
        """What the last versions of all tables need stays."""
        name = self.named(name)
        self.lake.table(name).vacuum(0, False, enforce_retention_duration=False, full=full)
        self.whole[name] = len(self.versions[name]) - 1
        for other in self.versions:
            self.look_back(other, "true", 99)

    @rule(name=TABLES, back=st.integers(0, 9))
    def restore(self, name: str, back: int) -> None:
        name = self.named(name)
        if name in self.versions and not (self.tx and name == "w" and self.dropped):
            version = self.past(name, back)
            (self.tx or self.lake).sql(f"RESTORE TABLE {name} TO VERSION AS OF {version}")
            self.put(self.state() | {name: self.versions[name][version]})
            self.settle()

    @rule(name=TABLES, back=st.none() | st.integers(0, 9))
    def clone(self, name: str, back: int | None) -> None:
        """There is one, or none."""
        name = self.named(name)
        if "w" in self.rules:
            (self.tx or self.lake).sql("DROP TABLE w")
            self.dropped = True
            self.put({n: state for n, state in self.state().items() if n != "w"})
        elif back is not None:
            version = self.past(name, back)
            (self.tx or self.lake).sql(f"CREATE TABLE w SHALLOW CLONE {name} VERSION AS OF {version}")
            self.put(self.state() | {"w": self.versions[name][version]})
        else:
            try:
                (self.tx or self.lake).sql(f"CREATE TABLE w SHALLOW CLONE {name}")
            except UnsupportedFeatureError as e:
                if self.tx is None or "not committed as it is" not in str(e):
                    raise
                return
            self.put(self.state() | {"w": self.state()[name]})
        self.settle()

    # --- transactions

    @precondition(lambda self: self.tx is None)
    @rule()
    def begin(self) -> None:
        self.tx, self.before, self.dropped = self.lake.begin(), self.state(), False

    @precondition(lambda self: self.tx is not None)
    @rule(keep=st.booleans())
    def end(self, keep: bool) -> None:
        for name, versions in self.versions.items():
            seen = self.lake.sql(f"FROM {name}").to_arrow_table()
            assert self.text(seen) == self.text(versions[-1][0]), "others see it before its commit"
        tx, self.tx = self.tx, None
        if keep:
            tx.commit()
            if self.dropped:
                self.versions.pop("w", None)
                self.whole.pop("w", None)
        else:
            tx.rollback()
            self.put(self.before)
        self.settle()

    # --- looking

    @rule(name=TABLES, predicate=PREDICATES, back=st.integers(0, 9))
    def look_back(self, name: str, predicate: str, back: int) -> None:
        name = self.named(name)
        if name in self.versions:
            version = self.past(name, back)
            self.plain.register("frame", self.versions[name][version][0])
            where = re.sub(r"IN \(SELECT k FROM @.\)", "> 0", predicate)
            found = self.seen(f"SELECT * FROM {name} AT (VERSION => {version}) WHERE {where}")
            assert self.text(found) == self.text(self.held(f"(SELECT * FROM frame WHERE {where})"))

    @rule(name=TABLES, back=st.integers(0, 3))
    def others_read_the_mirror(self, name: str, back: int) -> None:
        if (name := self.named(name)) in self.versions:
            self.others_read(name, self.past(name, back))

    def others_read(self, name: str, version: int) -> None:
        path = str(self.lake.table(name).detail()["location"])
        for read, can in self.readers.values():
            rows = read(path, version) if can(self, name) else self.versions[name][version][0]
            assert self.text(rows) == self.text(self.versions[name][version][0])

    @rule(name=TABLES, predicate=PREDICATES)
    def rows_are_equal(self, name: str, predicate: str) -> None:
        query = self.named(f"SELECT * FROM {name} WHERE {predicate}")
        assert self.text(self.seen(query)) == self.text(self.held(f"({query})"))

    @invariant()
    def tables_are_equal(self) -> None:
        for name in self.rules:
            assert self.text(self.seen(f"FROM {name}")) == self.text(self.held(name))

    def teardown(self) -> None:
        try:
            if self.tx is not None:
                self.end(True)
            for name, versions in self.versions.items():
                assert self.lake.table(name).version() == len(versions) - 1
                for version, (wanted, _) in list(enumerate(versions))[self.whole.get(name, 0) :]:
                    then = self.lake.sql(f"FROM {name} AT (VERSION => {version})").to_arrow_table()
                    assert self.text(then) == self.text(wanted)
                    if self.reads_all or version == len(versions) - 1:
                        self.others_read(name, version)
                    if self.feed and version > self.whole.get(name, 0):
                        self.told(name, version)
                    if self.tracked:
                        ids = f"SELECT count(DISTINCT _metadata.row_id) FROM {name} AT (VERSION => {version})"
                        assert self.lake.sql(ids).fetchall() == [(wanted.num_rows,)]
                assert self.lake.mirror.verify(name)
                found = [str(row) for row in self.lake.fsck(name) if row["level"] != "note"]
                assert not found, found
        finally:
            self.lake.close()
            self.plain.close()
            shutil.rmtree(self.folder)

    def told(self, name: str, version: int) -> None:
        """The changes of a version, done to the rows before it, make its rows."""
        before, after = (self.versions[name][v][0] for v in (version - 1, version))
        if before.schema.equals(after.schema):
            kinds = {}
            changed = self.lake.table(name).changes(version, version).to_arrow_table()
            for kind in ("insert", "delete", "update_preimage", "update_postimage"):
                rows = changed.filter(pa.compute.equal(changed["_change_type"], kind)).select(before.column_names)
                kinds[kind] = Counter(self.text(rows)[1:])
            came, gone = kinds["insert"] + kinds["update_postimage"], kinds["delete"] + kinds["update_preimage"]
            assert Counter(self.text(before)[1:]) + came == Counter(self.text(after)[1:]) + gone
