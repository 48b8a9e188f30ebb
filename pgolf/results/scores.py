"""The scores that a public submission.json states, as one shape.

Public files spell the same thing many ways (seeds as a table, a list or in the names of keys; numbers as text; only a
mean). What is read is what they say; where they contradict themselves, a note says so.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pgolf.errors import UserError
from pgolf.results import stats
from pgolf.results.seedtable import BPB, LOSS, SeedTable, figure, seed_table
from pgolf.stages.views import digits


@dataclass(frozen=True)
class Scores:
    """`bpb` and `loss` by seed where they are known, and the mean and std to use; `notes` are for the reader."""

    label: str
    sample: stats.Sample
    bpb: dict[str, float]
    nats_per_bpb: float | None
    notes: tuple[str, ...]


def known(label: str, bpb: dict[str, float], loss: dict[str, float], notes: tuple[str, ...]) -> Scores:
    """Scores from figures by seed: mean, deviation, and nats per bpb where losses are known."""
    ratios = [stats.nats_per_bpb(loss[s], bpb[s]) for s in bpb if loss.get(s) and bpb[s]]
    return Scores(label, stats.sample(list(bpb.values())), bpb, stats.mean(ratios) if ratios else None, notes)


def published(label: str, value: Any) -> Scores:
    """A submission.json, whoever wrote it."""
    if not isinstance(value, dict):
        raise UserError(f"{label}: a submission must be a JSON object, is {type(value).__name__}")
    notes: list[str] = []
    table = seed_table(value)
    bpb, loss = by_seed(table, BPB, notes), by_seed(table, LOSS, notes)
    mean, mean_loss = (stated_mean(value, kind, notes) for kind in (BPB, LOSS))
    deviation = _number(value, "val_bpb_std", notes)
    if bpb:
        notes += _contradictions(value, bpb, loss)
        found = known(label, bpb, loss, tuple(dict.fromkeys(notes)))
        return found if found.nats_per_bpb else _with_ratio(found, mean, mean_loss)
    if mean == 0:
        raise UserError(f"{label}: val_bpb is {value.get('val_bpb', mean)}, which no model reaches")
    if mean is None:
        near = ", ".join(sorted(k for k in value if "bpb" in k or "loss" in k)) or "none"
        raise UserError(f"{label}: no val_bpb that is a number, and no results by seed (related fields: {near})")
    n = max(1, len(table.named))
    notes.append(f"results by seed are not stated, only the mean{f' of {n}' if n > 1 else ''}")
    only = Scores(label, stats.Sample(n, mean, deviation if n > 1 else None), {}, None, tuple(dict.fromkeys(notes)))
    return _with_ratio(only, mean, mean_loss)


def _with_ratio(found: Scores, bpb: float | None, loss: float | None) -> Scores:
    return replace(found, nats_per_bpb=stats.nats_per_bpb(loss, bpb) if bpb and loss else None)


def by_seed(table: SeedTable, kind: re.Pattern, notes: list[str]) -> dict[str, float]:
    """Seed to the figure of a kind (BPB, LOSS), where it is a number."""
    found = {}
    for seed, row in table.rows.items():
        name = figure(row, kind)
        number = _number(row, name, notes, f"seed {seed}: ") if name else None
        if number is not None:
            found[str(seed)] = number
    return found


def stated_mean(value: dict, kind: re.Pattern, notes: list[str]) -> float | None:
    """The figure of a kind that a file states for all of its seeds together: {"val_bpb": {"mean": 1.1}} gives 1.1."""
    own = {k: v.get("mean", v.get("avg")) if isinstance(v, dict) else v for k, v in value.items()}
    name = figure({k: v for k, v in own.items() if isinstance(v, int | float | str)}, kind)
    return _number(own, name, notes) if name else None


def _number(row: dict, key: str, notes: list[str], where: str = "") -> float | None:
    """The finite number from 0 at `key`, even where it is spelled as text; None for anything else."""
    found = row.get(key)
    if isinstance(found, str):
        notes.append(f"{where}{key} is text ({found!r})")
        try:
            found = float(found)
        except ValueError:
            return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < math.inf:
        return None
    return float(min(found, 1e300))


def _contradictions(value: dict, bpb: dict[str, float], loss: dict[str, float]) -> Iterator[str]:
    """Where the stated means and deviations are not those of the stated seeds, at the digits they are stated with."""
    for key, table in (("val_bpb", bpb), ("val_loss", loss)):
        if not table:
            continue
        found = stats.sample(list(table.values()))
        for name, truth in ((key, found.mean), (f"{key}_std", found.std)):
            stated = _number(value, name, [])
            if stated is None or truth is None or same(stated, truth):
                continue
            population = found.std is not None and same(stated, found.std * math.sqrt((found.n - 1) / found.n))
            why = " (it divides by n, not n − 1)" if name.endswith("std") and population else ""
            yield f"{name} is stated as {stated}, the seeds give {digits(truth)}{why}"


def same(stated: float, truth: float) -> bool:
    """Equal within one unit of the last digit stated. same(1.117, 1.1163): False; same(1.117, 1.1175): True"""
    text = repr(stated)
    decimals = len(text.partition(".")[2]) if "e" not in text else 8
    return abs(stated - truth) < 1.001 * 10.0**-decimals
