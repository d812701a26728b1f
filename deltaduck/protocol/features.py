"""Protocol versions, table features and table properties: what we honour, and refuse otherwise.

Protocol: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#table-features
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from deltaduck.errors import SchemaMismatchError, UnsupportedFeatureError
from deltaduck.protocol.schema import Struct, has_required, uses

READER_FEATURES = frozenset(
    {
        "columnMapping", "deletionVectors", "timestampNtz", "typeWidening", "typeWidening-preview", "v2Checkpoint",
        "vacuumProtocolCheck", "catalogManaged", "variantType", "variantType-preview", "variantShredding",
        "variantShredding-preview",
    }
)  # fmt: skip
WRITER_FEATURES = frozenset({
    "timestampNtz", "appendOnly", "invariants", "checkConstraints", "generatedColumns", "allowColumnDefaults", "domainMetadata",
    "deletionVectors", "v2Checkpoint", "columnMapping", "typeWidening", "changeDataFeed", "rowTracking", "inCommitTimestamp",
    "identityColumns", "clustering", "vacuumProtocolCheck", "catalogManaged",
})  # fmt: skip
LEGACY_FEATURES = {  # what each writer version before 7 adds
    2: ("appendOnly", "invariants"), 3: ("checkConstraints",), 4: ("changeDataFeed", "generatedColumns"),
    5: ("columnMapping",), 6: ("identityColumns",),
}  # fmt: skip


DELETION_VECTORS = "delta.enableDeletionVectors"
PARQUET_FORMAT = "delta.parquet.format.version"
CHANGE_DATA = "delta.enableChangeDataFeed"
ROW_TRACKING = "delta.enableRowTracking"
IN_COMMIT_TIMESTAMP = "delta.enableInCommitTimestamps"
FEATURE = "delta.feature."  # of a property that asks for a table feature
CATALOG_MANAGED = "catalogManaged"
IN_COMMIT_SINCE = ("delta.inCommitTimestampEnablementVersion", "delta.inCommitTimestampEnablementTimestamp")
CHANGE_COLUMNS = ("_change_type", "_commit_version", "_commit_timestamp")


@dataclass(frozen=True)
class Protocol:
    """A protocol action. Features are None below reader version 3 / writer version 7."""

    min_reader_version: int
    min_writer_version: int
    reader_features: tuple[str, ...] | None = None
    writer_features: tuple[str, ...] | None = None


def required_features(schema: Struct, configuration: Mapping[str, str]) -> set[str]:
    """The table features that a table of this schema and these properties uses."""
    needed = set()
    if uses(schema, "timestamp_ntz"):
        needed.add("timestampNtz")
    if uses(schema, "variant"):
        needed.add("variantType")
    needed |= {feature for key, feature in _PROPERTY_FEATURES.items() if is_on(configuration, key)}
    if configuration.get("delta.columnMapping.mode", "none").lower() != "none":
        needed.add("columnMapping")
    if any(key.startswith("delta.constraints.") for key in configuration):
        needed.add("checkConstraints")
    if configuration.get("delta.checkpointPolicy") == "v2":
        needed.add("v2Checkpoint")
    if has_required(schema):  # Spark refuses a table that says NOT NULL and not this
        needed.add("invariants")
    for key, feature in _COLUMN_FEATURES.items():
        if any(key in f.metadata for f in schema):
            needed.add(feature)
    return needed


def is_on(configuration: Mapping[str, str], key: str) -> bool:
    """Is a property true?"""
    return configuration.get(key, "false").lower() == "true"


_PROPERTY_FEATURES = {
    "delta.appendOnly": "appendOnly",
    DELETION_VECTORS: "deletionVectors",
    CHANGE_DATA: "changeDataFeed",
    ROW_TRACKING: "rowTracking",
    IN_COMMIT_TIMESTAMP: "inCommitTimestamp",
    "delta.enableTypeWidening": "typeWidening",
}
_IMPLIED = {"rowTracking": {"domainMetadata"}, CATALOG_MANAGED: {"inCommitTimestamp", "vacuumProtocolCheck"}}  # by the protocol
_COLUMN_FEATURES = {
    "delta.invariants": "invariants",
    "delta.generationExpression": "generatedColumns",
    "CURRENT_DEFAULT": "allowColumnDefaults",
    "delta.identity.start": "identityColumns",
}


def protocol_for(schema: Struct, configuration: Mapping[str, str] | None = None) -> Protocol:
    """The least protocol that a new table needs.

    Plain tables get (1, 2), which every reader and writer knows. Anything more is writer 7 with explicit
    features: legacy writer versions 3 to 6 imply features that kernel-based writers refuse.
    """
    needed = required_features(schema, configuration or {})
    return Protocol(1, 2) if needed <= {*LEGACY_FEATURES[2]} else with_features(Protocol(1, 1), needed)


def upgraded(current: Protocol, schema: Struct, configuration: Mapping[str, str] | None = None) -> Protocol:
    """`current`, or what it must become for this schema and these properties."""
    return with_features(current, required_features(schema, configuration or {}))


def writer_features(protocol: Protocol) -> set[str]:
    """The features of a protocol, those that a legacy writer version implies included."""
    if protocol.min_writer_version >= 7:
        return {*(protocol.writer_features or ())}
    return {f for version, features in LEGACY_FEATURES.items() if version <= protocol.min_writer_version for f in features}


def with_features(current: Protocol, wanted: set[str]) -> Protocol:
    """`current`, or the least protocol above it that has the features too: every one of them in an explicit list."""
    wanted = wanted.union(*(_IMPLIED.get(f, ()) for f in wanted))
    have, readers = writer_features(current), {*(current.reader_features or ())}
    implied = {"columnMapping"} if current.min_reader_version == 2 else set()
    if wanted <= have and wanted & READER_FEATURES <= readers | implied:
        return current
    readers |= wanted & READER_FEATURES
    reader_version = 3 if readers else current.min_reader_version
    if reader_version == 3 and current.min_reader_version == 2:
        readers.add("columnMapping")
    writers = have | wanted | readers
    return Protocol(reader_version, 7, tuple(sorted(readers)) if reader_version == 3 else None, tuple(sorted(writers)))


def check_lists(protocol: Protocol) -> None:
    """ValueError when features are listed where the versions have no lists, or none where they must be: nobody reads those."""
    reader, writer = protocol.min_reader_version, protocol.min_writer_version
    if reader == 3 and writer < 7:
        raise ValueError(f"reader version 3 goes with writer version 7, not with writer version {writer}")
    for name, version, listing, features in (
        ("readerFeatures", reader, 3, protocol.reader_features), ("writerFeatures", writer, 7, protocol.writer_features),
    ):  # fmt: skip
        if version == listing and features is None:
            raise ValueError(f"version {version} needs a list of {name}, and there is none")
        if version < listing and features:
            raise ValueError(f"version {version} has no list of {name}, and there is one")


def check_readable(protocol: Protocol, table: str) -> None:
    """UnsupportedFeatureError when the table cannot be read rightly."""
    if protocol.min_reader_version > 3:
        raise UnsupportedFeatureError(
            f"table {table!r} needs reader version {protocol.min_reader_version}; 3 is the newest known"
        )
    _refuse(table, "reading", protocol.reader_features or (), READER_FEATURES)


def check_writable(protocol: Protocol, table: str) -> None:
    """UnsupportedFeatureError when the table cannot be written rightly."""
    check_readable(protocol, table)
    if protocol.min_writer_version > 7:
        raise UnsupportedFeatureError(
            f"table {table!r} needs writer version {protocol.min_writer_version}; 7 is the newest known"
        )
    verb = "writing" if protocol.min_writer_version == 7 else f"writing (writer version {protocol.min_writer_version})"
    _refuse(table, verb, [*writer_features(protocol)], WRITER_FEATURES)


def check_catalog_managed(protocol: Protocol, configuration: Mapping[str, str], table: str) -> None:
    """UnsupportedFeatureError for a catalog-managed table whose commits would not hold their times."""
    if CATALOG_MANAGED in writer_features(protocol) and not is_on(configuration, IN_COMMIT_TIMESTAMP):
        raise UnsupportedFeatureError(
            f"table {table!r} is managed by its catalog (table feature {CATALOG_MANAGED}), whose commits hold their times: "
            f"{IN_COMMIT_TIMESTAMP} stays true"
        )


def _refuse(table: str, verb: str, features: Sequence[str], known: frozenset[str]) -> None:
    if unknown := sorted(set(features) - known):
        raise UnsupportedFeatureError(
            f"table {table!r}: {verb} needs {', '.join(unknown)}; deltaduck supports {', '.join(sorted(known))}"
        )


def _integer(text: str) -> bool:
    return re.fullmatch(r"-?\d+", text) is not None


def _positive(text: str) -> bool:
    return re.fullmatch(r"[1-9]\d*", text) is not None


def _boolean(text: str) -> bool:
    return text.lower() in ("true", "false")


def _interval(text: str) -> bool:
    return re.fullmatch(r"(interval\s+)?\d+\s+(second|minute|hour|day|week)s?", text.strip(), re.IGNORECASE) is not None


def _size(text: str) -> bool:
    return re.fullmatch(r"[1-9]\d*\s*([kmgt]?b)?", text.strip(), re.IGNORECASE) is not None


PROPERTIES: dict[str, tuple[Callable[[str], bool], str]] = {
    "delta.appendOnly": (_boolean, "true or false"),
    "delta.columnMapping.maxColumnId": (_integer, "a whole number; it is counted, not set"),
    "delta.columnMapping.mode": (lambda v: v in ("none", "name", "id"), "none, name or id"),
    "delta.checkpointInterval": (_positive, "a whole number of commits, 1 or more"),
    "delta.checkpointPolicy": (lambda v: v in ("classic", "v2"), "classic or v2"),
    "delta.dataSkippingNumIndexedCols": (_integer, "a whole number; -1 for every column"),
    "delta.dataSkippingStatsColumns": (bool, "column names, comma-separated"),
    "delta.deletedFileRetentionDuration": (_interval, "an interval such as 'interval 7 days'"),
    "delta.enableExpiredLogCleanup": (_boolean, "true or false"),
    CHANGE_DATA: (_boolean, "true or false"),
    ROW_TRACKING: (_boolean, "true or false"),
    "delta.rowTrackingSuspended": (_boolean, "true or false"),
    "delta.rowTracking.materializedRowIdColumnName": (bool, "a column name, which is made up where there is none"),
    "delta.rowTracking.materializedRowCommitVersionColumnName": (bool, "a column name, which is made up where there is none"),
    IN_COMMIT_TIMESTAMP: (_boolean, "true or false"),
    IN_COMMIT_SINCE[0]: (_integer, "the version that began it, set by the commit"),
    IN_COMMIT_SINCE[1]: (_integer, "the time of that version, set by the commit"),
    DELETION_VECTORS: (_boolean, "true or false"),
    "delta.enableTypeWidening": (_boolean, "true or false"),
    "delta.isolationLevel": (lambda v: v in ("Serializable", "WriteSerializable"), "Serializable or WriteSerializable"),
    "delta.logRetentionDuration": (_interval, "an interval such as 'interval 30 days'"),
    "delta.parquet.compression.codec": (
        lambda v: v.lower() in ("snappy", "zstd", "gzip", "lz4_raw", "uncompressed"),
        "snappy, zstd, gzip, lz4_raw or uncompressed",
    ),
    PARQUET_FORMAT: (lambda v: re.fullmatch(r"1\.0\.0|2\.\d+\.\d+", v) is not None, "1.0.0 or 2.12.0"),
    "delta.targetFileSize": (_size, "a size such as 128mb"),
}


def check_properties(configuration: Mapping[str, str]) -> None:
    """UnsupportedFeatureError for a ``delta.*`` property that is unknown, ill-formed or not honoured."""
    for key, value in configuration.items():
        if not key.startswith("delta.") or key.startswith("delta.constraints."):
            continue
        if key not in PROPERTIES:
            raise UnsupportedFeatureError(
                f"table property {key!r} cannot be honoured; known: {', '.join(sorted(PROPERTIES))}; "
                "properties without the delta. prefix are free"
            )
        accepts, wanted = PROPERTIES[key]
        if not accepts(value):
            raise UnsupportedFeatureError(f"table property {key!r} is {value!r}; it takes {wanted}")


def check_change_columns(schema: Struct, configuration: Mapping[str, str]) -> None:
    """SchemaMismatchError for columns that have the names of what a change data feed says of a row."""
    if is_on(configuration, CHANGE_DATA) and (taken := [c for c in CHANGE_COLUMNS if schema.get(c) is not None]):
        raise SchemaMismatchError(
            f"column {taken[0]!r} has the name of a column of the change data feed ({CHANGE_DATA}): rename it"
        )


_UNIT_MS = {"second": 1_000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000, "week": 604_800_000}


def interval_ms(configuration: Mapping[str, str], key: str, default: str) -> int:
    """A retention property in milliseconds."""
    amount, unit = configuration.get(key, default).lower().removeprefix("interval").split()
    return int(amount) * _UNIT_MS[unit.removesuffix("s")]


def size_bytes(configuration: Mapping[str, str], key: str, default: int) -> int:
    """A size property in bytes."""
    text = configuration.get(key)
    if text is None:
        return default
    number, unit = re.fullmatch(r"(\d+)\s*([kmgt]?)b?", text.strip().lower()).groups()  # type: ignore[union-attr]
    return int(number) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[unit]
