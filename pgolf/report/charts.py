"""Drawings for reports: small SVGs whose colours are the page's own, so that they follow it into the dark and into print.

Sizes are chosen so that text is readable at the width of a phone.
"""

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

# Matplotlib draws in stand-ins; the stylesheet's variables take their places afterwards.
INK, MUTED, LINE = "#010101", "#020202", "#030303"
SERIES = ("#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04")
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    **dict(zip(SERIES, ("--a", "--b", "--c", "--d"), strict=True)),
}
WIDTH = 5.0  # inches of 72 points: a point is about a pixel on a phone
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pgolf",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.5,
    "lines.markersize": 3.5,
}
Points = Sequence[tuple[float, float]]


def curves(panels: Mapping[str, Mapping[str, Points]], x: str, step: bool = False) -> str:
    """Panels above each other over one x axis; each has a y label and its curves by name."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.5 + 1.75 * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for ax, (label, lines) in zip(axes, panels.items(), strict=True):
            _curves(ax, lines)
            ax.set_ylabel(label)
        axes[-1].set_xlabel(x)
        if step:
            axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        return svg(figure, x + "".join(panels))


def _curves(ax: Axes, lines: Mapping[str, Points]) -> None:
    for (name, points), colour in zip(lines.items(), SERIES, strict=False):
        marker = "o" if len(points) <= 40 else None
        ax.plot([p[0] for p in points], [p[1] for p in points], color=colour, marker=marker, label=name)
    if len(lines) > 1:
        ax.legend()


def bars(rows: Mapping[str, float], x: str) -> str:
    """One horizontal bar for each name, longest names included."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.55 + 0.24 * len(rows)), layout="constrained")
        ax = figure.subplots()
        ax.barh(range(len(rows)), list(rows.values()), color=SERIES[0], height=0.65)
        _names(ax, list(rows))
        ax.set_xlabel(x)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
        ax.xaxis.set_major_locator(MaxNLocator(4))
        return svg(figure, x)


def pairs(rows: Mapping[str, tuple[float, float]], names: tuple[str, str], x: str) -> str:
    """Two dots for each name on a logarithmic axis, joined by a line: how far the one is from the other."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.8 + 0.19 * len(rows)), layout="constrained")
        ax = figure.subplots()
        ys, first, second = range(len(rows)), [a for a, _ in rows.values()], [b for _, b in rows.values()]
        ax.hlines(ys, first, second, color=LINE, linewidth=1)
        ax.plot(second, ys, "o", color=SERIES[1], label=names[1])
        ax.plot(first, ys, "o", color=SERIES[0], label=names[0])
        ax.set_xscale("log")
        _names(ax, list(rows), 8)
        ax.set_xlabel(x)
        figure.legend(loc="outside upper center", ncols=2)
        return svg(figure, x)


def intervals(rows: Mapping[str, tuple[float, float | None, float | None]], x: str) -> str:
    """Differences with their intervals, against a line at nought."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.6 + 0.3 * len(rows)), layout="constrained")
        ax = figure.subplots()
        for y, (middle, low, high) in enumerate(rows.values()):
            if low is not None and high is not None:
                ax.hlines(y, low, high, color=SERIES[0], linewidth=2)
            ax.plot([middle], [y], "o", color=SERIES[0])
        ax.axvline(0, color=MUTED, linewidth=1)
        _names(ax, list(rows))
        ax.set_xlabel(x)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        return svg(figure, x)


def dots(rows: Mapping[str, Sequence[float]], x: str) -> str:
    """Every value of each name, and a bar at their mean."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.6 + 0.3 * len(rows)), layout="constrained")
        ax = figure.subplots()
        for y, values in enumerate(rows.values()):
            ax.plot(values, [y] * len(values), "o", color=SERIES[0], alpha=0.75)
            ax.plot([sum(values) / len(values)], [y], "|", color=SERIES[1], markersize=14, markeredgewidth=2)
        _names(ax, list(rows))
        ax.set_xlabel(x)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        return svg(figure, x)


def _names(ax: Axes, names: Sequence[str], size: int = 9) -> None:
    """Names on the y axis, the first at the top."""
    ax.set_yticks(range(len(names)), [shortened(name) for name in names], fontsize=size)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(False, axis="y")
    ax.tick_params(axis="y", length=0)


def shortened(name: str, longest: int = 30) -> str:
    """The end of a name that is too long tells it from its neighbours."""
    return name if len(name) <= longest else f"…{name[1 - longest :]}"


def svg(figure: Figure, title: str) -> str:
    """The drawing as inline SVG: no preamble, the page's font and colours, ids of its own."""
    out = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": title}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = out.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'(?<=<svg )[^>]*?viewBox="([^"]*)"[^>]*', r'viewBox="\1" role="img"', drawn, count=1)
    drawn = re.sub(r"(font: [^;\"]*?px)[^;\"]*", r"\1 system-ui, sans-serif", drawn)
    for stand_in, variable in VARIABLES.items():
        drawn = drawn.replace(stand_in, f"var({variable})")
    return drawn
