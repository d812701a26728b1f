"""Real servers that the tests start for themselves."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from urllib.parse import quote


def postgres_binaries() -> Path | None:
    """Where PostgreSQL's server programs are; Debian keeps them out of the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    elsewhere = shutil.which("pg_ctl")
    return found[-1].parent if found else Path(elsewhere).resolve().parent if elsewhere else None


class Postgres:
    """A PostgreSQL in a temporary directory, on a socket, of the user ``deltaduck``. Its data survive its restarts."""

    def __init__(self, auth: str = "trust", *, durable: bool = False) -> None:
        binaries = postgres_binaries()
        assert binaries is not None, "PostgreSQL is not installed"
        self._binaries = binaries
        self._user = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
        self.home = tempfile.mkdtemp(prefix="deltaduck-pg-")
        self._durable = durable  # syncs what it commits: for measurements, and not for tests
        if self._user:
            shutil.chown(self.home, self._user)
        password = Path(self.home, "password")
        password.write_text("right")
        password.chmod(0o644)
        data = f"{self.home}/data"
        self._run("initdb", "-D", data, "-A", auth, "-U", "deltaduck", f"--pwfile={password}", "--no-sync")

    def start(self, listen: str = "") -> Postgres:
        options = (
            f"-k {self.home} -c listen_addresses='{listen}' -c fsync={'on' if self._durable else 'off'} -c max_connections=200"
        )
        self._run("pg_ctl", "-D", f"{self.home}/data", "-o", options, "-l", f"{self.home}/log", "-w", "start")
        return self

    def stop(self, mode: str = "immediate") -> None:
        """immediate: as a crash would."""
        self._run("pg_ctl", "-D", f"{self.home}/data", "-m", mode, "-w", "stop")

    def kill(self) -> None:
        """SIGKILL, to the server and all that it started."""
        pids = [int(Path(self.home, "data", "postmaster.pid").read_text().split()[0])]
        children = subprocess.run(["pgrep", "-P", str(pids[0])], check=False, capture_output=True, text=True)
        pids += [int(pid) for pid in children.stdout.split()]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in pids:  # the next one starts only once the last of them is gone
            while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
                time.sleep(0.01)
        for lock in ("data/postmaster.pid", ".s.PGSQL.5432.lock"):  # a dead process that nobody has buried seems alive
            Path(self.home, lock).unlink()

    def remove(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def uri(self, schema: str = "lake", user: str = "deltaduck", **options: str) -> str:
        """A catalog in a schema of this server."""
        return f"deltasql://postgres/postgres/{schema}?{self.query(user)}{''.join(f'&{k}={v}' for k, v in options.items())}"

    @property
    def libpq(self) -> str:
        """A connection string to it."""
        return f"dbname=postgres host={self.home} user=deltaduck"

    def query(self, user: str = "deltaduck") -> str:
        """The query part of a URI to it."""
        return f"host={quote(self.home, safe='')}&user={user}"

    def run(self, *command: str) -> None:
        """One of PostgreSQL's programs, as the server's user."""
        self._run(*command)

    def run_as(self, *command: str) -> None:
        """Any program, as the server's user."""
        subprocess.run(command, check=True, user=self._user, capture_output=True, cwd="/")

    def _run(self, *command: str) -> None:
        program = str(self._binaries / command[0])
        subprocess.run([program, *command[1:]], check=True, user=self._user, stdout=subprocess.DEVNULL, cwd="/")


@cache
def postgres() -> str:
    """A PostgreSQL of this test process's own, started at the first call; the query part of a deltasql:// URI to it."""
    server = Postgres().start()
    atexit.register(server.remove)
    return server.query()
