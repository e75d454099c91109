"""What all charts share: the picture with its words, one colour per backend, and marks for what happened."""

from __future__ import annotations

import base64
import io
import math
import textwrap
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator, NullFormatter

if TYPE_CHECKING:
    from imqueue.charts.windows import View

COLOURS = (  # told apart by colour-blind people (after Okabe-Ito and Tol), each dark enough for a line on white
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#C46F9C",
    "#332288",
    "#B07D00",
    "#882255",
    "#3A93D1",
    "#7A7A00",
    "#3B3B3B",
)
MARKERS = "osD^vP"
_SALT = 12533  # the first that gives seven colours to the first seven backends, and to each its own look
INK, GREY, PALE = "#222222", "#6B6B6B", "#D9D9D9"
WIDTH_IN = 8.0
SCREEN_DPI = 100  # a picture of 8 inches is 800 CSS pixels wide
_FILE_DPI = 200  # and twice as sharp
_TITLE_COLUMNS = 76
_HEADING_COLUMNS = 92
_SMALL = 7.5


def colour(backend: str) -> str:
    """The colour of a backend in every chart: made from its name, so a new one needs no line here."""
    return COLOURS[_place(backend) % len(COLOURS)]


def marker(backend: str) -> str:
    """Tells apart two backends that share a colour."""
    return MARKERS[_place(backend) // len(COLOURS) % len(MARKERS)]


def _place(backend: str) -> int:
    return zlib.crc32(f"{_SALT}{backend}".encode())


@dataclass(frozen=True)
class Chart:
    """A picture and its words: `alt` for those who don't see it, `caption` on how to read it."""

    figure: Figure | SubFigure
    alt: str
    caption: str

    def png(self) -> bytes:
        """The picture at twice the screen's resolution."""
        figure = self.figure if isinstance(self.figure, Figure) else self.figure.get_figure(root=True)
        assert isinstance(figure, Figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_FILE_DPI)
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        """One self-contained figure: nothing is asked of a network."""
        data = base64.b64encode(self.png()).decode()
        return (
            f'<figure class="chart" style="margin:0"><img alt="{escape(self.alt)}" '
            f'style="width:100%;max-width:{WIDTH_IN * SCREEN_DPI:.0f}px;height:auto" '
            f'src="data:image/png;base64,{data}"><figcaption>{escape(self.caption)}</figcaption></figure>'
        )


def name_rows(ax: Axes, places: Sequence[tuple[float, str]]) -> None:
    """Names beside the y axis, at their places; one of several lines is set small, to stay within its row."""
    ax.set_yticks([at for at, _ in places], [name for _, name in places])
    for label in ax.get_yticklabels():
        if "\n" in label.get_text():
            label.set(fontsize=_SMALL, linespacing=0.95)


def name_group(ax: Axes, y: float, name: str, **looks: Any) -> None:
    """A heading over rows, in two lines where it is long. It takes no room from the picture."""
    told = "\n".join(textwrap.wrap(name, _HEADING_COLUMNS, max_lines=2, placeholder=" …"))
    ax.text(0.0, y, told, transform=ax.get_yaxis_transform(), linespacing=1.0, **looks).set_in_layout(False)


def axes(ax: Axes | None, height_in: float = 3.4) -> Axes:
    """`ax`, or the one on a new figure that belongs to no window; dressed like all others."""
    if ax is None:
        ax = Figure(figsize=(WIDTH_IN, height_in), dpi=SCREEN_DPI, layout="constrained").add_subplot()
    dress(ax)
    return ax


def dress(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.tick_params(colors=INK, labelsize=10)
    ax.grid(axis="y", color=PALE, linewidth=0.7)
    ax.set_axisbelow(True)


def finish(ax: Axes, title: str, alt: str, caption: str) -> Chart:
    """Put the title on `ax` and close the chart."""
    ax.set_title(textwrap.fill(title, _TITLE_COLUMNS), loc="left", fontsize=12, color=INK)
    return Chart(ax.figure, f"{title}. {alt}", caption)


def legend(ax: Axes, **options: Any) -> None:
    """Below the axes, where it can cover no line; none where nothing was drawn."""
    if not ax.get_legend_handles_labels()[0]:
        return
    ax.legend(
        loc="upper left", bbox_to_anchor=(0, -0.2), ncols=5, frameon=False, fontsize=10, borderaxespad=0, **options
    )


def log_milliseconds(ax: Axes) -> None:
    """A logarithmic axis of latencies, with numbers that people read. Comes after what is drawn, if anything is."""
    if math.isinf(ax.dataLim.minposy):
        ax.set_ylim(0.1, 10)
    ax.set_yscale("log")
    plain_logarithmic(ax.yaxis)
    ax.set_ylabel("latency, ms")


def plain_logarithmic(axis: Axis) -> None:
    axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def mark(ax: Axes, view: View) -> None:
    """Shade the drain, and mark every change and fault that `view` tells of, with its words."""
    if view.end_s > view.load_s + 0.05:
        ax.axvspan(view.load_s, view.end_s, color=PALE, alpha=0.5, linewidth=0, label="draining")
    quiet = {"go", "end", "drained"}
    for event in view.events:
        if event["kind"] in quiet:
            continue
        bad = event["kind"] in {"fault", "error", "stop"}
        ax.axvline(event["at_s"], color="#B00020" if bad else GREY, linewidth=1, linestyle="-" if bad else ":")
        words = textwrap.shorten(event["text"], 40, placeholder="…")
        ax.annotate(
            words,
            (event["at_s"], 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -3),
            textcoords="offset points",
            rotation=90,
            va="top",
            ha="left",
            fontsize=8.5,
            color="#B00020" if bad else GREY,
        )
