"""Spark with Delta Lake, the reference implementation of the protocol, in one session for all of these tests."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

DELTA = "io.delta:delta-spark_4.1_2.13:4.1.0"
SHIPPED = "org.slf4j:*,org.apache.logging.log4j:*,com.google.code.findbugs:*,com.fasterxml.jackson.core:*,org.antlr:*"
SETTINGS = {
    "spark.jars.packages": DELTA,
    "spark.jars.excludes": SHIPPED,  # which Spark has already
    "spark.jars.ivy": str(Path(sys.prefix, "ivy")),  # where jars are kept once they have been fetched
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    # small tables: what helps with large ones only costs here
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Duser.timezone=UTC",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.shuffle.partitions": "2",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
}


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The session. Without Java, or without the jars, there is none: these tests are skipped then, and fail in CI."""
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable  # of the tasks: the one that has the package
    home = tmp_path_factory.mktemp("spark")
    builder = SparkSession.builder.master("local[2]").config("spark.sql.warehouse.dir", str(home / "warehouse"))
    for name, value in SETTINGS.items():
        builder = builder.config(name, value)
    try:
        if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
            raise RuntimeError("Spark needs Java (Debian: apt-get install openjdk-17-jre-headless)")
        session = _patiently(builder.getOrCreate)
    except Exception as e:
        if "CI" in os.environ:
            raise
        pytest.skip(f"no Spark: {str(e) or type(e).__name__}")
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()


def _patiently(start: Callable[[], Any]) -> Any:
    """A session; an index of jars may be away for a moment."""
    for pause in (5, 30):
        try:
            return start()
        except Exception:
            time.sleep(pause)
    return start()


Read = Callable[..., pa.Table]


@pytest.fixture(scope="session")
def read(spark: Any) -> Read:
    """(path, version, option=value) -> the rows that Spark's own reader of Delta tables sees."""

    def rows(path: str | Path, version: int | None = None, **options: Any) -> pa.Table:
        if version is not None:
            options["versionAsOf"] = version
        return spark.read.format("delta").options(**options).load(str(path)).toArrow()

    return rows


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Spark's Python leaves sockets and streams to the garbage collector, and warns of its own future."""
    for item in items:
        if Path(__file__).parent in Path(item.path).parents:
            for category in ("ResourceWarning", "DeprecationWarning", "FutureWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{category}"))
            item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))
