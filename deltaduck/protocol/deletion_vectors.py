"""Deletion vectors: which rows of a data file are gone.

Protocol: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#deletion-vector-format
"""

from __future__ import annotations

import re
import struct
import uuid
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap64

from deltaduck.errors import LogCorruptError

MAGIC = 1681511377
NATIVE_MAGIC = 1681511376  # what the protocol's own example has
MOST_ROWS = 2**28  # deleted from one file: a few bytes may stand for more than memory holds
EMPTY = struct.pack("<II", 12346, 0)  # a 32-bit bitmap of nothing
_Z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_DIGITS = np.full(256, 255, np.uint8)
_DIGITS[np.frombuffer(_Z85, np.uint8)] = np.arange(85)


@dataclass(frozen=True)
class DeletionVector:
    """A ``deletionVector`` descriptor of an add or remove action."""

    storage_type: str  # "u": file below the table, "p": absolute path, "i": inline
    path_or_inline: str
    offset: int | None
    size_in_bytes: int
    cardinality: int

    @property
    def unique_id(self) -> str:
        """What tells two vectors of one data file apart."""
        return f"{self.storage_type}{self.path_or_inline}" + ("" if self.offset is None else f"@{self.offset}")

    @property
    def path(self) -> str | None:
        """The file that holds it, relative to the table unless absolute; None when it is inline."""
        match self.storage_type:
            case "i":
                return None
            case "p":
                return re.sub("^file:/+", "/", unquote(self.path_or_inline))
            case "u" if len(self.path_or_inline) >= 20:
                prefix, name = self.path_or_inline[:-20], uuid.UUID(bytes=z85_decode(self.path_or_inline[-20:]))
                return f"{prefix}/deletion_vector_{name}.bin" if prefix else f"deletion_vector_{name}.bin"
        raise LogCorruptError(f"a deletion vector is stored as {self.storage_type!r}, at {self.path_or_inline[:60]!r}")

    def rows(self, file: bytes | None) -> npt.NDArray[np.uint64]:
        """The deleted rows' numbers, rising, counted from 0. file: the content of the file at `path`."""
        if file is None:
            data = z85_decode(self.path_or_inline)[: self.size_in_bytes]
        else:
            start = self.offset or 0
            if start < 0 or start + 8 + self.size_in_bytes > len(file) or self.size_in_bytes < 0:
                raise LogCorruptError(f"the deletion vector at byte {start} of {self.path} is cut off")
            (size,) = struct.unpack_from(">I", file, start)
            data = file[start + 4 : start + 4 + size]
            (checksum,) = struct.unpack_from(">I", file, start + 4 + self.size_in_bytes)
            if size != self.size_in_bytes or zlib.crc32(data) != checksum:
                raise LogCorruptError(f"the deletion vector at byte {start} of {self.path} is damaged: its checksum differs")
        bitmap = _bitmap(data)
        if len(bitmap) > MOST_ROWS:
            raise LogCorruptError(
                f"a deletion vector hides {len(bitmap):,} rows of one file; {MOST_ROWS:,} is the most that is read"
            )
        if len(bitmap) != self.cardinality:
            raise LogCorruptError(f"a deletion vector holds {len(bitmap)} rows, and the log says {self.cardinality}")
        return np.frombuffer(bitmap.to_array(), np.uint64)


def z85_decode(text: str) -> bytes:
    """ZeroMQ's base 85: five characters to four bytes, big-endian. LogCorruptError for other text.

    Delta's Rust kernel writes the rest of a length that four does not divide after as many "#" as bytes are missing; no other
    group begins with "#".
    """
    padding = len(text[-5:]) - len(text[-5:].lstrip("#"))
    padding = padding if padding < 4 else 0
    text = text[: len(text) - 5] + "0" * padding + text[-5:][padding:] if padding else text
    digits = _DIGITS[np.frombuffer(text.encode("latin-1", "replace"), np.uint8)].astype(np.uint64)
    if len(digits) % 5 or (digits == 255).any():
        raise LogCorruptError(f"{text[:60]!r} is not base 85")
    words = digits.reshape(-1, 5) @ np.array([85**4, 85**3, 85**2, 85, 1], np.uint64)
    if (words >= 2**32).any():
        raise LogCorruptError(f"{text[:60]!r} is not base 85")
    data = words.astype(">u4").tobytes()
    return data[:-4] + data[len(data) - 4 + padding :] if padding else data


def z85_encode(data: bytes) -> str:
    """The text of bytes; their number is a multiple of four."""
    words = np.frombuffer(data, ">u4").astype(np.uint64)
    digits = words[:, None] // np.array([85**4, 85**3, 85**2, 85, 1], np.uint64) % np.uint64(85)
    return np.frombuffer(_Z85, np.uint8)[digits.astype(np.intp)].tobytes().decode()


def _bitmap(data: bytes) -> BitMap64:
    """A serialized bitmap: the magic number, and a portable 64-bit Roaring bitmap, or an array of 32-bit ones."""
    try:
        if len(data) >= 12 and struct.unpack_from("<I", data)[0] == MAGIC:
            return BitMap64.deserialize(data[4:])
        for order in "<>":
            if len(data) >= 8 and struct.unpack_from(f"{order}I", data)[0] == NATIVE_MAGIC:
                return BitMap64.deserialize(_portable(data, order))
        raise LogCorruptError("a deletion vector does not begin with its magic number")
    except (ValueError, IndexError, MemoryError, struct.error) as e:
        raise LogCorruptError(f"a deletion vector is no Roaring bitmap: {e}") from e


def _portable(data: bytes, order: str) -> bytes:
    """The portable form of an array of 32-bit bitmaps: their number, then the size and the bitmap of each."""
    (count,) = struct.unpack_from(f"{order}I", data, 4)
    at, parts = 8, []
    for key in range(count):
        (size,) = struct.unpack_from(f"{order}I", data, at)
        if (part := data[at + 4 : at + 4 + size]) != EMPTY:
            parts.append(struct.pack("<I", key) + part)
        at += 4 + size
    return struct.pack("<Q", len(parts)) + b"".join(parts)


def serialize(rows: npt.NDArray[np.uint64]) -> bytes:
    """The bitmap of row numbers, as it stands in a file between its size and its checksum."""
    bitmap = BitMap64(array("Q", rows.tobytes()))  # numpy's own would be taken one by one
    bitmap.run_optimize()
    return struct.pack("<I", MAGIC) + bytes(bitmap.serialize())


def file_of(vectors: Sequence[npt.NDArray[np.uint64]]) -> tuple[str, bytes, list[DeletionVector]]:
    """(name, content, descriptors) of one file that holds these vectors, each the deleted rows of a data file."""
    identity = uuid.uuid4()
    content = bytearray(b"\x01")
    described = []
    for rows in vectors:
        data = serialize(rows)
        described.append(DeletionVector("u", z85_encode(identity.bytes), len(content), len(data), len(rows)))
        content += struct.pack(">I", len(data)) + data + struct.pack(">I", zlib.crc32(data))
    return f"deletion_vector_{identity}.bin", bytes(content), described
