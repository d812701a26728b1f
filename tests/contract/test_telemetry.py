"""What OpenTelemetry, logs and the tracer are told, with the real SDK."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import deltaduck
from deltaduck import CommitConflictError, Lake, telemetry


class Told:
    """What the SDK has got of one lake."""

    def __init__(self, spans: InMemorySpanExporter, reader: InMemoryMetricReader) -> None:
        self._spans, self._reader = spans, reader

    def spans(self) -> dict[str, dict[str, Any]]:
        """name -> attributes of the last span of that name."""
        return {s.name: dict(s.attributes or {}) for s in self._spans.get_finished_spans()}

    def metrics(self, lake: Lake) -> dict[str, dict[str | None, float]]:
        """name -> table (None where a metric has none) -> value, or how many values a histogram has."""
        data = self._reader.get_metrics_data()
        out: dict[str, dict[str | None, float]] = {}
        for metric in (m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics) if data else ():
            for point in metric.data.data_points:
                if point.attributes["catalog"] == lake.catalog.name:
                    value = getattr(point, "count", None) or point.value
                    tables = out.setdefault(metric.name, {})
                    tables[point.attributes.get("table")] = tables.get(point.attributes.get("table"), 0) + value
        return out


@pytest.fixture(scope="module")
def sdk() -> Iterator[tuple[InMemorySpanExporter, InMemoryMetricReader]]:
    """The providers of this process; OpenTelemetry takes them once."""
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracing, metering = TracerProvider(), MeterProvider([reader])
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(tracing)
    metrics.set_meter_provider(metering)
    yield spans, reader
    tracing.shutdown()
    metering.shutdown()


@pytest.fixture
def told(sdk: tuple[InMemorySpanExporter, InMemoryMetricReader]) -> Told:
    sdk[0].clear()
    return Told(*sdk)


def test_spans_of_a_commit_its_publication_and_a_plan(told: Told, lake: Lake) -> None:
    with lake.begin() as tx:
        tx.write("t", [{"n": 1}])
        tx.write("u", [{"n": 1}])
    lake.mirror.flush()
    lake.sql("FROM t WHERE n = 1").fetchall()
    spans = told.spans()
    assert spans["deltaduck.commit"] == {
        "deltaduck.tables": ("t", "u"), "deltaduck.versions": (0, 0), "deltaduck.transaction_id": tx.committed[0].commit_id,
    }  # fmt: skip
    assert spans["deltaduck.mirror"]["deltaduck.version"] == 0
    assert "deltaduck.plan" in spans


def test_a_commit_that_fails_is_a_span_that_failed(told: Told, lake: Lake, sdk: tuple[InMemorySpanExporter, Any]) -> None:
    lake.write("t", [{"n": 1}])
    tx = lake.begin()
    tx.sql("DELETE FROM t WHERE n = 1")
    lake.sql("UPDATE t SET n = 2")
    sdk[0].clear()
    with pytest.raises(CommitConflictError):
        tx.commit()
    (span,) = [s for s in sdk[0].get_finished_spans() if s.name == "deltaduck.commit"]
    assert not span.status.is_ok
    assert [event.name for event in span.events] == ["exception"]


def test_a_span_of_an_import(told: Told, lake: Lake, tmp_path: Path) -> None:
    with deltaduck.connect(":memory:", storage=tmp_path / "other") as other:
        other.write("t", [{"n": 1}])
    lake.import_table(tmp_path / "other" / "t", "t")
    assert told.spans()["deltaduck.import"] == {"deltaduck.table": "t"}


def test_metrics(told: Told, lake: Lake) -> None:
    lake.write("t", [{"day": "mon", "n": 1}, {"day": "tue", "n": 2}], partition_by="day")
    lake.write("t", [{"day": "mon", "n": 3}])
    lake.write("u", [{"n": 3}])
    found = told.metrics(lake)
    assert found["versions_committed_total"] == {"t": 2, "u": 1}
    assert found["commit_latency_ms"] == {None: 3}
    assert found["mirror_latency_ms"] == {None: 3}
    assert found["metadata_open_latency_ms"][None] >= 1
    assert found["files_active"] == {"t": 3, "u": 1}
    assert found["mirror_lag_seconds"] == {"t": 0, "u": 0}
    assert "mirror_failures_total" not in found


def test_a_mirror_that_fails_is_counted_and_lags(told: Told, lake: Lake) -> None:
    lake.write("t", [{"n": 1}])
    foreign = Path(lake.storage, "t", "_delta_log", f"{1:020d}.json")
    foreign.write_text('{"commitInfo":{}}\n')
    lake.write("t", [{"n": 2}])
    lake.catalog.execute("UPDATE dl_table_versions SET commit_ms = commit_ms - 60000 WHERE version = 1")
    found = told.metrics(lake)
    assert found["mirror_failures_total"] == {"t": 1}
    assert 60 <= found["mirror_lag_seconds"]["t"] < 600


def test_gauges_forget_a_lake_that_is_closed(told: Told, open_lake: Callable[[], Lake]) -> None:
    with open_lake() as lake:
        lake.write("t", [{"n": 1}])
    assert "files_active" not in told.metrics(lake)


def test_a_commit_is_logged_with_its_counts(lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    lake.write("t", [{"n": 1}, {"n": 2}])
    with caplog.at_level(logging.INFO, "deltaduck.commit"):
        lake.sql("UPDATE t SET n = 3 WHERE n = 2")
    (record,) = [r for r in caplog.records if r.name == "deltaduck.commit"]
    assert record.getMessage() == "table 't': version 1 committed, UPDATE"
    ((commit_id,),) = lake.catalog.fetch("SELECT commit_id FROM dl_history WHERE version = 1")
    fields = ("table", "version", "transaction_id", "operation", "files_added", "files_removed", "rows_added")
    assert [getattr(record, name) for name in fields] == ["t", 1, commit_id, "UPDATE", 1, 1, 2]


def test_a_publication_that_fails_is_logged_with_what_it_was(lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    lake.write("t", [{"n": 1}])
    Path(lake.storage, "t", "_delta_log", f"{1:020d}.json").write_text('{"commitInfo":{}}\n')
    lake.write("t", [{"n": 2}])
    (record,) = [r for r in caplog.records if hasattr(r, "status")]
    assert (record.table, record.version, record.status) == ("t", 1, "DIVERGED")  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["duckdb", "sqlite", "postgres"])
def test_the_tracer_prints_every_statement_and_no_text(
    kind: str, tmp_path: Path, place: Callable[[str, Path], str], capfd: pytest.CaptureFixture[str]
) -> None:
    place_of_it = place(kind, tmp_path)
    capfd.readouterr()
    with deltaduck.connect(place_of_it, storage=tmp_path / "data", trace_sql=True) as lake:
        lake.write("orders", [{"n": 1}], commit_metadata="hunter2", configuration={"owner": "hunter2"})
        lake.sql("DELETE FROM orders WHERE n = 1")
    lines = capfd.readouterr().err.splitlines()
    assert all(line.startswith(f"[{kind}] ") for line in lines)
    text = "\n".join(lines)
    for part in (
        "CREATE TABLE dl_tables",
        "INSERT INTO dl_table_versions",
        "UPDATE dl_tables SET version",
        "dl_add_files",
        "COMMIT",
    ):
        assert part in text, part
    assert "name_key='orders'" in text
    assert "user_metadata=<7 characters>" in text
    assert "hunter2" not in text


def test_the_tracer_is_off_unless_asked_for_and_can_be_by_the_environment(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for setting, told in ((None, False), ("0", False), ("1", True)):
        if setting is not None:
            monkeypatch.setenv("DELTADUCK_TRACE_SQL", setting)
        deltaduck.connect(tmp_path / f"{setting}.sqlite").close()
        assert ("[sqlite]" in capfd.readouterr().err) is told


def test_without_opentelemetry_nothing_of_it_is_imported() -> None:
    code = (
        "import sys, deltaduck; lake = deltaduck.connect(storage='/tmp'); telemetry = sys.modules['deltaduck.telemetry']\n"
        "assert telemetry.span('commit') is telemetry.span('plan')\n"
        "telemetry.count('mirror_failures_total'); telemetry.took('commit_latency_ms', 0)\n"
        "assert not [m for m in sys.modules if m.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_the_metrics_are_those_of_the_runbook() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    for name in (*telemetry.HISTOGRAMS, *telemetry.COUNTERS, *telemetry.GAUGES):
        assert f"| `{name}` |" in page, name
