"""Deletion vectors: the descriptor, base 85, the file's frame, the bitmap; and every way in which they may be wrong."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from deltaduck import LogCorruptError
from deltaduck.protocol.deletion_vectors import DeletionVector, serialize, z85_decode, z85_encode

# The protocol's own examples: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#deletion-vector-descriptor-schema
EXAMPLE = "wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L"


def framed(*vectors: bytes) -> bytes:
    """A file: one byte of format, then size, bitmap and checksum of each."""
    return b"\x01" + b"".join(struct.pack(">I", len(v)) + v + struct.pack(">I", zlib.crc32(v)) for v in vectors)


def test_the_protocols_inline_example() -> None:
    assert DeletionVector("i", EXAMPLE, None, 40, 6).rows(None).tolist() == [3, 4, 7, 11, 18, 29]


def test_the_protocols_paths() -> None:
    name = "deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin"
    assert DeletionVector("u", "ab^-aqEH.-t@S}K{vb[*k^", 4, 40, 6).path == f"ab/{name}"
    assert DeletionVector("u", "^-aqEH.-t@S}K{vb[*k^", 4, 40, 6).path == name
    assert DeletionVector("p", "file:/my%20tables/x.bin", 4, 40, 6).path == "/my tables/x.bin"
    assert DeletionVector("i", EXAMPLE, None, 40, 6).path is None


@pytest.mark.parametrize("order", "<>")
def test_an_array_of_32_bit_bitmaps(order: str) -> None:
    parts = [BitMap([1, 70_000]), BitMap(), BitMap(range(5, 9))]
    data = struct.pack(f"{order}II", 1681511376, 3) + b"".join(
        struct.pack(f"{order}I", len(p.serialize())) + p.serialize() for p in parts
    )
    vector = DeletionVector("u", "x" * 20, 1, len(data), 6)
    assert vector.rows(framed(data)).tolist() == [1, 70_000, *range(2**33 + 5, 2**33 + 9)]
    for cut in range(1, len(data)):
        with pytest.raises(LogCorruptError):
            DeletionVector("u", "x" * 20, 1, cut, 6).rows(framed(data[:cut]))


@pytest.mark.parametrize(("kind", "text"), [("x", "abc"), ("", ""), ("u", "too short"), ("u", "~" * 20)])
def test_descriptors_that_name_no_place(kind: str, text: str) -> None:
    with pytest.raises(LogCorruptError):
        _ = DeletionVector(kind, text, 0, 0, 0).path


@given(st.binary(max_size=64).map(lambda b: b + b"\0" * (-len(b) % 4)))
def test_base_85_there_and_back(data: bytes) -> None:
    assert z85_decode(z85_encode(data)) == data


def test_base_85_of_a_length_that_four_does_not_divide() -> None:
    """Delta's Rust kernel writes as many "#" as bytes are missing."""
    whole = z85_encode(b"\0\0\0A")
    assert z85_decode("HelloWorld") == bytes.fromhex("864fd26fb559f75b")
    assert z85_decode("HelloWorld" + "###" + whole[3:]) == bytes.fromhex("864fd26fb559f75b") + b"A"


@pytest.mark.parametrize("text", ["abcd", "abcde~", "'''''", "ünïcö", "@@@@@####", "#####", "%nSc1"])
def test_what_is_no_base_85(text: str) -> None:
    with pytest.raises(LogCorruptError, match="is not base 85"):
        z85_decode(text)


ROWS = st.one_of(
    st.sets(st.integers(0, 2**20), max_size=60).map(sorted),
    st.sets(st.integers(0, 2**44), max_size=20).map(sorted),
    st.tuples(st.integers(0, 2**33), st.integers(1, 100_000)).map(lambda p: list(range(p[0], p[0] + p[1]))),
)


@given(ROWS, ROWS)
@settings(deadline=None)
def test_rows_there_and_back(first: list[int], second: list[int]) -> None:
    parts = [serialize(np.array(rows, np.uint64)) for rows in (first, second)]
    file, offset = framed(*parts), 1
    for rows, part in zip((first, second), parts, strict=True):
        assert DeletionVector("u", "x" * 20, offset, len(part), len(rows)).rows(file).tolist() == rows
        offset += len(part) + 8


SOUND = serialize(np.array([1, 5, 9], np.uint64))


@pytest.mark.parametrize(
    ("file", "offset", "size", "cardinality", "named"),
    [
        (framed(SOUND), 1, len(SOUND), 2, "holds 3 rows, and the log says 2"),
        (framed(SOUND)[:-6], 1, len(SOUND), 3, "cut off"),
        (framed(SOUND), 5, len(SOUND), 3, "cut off"),
        (framed(SOUND), -1, len(SOUND), 3, "cut off"),
        (framed(SOUND), 1, -1, 3, "cut off"),
        (framed(SOUND), 1, len(SOUND) - 1, 3, "damaged"),
        (framed(SOUND)[:-1] + b"\0", 1, len(SOUND), 3, "its checksum differs"),
        (framed(SOUND).replace(SOUND, SOUND[:-1] + b"\xff"), 1, len(SOUND), 3, "its checksum differs"),
        (framed(b"\0" * 20), 1, 20, 3, "magic number"),
        (framed(b""), 1, 0, 0, "magic number"),
        (framed(SOUND[:-2]), 1, len(SOUND) - 2, 3, "no Roaring bitmap"),
    ],
)
def test_files_that_are_damaged(file: bytes, offset: int, size: int, cardinality: int, named: str) -> None:
    with pytest.raises(LogCorruptError, match=named):
        DeletionVector("u", "x" * 20, offset, size, cardinality).rows(file)
