"""Every cell of the tables in docs/concurrency.md, on every catalog: the document says what is tried, and what comes of it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from deltaduck import Lake
from deltaduck.errors import CommitConflictError, TableExistsError, TableNotFoundError
from deltaduck.transaction import Transaction

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "concurrency.md"
SECTIONS = {  # heading -> (isolation, deletion vectors)
    "Under WriteSerializable": ("write_serializable", False),
    "Under Serializable": ("serializable", False),
    "With deletion vectors, under WriteSerializable": ("write_serializable", True),
    "With deletion vectors, under Serializable": ("serializable", True),
}
REFUSED = (CommitConflictError, TableNotFoundError, TableExistsError)

ROWS = pa.table({"k": [0] * 40 + [1] * 40, "n": [*range(40), *range(100, 140)], "v": [0] * 80})
SAME_ROWS, SAME_FILE, OTHER_FILE = "same rows", "same file", "other file"  # where the concurrent operation is at work
Place = tuple[int, int]  # partition, which is one file, and a row there
HERE: Place = (0, 1)

OPERATIONS: dict[str, Callable[[Transaction, str, Place], object]] = {
    "append": lambda tx, t, at: tx.write(t, one(at)),
    "overwrite": lambda tx, t, at: tx.write(t, one(at), mode="overwrite"),
    "replace where": lambda tx, t, at: tx.write(t, one(at), mode="overwrite", predicate=where(at)),
    "delete": lambda tx, t, at: tx.delete(t, where(at)),
    "update": lambda tx, t, at: tx.update(t, {"v": "v + 1"}, where(at)),
    "merge": lambda tx, t, at: tx.sql(
        f"MERGE INTO {t} USING (SELECT {at[0]} AS k, {at[1]} AS n) AS s ON {t}.k = s.k AND {t}.n = s.n "
        "WHEN MATCHED THEN UPDATE SET v = 7 WHEN NOT MATCHED THEN INSERT (k, n, v) VALUES (s.k, s.n, 7)"
    ),
    "optimize": lambda tx, t, at: tx.sql(f"OPTIMIZE {t} WHERE k = {at[0]} ZORDER BY (n)"),
    "analyze": lambda tx, t, _: tx.sql(f"ANALYZE TABLE {t} COMPUTE DELTA STATISTICS"),
    "restore": lambda tx, t, _: tx.sql(f"RESTORE {t} TO VERSION AS OF 0"),
    "set property": lambda tx, t, _: tx.sql(f"ALTER TABLE {t} SET TBLPROPERTIES ('owner' = 'me')"),
    "add feature": lambda tx, t, _: tx.sql(f"ALTER TABLE {t} SET TBLPROPERTIES ('delta.feature.domainMetadata' = 'supported')"),
    "add constraint": lambda tx, t, _: tx.sql(f"ALTER TABLE {t} ADD CONSTRAINT c CHECK (v >= 0)"),
    "same application": lambda tx, t, at: tx.write(t, one(at), app_transaction=("app", 1)),
    "create": lambda tx, t, _: tx.sql(f"CREATE TABLE {t}_new (n INT)"),
    "drop": lambda tx, t, _: tx.sql(f"DROP TABLE {t}"),
}
SOMEWHERE = {"append", "replace where", "delete", "update", "merge", "optimize"}  # the others are at the whole table
LEAVING_NOTHING = ["restore", "overwrite", "drop"]  # for those after them to change


def one(at: Place) -> pa.Table:
    return pa.table({"k": [at[0]], "n": [at[1]], "v": [5]})


def where(at: Place) -> str:
    return f"k = {at[0]} AND n = {at[1]}"


def documented() -> Iterator[tuple[str, str, str, str]]:
    """(section, operation, concurrent operation, what comes of it)"""
    for heading, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", DOCUMENT.read_text(encoding="utf-8"), re.M | re.S):
        lines = [[c.strip() for c in line.strip("|").split("|")] for line in body.splitlines() if line.startswith("|")]
        if heading in SECTIONS:
            for row in lines[2:]:
                for concurrent, outcome in zip(lines[0][1:], row[1:], strict=True):
                    yield heading, row[0].strip("*"), concurrent, outcome


CELLS = list(documented())
numbers = itertools.count()


def places(section: str, operation: str, concurrent: str) -> list[str]:
    """Where the concurrent operation may be at work, seen from the other one."""
    if not {operation, concurrent} <= SOMEWHERE:
        return [SAME_ROWS]
    return [SAME_ROWS, SAME_FILE, OTHER_FILE] if SECTIONS[section][1] else [SAME_ROWS, OTHER_FILE]


def both_are_done(outcome: str, place: str) -> bool:
    return {"yes": True, "no": False, "files": place == OTHER_FILE, "rows": place != SAME_ROWS}[outcome]


def a_table(lake: Lake, section: str) -> str:
    """A table that was empty at version 0, and has one file in each of two partitions at version 1."""
    name = f"t{next(numbers)}"
    configuration = {"delta.enableDeletionVectors": "true"} if SECTIONS[section][1] else None
    lake.create_table(name, ROWS.schema, partition_by="k", configuration=configuration)
    lake.write(name, ROWS)
    return name


def begun(lake: Lake, section: str, operation: str, table: str) -> Transaction:
    tx = lake.begin(SECTIONS[section][0])
    OPERATIONS[operation](tx, table, HERE)
    return tx


def commit(lake: Lake, section: str, operation: str, table: str, place: str, nth: int) -> None:
    """The concurrent operation; the nth of several changes a row of its own."""
    same = HERE if operation in ("append", "same application") else (0, 1 + nth)
    at = {SAME_ROWS: same, SAME_FILE: (0, 2 + nth), OTHER_FILE: (1, 101 + nth)}[place]
    with lake.begin(SECTIONS[section][0]) as tx:
        OPERATIONS[operation](tx, table, at)
    assert tx.committed or operation == "drop", f"{operation} changed nothing"


def is_done(tx: Transaction) -> bool:
    try:
        tx.commit()
    except REFUSED:
        return False
    return True


def ids(values: list[tuple[str, str]]) -> list[str]:
    return [f"{section}-{operation}".replace(" ", "_") for section, operation in values]


ROWS_OF = sorted({(section, operation) for section, operation, _, _ in CELLS})
COLUMNS_OF = sorted({(section, concurrent) for section, _, concurrent, _ in CELLS})


@pytest.mark.parametrize(("section", "operation"), ROWS_OF, ids=ids(ROWS_OF))
def test_what_is_done(shared_lake: Lake, section: str, operation: str) -> None:
    """What commits after all of them commits after each."""
    others = [
        (c, place)
        for s, o, c, outcome in CELLS
        if (s, o) == (section, operation)
        for place in places(s, o, c)
        if both_are_done(outcome, place)
    ]
    table = a_table(shared_lake, section)
    tx = begun(shared_lake, section, operation, table)
    in_order = sorted(others, key=lambda other: LEAVING_NOTHING.index(other[0]) if other[0] in LEAVING_NOTHING else -1)
    for n, (concurrent, place) in enumerate(in_order):
        commit(shared_lake, section, concurrent, table, place, n)
    tx.commit()
    assert shared_lake.find(table) is None or shared_lake.mirror.verify(table)


@pytest.mark.parametrize(("section", "concurrent"), COLUMNS_OF, ids=ids(COLUMNS_OF))
def test_what_is_refused(shared_lake: Lake, section: str, concurrent: str) -> None:
    for place in (SAME_ROWS, SAME_FILE, OTHER_FILE):
        refused = [
            o
            for s, o, c, outcome in CELLS
            if (s, c) == (section, concurrent) and place in places(s, o, c) and not both_are_done(outcome, place)
        ]
        if refused:
            table = a_table(shared_lake, section)
            transactions = {operation: begun(shared_lake, section, operation, table) for operation in refused}
            commit(shared_lake, section, concurrent, table, place, 0)
            assert [operation for operation, tx in transactions.items() if is_done(tx)] == [], f"after {concurrent}, {place}"


def test_the_document_leaves_nothing_out() -> None:
    for section, (_, vectors) in SECTIONS.items():
        wanted = {"replace where", "delete", "update", "merge", "optimize", "analyze"} if vectors else {*OPERATIONS}
        assert {(o, c) for s, o, c, _ in CELLS if s == section} == {*itertools.product(wanted, wanted)}


COLUMNS = {
    "add": "ALTER TABLE {} ADD COLUMN c INT", "rename": "ALTER TABLE {} RENAME COLUMN w TO w2",
    "drop": "ALTER TABLE {} DROP COLUMN w",
    "widen": "ALTER TABLE {} ALTER COLUMN v TYPE BIGINT", "not null": "ALTER TABLE {} ALTER COLUMN k SET NOT NULL",
    "cluster": "ALTER TABLE {} CLUSTER BY (n)",
}  # fmt: skip


@pytest.mark.parametrize("statement", COLUMNS.values(), ids=list(COLUMNS))
def test_who_changes_columns_sees_everybody_and_is_seen(shared_lake: Lake, statement: str) -> None:
    name = f"t{next(numbers)}"
    options = "'delta.columnMapping.mode' = 'name', 'delta.enableTypeWidening' = 'true'"
    shared_lake.sql(f"CREATE TABLE {name} (k INT, n BIGINT, v INT, w VARCHAR) TBLPROPERTIES ({options})")
    shared_lake.sql(f"INSERT INTO {name} VALUES (0, 1, 0, 'a'), (1, 2, 0, 'b')")
    others = ["INSERT INTO {} (k) VALUES (7)", "DELETE FROM {} WHERE n = 1", "OPTIMIZE {} ZORDER BY (n)", "UPDATE {} SET v = 1"]
    begun = [shared_lake.begin() for _ in [*others, statement]]
    for tx, one in zip(begun, [*others, statement], strict=True):
        tx.sql(one.format(name))
    shared_lake.sql(statement.format(name))
    assert [is_done(tx) for tx in begun] == [False] * 5
    if "CLUSTER" in statement:
        append, again = shared_lake.begin(), shared_lake.begin()
        append.sql(f"INSERT INTO {name} (k) VALUES (7)")
        again.sql(f"ALTER TABLE {name} CLUSTER BY (k)")
        shared_lake.sql(f"ALTER TABLE {name} CLUSTER BY (k, n)")
        assert (is_done(append), is_done(again)) == (True, False)
    late = shared_lake.begin()
    late.sql(f"ALTER TABLE {name} SET TBLPROPERTIES ('owner' = 'me')")
    shared_lake.sql(f"INSERT INTO {name} (k) VALUES (8)")
    assert not is_done(late)
    assert shared_lake.mirror.verify(name)
