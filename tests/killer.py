"""Writers that die at a chosen step. Run as a program, it forks one for every order that it reads.

A step is a call that leaves a trace outside of the process: a statement sent to the catalog, a file or a name made durable, a
request to the store. A writer may be told to kill itself right before, or right after, its n-th step since it began to commit.
One that lives to its end, with its lake closed, says how many of these points it has passed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import fsspec  # noqa: F401 - once, and not in every fork
import obstore

import deltaduck
from deltaduck.catalog.duckdb import DuckDBCatalog
from deltaduck.catalog.postgres import PostgresCatalog
from deltaduck.catalog.sqlite import SQLiteCatalog

CATALOG = ("execute", "fetch", "fetch_arrow", "ingest")
FILES = ("open", "write", "fsync", "link", "unlink", "replace", "rename", "utime", "mkdir")
STORE = ("put", "get", "get_range", "head", "delete", "list", "list_with_delimiter", "open_writer")


class Steps:
    """Counts steps of every thread, and ends the process at one of them. deadly: 2n is before step n, 2n + 1 after it; where two
    threads are inside of a step there may be no such moment, and the next one is taken. -1: never."""

    def __init__(self, deadly: int) -> None:
        self.deadly, self.count, self.armed = deadly, 0, False
        self._turn = threading.Lock()

    def wrap(self, owner: Any, name: str) -> None:
        call: Callable[..., Any] = getattr(owner, name)

        def counted(*args: Any, **options: Any) -> Any:
            self._reach(0)
            answer = call(*args, **options)
            self._reach(1)
            return answer

        setattr(owner, name, counted)

    def _reach(self, after: int) -> None:
        if self.armed:
            with self._turn:
                at = 2 * self.count + after
                self.count += after
            if 0 <= self.deadly <= at:
                os.kill(os.getpid(), signal.SIGKILL)


def say(what: Any) -> None:
    """In one piece: who dies has said it or not."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def write(order: dict[str, Any]) -> None:
    """Transactions over two tables; each number is said once it is committed. delete_every: how many of them delete a row, too.
    compacts: is each followed by a log compaction?"""
    steps = Steps(order["deadly"])
    for catalog in (DuckDBCatalog, PostgresCatalog, SQLiteCatalog):
        for name in CATALOG:
            steps.wrap(catalog, name)
    for owner, names in ((os, FILES), (obstore, STORE)):
        for name in names:
            steps.wrap(owner, name)
    lake = deltaduck.connect(order["target"], storage=order["storage"], storage_options=order["options"], mirror=order["mirror"])
    say(os.getpid())
    n, every = order["start"], order["delete_every"]
    for _ in range(order["commits"]):
        n += 1
        steps.armed = True
        with lake.begin() as tx:
            tx.write("left", [{"n": n, "part": n % 2}, {"n": -n, "part": n % 2}])
            tx.write("right", [{"n": n}])
            if every and n % every == 0:
                tx.sql(f"DELETE FROM left WHERE n = {1 - n}")
        say(n)
        if order["mirror"] == "async":
            lake.mirror.reconcile()
        if order["compacts"]:
            lake.mirror.compact("right", n - 1, n)
    lake.close()
    steps.armed = False
    say(f"points {2 * steps.count}")


if __name__ == "__main__":
    for line in sys.stdin:
        if not (child := os.fork()):
            try:
                write(json.loads(line))
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        say(f"ended {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}")
