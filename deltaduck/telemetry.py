"""What an application's OpenTelemetry and logs are told.

OpenTelemetry is never imported here: importing it costs tens of milliseconds, as long as opening a lake, and an application that
has an SDK has imported the API before. Where it has not, nothing happens, in less than a microsecond.
"""

from __future__ import annotations

import logging
import sys
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from types import ModuleType
from typing import Any, Protocol

from deltaduck._version import __version__
from deltaduck.errors import DeltaduckError

log = logging.getLogger("deltaduck.telemetry")
commits = logging.getLogger("deltaduck.commit")
clock = time.perf_counter

HISTOGRAMS = {
    "metadata_open_latency_ms": "until a table's version, schema and protocol are known",
    "commit_latency_ms": "the catalog transaction of a commit",
    "mirror_latency_ms": "the publication of a version",
}
COUNTERS = {
    "versions_committed_total": "versions committed, one per table of a transaction",
    "mirror_failures_total": "publications that did not succeed",
}
GAUGES = {
    "files_active": "files of the newest version of a table",
    "mirror_lag_seconds": "how long ago the oldest version was committed that is not published; 0 without one",
}


class Watched(Protocol):
    """A lake."""

    catalog: Any
    mirror: Any

    @property
    def closed(self) -> bool: ...


_nothing: AbstractContextManager[Any] = nullcontext()
_watched: weakref.WeakSet[Any] = weakref.WeakSet()


def span(name: str, **attributes: str | int) -> AbstractContextManager[Any]:
    """A span of the work in the block; None where nobody traces."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return _nothing
    named = {f"deltaduck.{key}": value for key, value in attributes.items()}
    return _tracer(trace).start_as_current_span(f"deltaduck.{name}", attributes=named)  # type: ignore[no-any-return]


def took(name: str, since: float, **attributes: str) -> None:
    """Record what has passed since then, by ``clock``, in a histogram."""
    metrics = sys.modules.get("opentelemetry.metrics")
    if metrics is not None:
        _instruments(metrics)[name].record((clock() - since) * 1000, attributes)


def count(name: str, **attributes: str) -> None:
    """Add one to a counter."""
    metrics = sys.modules.get("opentelemetry.metrics")
    if metrics is not None:
        _instruments(metrics)[name].add(1, attributes)


def watch(lake: Watched) -> None:
    """Let the gauges look at a lake, for as long as it is open."""
    _watched.add(lake)
    metrics = sys.modules.get("opentelemetry.metrics")
    if metrics is not None:
        _instruments(metrics)


def committed(catalog: str, changes: Iterable[Any], done: Sequence[Any], since: float, span: Any) -> None:
    """A commit has happened: `done` says which versions, `changes` what was staged."""
    took("commit_latency_ms", since, catalog=catalog)
    if span is not None and done:
        span.set_attribute("deltaduck.transaction_id", done[0].commit_id)
        span.set_attribute("deltaduck.tables", [c.name for c in done])
        span.set_attribute("deltaduck.versions", [c.version for c in done])
    logged = commits.isEnabledFor(logging.INFO)
    if not logged and "opentelemetry.metrics" not in sys.modules:
        return
    staged = {change.name: change for change in changes}
    for c in done:
        change = staged[c.name]
        count("versions_committed_total", catalog=catalog, table=c.name, operation=change.operation)
        if logged:
            counts = {
                "files_added": sum(files.num_rows for files in change.adds),
                "files_removed": sum(files.num_rows for files in change.removes),
                "rows_added": sum(n or 0 for files in change.adds for n in files["num_records"].to_pylist()),
            }
            fields = {"table": c.name, "version": c.version, "transaction_id": c.commit_id, "operation": change.operation}
            commits.info("table %r: version %s committed, %s", c.name, c.version, change.operation, extra=fields | counts)


@cache
def _tracer(trace: ModuleType) -> Any:
    return trace.get_tracer("deltaduck", __version__)


@cache
def _instruments(metrics: ModuleType) -> dict[str, Any]:
    meter = metrics.get_meter("deltaduck", __version__)
    out = {name: meter.create_histogram(name, "ms", what) for name, what in HISTOGRAMS.items()}
    out |= {name: meter.create_counter(name, "1", what) for name, what in COUNTERS.items()}
    for (name, what), look in zip(GAUGES.items(), (_files, _lags), strict=True):
        meter.create_observable_gauge(name, [_observer(metrics, look)], "s" if name.endswith("seconds") else "1", what)
    return out


def _observer(metrics: ModuleType, look: Any) -> Any:
    """What a gauge calls when it is read, and only then."""

    def observe(_: Any) -> Iterator[Any]:
        for lake in list(_watched):
            try:
                for table, value in [] if lake.closed else look(lake):
                    yield metrics.Observation(value, {"catalog": lake.catalog.name, "table": table})
            except DeltaduckError as e:
                log.warning("%s cannot be measured: %s", lake.catalog.name, e)

    return observe


def _files(lake: Watched) -> list[tuple[str, int]]:
    return list(lake.catalog.rows("files_active"))


def _lags(lake: Watched) -> list[tuple[str, float]]:
    lake.mirror.flush()  # what is published may not be marked yet
    now = time.time()
    return [(table, 0.0 if ms is None else max(0.0, now - ms / 1000)) for table, ms in lake.catalog.rows("mirror_lag")]
