"""One tree of errors, drawn where it is defined."""

from __future__ import annotations

import pickle

import pytest

import deltaduck
from deltaduck import CommitConflictError, DeltaduckError, errors


def classes() -> list[type[Exception]]:
    return [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)]


def test_every_error_has_one_root() -> None:
    assert all(issubclass(c, DeltaduckError) for c in classes())


def test_the_drawn_tree_names_every_error() -> None:
    drawn = [line.split()[1] for line in str(errors.__doc__).splitlines() if line.startswith(("├──", "└──"))]
    assert sorted(drawn) == sorted(c.__name__ for c in classes() if c is not DeltaduckError)


def test_every_error_is_exported() -> None:
    assert {c.__name__ for c in classes()} <= set(deltaduck.__all__)


@pytest.mark.parametrize("retryable", [True, False])
def test_a_conflict_says_what_happened_and_what_to_do(retryable: bool) -> None:
    e = CommitConflictError("orders", 3, 5, "version 4 removed rows that this commit read", retryable=retryable)
    assert (e.table, e.expected, e.actual, e.retryable) == ("orders", 3, 5, retryable)
    for part in ("'orders'", "expected version 3", "found version 5", "version 4 removed", "nothing was committed"):
        assert part in str(e)
    assert ("retry" in str(e).split("nothing was committed")[1]) is True
    assert ("cannot succeed" in str(e)) is not retryable


def test_a_conflict_crosses_process_borders() -> None:
    e = CommitConflictError("orders", None, 0, "it exists", retryable=False)
    back = pickle.loads(pickle.dumps(e))
    assert (str(back), back.table, back.expected, back.actual, back.retryable) == (str(e), "orders", None, 0, False)
