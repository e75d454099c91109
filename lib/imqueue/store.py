"""A trial's folder on disk: written atomically at the end, read by the report without any server."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imqueue.histogram import Histogram, bucket_bounds_ns
from imqueue.ledger import BATCH, ROW, Reader


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all, also when we are killed."""
    half = path.with_suffix(path.suffix + ".part")
    half.write_text(json.dumps(content, indent=1, default=str))
    os.replace(half, path)


def write_histograms(path: Path, histograms: dict[str, Histogram]) -> None:
    """``latency.parquet``: kind, lower_s, upper_s, count, of the buckets that are not empty."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, list[Any]] = {"kind": [], "lower_s": [], "upper_s": [], "count": []}
    for kind, histogram in histograms.items():
        index = np.flatnonzero(histogram.counts)
        lower, upper = bucket_bounds_ns(index)
        columns["kind"] += [kind] * len(index)
        columns["lower_s"] += (lower / 1e9).tolist()
        columns["upper_s"] += (upper / 1e9).tolist()
        columns["count"] += histogram.counts[index].tolist()
    pq.write_table(pa.table(columns), path)


def pack_ledgers(live: Path, kept: Path, names: list[str]) -> None:
    """Rewrite the ledgers compactly: ``<name>.batches.parquet`` and ``<name>.rows.parquet``."""
    kept.mkdir(parents=True, exist_ok=True)
    for name in names:
        with Reader(live, name) as reader:
            _write(kept / f"{name}.batches.parquet", BATCH, reader.all_batches())
            if name.startswith("worker"):
                _write(kept / f"{name}.rows.parquet", ROW, reader.all_rows())


def read_ledger(path: Path) -> NDArray[np.void]:
    """A packed ledger file as a structured array, as `ledger.Reader` gives it."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    dtype = BATCH if path.name.endswith(".batches.parquet") else ROW
    records = np.zeros(table.num_rows, dtype=dtype)
    for field in dtype.names or ():
        records[field] = table[field].to_numpy()
    return records


def _write(path: Path, dtype: np.dtype[Any], chunks: Iterator[NDArray[np.void]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = dtype.names or ()
    schema = pa.schema([(name, pa.from_numpy_dtype(dtype[name])) for name in names])
    half = path.with_suffix(".part")
    # Neighbouring records differ little: as differences they take a tenth of the space.
    encoding = dict.fromkeys(names, "DELTA_BINARY_PACKED")
    with pq.ParquetWriter(half, schema, compression="zstd", use_dictionary=False, column_encoding=encoding) as out:
        for chunk in chunks:
            columns = [pa.array(np.ascontiguousarray(chunk[name])) for name in names]
            out.write_table(pa.table(columns, schema=schema))
    os.replace(half, path)
