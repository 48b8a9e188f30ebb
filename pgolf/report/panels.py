"""A page of panels, one for each number, over the same arms: a dot for every seed, a bar at the mean."""

from collections.abc import Mapping, Sequence
from pathlib import Path

COLUMNS = 3


def draw_panels(panels: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """Write the page in the format that the name of `path` ends with; `panels` has the values of each arm by the panel's title,
    none for an arm without such a number. Names of the arms stand at the first panel of a row."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    arms = list(next(iter(panels.values())))
    panels = {title: values for title, values in panels.items() if any(values.values())}
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(12, rows * (0.22 * len(arms) + 0.9)), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, sharey=True, squeeze=False).ravel()
    for ax, (title, values) in zip(axes, panels.items(), strict=False):
        for y, arm in enumerate(arms):
            if seeds := values[arm]:
                ax.plot(seeds, [y] * len(seeds), "o", color="tab:blue", alpha=0.75, markersize=4)
                ax.plot([sum(seeds) / len(seeds)], [y], "|", color="tab:orange", markersize=12, markeredgewidth=2)
        ax.set_title(title, fontsize=10)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.grid(alpha=0.4)
        ax.tick_params(labelsize=8)
    axes[0].set_yticks(range(len(arms)), arms)
    axes[0].set_ylim(len(arms) - 0.4, -0.6)
    for ax in axes[len(panels) :]:
        ax.axis("off")
    figure.savefig(path, dpi=100)
