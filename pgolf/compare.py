"""`python -m pgolf.compare A B`: two results side by side, their difference with its test, and the record bar.

A is the baseline and B is ours, so that a negative difference is B's gain. A public record is named by its row of
baselines.yaml; whether B beats it is decided per token, in nats, and shown in the units that people use instead.
"""

import argparse
import sys
from collections.abc import Sequence

from pgolf.stages.views import digits
from pgolf.results import stats
from pgolf.results.baselines import baselines
from pgolf.config.command import command
from pgolf.results.scores import Scores, scores

WHERE = "SWEEP:ARM, a sweep, run or submission folder, a submission.json, TABLE.json:ROW, or a shipped baseline's name"
SAME_STREAM = 0.01  # nats per bpb is a constant of the token stream; further apart than this are two streams


@command()
def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pgolf.compare", description="Compare two results; A is the baseline."
    )
    parser.add_argument("a", metavar="A", help=f"the baseline: {WHERE}")
    parser.add_argument("b", metavar="B", help="ours, named in the same ways")
    parser.add_argument("--baselines", action=_List, nargs=0, help="list the shipped baselines and stop")
    asked = parser.parse_args(words)
    print(report(scores(asked.a), scores(asked.b)))
    return 0


class _List(argparse.Action):
    """An option that shows a table instead of asking for A and B."""

    def __call__(self, parser: argparse.ArgumentParser, *args: object) -> None:
        rows = [("baseline", "n", "mean val_bpb", "std (n − 1)")]
        for name in baselines():
            n, mean, std = vars(scores(name).sample).values()
            rows.append((name, str(n), digits(mean), "–" if std is None else digits(std)))
        print(aligned(rows))
        parser.exit()


def report(a: Scores, b: Scores) -> str:
    """The whole comparison as text."""
    parts = [_table(a, b), _difference(a, b), _bar(a, b), _notes(a, b)]
    return "\n\n".join(p for p in parts if p)


def _table(a: Scores, b: Scores) -> str:
    rows = [("", "n", "mean val_bpb", "std (n − 1)", "nats/bpb", "seeds")]
    for name, s in (("A", a), ("B", b)):
        deviation = "–" if s.sample.std is None else digits(s.sample.std)
        ratio = "–" if s.nats_per_bpb is None else f"{s.nats_per_bpb:.4f}"
        n = str(s.sample.n) if s.bpb or s.sample.n > 1 else "–"
        rows.append((f"{name} {s.label}", n, digits(s.sample.mean), deviation, ratio, ", ".join(s.bpb) or "–"))
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _difference(a: Scores, b: Scores) -> str:
    difference = b.sample.mean - a.sample.mean
    rows = [("B − A", f"{difference:+.8f} bpb")]
    if b.nats_per_bpb:
        rows.append(
            ("", f"{difference * b.nats_per_bpb:+.8f} nats per token (at B's {b.nats_per_bpb:.4f} nats per bpb)")
        )
    else:
        rows.append(("", "nats per token not known: B states no val_loss"))
    return aligned(rows + _tests(a.sample, b.sample, difference))


def _tests(a: stats.Sample, b: stats.Sample, difference: float) -> list[tuple[str, str]]:
    """Welch where both sides have a spread; one-sample where one side is a single figure; else the reason."""
    if a.spread and b.spread:
        test, name = stats.welch(b, a), "Welch"
    elif a.spread or b.spread:
        one, fixed, who = (b, a, "B") if b.spread else (a, b, "A")
        test, name = stats.one_sample(one, fixed.mean), f"one-sample, {who} against the other's single figure,"
    else:
        return [("test", "none: at least one side needs two results or a stated std")]
    if test.p is None:
        return [("test", "none: the results do not vary")]
    rows = [(name, f"t = {test.t:.3f}, df = {test.df:.2f}, two-sided p = {test.p:.4g}")]
    rows.append(("95 % interval", f"{test.low:+.8f} to {test.high:+.8f} bpb"))
    if a.spread and b.spread:
        needed = stats.seeds_needed(difference, a.std, b.std)
        rows.append(
            (
                "seeds needed for p < .01",
                f"{needed or f'more than {stats.MOST_SEEDS}'} per side, if means and stds stay",
            )
        )
    return rows


def _bar(a: Scores, b: Scores) -> str:
    """The record bar in its three readings; nats per token decides."""
    if b.nats_per_bpb is None or not b.sample.spread:
        why = "B states no val_loss" if b.sample.spread else "one result of B cannot be tested"
        return f"whether B meets the bar of a record cannot be said: {why}"
    claim = stats.claim(b.sample, a.sample, b.nats_per_bpb)
    rows = [("bar: 0.005 lower at p < .01", "in bpb", "gain", "one-sample p", "Welch p", "met")]
    for r in claim.readings:
        p_values = ("–" if p is None else f"{p:.4g}" for p in (r.one_sample_p, r.welch_p))
        rows.append((r.unit, f"{r.bar:.5f}", f"{r.gain:+.6f}", *p_values, "yes" if r.met else "no"))
    return f"{aligned(rows)}\ndecided per token in nats: the bar is {'met' if claim.met else 'not met'}"


def _notes(a: Scores, b: Scores) -> str | None:
    lines = [f"note on {name}: {note}" for name, s in (("A", a), ("B", b)) for note in s.notes]
    ratios = (a.nats_per_bpb, b.nats_per_bpb)
    if all(ratios) and abs(ratios[0] / ratios[1] - 1) > SAME_STREAM:
        lines.append(
            "note: the two are on different token streams; bpb compares them, nats per token is converted at B's rate"
        )
    return "\n".join(lines) or None


if __name__ == "__main__":
    sys.exit(main())
