"""What the words of a sweep do, as plain values: every arm's numbers, and paired differences of arms
that differ in one word.

Per seed the mean of the differences of its pairs, over seeds a t test. So n is the number of seeds, and what all arms of a seed
share (initial weights, order of the text) takes no part in it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgolf.config.compose import tells
from pgolf.errors import UserError, nearest
from pgolf.files import lookup
from pgolf.results import stats
from pgolf.results.runfolder import Run, read_run
from pgolf.results.summary import refuse_mixed_code, summarise

Words = Mapping[str, str]  # an arm, by the words that tell it from the others


@dataclass(frozen=True)
class Cell:
    """One complete run."""

    words: tuple[tuple[str, str], ...]
    seed: int
    run: Run

    def number(self, key: str) -> float:
        """The number at a dotted key of the run's record."""
        return lookup(self.run.record, key)

    @property
    def bpb(self) -> float:
        """`evaluate.val_bpb` of the run."""
        return self.number("evaluate.val_bpb")

    @property
    def artifact(self) -> str:
        """The sha256 of what was judged."""
        return self.run.record["artifact"]["sha256"]

    @property
    def is_plain(self) -> bool:
        """Whether nothing was learnt in evaluation."""
        return any(part["group"] == "ttt" and part["option"] == "NoTTT" for part in self.run.record["techniques"])

    def without(self, word: str) -> tuple:
        """All that must agree for a pair that differs in `word`."""
        return (*((k, v) for k, v in self.words if k != word), self.seed)


def runs_of(sweeps: Iterable[Path]) -> tuple[list[Run], list[str]]:
    """The runs that stand for their seeds, and which do not. UserError if a sweep has none, or if they cannot be compared."""
    runs, absent = [], []
    for sweep in sweeps:
        summary = summarise(sweep)
        refuse_mixed_code(summary)
        found = [problem["why"] for problem in summary["problems"]]
        found += [row["why"] for arm in summary["arms"] for row in arm["not_complete"]]
        absent += [f"{found.count(why)} run(s) of {sweep}: {why}" for why in dict.fromkeys(found)]
        chosen = [row["run"] for arm in summary["arms"] for row in arm["seeds"]]  # in the order of the plan
        if not chosen:
            raise UserError(f"{sweep}: no complete run{''.join(f'; {line}' for line in absent)}")
        runs += [read_run(sweep / name) for name in chosen]
    return runs, absent


def cells_of(runs: Sequence[Run]) -> list[Cell]:
    """Runs by the words in which they differ, in the order in which they were asked for."""
    by_run = [dict(word.split("=", 1) for word in arm_words(run)) for run in runs]
    keys = list(dict.fromkeys(key for words in by_run for key in words))
    telling = [key for key in keys if len({words.get(key) for words in by_run}) > 1]
    return [
        Cell(tuple((k, words[k]) for k in telling if k in words), run.seed, run)
        for words, run in zip(by_run, runs, strict=True)
    ]


def arm_words(run: Run) -> list[str]:
    """The overrides of a run that tell one arm from another."""
    return [word for word in run.record["overrides"] if tells(word)]


def by_arm(cells: Iterable[Cell]) -> dict[tuple, list[Cell]]:
    """The cells of each arm, in the order of their first appearance."""
    arms: dict[tuple, list[Cell]] = {}
    for cell in cells:
        arms.setdefault(cell.words, []).append(cell)
    return arms


def arm_rows(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Every arm: score, quantisation gap on held-out training text, size, and the difference from the first arm."""
    arms = by_arm(cells)
    first = next(iter(arms.values()))
    return [_arm_row(dict(arm), found, first) for arm, found in arms.items()]


def _arm_row(arm: Words, cells: Sequence[Cell], first: Sequence[Cell]) -> dict[str, Any]:
    bpb = stats.sample([cell.bpb for cell in cells])
    gaps = [c.number("train.dev_bpb.quantized") - c.number("train.dev_bpb.averaged") for c in cells]
    weights = [8 * cell.number("artifact.bytes") / cell.number("train.parameters") for cell in cells]
    paired = None if cells is first else _paired({c.seed: [c.bpb] for c in cells}, first)
    return {
        "words": dict(arm),
        "n": bpb.n,
        "val_bpb": bpb.mean,
        "std": bpb.std,
        "gap": stats.mean(gaps),
        "artifact_bytes": stats.mean([cell.number("artifact.bytes") for cell in cells]),
        "bits_per_weight": stats.mean(weights),
        **_tested(paired),
    }


def _paired(ours: Mapping[int, Sequence[float]], first: Sequence[Cell]) -> stats.Sample | None:
    """Differences from the first arm, seed by seed."""
    theirs = {cell.seed: cell.bpb for cell in first}
    shared = [stats.mean(values) - theirs[seed] for seed, values in ours.items() if seed in theirs]
    return stats.sample(shared) if shared else None


def _tested(differences: stats.Sample | None) -> dict[str, float | None]:
    """Their mean, and p of a one-sample t test against 0; None where there are none, or too few."""
    test = stats.one_sample(differences, 0.0) if differences and differences.spread else None
    return {"difference": differences and differences.mean, "p": test and test.p}


def effects(cells: Sequence[Cell], by: str | None) -> dict[str, list[dict[str, Any]]]:
    """Rows of what each word does, in all arms, or within each value of `by`, by a title that says which."""
    keys = list(dict.fromkeys(key for cell in cells for key, _ in cell.words))
    if by is None:
        return {"All arms": _effects(cells, keys)}
    if by not in keys:
        raise UserError(f"--by {by}: no arm is told by it.{nearest(by, keys)} There are: {', '.join(keys) or 'none'}")
    values = dict.fromkeys(dict(cell.words).get(by) for cell in cells)
    inside = {value: [cell for cell in cells if dict(cell.words).get(by) == value] for value in values if value}
    return {f"{by}={value}": _effects(found, [w for w in keys if w != by]) for value, found in inside.items()}


def _effects(cells: Sequence[Cell], keys: Sequence[str]) -> list[dict[str, Any]]:
    return [row for word in keys for row in _word_rows(word, cells)]


def _word_rows(word: str, cells: Sequence[Cell]) -> Iterable[dict[str, Any]]:
    """Each value of `word` against arms that are not given it or, where all are, against the first value."""
    values = list(dict.fromkeys(dict(cell.words).get(word) for cell in cells))
    first = None if None in values else values[0]
    base = {cell.without(word): cell.bpb for cell in cells if _is(cell, word, first)}
    for value in values:
        pairs = [
            (c.seed, c.bpb - base[c.without(word)]) for c in cells if _is(c, word, value) and c.without(word) in base
        ]
        if value != first and pairs:
            yield {"word": f"{word}={value}", "against": first, **_effect(pairs)}


def _is(cell: Cell, word: str, value: str | None) -> bool:
    return dict(cell.words).get(word) == value


def _effect(pairs: Sequence[tuple[int, float]]) -> dict[str, Any]:
    """The mean over seeds of the mean difference of a seed's pairs, with its deviation and p."""
    seeds = dict.fromkeys(seed for seed, _ in pairs)
    found = stats.sample([stats.mean([d for s, d in pairs if s == seed]) for seed in seeds])
    return {"seeds": found.n, "pairs": len(pairs), "std": found.std, **_tested(found)}


def label(arm: tuple) -> str:
    """An arm for people. label((("quant.bits", "6"),)) == "quant.bits=6" """
    return " ".join(value if key == "experiment" else f"{key}={value}" for key, value in arm) or "the arm"


def measured(cells: Sequence[Cell]) -> dict[str, dict[str, list[float]]]:
    """Every number by its title, of each arm, a value for each of its seeds.

    An arm that judges the artifacts of others again with ttt=none is no arm of its own here: from it their gain is taken."""
    plain = {cell.artifact: cell.bpb for cell in cells if cell.is_plain}
    learnt = {cell.artifact for cell in cells if not cell.is_plain}
    kept = [cell for cell in cells if not (cell.is_plain and cell.artifact in learnt)]
    arms = {label(arm): found for arm, found in by_arm(kept).items()}
    numbers: dict[str, Callable[[Cell], float | None]] = {
        "val_bpb": lambda c: c.bpb,
        "dev_bpb, packed": lambda c: c.number("train.dev_bpb.quantized"),
        "quantisation gap, dev_bpb": lambda c: c.number("train.dev_bpb.quantized") - c.number("train.dev_bpb.averaged"),
        "gain of learning, val_bpb": lambda c: (
            plain[c.artifact] - c.bpb if c.artifact in plain and not c.is_plain else None
        ),
        "artifact and code, kB": lambda c: (c.number("artifact.bytes") + c.number("code.bytes")) / 1000,
        "training, s": lambda c: c.number("train.seconds"),
        "evaluation, s per million targets": lambda c: 1e6 * c.number("evaluate.seconds") / c.number("evaluate.tokens"),
    }
    return {
        title: {arm: [v for v in map(of, found) if v is not None] for arm, found in arms.items()}
        for title, of in numbers.items()
    }
