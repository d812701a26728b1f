"""Real servers that the tests start for themselves."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from urllib.parse import quote


def postgres_binaries() -> Path | None:
    """Where PostgreSQL's server programs are; Debian keeps them out of the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    elsewhere = shutil.which("pg_ctl")
    return found[-1].parent if found else Path(elsewhere).resolve().parent if elsewhere else None


@cache
def postgres() -> str:
    """Start a PostgreSQL of this test process's own, on a socket; the query part of a deltasql:// URI to it."""
    binaries = postgres_binaries()
    assert binaries is not None, "PostgreSQL is not installed"
    home = tempfile.mkdtemp(prefix="deltaduck-pg-")
    user = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
    if user:
        shutil.chown(home, user)

    def run(*command: str) -> None:
        subprocess.run([str(binaries / command[0]), *command[1:]], check=True, user=user, stdout=subprocess.DEVNULL, cwd="/")

    run("initdb", "-D", f"{home}/data", "-A", "trust", "-U", "deltaduck", "--no-sync")
    options = f"-k {home} -c listen_addresses='' -c fsync=off -c max_connections=200"
    run("pg_ctl", "-D", f"{home}/data", "-o", options, "-l", f"{home}/log", "-w", "start")

    def stop() -> None:
        run("pg_ctl", "-D", f"{home}/data", "-m", "immediate", "stop")
        shutil.rmtree(home)

    atexit.register(stop)
    return f"host={quote(home, safe='')}&user=deltaduck"
