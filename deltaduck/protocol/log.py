"""File names of a ``_delta_log``."""

from __future__ import annotations

FOLDER = "_delta_log"


def commit_name(version: int) -> str:
    return f"{version:020d}.json"


def commit_file(version: int) -> str:
    return f"{FOLDER}/{commit_name(version)}"


def checkpoint_file(version: int) -> str:
    return f"_delta_log/{version:020d}.checkpoint.parquet"


def checksum_file(version: int) -> str:
    return f"_delta_log/{version:020d}.crc"


def compacted_file(first: int, last: int) -> str:
    return f"_delta_log/{first:020d}.{last:020d}.compacted.json"


SIDECARS = "_delta_log/_sidecars"
LAST_CHECKPOINT = "_delta_log/_last_checkpoint"
