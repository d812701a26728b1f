"""A few rows of plain columns as a Parquet file: planning a COPY takes DuckDB longer than writing them takes Arrow.

What a file holds is said in the words of DuckDB's RETURN_STATS, so that statistics have one way into the log.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from deltaduck.protocol import mapping
from deltaduck.protocol.schema import Field, Struct, decimal_of, quote, to_arrow

MOST_ROWS, MOST_BYTES = 10_000, 1 << 20
PLAIN = ("byte", "short", "integer", "long", "double", "boolean", "string", "date")  # and decimals
CODECS = ("snappy", "zstd", "gzip", "uncompressed")


def fits(frame: Any, schema: Struct, codec: str) -> bool:
    """Are these few rows, of exactly the table's columns, all of plain types? Nested ones and times are DuckDB's."""
    if not isinstance(frame, pa.Table) or not 0 < frame.num_rows <= MOST_ROWS or frame.nbytes > MOST_BYTES or codec not in CODECS:
        return False
    if not all(isinstance(f.type, str) and (f.type in PLAIN or decimal_of(f.type)) for f in schema):
        return False
    given = {f.name: f.type for f in frame.schema}
    if given != {f.name: to_arrow(f.type) for f in schema} or len(given) != frame.num_columns:
        return False
    return all(pc.all(pc.is_finite(c)).as_py() is not False for c in frame.columns if pa.types.is_floating(c.type))


def write(frame: pa.Table, schema: Struct, codec: str) -> tuple[bytes, dict[str, Any]]:
    """The rows as the content of one file, and the row that ``COPY … RETURN_STATS`` would answer of it, less its name."""
    fields = [pa.field(f.physical_name, frame[f.name].type, metadata=_field_id(f)) for f in schema]
    rows = pa.table([frame[f.name] for f in schema], pa.schema(fields))
    sink = pa.BufferOutputStream()
    parquet.write_table(
        rows, sink, compression=codec if codec != "uncompressed" else "none", store_schema=False,
        store_decimal_as_integer=True,
    )  # fmt: skip
    data = sink.getvalue().to_pybytes()
    statistics = {quote(name): _statistics(rows[name]) for name in rows.column_names}
    said = {"count": rows.num_rows, "file_size_bytes": len(data), "partition_keys": None}
    return data, {**said, "column_statistics": statistics}


def _field_id(f: Field) -> dict[bytes, bytes] | None:
    number = f.metadata.get(mapping.ID)
    return None if number is None else {b"PARQUET:field_id": str(number).encode()}


def _statistics(column: pa.ChunkedArray) -> dict[str, str]:
    said = {"null_count": str(column.null_count), "has_nan": "false"}
    if not pa.types.is_boolean(column.type) and column.null_count < len(column):
        said |= {key: _text(value) for key, value in pc.min_max(column).as_py().items()}
    return said


def _text(value: Any) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
