"""Random SQL on a lake, as in tests/properties, with Spark as the other reader, at random steps and of random versions."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from sql_machine import Work

HUNT = "DELTADUCK_EXAMPLES" in os.environ


def test_random_sql_is_read_by_spark(
    kind: str, place: Callable[[str, Path], str], read: Callable[[str, int | None], pa.Table]
) -> None:
    place(kind, Path())  # skips where there is no PostgreSQL
    here: dict[str, Any] = {
        "place": staticmethod(lambda folder: place(kind, folder)), "readers": {"Spark": (read, lambda work, name: True)},
        "reads_all": HUNT,
    }  # fmt: skip
    machine = type(f"On{kind.title()}", (Work,), here)
    examples = int(os.environ.get("DELTADUCK_EXAMPLES", "2"))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=20, deadline=None, derandomize=not HUNT, database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
