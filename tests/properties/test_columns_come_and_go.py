"""Columns are added, renamed, dropped and widened between writes and deletes: every version shows what an oracle kept of it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import deltaduck
from deltaduck import Lake, SchemaMismatchError

EXAMPLES = int(os.environ.get("DELTADUCK_EXAMPLES", "5"))
WIDER = {"TINYINT": ["SMALLINT", "BIGINT"], "SMALLINT": ["INTEGER", "DOUBLE"], "INTEGER": ["BIGINT", "DECIMAL(12,2)"]}

NAMES = st.sampled_from(["a", "b", "c", "d"])
PLACES = st.sampled_from(["", "s.", "l.element."])
STEPS = st.one_of(
    st.tuples(st.just("add"), PLACES, NAMES, st.sampled_from(sorted(WIDER))),
    st.tuples(st.just("rename"), PLACES, NAMES, NAMES),
    st.tuples(st.just("drop"), PLACES, NAMES, st.none()),
    st.tuples(st.just("widen"), PLACES, NAMES, st.integers(0, 1)),
    st.tuples(st.just("write"), st.integers(1, 3), st.integers(0, 100), st.none()),
    st.tuples(st.just("delete"), st.integers(0, 20), st.none(), st.none()),
    st.tuples(st.just("optimize"), st.none(), st.none(), st.none()),
)


@dataclass
class Oracle:
    """The table as plain Python: fields by place, in order, with a key that a rename does not change; rows by those keys."""

    fields: dict[str, list[list[Any]]] = field(
        default_factory=lambda: {"": [["a", "TINYINT", 0]], "s.": [["a", "SMALLINT", 1]], "l.element.": [["a", "INTEGER", 2]]}
    )
    rows: list[dict[int, Any]] = field(default_factory=list)
    keys: int = 3

    def find(self, place: str, name: str) -> list[Any] | None:
        return next((f for f in self.fields[place] if f[0] == name), None)

    def shown(self) -> list[tuple[Any, ...]]:
        """What SELECT * ORDER BY id shows: id, columns of the table, s, l."""
        out = []
        for row in self.rows:
            inside = [{n: row.get(key) for n, _, key in self.fields[place]} for place in ("s.", "l.element.")]
            out.append((row[-1], inside[0], [inside[1]], *(row.get(key) for _, _, key in self.fields[""])))
        return sorted(out, key=lambda r: r[0])


def literal(oracle: Oracle, place: str, value: int) -> str:
    return ", ".join(f"'{name}': {value}::{kind}" for name, kind, _ in oracle.fields[place])


def apply(lake: Lake, oracle: Oracle, step: tuple[Any, ...]) -> None:
    """Do a step in the lake and, where the lake did it, in the oracle."""
    what, place, name, other = step
    match what:
        case "write":
            for _ in range(place):
                key = len(oracle.rows) + sum(r[-1] for r in oracle.rows) + 1
                columns = "".join(f", {name}::{kind}" for _, kind, _ in oracle.fields[""])
                lake.sql(
                    f"INSERT INTO t SELECT {key}, {{{literal(oracle, 's.', name)}}}, "
                    f"[{{{literal(oracle, 'l.element.', name)}}}]{columns}"
                )
                oracle.rows.append({-1: key} | {k: name for fields in oracle.fields.values() for _, _, k in fields})
        case "delete":
            lake.sql(f"DELETE FROM t WHERE id % 21 = {place}")
            oracle.rows = [r for r in oracle.rows if r[-1] % 21 != place]
        case "optimize":
            lake.sql("OPTIMIZE t")
        case "add" if oracle.find(place, name) is None:
            lake.sql(f"ALTER TABLE t ADD COLUMN {place}{name} {other}")
            oracle.fields[place].append([name, other, oracle.keys])
            oracle.keys += 1
        case "rename" if (f := oracle.find(place, name)) and oracle.find(place, other) is None:
            lake.sql(f"ALTER TABLE t RENAME COLUMN {place}{name} TO {other}")
            f[0] = other
        case "drop" if f := oracle.find(place, name):
            try:
                lake.sql(f"ALTER TABLE t DROP COLUMN {place}{name}")
                oracle.fields[place].remove(f)
            except SchemaMismatchError as e:  # a struct keeps a field that its first files have
                if not place or not re.search("is the last of its kind|nothing that the first files had", str(e)):
                    raise
        case "widen" if (f := oracle.find(place, name)) and f[1] in WIDER:
            lake.sql(f"ALTER TABLE t ALTER COLUMN {place}{name} TYPE {WIDER[f[1]][other]}")
            f[1] = WIDER[f[1]][other]


@pytest.mark.parametrize("vectors", ["true", "false"])
@given(steps=st.lists(STEPS, min_size=3, max_size=12))
@settings(max_examples=EXAMPLES)
def test_every_version_shows_what_was_then(
    tmp_path_factory: pytest.TempPathFactory, vectors: str, steps: list[tuple[Any, ...]]
) -> None:
    folder: Path = tmp_path_factory.mktemp("columns")
    oracle, versions = Oracle(), {}
    with deltaduck.connect(folder / "lake.duckdb") as lake:
        lake.sql("CREATE TABLE t (id BIGINT, s STRUCT(a SMALLINT), l STRUCT(a INTEGER)[], a TINYINT)")
        apply(lake, oracle, ("write", 1, 5, None))
        lake.sql(f"""ALTER TABLE t SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name', 'delta.enableTypeWidening' = 'true',
                     'delta.enableDeletionVectors' = '{vectors}')""")
        for step in steps:
            apply(lake, oracle, step)
            versions[lake.table("t").version()] = oracle.shown(), [f[0] for f in oracle.fields[""]]
        assert not lake.fsck("t")
    with deltaduck.connect(folder / "lake.duckdb") as lake:  # nothing is remembered from the time of writing
        for version, (rows, names) in versions.items():
            assert lake.sql(f"SELECT * FROM t AT (VERSION => {version}) ORDER BY id").fetchall() == rows
            for name in names:
                found = lake.sql(f"SELECT id FROM t AT (VERSION => {version}) WHERE {name} >= 50 ORDER BY id").fetchall()
                at = 3 + names.index(name)
                assert found == [(r[0],) for r in rows if r[at] is not None and r[at] >= 50]
