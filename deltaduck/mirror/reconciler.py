"""A process that does nothing but publish what others committed, and says when that falls behind."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from deltaduck.errors import CatalogError
from deltaduck.mirror.mirror import Mirror, Round

log = logging.getLogger("deltaduck.mirror")


def run(
    mirror: Mirror, stop: threading.Event, *, interval: float = 5.0, alert: float = 60.0, once: bool = False,
    say: Callable[[str], None] = log.warning,
) -> Round:  # fmt: skip
    """Publish what is owed, and look again every `interval` seconds until told to stop; what the last look came to.

    say is told when a table begins to lag more than `alert` seconds, when that ends, and what fails, each thing once. With
    `once`, everything is tried now, whenever its next attempt would be.
    """
    late: set[str] = set()
    said: set[str] = set()
    while True:
        try:
            found = mirror.catch_up(whatever_the_time=once)
        except CatalogError as e:
            if once:
                raise
            found = Round(problems=[str(e)])
        behind = found.late(alert)
        for table in sorted(behind.keys() - late):
            say(f"the mirror of table {table!r} is {behind[table]:.0f} seconds behind")
        for table in sorted(late - behind.keys()):
            say(f"the mirror of table {table!r} is less than {alert:g} seconds behind again")
        for problem in found.problems:
            if problem not in said:
                say(problem)
        late, said = set(behind), set(found.problems)
        if stop.is_set() or (once and not found.published):
            return found
        if not found.published and stop.wait(interval):
            return found
