"""Small tables for people."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pytest

from deltaduck.listing import Listing, size_text, text, utc

LISTING = Listing(["name", "n", "at"], [("a<b>", 1, dt.datetime(2024, 1, 2, 3, 4, 5, 678901)), ("ü", None, None)])


def test_it_is_a_list_of_dicts() -> None:
    assert LISTING[1] == {"name": "ü", "n": None, "at": None}
    assert [row["name"] for row in LISTING] == ["a<b>", "ü"]


def test_it_prints_as_a_table() -> None:
    assert repr(LISTING).splitlines() == [
        "name  n  at",
        "────  ─  ───────────────────────",
        "a<b>  1  2024-01-02 03:04:05.678",
        "ü",
    ]


def test_without_rows_it_prints_its_head() -> None:
    assert repr(Listing(["a", "bc"], [])) == "a  bc\n─  ──"


def test_html_is_escaped() -> None:
    page = LISTING._repr_html_()
    assert "a&lt;b&gt;" in page
    assert "<b>" not in page
    assert page.count("<tr>") == 3


def test_it_becomes_any_frame() -> None:
    assert LISTING.to_arrow() == pa.table({c: [row[c] for row in LISTING] for c in LISTING.columns})
    assert LISTING.to_polars()["name"].to_list() == ["a<b>", "ü"]
    assert LISTING.to_pandas()["name"].tolist() == ["a<b>", "ü"]


def test_a_row_has_all_columns() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Listing(["a", "b"], [(1,)])


def test_cells() -> None:
    assert text({"mode": "Append", "n": 1}) == "mode=Append, n=1"
    assert text(None) == ""
    assert text(3) == "3"


@pytest.mark.parametrize(
    ("size", "expected"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 << 20, "5.0 MiB"), (3 << 40, "3.0 TiB")]
)
def test_sizes(size: int, expected: str) -> None:
    assert size_text(size) == expected


def test_times_are_in_utc() -> None:
    assert utc(0) == dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    assert utc(None) is None
