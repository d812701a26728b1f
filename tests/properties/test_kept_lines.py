"""A small commit is published from rows at hand, a retry from the catalog's: the same bytes, for whatever the rows hold."""

from __future__ import annotations

import json

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaduck import statements
from deltaduck.catalog.duckdb import DuckDBCatalog
from deltaduck.commit import KINDS, Committed
from deltaduck.mirror.publish import commit_bytes, kept_bytes

TABLES = [
    "dl_table_versions", "dl_protocol_updates", "dl_metadata_updates", "dl_txn_actions", "dl_domain_metadata", "dl_cdc_files",
    "dl_remove_files", "dl_add_files",
]  # fmt: skip
KEY = ("table_id", "version", "action_order")
ALL_OR_NONE = ("dv_path_or_inline_dv", "dv_size_in_bytes", "dv_cardinality")  # what a deletion vector has, if there is one

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ['"', "\\", "\x00", "\x0b\x1f\x7f", "\b\f\n\r\t", "\u2028", "é😀", "</a>", "\\u001f", "''", ":path", "$1", "{}"]
)
values = {"BIGINT": st.integers(-(2**63), 2**63 - 1), "BOOLEAN": st.booleans(), "TEXT": text}
objects = st.dictionaries(text, text, min_size=1, max_size=2).map(lambda v: json.dumps(v, ensure_ascii=False))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> DuckDBCatalog:
    catalog = DuckDBCatalog(":memory:")
    catalog.open(str(tmp_path_factory.mktemp("lake")))
    return catalog


def rows_of(table: str, place: int) -> st.SearchStrategy[tuple[str, dict[str, object]]]:
    """An INSERT of one row with any values, at its place in version 1 of table 1."""
    with duckdb.connect() as con:
        for _, script in statements.migrations():
            con.execute(script)
        columns = [(c[0], c[1].replace("VARCHAR", "TEXT"), c[2] == "YES") for c in con.execute(f"DESCRIBE {table}").fetchall()]
    fields = {
        name: (st.none() if optional and name not in ALL_OR_NONE else st.nothing())
        | (objects if name == "extra" else values[kind])
        for name, kind, optional in columns
    }
    fields |= dict(zip(KEY, map(st.just, (1, 1, place)), strict=True))
    sql = f"INSERT INTO {table} ({', '.join(fields)}) VALUES (:{', :'.join(fields)})"
    return st.fixed_dictionaries(fields).map(lambda params: (sql, params))


@given(st.tuples(*(rows_of(table, place) for place, table in enumerate(TABLES))))
def test_kept_rows_make_the_bytes_that_the_catalog_makes(catalog: DuckDBCatalog, rows: tuple) -> None:
    committed = Committed(1, "t", "/t", 1, 0, False, KINDS, rows=rows)
    for sql, params in rows:
        catalog.execute(sql, params)
    wanted = commit_bytes(catalog, 1, 1)
    for table in TABLES:
        catalog.execute(f"DELETE FROM {table}")
    assert all(f'{{"{kind}":'.encode() in wanted for kind in ("protocol", "metaData", "txn", "cdc", "remove", "add"))
    assert kept_bytes(committed) == wanted


def test_only_kinds_that_a_commit_has_are_asked_for(catalog: DuckDBCatalog) -> None:
    insert, params = catalog.sql("insert_txn"), {"table_id": 1, "version": 1, "action_order": 3, "commit_ms": 5}
    committed = Committed(1, "t", "/t", 1, 0, False, ("txn",), rows=((insert, params | {"app_id": 'a"b', "app_version": 7}),))
    assert kept_bytes(committed) == b'{"txn":{"appId":"a\\"b","version":7,"lastUpdated":5}}\n'
