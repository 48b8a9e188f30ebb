"""Statistics of a claim: means over seeds, t tests, and the record bar of the challenge in the unit that decides.

Everything is pure and works on a `Sample` (n, mean, std), because public results often state no more than that.
Differences are ours minus baseline throughout, in bits per byte unless said otherwise, so that negative is better.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pgolf.stages.views import digits

BAR_NATS = 0.005  # a record beats the previous one by this much …
BAR_P = 0.01  # … at this significance
MOST_SEEDS = 1000


def rounded(value: float) -> float:
    """`value` as `digits` spells it, so that a printed number and a stored one are the same number."""
    return float(digits(value))


@dataclass(frozen=True)
class Sample:
    """`n` results with this `mean` and standard deviation `std` (n − 1 below; None when it is not known)."""

    n: int
    mean: float
    std: float | None

    @property
    def spread(self) -> bool:
        """Whether a t test can use it: at least two results, and their deviation is known."""
        return self.n >= 2 and self.std is not None


@dataclass(frozen=True)
class TTest:
    """`difference` with its t, degrees of freedom, p and 95 % interval; t and p are None when nothing varies."""

    difference: float
    t: float | None
    df: float | None
    p: float | None
    low: float
    high: float


def mean(values: Sequence[float]) -> float:
    """mean([1, 2, 6]) == 3.0"""
    return math.fsum(values) / len(values)


def std(values: Sequence[float]) -> float | None:
    """Standard deviation with n − 1 below; None for fewer than two. std([1, 2, 3]) == 1.0"""
    if len(values) < 2:
        return None
    centre = mean(values)
    return math.sqrt(math.fsum((v - centre) ** 2 for v in values) / (len(values) - 1))


def sample(values: Sequence[float]) -> Sample:
    """sample([1, 2, 3]) == Sample(n=3, mean=2.0, std=1.0)"""
    return Sample(len(values), mean(values), std(values))


def nats_per_bpb(val_loss: float, val_bpb: float) -> float:
    """Nats per token that one bit per byte is worth on this token stream: ln 2 · bytes / tokens, a constant of the stream.

    bpb = (nats / ln 2) · tokens / bytes, so it is loss / bpb whatever the model. SP1024: 1.88347869 / 1.11550587 = 1.6885.
    """
    return val_loss / val_bpb


def welch(ours: Sample, baseline: Sample, shift: float = 0.0) -> TTest:
    """Welch's two-sided t test of mean(ours) − mean(baseline) against `shift` (Welch 1947), with a 95 % interval.

    welch(sample([1, 2, 3]), sample([4, 5, 6])): difference −3, t = −3/√(1/3 + 1/3) = −3.674, df = 4, p = .0213.
    """
    assert ours.spread, "Welch's test needs two results of ours"
    assert baseline.spread, "Welch's test needs two results of the baseline"
    va, vb = ours.std**2 / ours.n, baseline.std**2 / baseline.n
    if va + vb == 0:
        return _test(ours.mean - baseline.mean, shift, 0.0, None)
    df = (va + vb) ** 2 / (va**2 / (ours.n - 1) + vb**2 / (baseline.n - 1))
    return _test(ours.mean - baseline.mean, shift, math.sqrt(va + vb), df)


def one_sample(ours: Sample, threshold: float) -> TTest:
    """Two-sided t test of mean(ours) against a fixed `threshold`.

    one_sample(sample([1, 2, 3]), 4): difference −2, t = −2/√(1/3) = −3.464, df = 2, p = .0742.
    """
    assert ours.spread, "a one-sample test needs two results"
    return _test(ours.mean - threshold, 0.0, ours.std / math.sqrt(ours.n), ours.n - 1)


def _test(difference: float, shift: float, error: float, df: float | None) -> TTest:
    if error == 0 or df is None:
        return TTest(difference, None, None, None, difference, difference)
    from scipy.special import stdtr, stdtrit

    t = (difference - shift) / error
    reach = float(stdtrit(df, 0.975)) * error
    return TTest(difference, t, df, float(2 * stdtr(df, -abs(t))), difference - reach, difference + reach)


def below(test: TTest) -> float | None:
    """One-sided p of "ours is lower" from a two-sided test; None when nothing varies. t < 0 and p = .02: .01"""
    if test.p is None:
        return None
    return test.p / 2 if test.t < 0 else 1 - test.p / 2


def seeds_needed(difference: float, std_a: float, std_b: float, p: float = BAR_P) -> int | None:
    """Seeds per arm for Welch's two-sided p to fall under `p`, if means and deviations stay; None beyond MOST_SEEDS.

    With s = √(sa² + sb²): the smallest n ≥ 2 with |d|·√n / s > t(1 − p/2; df). A difference of .0010 between arms that
    both deviate by .0006 needs 7 seeds each; of .0100, 2.
    """
    if difference == 0:
        return None
    if std_a == std_b == 0:
        return 2
    import numpy as np
    from scipy.special import stdtr

    n = np.arange(2, MOST_SEEDS + 1)
    t = abs(difference) * np.sqrt(n) / math.hypot(std_a, std_b)
    df = (n - 1) * (std_a**2 + std_b**2) ** 2 / (std_a**4 + std_b**4)
    enough = np.flatnonzero(2 * stdtr(df, -t) < p)
    return int(n[enough[0]]) if len(enough) else None


@dataclass(frozen=True)
class Reading:
    """The bar in one of the units people read it in: `bar` in bpb, `gain` in the unit, one-sided p of each test."""

    unit: str
    bar: float
    gain: float
    one_sample_p: float | None
    welch_p: float | None

    @property
    def met(self) -> bool:
        """Every test that can be made is passed, and at least one can be made."""
        made = [p for p in (self.one_sample_p, self.welch_p) if p is not None]
        return bool(made) and all(p < BAR_P for p in made)


@dataclass(frozen=True)
class Claim:
    """Three readings of the bar; the first, nats per token, decides."""

    readings: tuple[Reading, Reading, Reading]

    @property
    def met(self) -> bool:
        """Whether the bar is met in nats per token, which decides."""
        return self.readings[0].met


def claim(ours: Sample, baseline: Sample, nats: float) -> Claim:
    """Whether `ours` beats `baseline` by 0.005 at p < .01, in the three units in use; `nats` is nats per token and bpb.

    Nats per token is the challenge's rule (.00296 bpb on SP1024, where nats = 1.6885) and decides; bits per byte asks for
    .005 bpb; nats per byte for .005 / ln 2 = .00721 bpb. Both tests are one-sided: one-sample against
    mean(baseline) − bar, and Welch where the baseline's seeds are known; each that can be made must pass.
    """
    units = (("nats per token", nats), ("bits per byte", 1.0), ("nats per byte", math.log(2)))
    return Claim(tuple(_reading(unit, scale, ours, baseline) for unit, scale in units))


def _reading(unit: str, per_bpb: float, ours: Sample, baseline: Sample) -> Reading:
    bar, gain = BAR_NATS / per_bpb, (baseline.mean - ours.mean) * per_bpb
    alone = below(one_sample(ours, baseline.mean - bar)) if ours.spread else None
    both = below(welch(ours, baseline, shift=-bar)) if ours.spread and baseline.spread else None
    return Reading(unit, bar, gain, alone, both)
