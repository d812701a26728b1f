"""Object stores, by obstore: S3, GCS, Azure and what speaks like them. See ``deltaduck.storage`` for what the functions promise.

A root knows its ``Access``: the options of the lake that it belongs to, and the stores that were opened with them. Options
are a lake's own: another lake of the same process may have others for the same bucket.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

from deltaduck.errors import StorageError

log = logging.getLogger("deltaduck.storage")

SCHEMES = ("s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss")
AT_ONCE = 32  # requests under way when many small files are read
WHOLE = 64 << 20  # bytes that one conditional request may carry; larger files go in parts
RETRIES = {"max_retries": 8, "retry_timeout": 20.0}
BACKOFF = {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2.0}
CLIENT = {"timeout": "60s", "connect_timeout": "5s"}
CLIENT_OPTIONS = {
    "allow_http", "allow_invalid_certificates", "connect_timeout", "default_content_type", "http1_only", "http2_only",
    "pool_idle_timeout", "pool_max_idle_per_host", "proxy_ca_certificate", "proxy_excludes", "proxy_url", "randomize_addresses",
    "read_timeout", "root_certificate", "timeout", "user_agent",
}  # fmt: skip
OTHERS = {  # what the deltalake package takes beside these, for a way of committing that is not ours
    "aws_s3_allow_unsafe_rename", "allow_unsafe_rename", "aws_s3_locking_provider", "aws_conditional_put", "conditional_put",
    "aws_copy_if_not_exists", "copy_if_not_exists", "delta_dynamo_table_name", "dynamo_lock_table_name",
}  # fmt: skip
_SECRET = re.compile(r"secret|token|password|proxy_url|sas|credential|account_key|access_key$|encryption_key", re.IGNORECASE)
_numbers = count(1)


def _sorted_out(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, float]]:
    """(of the store, of its HTTP client, of retries)"""
    config, client, retry = dict[str, Any](), dict[str, Any](), dict[str, float](RETRIES)
    for name in ("AWS_ALLOW_HTTP", "AZURE_ALLOW_HTTP", "GOOGLE_ALLOW_HTTP"):  # obstore forgets it when given any client option
        if name in os.environ:
            client["allow_http"] = os.environ[name]
    for key, value in options.items():
        name = key.lower()
        short = name.removeprefix("aws_").removeprefix("azure_").removeprefix("google_")
        if name in RETRIES:
            retry[name] = _number(name, value)
        elif short in CLIENT_OPTIONS:
            client[short] = str(value).lower() if isinstance(value, bool) else value
        elif name not in OTHERS:
            config[name] = str(value).lower() if isinstance(value, bool) else value
    return config, client, retry


def _number(name: str, value: Any) -> float:
    match = re.fullmatch(r"\s*([0-9.]+)\s*(ms|s|m)?\s*", str(value))
    if match is None:
        raise StorageError(f"storage option {name} is a number (of seconds: 10, '10s', '2m'), not {value!r}")
    number = float(match[1]) * {"ms": 0.001, "m": 60.0}.get(match[2], 1.0)
    return int(number) if name == "max_retries" else number


class Access:
    """How one lake reaches object stores: storage_options over the environment. Its repr shows none of them."""

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self.prefix = f"deltaduck{next(_numbers)}-"  # of URLs that DuckDB reads and writes through this
        self.unfinished: dict[str, str] = {}  # files that DuckDB began to write -> what is known of them
        self.heads: dict[str, tuple[int, float]] = {}  # data files, which never change -> (size, modified)
        self.has_httpfs: bool | None = None  # not tried yet
        self._config, self._client, self._retry = _sorted_out(options or {})
        self._stores: dict[str, Any] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Access with {len(self._config)} options>"

    def __reduce__(self) -> Any:
        raise TypeError("an Access holds credentials: it is not pickled")

    def store(self, url: str) -> tuple[Any, str]:
        """(store, key) of the URL of a place or file."""
        import obstore.store

        scheme, _, place = url.partition("://")
        bucket, _, key = place.partition("/")
        name = f"{scheme}://{bucket}"
        with self._lock:
            if (found := self._stores.get(name)) is None:
                retry = {"max_retries": self._retry["max_retries"], "backoff": BACKOFF}
                retry["retry_timeout"] = timedelta(seconds=self._retry["retry_timeout"])
                with translated(self, name, "open"):
                    from_url: Any = obstore.store.from_url
                    found = from_url(name, config=self._config, client_options=CLIENT | self._client, retry_config=retry)
                self._stores[name] = found
        return found, key

    def secrets(self) -> list[str]:
        """Everything that no message may show."""
        known = [*self._config.items(), *self._client.items()]
        known += [(k, v) for k, v in os.environ.items() if k.startswith(("AWS_", "AZURE_", "GOOGLE_"))]
        values = {str(v) for k, v in known if _SECRET.search(k) and len(str(v)) > 3}
        return [*values, *{quote(v, safe="") for v in values}]


ENVIRONMENT = Access()


class Root(str):
    """The name of a place, or of a file: a string that knows how it is reached."""

    __slots__ = ("access",)
    access: Access

    def __new__(cls, text: str, access: Access | None = None) -> Root:
        self = super().__new__(cls, text)
        self.access = access or ENVIRONMENT
        return self

    def __reduce__(self) -> Any:
        return str, (str(self),)


def is_remote(root: str, path: str = "") -> bool:
    """Is the place, or the file by its own URL, on an object store?"""
    return any("://" in name and name.partition("://")[0] in SCHEMES for name in (root, path))


def access_of(root: str) -> Access:
    return root.access if isinstance(root, Root) else ENVIRONMENT


def url_of(root: str, path: str) -> str:
    """The URL of a file: below the root, or where it says itself. A leading / is the bucket's own."""
    if path.partition("://")[0] in SCHEMES:
        return path
    if path.startswith("/"):
        return "/".join(root.split("/")[:3]) + path
    return f"{root}/{path}" if path else str(root)


# --- the store's functions


def check(root: str) -> None:
    """StorageError unless the store answers for this place."""
    import obstore

    with _on(root, "", "list") as (store, key):
        next(iter(obstore.list(store, key, chunk_size=1)), None)


def read(root: str, path: str) -> bytes | None:
    import obstore

    with _on(root, path, "read") as (store, key):
        try:
            return bytes(obstore.get(store, key).bytes())
        except FileNotFoundError as e:
            if "NoSuchBucket" in str(e):
                raise
            return None


def read_each(root: str, paths: Sequence[str]) -> list[bytes | None]:
    if len(paths) < 2:
        return [read(root, path) for path in paths]
    with ThreadPoolExecutor(min(AT_ONCE, len(paths))) as pool:
        return list(pool.map(lambda path: read(root, path), paths))


def list_log(root: str) -> dict[str, tuple[int, int]] | None:
    import obstore

    with _on(root, "_delta_log", "list") as (store, key):
        objects = obstore.list_with_delimiter(store, key)["objects"]
    found = {o["path"].rsplit("/", 1)[-1]: (o["size"], int(o["last_modified"].timestamp() * 1000)) for o in objects}
    return found or None


def list_files(root: str) -> dict[str, tuple[int, int]]:
    import obstore

    found = {}
    with _on(root, "", "list") as (store, key):
        for objects in obstore.list(store, key, chunk_size=1000):
            for o in objects:
                found[o["path"][len(key) + 1 :]] = o["size"], int(o["last_modified"].timestamp() * 1000)
    return found


def exists(root: str, path: str) -> bool:
    import obstore

    with _on(root, path, "look up") as (store, key):
        try:
            obstore.head(store, key)
        except FileNotFoundError:
            return False
        return True


def create(root: str, path: str, data: bytes) -> None:
    unfinished, url = access_of(root).unfinished, url_of(root, path)
    unfinished[url] = "it was not written to its end"  # though it may be there, if only the answer was lost
    put_if_absent(root, path, data)
    unfinished[url] = ""


def put_if_absent(root: str, path: str, data: bytes | Path) -> bool:
    import obstore
    from obstore.exceptions import AlreadyExistsError

    with _on(root, path, "write") as (store, key):
        try:
            obstore.put(store, key, data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        return True


def put_file_if_absent(root: str, path: str, source: str) -> bool:
    import obstore

    try:
        if os.path.getsize(source) <= WHOLE:
            return put_if_absent(root, path, Path(source))
        # stores take no condition on an upload in parts: two writers at once would both have written, and a checkpoint
        # says the same whoever writes it
        if exists(root, path):
            return False
        with _on(root, path, "write") as (store, key):
            obstore.put(store, key, Path(source))
        return True
    finally:
        os.unlink(source)


def replace(root: str, path: str, data: bytes) -> None:
    import obstore

    with _on(root, path, "write") as (store, key):
        obstore.put(store, key, data)


def scratch() -> str:
    handle, name = tempfile.mkstemp(prefix="deltaduck-", suffix=".tmp")
    os.close(handle)
    return name


def persist(files: Sequence[str]) -> None:
    """An upload is durable when the store has answered; one that it has not is an error."""
    states = [(name, access_of(name).unfinished.pop(name, "")) for name in files]
    if broken := next(((name, state) for name, state in states if state), None):
        remove([name for name, _ in states])
        raise StorageError(f"cannot write {broken[0]}: {broken[1]}; nothing was committed")


def remove(files: Sequence[str]) -> None:
    """What cannot be deleted now stays, referred to by nobody: the store may be why we clean up."""
    for name in files:
        access_of(name).unfinished.pop(name, None)
    try:
        delete(files)
    except StorageError as e:
        log.warning("%s; nothing refers to it, and a full vacuum deletes it", e)


def delete(files: Sequence[str]) -> None:
    import obstore

    def one(name: str) -> None:
        with _on(name, "", "delete") as (store, key), contextlib.suppress(FileNotFoundError):
            obstore.delete(store, key)

    if files:
        with ThreadPoolExecutor(min(AT_ONCE, len(files))) as pool:
            list(pool.map(one, files))


def remove_begun(root: str, prefix: str) -> None:
    access = access_of(root)
    begun = [u for u in list(access.unfinished) if u.startswith(f"{root}/") and u.rsplit("/", 1)[-1].startswith(prefix)]
    remove([Root(url, access) for url in begun])


@contextmanager
def _on(root: str, path: str, verb: str) -> Iterator[tuple[Any, str]]:
    """(store, key) of a file, with errors said in our words."""
    access, url = access_of(root), url_of(root, path)
    with translated(access, url, verb):
        yield access.store(url)


# --- what went wrong


@contextmanager
def translated(access: Access, url: str, verb: str) -> Iterator[None]:
    """StorageError for what obstore raises, without secrets."""
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError, ValueError) as e:
        reason, way_out = _explain(e)
        text, secrets = f"cannot {verb} {url}: {reason}; {way_out}", access.secrets()
        for secret in secrets:
            text = text.replace(secret, "***")
        harmless = not any(secret in str(e) for secret in secrets)
        raise StorageError(text) from (e if harmless else None)


def _explain(error: Exception) -> tuple[str, str]:
    """(what it says, the way out) of an obstore error, whose text is a page with the server's answer in it."""
    text = str(error)
    status = re.search(r"status code: (\d{3} [A-Za-z ]+)", text)
    code = re.search(r"<Code>(\w+)</Code>", text)
    said = ", ".join(m[1].strip() for m in (status, code) if m)
    if "169.254.169.254" in text or "metadata.google.internal" in text or "Account must be specified" in text:
        return "there are no credentials", "give them in storage_options or in the environment"
    if type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError") or said.startswith(("401", "403")):
        return f"the store refuses ({said})", "check the credentials in storage_options or the environment, and what they permit"
    if "NoSuchBucket" in text:
        return "there is no such bucket", "create it, or name another"
    if "BadScheme" in text:
        return "its endpoint is plain http", "storage_options={'allow_http': 'true'} permits that"
    if "UnknownConfigurationKey" in type(error).__name__ or "Config error" in text or isinstance(error, ValueError):
        first = re.sub(r'"[^"]*"', "a value", text.split("Debug source", maxsplit=1)[0])  # an option's, maybe a secret
        return re.sub(r"\s+", " ", first).strip().rstrip("."), "storage_options are named, and written, as for obstore"
    if said:
        return f"the store answers {said}", "try again"
    if "error sending request" in text or "timed out" in text or "Connect" in text:
        return "the store does not answer", "check the endpoint and the network, and try again"
    if isinstance(error, FileNotFoundError):
        return "it is not there", "check the path"
    first = re.sub(r"https?://\S+", "", text.splitlines()[0] if text else type(error).__name__)
    return first[:200], "try again"
