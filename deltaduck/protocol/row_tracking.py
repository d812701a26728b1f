"""Row tracking: the names of what makes a row the same row when its file is written anew.

Protocol: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#row-tracking
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from deltaduck.protocol.features import ROW_TRACKING, Protocol, is_on, writer_features
from deltaduck.protocol.schema import Field

DOMAIN = "delta.rowTracking"
HIGH_WATER_MARK = "rowIdHighWaterMark"  # the highest row id given to any row
ROW_ID = "delta.rowTracking.materializedRowIdColumnName"
ROW_COMMIT_VERSION = "delta.rowTracking.materializedRowCommitVersionColumnName"


SUSPENDED = "delta.rowTrackingSuspended"
PRESERVED = {"delta.rowTracking.preserved": "true"}  # a tag of every commitInfo: rows stay themselves, whatever we do


def gives_ids(protocol: Protocol, configuration: Mapping[str, str]) -> bool:
    """Do files get row ids?"""
    return "rowTracking" in writer_features(protocol) and not is_on(configuration, SUSPENDED)


def completed(configuration: Mapping[str, str]) -> dict[str, str]:
    """The configuration, with names of the columns that rows take their ids along in, where it asks for row tracking."""
    named = dict(configuration)
    if is_on(configuration, ROW_TRACKING):
        named.setdefault(ROW_ID, f"_row-id-col-{uuid.uuid4()}")
        named.setdefault(ROW_COMMIT_VERSION, f"_row-commit-version-col-{uuid.uuid4()}")
    return named


def columns(configuration: Mapping[str, str]) -> tuple[Field, ...]:
    """Those columns: row id, and the version that last changed the row; none where rows are not tracked."""
    names = [configuration.get(key) for key in (ROW_ID, ROW_COMMIT_VERSION)]
    return tuple(Field(name, "long") for name in names if name) if is_on(configuration, ROW_TRACKING) and all(names) else ()
