"""A sample of a log's requests, drawn once a dataset and kept beside its file: what policies act on."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mtf_engine.logs.datasets import Dataset, columns

HASH = b"content_hash"
"""Names in the file's metadata the rows that it was drawn from."""


def sample_path(dataset_path: Path, n_requests: int) -> Path:
    """Returns where the sample of the dataset at that path lies; it is deleted with it."""
    return dataset_path.with_suffix(f".sample_{n_requests}.parquet")


def sample(dataset: Dataset, n_requests: int) -> dict[str, np.ndarray]:
    """Returns observation, baseline_action, segment and user_id of at most `n_requests`, a sample by hash.

    Of a log with more requests the sample is stored beside it, since all of the log is read to draw it.
    """
    if dataset.n_requests <= n_requests:
        return columns(_drawn(dataset, n_requests))
    path, own = sample_path(dataset.path, n_requests), dataset.content_hash.encode()
    if path.is_file() and (pq.read_schema(path).metadata or {}).get(HASH) == own:
        return columns(pq.read_table(path))
    drawn = _drawn(dataset, n_requests)
    buffer = pa.BufferOutputStream()
    pq.write_table(drawn.replace_schema_metadata({**(drawn.schema.metadata or {}), HASH: own}), buffer)
    dataset.keep(path, buffer.getvalue())
    return columns(drawn)


def _drawn(dataset: Dataset, n_requests: int) -> pa.Table:
    return dataset.table(
        "SELECT observation, baseline_action, segment, user_id FROM requests "
        "SEMI JOIN (SELECT request_id FROM requests ORDER BY hash(request_id) LIMIT ?) USING (request_id) "
        "ORDER BY request_id",
        [n_requests],
    )
