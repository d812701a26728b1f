"""Protocol versions, table features and table properties: what is honoured, and refused otherwise."""

from __future__ import annotations

import pytest

from deltaduck.errors import UnsupportedFeatureError
from deltaduck.protocol.features import (
    Protocol,
    check_properties,
    check_readable,
    check_writable,
    interval_ms,
    protocol_for,
    size_bytes,
    upgraded,
)
from deltaduck.protocol.schema import Array, Field, Struct

PLAIN = Struct((Field("a", "long"),))
NTZ = Struct((Field("a", Array("timestamp_ntz")),))


def test_a_plain_table_asks_for_what_everybody_knows() -> None:
    assert protocol_for(PLAIN) == Protocol(1, 2)


def test_timestamp_ntz_anywhere_is_a_feature() -> None:
    assert protocol_for(NTZ) == Protocol(3, 7, ("timestampNtz",), ("timestampNtz",))


def test_an_upgrade_keeps_what_the_old_protocol_implied() -> None:
    assert upgraded(Protocol(1, 2), PLAIN) == Protocol(1, 2)
    assert upgraded(Protocol(1, 2), NTZ) == Protocol(3, 7, ("timestampNtz",), ("appendOnly", "invariants", "timestampNtz"))
    assert upgraded(protocol_for(NTZ), NTZ) == protocol_for(NTZ)


@pytest.mark.parametrize(
    ("protocol", "named"),
    [
        (Protocol(4, 7), "reader version 4"),
        (Protocol(3, 7, ("somethingNew", "timestampNtz"), ("somethingNew",)), "somethingNew"),
    ],
)
def test_a_table_that_cannot_be_read_rightly_is_refused_by_name(protocol: Protocol, named: str) -> None:
    with pytest.raises(UnsupportedFeatureError, match=f"'orders'.*{named}"):
        check_readable(protocol, "orders")


@pytest.mark.parametrize(
    ("protocol", "named"),
    [
        (Protocol(1, 8), "writer version 8"),
        (Protocol(1, 7, None, ("icebergCompatV1",)), "writing needs icebergCompatV1"),
    ],
)
def test_reading_and_writing_are_refused_apart(protocol: Protocol, named: str) -> None:
    check_readable(protocol, "orders")
    with pytest.raises(UnsupportedFeatureError, match=f"'orders'.*{named}"):
        check_writable(protocol, "orders")


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("delta.appendOnly", "TRUE", "yes"),
        ("delta.checkpointInterval", "10", "0"),
        ("delta.dataSkippingNumIndexedCols", "-1", "all"),
        ("delta.deletedFileRetentionDuration", "interval 2 weeks", "two weeks"),
        ("delta.isolationLevel", "Serializable", "snapshot"),
        ("delta.logRetentionDuration", "30 days", "1 month"),
        ("delta.parquet.compression.codec", "ZSTD", "rar"),
        ("delta.parquet.format.version", "1.0.0", "1.1.0"),
        ("delta.parquet.format.version", "2.12.0", "2"),
        ("delta.targetFileSize", "128mb", "big"),
        ("delta.dataSkippingStatsColumns", "a,b.c", ""),
    ],
)
def test_properties_are_checked(key: str, good: str, bad: str) -> None:
    check_properties({key: good})
    with pytest.raises(UnsupportedFeatureError, match=key):
        check_properties({key: bad})


def test_a_delta_property_we_do_not_honour_is_refused_and_others_are_free() -> None:
    check_properties({"owner": "me"})
    with pytest.raises(UnsupportedFeatureError, match=r"delta\.enableIcebergCompatV1"):
        check_properties({"delta.enableIcebergCompatV1": "true"})


@pytest.mark.parametrize(
    ("text", "ms"), [("interval 7 days", 604_800_000), ("1 hour", 3_600_000), ("INTERVAL 90 seconds", 90_000), ("0 weeks", 0)]
)
def test_intervals(text: str, ms: int) -> None:
    check_properties({"delta.deletedFileRetentionDuration": text})
    assert interval_ms({"delta.deletedFileRetentionDuration": text}, "delta.deletedFileRetentionDuration", "1 day") == ms


SIZES = [("1024", 1024), ("16kb", 16 << 10), ("128mb", 128 << 20), ("1 GB", 1 << 30), ("7b", 7)]


@pytest.mark.parametrize(("text", "size"), SIZES)
def test_sizes(text: str, size: int) -> None:
    check_properties({"delta.targetFileSize": text})
    assert size_bytes({"delta.targetFileSize": text}, "delta.targetFileSize", 5) == size
    assert size_bytes({}, "delta.targetFileSize", 5) == 5


def test_not_null_needs_the_feature_that_says_so() -> None:
    """Spark refuses a table of writer version 7 whose schema has a NOT NULL column and whose protocol lacks `invariants`."""
    strict = Struct((Field("s", Struct((Field("n", "timestamp_ntz", nullable=False),))),))
    assert protocol_for(strict).writer_features == ("invariants", "timestampNtz")
