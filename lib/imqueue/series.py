"""From Prometheus to a tidy DataFrame: raw samples, never `rate()`, which invents values at a trial's edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

ANSWER_MAX_S = 10.0
CHUNK_S = 600.0  # a range vector this long; longer trials are read in several
LABELS = ("le", "kind", "role")


class SeriesError(Exception):
    """Prometheus did not answer, or not with samples."""


def fetch(url: str, trial: str, start_wall_s: float, end_wall_s: float, go_wall_s: float) -> pd.DataFrame:
    """All raw samples of a trial between two times: metric, time_s (from `go_wall_s`), value, le, kind, role."""
    import pandas as pd

    rows: list[tuple[Any, ...]] = []
    for chunk_end_s, length_s in _chunks(start_wall_s, end_wall_s):
        # le="" would drop the buckets: all series of the trial are wanted, whatever their labels.
        for series in _query(url, f'{{trial="{trial}"}}[{int(length_s * 1000)}ms]', chunk_end_s):
            labels = series["metric"]
            names = (labels["__name__"], *(labels.get(label) for label in LABELS))
            rows += [(*names, float(at) - go_wall_s, float(value)) for at, value in series["values"]]
    frame = pd.DataFrame(rows, columns=["metric", *LABELS, "time_s", "value"])
    frame = frame.drop_duplicates(["metric", *LABELS, "time_s"])  # chunks share a border on Prometheus 2
    columns = ["metric", "time_s", "value", *LABELS]
    return frame.sort_values(["metric", *LABELS, "time_s"], ignore_index=True)[columns]


def last_value(frame: pd.DataFrame, metric: str) -> float | None:
    """The last sample of a series without further labels; None where there is none."""
    samples = frame[frame["metric"] == metric]
    return None if samples.empty else float(samples.sort_values("time_s")["value"].iloc[-1])


def _chunks(start_s: float, end_s: float) -> Sequence[tuple[float, float]]:
    chunks = []
    while end_s > start_s:
        length_s = min(CHUNK_S, end_s - start_s)
        chunks.append((end_s, length_s))
        end_s -= length_s
    return chunks


def _query(url: str, query: str, at_s: float) -> Any:
    import requests
    from prometheus_api_client import PrometheusConnect
    from prometheus_api_client.exceptions import PrometheusApiClientException

    with requests.Session() as session:
        session.trust_env = False  # a proxy has no business between us and loopback
        client = PrometheusConnect(url=url, session=session, timeout=ANSWER_MAX_S)
        try:
            return client.custom_query(query, params={"time": f"{at_s:.3f}"}, timeout=ANSWER_MAX_S)
        except (requests.RequestException, PrometheusApiClientException) as error:
            raise SeriesError(f"Prometheus at {url} did not answer a query: {error}") from error
