"""The files of a log, as relations of a scratch database: see ``sql/engine/replay.sql``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from deltaduck import statements, storage
from deltaduck.errors import LogCorruptError, StorageError
from deltaduck.importer.segment import Segment
from deltaduck.protocol import log
from deltaduck.protocol.schema import literal, quote

Progress = Callable[[str, int, int], None]  # what is under way, how much of it is done, of how much
BATCH_BYTES = 32 << 20  # of JSON, held at a time
KEYS = {  # the member that every action of a kind has
    "protocol": "minReaderVersion", "metaData": "id", "txn": "appId", "domainMetadata": "domain", "remove": "path", "add": "path",
}  # fmt: skip
PARSED = ("stats_parsed", "partitionValues_parsed")
BEFORE = pa.schema({"version": pa.int64(), "action_order": pa.int64(), "path": pa.string(), "dv_id": pa.string()})


def replay(
    location: str, segment: Segment, files: Mapping[str, tuple[int, int]], before: pa.Table | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Any:  # fmt: skip
    """A scratch connection that holds the actions of a segment.

    files: name → (size in bytes, modified in ms) of the log's files; before: files of the table that lived before the
    segment (version, action_order, path, dv_id). LogCorruptError names the version, and the line, that cannot be read.
    """
    con = duckdb.connect()
    try:
        con.execute("SET TimeZone = 'UTC'")
        for name in ("replay_member", "replay_extra", "replay_file_key", "replay_dv_id", "replay_ordered", "replay_lines"):
            _run(con, name)
        _read_checkpoint(con, location, segment)
        _read_commits(con, location, segment.commits, files, progress)
        commits = [(v, files[name][1]) for v, name in segment.commits if v >= segment.base]
        if not commits or commits[0][0] > segment.base >= 0:
            commits.insert(0, _base(con, location, segment, files))
        versions, modified = zip(*commits, strict=True)
        con.register(
            "dl_found", pa.table({"version": pa.array(versions, pa.int64()), "modified_ms": pa.array(modified, pa.int64())})
        )
        con.execute("CREATE TABLE dl_commit AS FROM dl_found")
        con.register("dl_before", BEFORE.empty_table() if before is None else before)
        _run(con, "replay_files")
        if bad := con.execute(sql("replay_bad_file")).fetchall():
            version, kind, what = bad[0]
            raise LogCorruptError(f"version {version} of the log holds an {kind} action without a valid {what}")
    except (duckdb.Error, RuntimeError) as e:  # RuntimeError: names of columns that are no text, which Python cannot be told
        con.close()
        raise LogCorruptError(f"the log at {location} cannot be read: {str(e).splitlines()[0]}") from e
    except BaseException:
        con.close()
        raise
    return con


def rows(con: Any, name: str, **params: Any) -> Any:
    """The relation of a named statement, as a reader of Arrow batches."""
    text = sql(name)
    used = {k: v for k, v in params.items() if k in statements.parameters(text)}
    return con.cursor().sql(statements.bind(text, "$%s"), params=used).to_arrow_reader(100_000)


def sql(name: str) -> str:
    return statements.load("engine")[name]


def _run(con: Any, name: str) -> None:
    con.execute(sql(name))


# --- JSON


def _read_commits(
    con: Any, location: str, commits: Sequence[tuple[int, str]], files: Mapping[str, tuple[int, int]], progress: Progress
) -> None:
    total = sum(files[name][0] for _, name in commits)
    done, batch, waiting = 0, list[tuple[int, str]](), 0
    for commit in commits:
        batch.append(commit)
        waiting += files[commit[1]][0]
        if waiting >= BATCH_BYTES or commit is commits[-1]:
            _read_json(con, location, batch)
            done, batch, waiting = done + waiting, [], 0
            progress("reading the log", done, total)


def _read_json(con: Any, location: str, files: Sequence[tuple[int, str]]) -> None:
    """Add the actions of (version, file name) to dl_line."""
    content = storage.read_all(location, [f"{log.FOLDER}/{name}" for _, name in files])
    versions = pa.array([version for version, _ in files], pa.int64())
    try:
        text = pa.array(content, pa.large_binary()).cast(pa.large_string())
    except pa.ArrowInvalid:
        bad = next(version for (version, _), data in zip(files, content, strict=True) if not _is_text(data))
        raise LogCorruptError(f"version {bad} of the log is not UTF-8 text") from None
    _split(con, versions, text)
    if bad := con.execute(sql("replay_bad_line")).fetchall():
        spread = {version for version, _, _ in bad}
        _split(con, versions, pa.array([_one_per_line(t.as_py()) if v.as_py() in spread else t.as_py()
                                        for v, t in zip(versions, text, strict=True)], pa.large_string()))  # fmt: skip
        if still_bad := con.execute(sql("replay_bad_line")).fetchall():
            version, line, shown = next((b for b in bad if b[0] == still_bad[0][0]), still_bad[0])
            raise LogCorruptError(f"version {version} of the log: line {line} is not one JSON action: {shown!r}")
    _run(con, "replay_keep")


def _split(con: Any, versions: pa.Array, text: pa.Array) -> None:
    con.register("dl_content", pa.table({"version": versions, "content": text}))
    _run(con, "replay_split")
    con.unregister("dl_content")


def _one_per_line(text: str) -> str:
    """JSON values, each of which may stand on many lines or share one, on a line each; the text itself where that is no JSON.

    The protocol wants a line for each action. Readers that are built on the kernel take what follows each other in any way.
    """
    decoder, values, at = json.JSONDecoder(), [], 0
    try:
        while at < len(text):
            if text[at].isspace():
                at += 1
                continue
            _, end = decoder.raw_decode(text, at)
            values.append(text[at:end].replace("\n", " ").replace("\r", " "))
            at = end
    except (ValueError, RecursionError):
        return text
    return "\n".join(values)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


# --- checkpoints


def _read_checkpoint(con: Any, location: str, segment: Segment) -> None:
    parquet = [f"{log.FOLDER}/{name}" for name in segment.checkpoint if name.endswith(".parquet")]
    version = segment.checkpoint_version
    if parquet:
        _read_parquet(con, location, parquet, version)
    for name in segment.checkpoint:
        if name.endswith(".json"):
            _read_json(con, location, [(version, name)])
    sidecars = con.execute("SELECT DISTINCT body ->> '$.path' FROM dl_line WHERE kind = 'sidecar' ORDER BY 1").fetchall()
    if sidecars:
        _read_parquet(con, location, [_sidecar(path) for (path,) in sidecars], version)
    con.execute("DELETE FROM dl_line WHERE kind IN ('sidecar', 'checkpointMetadata')")


def _sidecar(path: str | None) -> str:
    """A sidecar's place below the table; only a file name counts, since no other place may hold sidecars."""
    if not path:
        raise LogCorruptError("a checkpoint names a sidecar without a path")
    return f"{log.FOLDER}/_sidecars/{path.rsplit('/', 1)[-1]}"


def _read_parquet(con: Any, location: str, files: Sequence[str], version: int) -> None:
    """Add the actions of Parquet checkpoint files to dl_line."""
    for file in files:
        if not storage.exists(location, file):
            raise LogCorruptError(f"the checkpoint of version {version} lacks {file}")
    place = storage.readable(con, location)
    names = "[" + ", ".join(literal(f"{place}/{file}") for file in files) + "]"
    source = f"read_parquet({names}, union_by_name=true, hive_partitioning=false)"
    columns = con.sql(f"SELECT * FROM {source} LIMIT 0")
    for column, type_ in zip(columns.columns, columns.types, strict=True):
        key = "path" if column == "sidecar" else KEYS.get(column)
        if key is None or type_.id != "struct":
            continue
        body = _body(quote(column), dict(type_.children))
        order = "(SELECT count(*) FROM dl_line) + row_number() OVER () - 1"
        con.execute(
            f"INSERT INTO dl_line SELECT {version}, {order}, {literal(column)}, to_json({body}) FROM {source} "
            f"WHERE {quote(column)}.{quote(key)} IS NOT NULL"
        )


def _body(column: str, members: Mapping[str, Any]) -> str:
    """SQL: an action of a checkpoint as the struct that a JSON commit would hold."""
    packed = {name: f"{column}.{quote(name)}" for name in members if name not in PARSED}
    if "stats_parsed" in members:
        parsed = f"{column}.stats_parsed"
        text = f"CASE WHEN {parsed} IS NOT NULL THEN CAST(to_json({_plain(parsed, members['stats_parsed'])}) AS VARCHAR) END"
        packed["stats"] = f"coalesce({packed['stats']}, {text})" if "stats" in packed else text
    return "struct_pack(" + ", ".join(f"{quote(name)} := {sql}" for name, sql in packed.items()) + ")"


def _plain(value: str, type_: Any) -> str:
    """SQL: a typed statistic the way the log's JSON writes it."""
    match type_.id:
        case "struct":
            members = (f"{quote(name)} := {_plain(f'{value}.{quote(name)}', child)}" for name, child in type_.children)
            return f"struct_pack({', '.join(members)})"
        case "timestamp with time zone":
            return f"strftime({value}, '%Y-%m-%dT%H:%M:%S.%gZ')"
        case "timestamp" | "timestamp_ns":
            return f"strftime({value}, '%Y-%m-%dT%H:%M:%S.%g')"
        case "float" | "double":
            return f"CASE WHEN isfinite({value}) THEN {value} END"
    return value


def _base(con: Any, location: str, segment: Segment, files: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    """(version, time) of a checkpoint's version; what its commit said of itself, if it is still there."""
    commit = log.commit_name(segment.base)
    if commit not in files:
        return segment.base, files[segment.checkpoint[0]][1]
    try:
        content = storage.read_all(location, [f"{log.FOLDER}/{commit}"])[0].decode()
        con.register("dl_content", pa.table({"version": pa.array([segment.base], pa.int64()), "content": [content]}))
        _run(con, "replay_split")
        con.execute(
            "INSERT INTO dl_line SELECT version, NULL, 'commitInfo', line -> '$.commitInfo' "
            "FROM dl_split WHERE kinds = ['commitInfo']"
        )
        con.unregister("dl_content")
    except (StorageError, UnicodeDecodeError, duckdb.Error):
        pass  # only what it said of itself is lost
    return segment.base, files[commit][1]
