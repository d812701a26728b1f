"""Rows of the catalog → files of ``_delta_log``. The bytes come from the rows alone, so a retry writes the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from deltaduck import statements, storage
from deltaduck.catalog import Catalog, scratch
from deltaduck.commit import KINDS, Committed
from deltaduck.protocol import log

WHOLE_COMMITS = (  # SQL for the engine, over what log_lines answers
    "SELECT version, string_agg(line || chr(10), '' ORDER BY action_order) AS content FROM dl_log_lines_wanted GROUP BY version"
)


def log_lines(catalog: Catalog, table_id: int, first: int = 0, last: int = 2**62) -> pa.Table:
    """version, action_order and line of the commits of many versions."""
    lines = " UNION ALL ".join(
        f"SELECT version, action_order, line FROM ({catalog.sql('line_' + kind)}) of_{kind} "
        "WHERE table_id = :table_id AND version BETWEEN :first AND :last"
        for kind in KINDS
    )
    return catalog.fetch_arrow(lines, {"table_id": table_id, "first": first, "last": last})


def commit_bytes(catalog: Catalog, table_id: int, version: int, kinds: Sequence[str] = KINDS) -> bytes:
    """The JSON commit of a version. kinds: the actions it is known to hold."""
    sql = _lines(catalog.sql, kinds, "WHERE table_id = :table_id AND version = :version")
    return _joined(catalog.fetch(sql, {"table_id": table_id, "version": version}))


def kept_bytes(committed: Committed) -> bytes:
    """The same of a commit whose rows are at hand: the same SQL, over them alone, in microseconds."""
    assert committed.rows is not None
    return _joined(scratch.query(committed.rows, _lines(statements.load("sqlite").__getitem__, committed.kinds, "")))


def _lines(sql: Callable[[str], str], kinds: Sequence[str], where: str) -> str:
    parts = (f"SELECT action_order, line FROM ({sql('line_' + kind)}) of_{kind} {where}" for kind in kinds)
    return " UNION ALL ".join(parts) + " ORDER BY action_order"


def _joined(rows: Sequence[tuple[int, str]]) -> bytes:
    return "".join(line + "\n" for _, line in rows).encode()


def publish_commit(catalog: Catalog, c: Committed) -> bool:
    """Put the JSON commit in place. False when another commit of that version is there: the log has diverged."""
    data = commit_bytes(catalog, c.table_id, c.version, c.kinds) if c.rows is None else kept_bytes(c)
    path = log.commit_file(c.version)
    if storage.put_if_absent(c.location, path, data, modified_ms=c.commit_ms):
        return True
    found = storage.read(c.location, path)
    return found is not None and same_actions(found, data)


def same_actions(a: bytes, b: bytes) -> bool:
    """Are two JSON commits the same actions in the same order? A member that is null says as much as none."""
    if a == b:
        return True
    try:
        return _actions(a) == _actions(b)
    except (ValueError, AttributeError, RecursionError):  # no JSON, or no action: anything may lie there
        return False


def _actions(commit: bytes) -> list[tuple[str, Any]]:
    """(kind, body) of each action; members that are null left out, but for those of maps, where null is a value."""
    found = [(kind, body) for line in commit.splitlines() if line.strip() for kind, body in json.loads(line).items()]
    return [(kind, _without_nulls(body)) for kind, body in found if body is not None]


def _without_nulls(body: Any) -> Any:
    if not isinstance(body, dict):
        return body
    return {k: v if k in _MAPS else _without_nulls(v) for k, v in body.items() if v is not None}


_MAPS = ("partitionValues", "tags", "configuration", "options", "operationParameters", "operationMetrics")
