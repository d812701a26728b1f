"""Logs that mean harm, or nothing: only DeltaduckError comes out, soon, and nothing is written where it should not be.

``DELTADUCK_FUZZ_EXAMPLES`` says how many of each kind are tried.
"""

from __future__ import annotations

import copy
import json
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import handmade as h
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import deltaduck
from deltaduck import DeltaduckError, LogCorruptError, uris
from deltaduck.importer import segment
from deltaduck.protocol.deletion_vectors import MOST_ROWS, DeletionVector, serialize, z85_decode, z85_encode
from deltaduck.protocol.schema import check_type_changes, parse_schema, to_arrow, to_duckdb
from deltaduck.protocol.stats import skip_columns

EXAMPLES = int(os.environ.get("DELTADUCK_FUZZ_EXAMPLES", "12"))
few = settings(  # an import takes its time, and to shrink would take many
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)
many = settings(few, max_examples=EXAMPLES * 20)
DEEPEST = 40  # place in a tree that is spoilt: this file's own recursion has an end, too

DATA = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "p": ["a", "b", "c"]})
ID, P = h.field("id", "long"), h.field("p", "string")


@contextmanager
def table(*, partition: bool = False) -> Iterator[Path]:
    """A sound table of two commits, to be spoilt; and what is beside it stays as it was."""
    with tempfile.TemporaryDirectory(prefix="hostile") as scratch:
        root = Path(scratch, "inside", "t")
        first = h.add(root, "a.parquet", DATA, stats='{"numRecords":3,"minValues":{"id":1},"maxValues":{"id":3}}')
        h.commit(root, 0, h.protocol(3, 7, "deletionVectors"), h.metadata(ID, P), first, h.info())
        vector = {**first["add"], "deletionVector": h.inline_vector([1])}
        h.commit(root, 1, h.remove("a.parquet"), {"add": vector}, {"txn": {"appId": "a", "version": 1}}, h.info("DELETE"))
        yield root


def use(root: Path) -> None:
    """Import a table and do with it what one does. Only a DeltaduckError may come out, and only the lake's own files appear."""
    before = {p for p in root.parents[1].rglob("*") if root not in p.parents}
    with deltaduck.connect(":memory:", storage=root.parents[1] / "lake") as lake:
        with suppress(DeltaduckError):
            lake.import_table(root, "t", skip_validation=False)
            found = lake.table("t")
            with suppress(DeltaduckError):
                found.to_arrow(filter="id > 1 AND p < 'c'")
            with suppress(DeltaduckError):
                found.changes()
            with suppress(DeltaduckError):
                lake.write("t", DATA)
            lake.mirror.export("t", root.parents[1] / "lake" / "copy")
    lake_files = root.parents[1] / "lake"
    after = {p for p in root.parents[1].rglob("*") if root not in p.parents and p != lake_files and lake_files not in p.parents}
    assert after == before


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": [value]}
    return value


HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63, -(2**63) - 1, 10**400, 1e308, 0, -1, 2**31]),
    st.text(max_size=30),
    st.sampled_from(
        [
            "",
            "\0",
            "../../../../etc/passwd",
            "/etc/passwd",
            "file:///etc/passwd",
            "%",
            "%zz",
            "\ud800",
            "{",
            "[]",
            "null",
            "NaN",
            "s3://x/y",
            "a" * 5000,
            "'; DROP TABLE dl_tables; --",
            "${HOME}",
            "$1",
            ":version",
            "{}",
            '{"a":1}',
        ]
    ),
    st.just([]),
    st.just({}),
    st.just(nested(50)),
    st.just(nested(400)),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.one_of(st.none(), st.integers(), st.text(max_size=5)), max_size=3),
)


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    members = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in members if len(path) < DEEPEST else ():
        yield from places(child, (*path, key))


def spoil(data: st.DataObject, tree: Any) -> Any:
    """A JSON tree with up to three of its values replaced, removed or doubled."""
    tree = copy.deepcopy(tree)
    for _ in range(data.draw(st.integers(1, 3))):
        *parents, last = data.draw(st.sampled_from(list(places(tree)) or [(0,)]))
        node = tree
        for key in parents:
            node = node[key]
        match data.draw(st.sampled_from(["replace", "replace", "remove", "add", "rename"])):
            case "replace" if node:
                node[last] = copy.deepcopy(data.draw(HOSTILE))
            case "remove" if node:
                del node[last]
            case "add" if isinstance(node, dict):
                node[data.draw(st.text(max_size=8))] = copy.deepcopy(data.draw(HOSTILE))
            case "add" if isinstance(node, list) and node:
                node.append(copy.deepcopy(node[last]))
            case "rename" if isinstance(node, dict) and last in node:
                node[data.draw(st.sampled_from(["add", "remove", "metaData", "protocol", "x", "path"]))] = node.pop(last)
    return tree


def mangle(data: st.DataObject, content: bytes, most: int = 8) -> bytes:
    """Bytes with a few changed, cut off or put in."""
    spoilt = bytearray(content)
    for _ in range(data.draw(st.integers(1, most))):
        at = data.draw(st.integers(0, max(len(spoilt) - 1, 0)))
        match data.draw(st.sampled_from(["set", "cut", "insert", "tail"])):
            case "set" if spoilt:
                spoilt[at] = data.draw(st.integers(0, 255))
            case "cut":
                del spoilt[at : at + data.draw(st.integers(1, 9))]
            case "insert":
                spoilt[at:at] = data.draw(st.binary(min_size=1, max_size=9))
            case "tail":
                del spoilt[at:]
    return bytes(spoilt)


@given(st.data(), st.integers(0, 1))
@few
def test_json_commits_with_wrong_values(data: st.DataObject, version: int) -> None:
    with table() as root:
        file = root / "_delta_log" / f"{version:020d}.json"
        actions = spoil(data, [json.loads(line) for line in file.read_text().splitlines()])
        file.write_text("\n".join(json.dumps(a) for a in actions), encoding="utf-8", errors="surrogatepass")
        use(root)


@given(st.data())
@few
def test_json_commits_with_wrong_bytes(data: st.DataObject) -> None:
    with table() as root:
        file = root / "_delta_log" / f"{1:020d}.json"
        file.write_bytes(mangle(data, file.read_bytes()))
        use(root)


@given(st.data())
@few
def test_schemas_in_a_table(data: st.DataObject) -> None:
    with table() as root:
        longs = h.field("x", {"type": "array", "elementType": "long", "containsNull": True}, physical="x", mapped_id=4)
        fields = [
            h.field("id", "long", physical="id", mapped_id=1), h.field("p", "string", physical="p", mapped_id=2),
            h.field("s", h.struct_of(longs, h.field("v", "variant", physical="v", mapped_id=5)), physical="s", mapped_id=3),
        ]  # fmt: skip
        action = h.metadata(*fields, columnMapping__mode=data.draw(st.sampled_from(["none", "name", "id"])))
        schema = spoil(data, json.loads(action["metaData"]["schemaString"]))
        action["metaData"]["schemaString"] = json.dumps(schema)
        h.commit(root, 2, action)
        use(root)


@given(st.data())
@many
def test_schemas(data: st.DataObject) -> None:
    fields = [
        ID,
        h.field("d", "decimal(10,2)", physical="col-1"),
        h.field("s", h.struct_of(h.field("x", "date"))),
        h.field("a", {"type": "array", "elementType": "long", "containsNull": True}),
        h.field("m", {"type": "map", "keyType": "string", "valueType": h.struct_of(ID), "valueContainsNull": True}),
        h.field("v", "variant"),
        h.field("w", "long", **{"delta.typeChanges": [{"fromType": "integer", "toType": "long"}]}),
    ]
    text = json.dumps(spoil(data, h.struct_of(*fields)))
    with suppress(DeltaduckError):
        schema = parse_schema(text)
        check_type_changes(schema)
        to_duckdb(schema)
        to_arrow(schema)
        skip_columns(schema, [], {})


@pytest.mark.parametrize("depth", [199, 201, 5_000, 200_000])
def test_a_schema_of_great_depth(depth: int) -> None:
    text = '{"type":"array","containsNull":true,"elementType":' * depth + '"long"' + "}" * depth
    with suppress(DeltaduckError):
        parse_schema('{"type":"struct","fields":[{"name":"a","nullable":true,"metadata":{},"type":' + text + "}]}")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"add":' + "[" * 100_000 + "]" * 100_000 + "}"])
def test_json_of_great_depth(text: str) -> None:
    with table() as root:
        (root / "_delta_log" / f"{2:020d}.json").write_text(text)
        use(root)


@given(st.data(), st.sampled_from(["classic", "v2"]))
@few
def test_checkpoints_with_wrong_bytes(data: st.DataObject, kind: str) -> None:
    with table() as root:
        actions = [h.protocol(3, 7, "deletionVectors", "v2Checkpoint"), h.metadata(ID, P)]
        if kind == "classic":
            file = h.checkpoint(root, 1, *actions, h.add(root, "a.parquet"))
        else:
            h.checkpoint_v2(root, 1, *actions, sidecars=[[h.add(root, "a.parquet")]])
            (file,) = (root / "_delta_log" / "_sidecars").iterdir()
        file.write_bytes(mangle(data, file.read_bytes(), most=3))
        for v in range(2):
            (root / "_delta_log" / f"{v:020d}.json").unlink()
        use(root)


WRONG = [
    pa.array([1, 2]),
    pa.array(["x", None]),
    pa.array([[1], None]),
    pa.array([{"path": 5}, None]),
    pa.array([{"path": "x"}, {"path": None}]),
    pa.array([{"path": "x", "partitionValues": "text", "size": "big"}, None]),
    pa.array([{"path": "x", "partitionValues": [("a", "b")], "size": 1.5, "deletionVector": {"storageType": "u"}}, None]),
    pa.array([{"path": "a.parquet", "size": 1, "stats_parsed": {"numRecords": "x", "minValues": [1]}}, None]),
    pa.array([{"minReaderVersion": "x"}, None]),
    pa.array([{"minReaderVersion": 1, "minWriterVersion": 2, "readerFeatures": "x"}, None]),
    pa.array([{"id": 1, "schemaString": 5, "partitionColumns": {"a": 1}, "configuration": "x"}, None]),
]


@given(
    st.dictionaries(
        st.sampled_from(["add", "remove", "protocol", "metaData", "txn", "sidecar", "other"]), st.sampled_from(WRONG), min_size=1
    )
)
@few
def test_checkpoints_of_wrong_types(columns: dict[str, pa.Array]) -> None:
    with table() as root:
        sound = h.checkpoint_rows(h.protocol(), h.metadata(ID, P))
        held = {name: sound[name] for name in ("protocol", "metaData")} | columns
        pq.write_table(pa.table(held), root / "_delta_log" / f"{1:020d}.checkpoint.parquet")
        for v in range(2):
            (root / "_delta_log" / f"{v:020d}.json").unlink()
        use(root)


SHAPES = st.one_of(
    st.lists(st.integers(0, 2**20), max_size=50),
    st.integers(1, 200_000).map(range),
    st.lists(st.integers(0, 2**40), max_size=20),
    st.integers(1, 70_000).map(lambda n: range(0, 3 * n, 3)),
)


@given(st.data(), SHAPES)
@many
def test_deletion_vectors_with_wrong_bytes(data: st.DataObject, rows: Any) -> None:
    sound = serialize(np.array(sorted(set(rows)), np.uint64))
    if data.draw(st.booleans()):  # the other form: an array of 32-bit bitmaps
        sound = struct.pack("<III", 1681511376, 1, max(len(sound) - 16, 0)) + sound[16:]
    content = mangle(data, sound)
    cardinality = data.draw(st.integers(-1, 2**40))
    framed = struct.pack(">I", len(content)) + content + struct.pack(">I", zlib.crc32(content))
    with suppress(DeltaduckError):
        DeletionVector("u", "x" * 20, 0, len(content), cardinality).rows(framed)
    with suppress(DeltaduckError):
        DeletionVector("u", "x" * 20, data.draw(st.integers(-5, 10)), data.draw(st.integers(-5, 50)), cardinality).rows(framed)


@given(st.text(max_size=60), st.sampled_from(["u", "p", "i", "x", ""]), st.integers(-(2**40), 2**40))
@many
def test_descriptors_of_deletion_vectors(text: str, kind: str, number: int) -> None:
    vector = DeletionVector(kind, text, number, number, number)
    for attempt in (lambda: z85_decode(text), lambda: vector.path, lambda: vector.rows(None), lambda: vector.rows(text.encode())):
        with suppress(DeltaduckError):
            attempt()


def full_containers(count: int) -> bytes:
    """A sound bitmap of `count` * 65,536 rows, in 15 bytes for each."""
    run = struct.pack("<HHBHHHHH", 12347, 0, 1, 0, 0xFFFF, 1, 0, 0xFFFF)
    return struct.pack("<IQ", 1681511377, count) + b"".join(struct.pack("<I", key) + run for key in range(count))


def test_a_deletion_vector_that_stands_for_more_rows_than_memory_holds() -> None:
    data = full_containers(100_000)
    vector = DeletionVector("i", z85_encode(data + b"\0" * (-len(data) % 4)), None, len(data), 100_000 * 65_536)
    with pytest.raises(LogCorruptError, match=f"hides 6,553,600,000 rows .* {MOST_ROWS:,} is the most"):
        vector.rows(None)


NAMES = st.one_of(
    st.from_regex(r"\A\d{18,22}\.json\Z"),
    st.from_regex(r"\A\d{20}\.checkpoint(\.\d{10}\.\d{10})?\.parquet\Z"),
    st.from_regex(r"\A\d{20}\.\d{20}\.compacted\.json\Z"),
    st.integers(0, 4).map(lambda v: f"{v:020d}.json"),
    st.tuples(st.integers(0, 4), st.integers(0, 4)).map(lambda p: f"{p[0]:020d}.{p[1]:020d}.compacted.json"),
    st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 2)).map(
        lambda p: f"{p[0]:020d}.checkpoint.{p[1]:010d}.{p[2]:010d}.parquet"
    ),
    st.text(max_size=20),
)


@given(st.lists(NAMES, max_size=12), st.none() | st.integers(-5, 2**70))
@many
def test_names_of_log_files(names: list[str], up_to: int | None) -> None:
    with suppress(DeltaduckError):
        for found in segment.segments(names, up_to):
            assert found.latest <= segment.MAX_VERSION
            steps = [v for v, _ in found.commits]
            assert steps == sorted(set(steps))
            assert {*found.checkpoint, *(name for _, name in found.commits)} <= set(names)


@given(
    st.one_of(
        st.text(max_size=60),
        st.text(max_size=40).map("deltasql://".__add__),
        st.from_regex(r"deltasql://(postgres|sqlite|duckdb|x)/.{0,40}"),
    )
)
@many
def test_uris(text: str) -> None:
    with suppress(DeltaduckError):
        uris.parse(text)
