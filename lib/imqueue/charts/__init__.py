"""Charts: each function takes a result (or data), draws on a figure of its own or on `ax`, and returns a `Chart`."""

from __future__ import annotations

from imqueue.charts.canvas import COLOURS, Chart, colour, marker
from imqueue.charts.forest import ratios
from imqueue.charts.price import durability
from imqueue.charts.side import flow_latencies, sum_rates, throughputs
from imqueue.charts.trial import depth, latency, latency_over_time, progress, throughput
from imqueue.charts.why import why
from imqueue.charts.windows import View

__all__ = [
    "COLOURS",
    "Chart",
    "View",
    "colour",
    "depth",
    "durability",
    "flow_latencies",
    "latency",
    "latency_over_time",
    "marker",
    "progress",
    "ratios",
    "sum_rates",
    "throughput",
    "throughputs",
    "why",
]
