"""Random SQL on a lake, plain DuckDB as oracle; delta-rs and DuckDB's delta extension read the mirror.

DELTADUCK_EXAMPLES says how many sequences of statements are tried on each catalog.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from interop.conftest import DuckDBDelta, delta_rs_sql
from sql_machine import Reader, Work

from deltaduck import commit
from deltaduck.catalog import duckdb as duckdb_catalog
from deltaduck.frontends import key_ranges
from deltaduck.operations import merge

EXAMPLES = int(os.environ.get("DELTADUCK_EXAMPLES", "5"))
STEPS = 20
FEW = {  # what is done one by one for up to so many, and set by set for more
    commit: ["FEW_FILES"], duckdb_catalog: ["FEW_ROWS", "FEW_ANSWERS"], key_ranges: ["MAX_KEYS"],
    merge: ["HELD", "FEW_SOURCE_ROWS"],
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:deltalake")


def extension_reads(work: Work, name: str) -> bool:
    """It lacks partition columns that are mapped, and files that have absolute names, as a clone's do."""
    return name != "w" and not (work.mapped and work.is_parted(name))


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Reader]]:
    """delta-rs and, where there is one, DuckDB's delta extension."""
    found: dict[str, Reader] = {
        "delta-rs": (lambda path, version: delta_rs_sql(DeltaTable(path, version=version)), lambda work, name: not work.widens)
    }
    python = os.environ.get("DELTADUCK_PEERS_PYTHON")
    peer = DuckDBDelta(python, tmp_path_factory.mktemp("peer")) if python else None
    if peer is not None:
        found["DuckDB's delta extension"] = peer.read, extension_reads
    yield found
    if peer is not None:
        peer.close()


@pytest.mark.parametrize("few", [True, False], ids=["few", "many"])
def test_random_sql(
    kind: str, place: Callable[[str, Path], str], readers: dict[str, Reader], few: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is, and where any number of rows and files counts as many."""
    for module, names in () if few else FEW.items():
        for name in names:
            monkeypatch.setattr(module, name, 0)
    place(kind, Path())  # skips where there is no PostgreSQL
    here: dict[str, Any] = {"place": staticmethod(lambda folder: place(kind, folder)), "readers": readers}
    machine = type(f"On{kind.title()}", (Work,), here)
    run_state_machine_as_test(machine, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS))
