"""`python -m pgolf.ablation SWEEP [SWEEP ...] [--by WORD]`: arms as a table, and what each word does, paired by seed.

Every complete run below the sweep folders is taken. An effect compares arms that differ in one word and agree in all
others: per seed the mean of their differences, over seeds a t test. So n is the number of seeds, and what all arms of a
seed share (initial weights, order of the text) takes no part in it. `--by` gives the effects within each value of a word,
`--curves` draws the running bpb of every arm, `--page` draws everything else that was measured and prints the means.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pgolf.config.command import Parser, Result, StatusLines, command
from pgolf.report.panels import draw_panels
from pgolf.results import stats
from pgolf.results.effects import Cell, arm_rows, by_arm, cells_of, effects, label, measured, runs_of
from pgolf.results.readme import count, table


@command()
def main(args: Sequence[str], say: StatusLines) -> Result:
    """The table of arms and the effect of each override."""
    parser = Parser("ablation", "What the words of a sweep do.")
    parser.add_argument(
        "sweeps", metavar="SWEEP", nargs="+", type=Path, help="a sweep's folder; the first arm is the first"
    )
    parser.add_argument("--by", metavar="WORD", help="effects within each value of this word, as quant.bits")
    parser.add_argument("--curves", metavar="FILE", type=Path, help="draw running bpb, an .svg or .png")
    parser.add_argument("--page", metavar="FILE", type=Path, help="draw scores, gaps, bytes, seconds, an .svg or .png")
    options = parser.parse_args(args)
    runs, absent = runs_of(options.sweeps)
    for line in absent:
        print(f"not in the tables: {line}", file=sys.stderr)
    cells = cells_of(runs)
    arms, tables = arm_rows(cells), effects(cells, options.by)
    if options.curves:
        draw(by_arm(cells), options.curves)
    parts = [arms_table(arms), *(effects_table(title, rows) for title, rows in tables.items())]
    panels = measured(cells) if options.page else None
    if panels is not None:
        parts.append(means_table(panels))
        draw_panels(panels, options.page)
    shown = [{"within": title, "rows": rows} for title, rows in tables.items()]
    value = {"arms": arms, "effects": shown, "absent": absent, "measured": panels}
    return Result("pgolf.ablation/1", value, "\n\n".join(parts))


def arms_table(arms: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `arm_rows` as a table."""
    keys = list(dict.fromkeys(key for arm in arms for key in arm["words"]))
    head = (*keys, "n", "val_bpb", "std", "gap", "artifact bytes", "bits/weight", "from the first", "p")
    return table(head, [_arm_cells(keys, arm) for arm in arms])


def _arm_cells(keys: Sequence[str], arm: Mapping[str, Any]) -> list[str]:
    size, gap, weight = count(round(arm["artifact_bytes"])), f"{arm['gap']:+.4f}", f"{arm['bits_per_weight']:.2f}"
    score = (str(arm["n"]), f"{arm['val_bpb']:.4f}", _number(arm["std"], ".4f"))
    return [*(arm["words"].get(key, "–") for key in keys), *score, gap, size, weight, *_test_cells(arm)]


def _test_cells(row: Mapping[str, Any]) -> tuple[str, str]:
    return _number(row["difference"], "+.4f"), _number(row["p"], ".2g")


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def effects_table(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """One table of `effects`."""
    head = ("word", "against", "seeds", "pairs", "difference", "std", "p")
    shown = []
    for row in rows:
        difference, p = _test_cells(row)
        against = row["against"] or "not given"
        shown.append((row["word"], against, row["seeds"], row["pairs"], difference, _number(row["std"], ".4f"), p))
    return f"{title}:\n\n{table(head, shown)}" if rows else f"{title}: no two arms differ in one word only"


def running(cell: Cell) -> tuple[list[float], list[float]]:
    """Share of the chunks scored, and bpb so far."""
    bpb = [row["bpb"] for row in cell.number("evaluate.trace") if row["phase"] == "score"]
    return [(i + 1) / len(bpb) for i in range(len(bpb))], bpb


def draw(arms: Mapping[tuple, Sequence[Cell]], path: Path) -> None:
    """Running bpb of every arm, mean over seeds. Rules that take documents in another order begin elsewhere."""
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.2 * len(arms) + 3.5), layout="constrained")
    ax = figure.subplots()
    ax.set_prop_cycle(color=colormaps["tab20"].colors)
    for arm, cells in arms.items():
        shares, _ = running(cells[0])
        ax.plot(shares, np.mean([running(cell)[1] for cell in cells], axis=0), label=label(arm), linewidth=1)
    ax.set_xlabel("share of the chunks scored")
    ax.set_ylabel("running bpb")
    figure.legend(loc="outside lower center", fontsize=8)
    figure.savefig(path, dpi=100)


def means_table(panels: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """The means of what `measured` gives, a row for each arm."""
    rows = [
        [arm, str(len(seeds)), *(f"{stats.mean(v[arm]):.4f}" if v[arm] else "–" for v in panels.values())]
        for arm, seeds in panels["val_bpb"].items()
    ]
    return table(("arm", "n", *panels), rows)


if __name__ == "__main__":
    sys.exit(main())
