"""How things look in a terminal and in a notebook."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest

from deltaduck import Lake


@pytest.fixture
def shop(lake: Lake, people: pa.Table) -> Lake:
    lake.write("people", people)
    lake.create_table("<b>bold</b>", {"a & b": "BIGINT NOT NULL", "p": "DATE"}, partition_by="p")
    return lake


def test_a_lake(shop: Lake) -> None:
    assert re.fullmatch(r"<Lake on .*: 2 tables: <b>bold</b>, people>", repr(shop))
    page = shop._repr_html_()
    assert "people" in page
    assert "CREATE TABLE AS SELECT" in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "<b>bold</b>" not in page


def test_a_closed_lake(shop: Lake) -> None:
    shop.close()
    assert repr(shop).endswith(", closed>")
    assert "closed" in shop._repr_html_()


def test_an_empty_lake(lake: Lake) -> None:
    assert repr(lake).endswith(": 0 tables>")
    assert "<table>" in lake._repr_html_()


def test_a_table(shop: Lake) -> None:
    assert re.fullmatch(r"<DeltaTable 'people' version 0: 3 rows, 1 file, \d+ B>", repr(shop.table("people")))
    page = shop.table("<b>bold</b>")._repr_html_()
    assert "a &amp; b" in page
    assert "NOT NULL" in page
    assert "partition" in page
    assert "<b>bold</b>" not in page


def test_a_history(shop: Lake) -> None:
    shop.write("people", pa.table({"id": [4]}), commit_metadata="<script>alert(1)</script>")
    history = shop.table("people").history()
    assert "CREATE TABLE AS SELECT" in repr(history)
    page = history._repr_html_()
    assert "<script>" not in page
    assert page.count("<tr>") == 3
    assert history.to_polars()["version"].to_list() == [1, 0]
    assert history.to_pandas()["version"].tolist() == [1, 0]
    assert history.to_arrow()["version"].to_pylist() == [1, 0]


def test_tables_and_mirror_status(shop: Lake) -> None:
    assert repr(shop.tables()).splitlines()[0].split() == ["name", "version", "committed", "operation", "location"]
    assert "people" in repr(shop.mirror.status())
    assert "equal to the catalog" in str(shop.mirror.verify("people"))
