"""Progress of an audit: callbacks of its evaluations, and the console that shows them."""

import math
import time

from pgolf.eval.ledger import Progress
from pgolf.machine.outlet import on_terminal, outlet
from pgolf.show.console import Console, PlainConsole, QuietConsole, TerminalConsole


def open_console(quiet: bool) -> Console:
    """None that shows anything if `quiet`; a terminal; else lines on stderr, because stdout is for the findings."""
    if quiet:
        return QuietConsole()
    return TerminalConsole() if on_terminal() else PlainConsole(outlet(2))


class Experiments:
    """Shows how far `count` evaluations are, one after another."""

    def __init__(self, console: Console, count: int):
        self.console, self.count, self.ended = console, count, 0
        self.began = time.monotonic()

    def __call__(self, now: Progress) -> None:
        done = min(1.0, (self.ended + now.done / now.total) / self.count)
        left = (time.monotonic() - self.began) * (1 / done - 1) if done else math.inf
        text = f"experiment {min(self.ended + 1, self.count)} of {self.count}  {left:.0f} s to go"
        self.console.progress("experiments", done, text)
        self.ended += now.committed == now.chunks


class EnoughError(Exception):
    """The time for scoring again is over."""


class Rescoring:
    """Keeps the running score after every chunk (`scores`, by how many are committed), and stops after `seconds`."""

    def __init__(self, console: Console, seconds: float):
        self.console, self.seconds = console, seconds
        self.scores: dict[int, float] = {}
        self.total = 0

    def __call__(self, now: Progress) -> None:
        self.total = now.chunks
        if now.committed:
            self.scores[now.committed] = now.bpb
        done = max(now.done / now.total, now.seconds / self.seconds)
        left = min(now.expected, self.seconds) - now.seconds
        text = f"{now.done:,} of {now.total:,} targets  {max(0.0, left):.0f} s to go"
        self.console.progress("scoring again", min(1.0, done), text)
        if now.seconds > self.seconds and now.committed < now.chunks:
            raise EnoughError
