"""What a statement uses of the rows that it joins with."""

from __future__ import annotations

import pytest
import sqlglot

from deltaduck.frontends.from_items import used_names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("s.a + b", {"a", "b"}),
        ("s", {"s"}),
        ("s.a.b", {"a", "b"}),
        ("{'k': s.v}", {"k", "v"}),
        ('f(x, "Y z")', {"x", "y z"}),
        ("s.columns", {"columns"}),
        ("count(*)", None),
        ("greatest(*COLUMNS('a.*'))", None),
        ("max(COLUMNS(c -> c LIKE 'x%'))", None),
        ("s.COLUMNS('a')", None),
    ],
)
def test_every_name_counts_and_a_star_may_mean_any(text: str, names: set[str] | None) -> None:
    assert used_names([sqlglot.parse_one(text, dialect="duckdb")]) == names
