"""Liveness receipts: every switchable part proves that it acted, or the run is an error rather than a footnote."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Receipt:
    """`part` (its dotted config key, e.g. 'average') did `what` by `value`; `alive` is False when it did nothing."""

    part: str
    what: str
    value: float
    alive: bool
