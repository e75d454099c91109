"""Why was a flow as it was? Its throughput and latency, and below them what server and machine said meanwhile."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from imqueue.charts.canvas import COLOURS, INK, PALE, SCREEN_DPI, WIDTH_IN, Chart, dress, mark
from imqueue.charts.trial import latency_over_time, throughput
from imqueue.charts.windows import View
from imqueue.results import Result
from imqueue.words import Html, rounded

PANEL_IN, FLOW_IN = 1.05, 2.6
IDLE = "idle"


@dataclass(frozen=True)
class Panel:
    """One small picture. `how`: a counter's growth per second, a level, or levels piled up to their sum.

    `factor` turns the server's unit into the one that `title` names.
    """

    title: str
    metric: str
    how: Literal["rate", "level", "pile", "pile of rates"] = "rate"
    factor: float = 1.0


HOST = (
    Panel("machine: cores busy, by mode", "queue_host_cpu_seconds_total", "pile of rates"),
    Panel("disk: writes per second", "queue_host_disk_writes_total"),
    Panel("disk: share of time busy, %", "queue_host_disk_busy_seconds_total", factor=100),
    Panel("written by the server, MB per second", "queue_host_server_write_bytes_total", factor=1e-6),
)
SERVERS: dict[str, tuple[Panel, ...]] = {
    "redis": (
        Panel("Redis: commands per second", "queue_server_commands_total"),
        Panel("Redis: share of a core, %", "queue_server_cpu_seconds_total", "pile of rates", 100),
        Panel("Redis: flushes delayed, per second", "queue_server_aof_delayed_fsync_total"),
        Panel("Redis: memory, MB", "queue_server_memory_bytes", "level", 1e-6),
    ),
    "postgres": (
        Panel("PostgreSQL: sessions, by wait", "queue_server_sessions", "pile"),
        Panel("PostgreSQL: rows, live and dead", "queue_server_rows", "level"),
        Panel("PostgreSQL: autovacuum runs per second", "queue_server_autovacuums_total"),
        Panel("PostgreSQL: log (WAL), MB per second", "queue_server_wal_bytes_total", factor=1e-6),
    ),
    "rabbitmq": (
        Panel("RabbitMQ: messages, ready and unacked", "queue_server_messages", "level"),
        Panel("RabbitMQ: its files' writes and fsyncs per second", "queue_server_io_total"),
        Panel("RabbitMQ: memory, MB", "queue_server_memory_bytes", "level", 1e-6),
        Panel("RabbitMQ: alarms that block publishers", "queue_server_alarms", "level"),
    ),
    "mysql": (
        Panel("InnoDB: waits for row locks per second", "queue_server_row_lock_waits_total"),
        Panel("InnoDB: sessions' time waiting for row locks, s per s", "queue_server_row_lock_wait_seconds_total"),
        Panel("InnoDB: deleted rows not purged yet (history list)", "queue_server_history_list", "level"),
        Panel("InnoDB: fsyncs per second", "queue_server_fsyncs_total"),
    ),
    "nats": (
        Panel("JetStream: messages, not delivered and not acked", "queue_server_messages", "level"),
        Panel("JetStream: kept in its streams, kB", "queue_server_stream_bytes", "level", 1e-3),
        Panel("NATS: share of a core, %", "queue_server_cpu_seconds_total", "pile of rates", 100),
        Panel("NATS: memory, MB", "queue_server_memory_bytes", "level", 1e-6),
    ),
    "beanstalkd": (
        Panel("beanstalkd: jobs, ready and reserved", "queue_server_jobs", "level"),
        Panel("beanstalkd: commands per second", "queue_server_commands_total"),
        Panel("beanstalkd: share of a core, %", "queue_server_cpu_seconds_total", "pile of rates", 100),
        Panel("beanstalkd: log records per second", "queue_server_binlog_records_total"),
    ),
}


class Line(NamedTuple):
    """Edges (n + 1) and steps (n) of a rate; times and levels (n each) of a level. A kind keeps its colour."""

    time_s: NDArray[np.float64]
    value: NDArray[np.float64]
    colour: str


def why(source: Result) -> Chart | Html:
    """The flow, and below it what its server and the machine said of themselves, on one axis of time.

    A sentence where it was not watched.
    """
    if not (told := source.info.get("readers")):
        return Html("<p>The server was not watched; <code>why=True</code> has it tell its own view.</p>")
    view = View.of(source)
    wanted = [panel for kind in told for panel in SERVERS.get(kind, ())] + list(HOST)
    panels = [(panel, lines) for panel in wanted if (lines := _lines(view, panel))]
    heights = [FLOW_IN, FLOW_IN, *[PANEL_IN] * len(panels)]
    figure = Figure(figsize=(WIDTH_IN, sum(heights)), dpi=SCREEN_DPI, layout="constrained")
    throughput_ax, latency_ax, *rest = figure.subplots(len(heights), 1, height_ratios=heights)
    alt = [throughput(view, throughput_ax).alt, latency_over_time(view, latency_ax).alt]
    for ax in (throughput_ax, latency_ax):
        ax.set_xlabel("")  # said once, below
        ax.tick_params(labelbottom=False)
    for ax, (panel, lines) in zip(rest, panels, strict=True):
        _draw(ax, view, panel, lines)
        alt.append(f"{panel.title}: {_range(lines)}.")
    last = rest[-1] if rest else latency_ax
    last.tick_params(labelbottom=True)
    last.set_xlabel("seconds after go")
    return Chart(figure, " ".join(alt), _caption(told))


def _lines(view: View, panel: Panel) -> dict[str, Line]:
    """By kind; of several those that rest at zero are left out, and the idle come last."""
    rows = view.series[view.series["metric"] == panel.metric]
    lines: dict[str, Line] = {}
    colours = itertools.cycle(COLOURS)
    for kind, found in _columns(rows, panel).items():
        time_s, value = np.asarray(found.index, np.float64), np.asarray(found * panel.factor, np.float64)
        if len(time_s) < 2:
            continue
        if "rate" in panel.how:
            value = np.diff(value) / np.diff(time_s)
        lines[str(kind)] = Line(time_s, value, PALE if kind == IDLE else next(colours))
    if len(lines) == 1:
        return {kind: line._replace(colour=INK) for kind, line in lines.items()}
    ordered = sorted(lines, key=lambda kind: kind == IDLE)
    moving = {kind: lines[kind] for kind in ordered if lines[kind].value.any()}
    return moving or {kind: lines[kind] for kind in ordered[:1]}


def _columns(rows: pd.DataFrame, panel: Panel) -> dict[str, pd.Series[float]]:
    """Each kind's samples by time. Those to be piled up have all their times in common."""
    table = rows.assign(kind=rows["kind"].fillna("")).pivot_table("value", "time_s", "kind")
    if panel.how == "pile":
        table = table.fillna(0.0)  # told of where there was any, so there was none
    elif panel.how == "pile of rates":
        table = table.dropna()  # how far a counter had come is not known without its sample
    return {str(kind): table[kind].dropna() for kind in table}


def _draw(ax: Axes, view: View, panel: Panel, lines: dict[str, Line]) -> None:
    dress(ax)
    base: NDArray[np.float64] | float = 0.0
    for kind, (time_s, value, tint) in lines.items():
        if "pile" in panel.how:
            edges = time_s if "rate" in panel.how else _edges(time_s)
            ax.stairs(base + value, edges, baseline=base, fill=True, color=tint, alpha=0.75, label=kind)
            base = base + value
        elif panel.how == "rate":
            ax.stairs(value, time_s, baseline=None, color=tint, linewidth=1.6, label=kind)
        else:
            ax.plot(time_s, value, color=tint, linewidth=1.6, marker=".", markersize=4, label=kind)
    mark(ax, view)
    for words in ax.texts:  # said once, above
        words.set_visible(False)
    ax.set_xlim(0, max(view.end_s, 1e-3) * 1.02)
    ax.set_ylim(0, 1.15 * _top(panel, lines) or 1.0)
    ax.yaxis.set_major_locator(MaxNLocator(3))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:g}")
    ax.tick_params(labelbottom=False, labelsize=9)
    ax.set_title(panel.title, loc="left", fontsize=10, color=INK, pad=3)
    if any(lines):
        handles, labels = ax.get_legend_handles_labels()
        shown = [(h, label) for h, label in zip(handles, labels, strict=True) if label and label != "draining"]
        ax.legend(
            *zip(*shown, strict=True),
            loc="lower right",
            bbox_to_anchor=(1, 1),
            ncols=len(shown),
            frameon=False,
            fontsize=8.5,
            borderaxespad=0,
            handlelength=1,
            columnspacing=1,
        )


def _top(panel: Panel, lines: dict[str, Line]) -> float:
    values = [line.value for line in lines.values()]
    return float((np.sum(values, axis=0) if "pile" in panel.how else np.concatenate(values)).max())


def _edges(time_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """A level that is a mean since the sample before it, drawn over that time."""
    return np.concatenate(([2 * time_s[0] - time_s[1]], time_s))


def _range(lines: dict[str, Line]) -> str:
    told = [
        f"{kind} {rounded(float(line.value.min()))} to {rounded(float(line.value.max()))}"
        for kind, line in lines.items()
    ]
    return ", ".join(told).strip()


def _caption(told: dict[str, dict[str, object]]) -> str:
    words = "Read once for each of Prometheus' scrapes, so the steps of all pictures are the same half seconds. "
    gaps = [
        f"{name} did not answer {each['missed']} of {each['asked']} times{_because(each)}"
        for name, each in told.items()
        if each["missed"] or each["error"]
    ]
    rest = "; ".join([*gaps, "what stayed at zero is left out where there are several."])
    return words + rest[0].upper() + rest[1:]


def _because(told: dict[str, object]) -> str:
    return f" ({told['error']})" if told["error"] else ""
