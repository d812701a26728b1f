"""Who publishes a table at the moment, where many processes could: one at a time, so that the others need not.

A lease spares work and nothing else. Two who publish the same table at once write the same bytes, and the first one's stay.
"""

from __future__ import annotations

import time

from deltaduck.catalog import Catalog
from deltaduck.catalog.base import now_ms

SECONDS = 3.0  # that a lease is good for, unless it is taken again: who died with it delays the others so long
POLL = 0.02  # seconds; waiting more eagerly takes from the holder what he needs


def take(catalog: Catalog, table_id: int, holder: str, patience: float = 0.0) -> bool:
    """Take a table's lease, or take it again; False when somebody else has it for longer than `patience` seconds."""
    if not catalog.durable_marks:  # no other process is there
        return True
    until, pause = time.monotonic() + patience, POLL
    while True:
        now = now_ms()
        scope = {"table_id": table_id, "holder": holder, "now_ms": now, "expires_ms": now + int(SECONDS * 1000)}
        with catalog.transaction():
            if catalog.execute(catalog.sql("take_lease"), scope):
                return True
        if time.monotonic() >= until:
            return False
        time.sleep(pause)
        pause = min(2 * pause, 10 * POLL)


def release(catalog: Catalog, table_id: int, holder: str) -> None:
    """Give a lease back."""
    if catalog.durable_marks:
        with catalog.transaction():
            catalog.run("release_lease", table_id=table_id, holder=holder)
