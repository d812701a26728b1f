"""Publishing behind the writers' backs: one thread per lake, there while there is something to do."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from deltaduck.commit import Committed

LIMIT = 1_000  # commits that wait in memory; those beyond wait in the outbox, where all of them stand


class Background:
    """Publishes commits in their order, and tries again what failed when its time has come.

    publish and reconcile say when to try that table again (a monotonic time), or None when all went well.
    """

    def __init__(self, publish: Callable[[Committed], float | None], reconcile: Callable[[int], float | None]) -> None:
        self._publish = publish
        self._reconcile = reconcile
        self._changed = threading.Condition()
        self._queue: deque[Committed] = deque()
        self._again: dict[int, float] = {}  # table_id -> when to look into the outbox
        self._thread: threading.Thread | None = None
        self._closing = False

    def put(self, committed: Sequence[Committed]) -> None:
        """Publish these soon."""
        with self._changed:
            for c in committed:
                if c.table_id in self._again:
                    continue  # its turn comes, and this with it
                if len(self._queue) < LIMIT:
                    self._queue.append(c)
                else:
                    self._again[c.table_id] = time.monotonic()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="deltaduck-mirror", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> set[int]:
        """Publish what waits, and end; the tables whose rest is to be looked for in the outbox."""
        with self._changed:
            self._closing = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()
        with self._changed:
            return set(self._again)

    def _run(self) -> None:
        while (work := self._next()) is not None:
            if isinstance(work, int):
                table_id, again = work, self._reconcile(work)
            else:
                table_id, again = work.table_id, self._publish(work)
            if again is not None:
                with self._changed:
                    self._again[table_id] = again

    def _next(self) -> Committed | int | None:
        """What to do now, waited for; None when there is nothing left to do."""
        with self._changed:
            while True:
                while self._queue:
                    c = self._queue.popleft()
                    if c.table_id not in self._again:
                        return c
                due, table_id = min(((at, t) for t, at in self._again.items()), default=(None, 0))
                if due is None or self._closing:
                    self._thread = None  # under the lock: who puts something now begins another
                    return None
                if due <= time.monotonic():
                    del self._again[table_id]
                    return table_id
                self._changed.wait(due - time.monotonic())
