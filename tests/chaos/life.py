"""One life of a subject: it is begun, hit, looked at, and taken up, until it is done; then held against a life without hits.

All that is left to chance comes from the life's seed.
"""

import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgolf.errors import UserError
from tests.chaos.attempt import PATIENCE, Attempt
from tests.chaos.hits import DONE, KINDS, mount
from tests.chaos.left import half, left_over
from tests.chaos.subjects import SUBJECTS, Subject

DISK = "96m"  # that a small disk holds
MOST_HITS = 4  # in one life


class FaultError(Exception):
    """Something was lost, left, or said with a stack. `said`: what the command said of errors."""

    def __init__(self, what: str, said: str = ""):
        super().__init__(what)
        self.said = said


@dataclass(frozen=True)
class Whole:
    """A life without hits: what came of it, and how many seconds each stage took, by name, in order."""

    result: Any
    stages: dict[str, float]


@dataclass(frozen=True)
class Hit:
    """What was done to what, when, and how it ended."""

    subject: str
    stage: str
    kind: str
    code: int
    seconds: float


@contextmanager
def world_in(place: Path, disk: bool) -> Iterator[Path]:
    """A folder for a life, on a small disk of its own if asked."""
    world = Path(tempfile.mkdtemp(prefix="world", dir=place))
    if disk:
        mount("-t", "tmpfs", "-o", f"size={DISK}", "chaos", world)
    try:
        yield world
    finally:
        if disk:
            subprocess.run(["umount", "--lazy", world], check=True)
        shutil.rmtree(world, ignore_errors=True)


def undisturbed(name: str, place: Path, mark: str, private: bool) -> Whole:
    """Run a subject through, looking at its stages."""
    with world_in(place, disk=False) as world:
        subject = SUBJECTS[name](random.Random(0))
        stages: dict[str, float] = {}
        last = time.monotonic()
        with Attempt(subject.command(world), world, place, mark) as attempt:
            while attempt.process.poll() is None:
                time.sleep(0.02)
                now, stage = time.monotonic(), subject.stage(world)
                stages[stage], last = stages.get(stage, 0.0) + now - last, now
        if attempt.process.returncode != DONE:
            raise FaultError(f"{name} does not run here: exit {attempt.process.returncode}: {attempt.said().strip()}")
        if found := [*left_over(world, mark, private), *half(world)]:
            raise FaultError(f"undisturbed: {'; '.join(found)}")
        return Whole(subject.result(world), stages)


class Life:
    """Of the subject `name`, with `whole` to be held against. `mounts` and `private`: what this machine allows."""

    def __init__(self, name: str, seed: int, whole: Whole, place: Path, mounts: bool, tell: Callable[[Hit], None]):
        self.luck, self.name, self.whole = random.Random(f"{name} {seed}"), name, whole
        self.place, self.mounts, self.tell = place, mounts, tell
        self.mark = f"{name}-{seed}-{place.name}"
        self.subject: Subject = SUBJECTS[name](self.luck)
        self.disk = mounts and self.luck.random() < 0.6

    def live(self) -> None:
        """From the first start to the comparison. Raises FaultError."""
        with world_in(self.place, self.disk) as world:
            if self.name == "clock":
                return self._by_its_clock(world)
            hits = self.luck.randint(1, MOST_HITS)
            done = False
            while not done:
                done = self._attempt(world, hits > 0)
                hits -= 1
            self._compare(world)

    def _by_its_clock(self, world: Path) -> None:
        with Attempt(self.subject.command(world), world, self.place, self.mark) as attempt:
            self._end(attempt, "", world)
        self._look(world, attempt, (0, 1, 2))
        self.subject.result(world)
        self._tell(attempt, self.subject.struck, "clock")

    def _attempt(self, world: Path, hit: bool) -> bool:
        """Start it, hit it if that is wanted, and look. Returns whether it is done."""
        name, stage = (self._kind(), self._stage(world)) if hit else ("", "")
        kind, struck = KINDS.get(name), ""
        with Attempt(self.subject.command(world), world, self.place, self.mark) as attempt:
            try:
                if kind and self._reach(attempt, world, stage):
                    struck = self.subject.stage(world)
                    kind.strike(attempt, self.luck)
                self._end(attempt, name if struck else "", world)
            finally:
                if struck:
                    kind.undo(attempt)
        code = attempt.process.returncode
        if not struck and code != DONE and self.subject.begins_anew(world, code, attempt.said()):
            return False
        self._look(world, attempt, kind.codes if struck else (DONE,))
        if struck:
            self._tell(attempt, struck, name)
        return code == DONE

    def _tell(self, attempt: Attempt, stage: str, kind: str) -> None:
        spent = time.monotonic() - attempt.began
        self.tell(Hit(self.name, stage, kind, attempt.process.returncode, spent))

    def _kind(self) -> str:
        allowed = {"": True, "mounts": self.disk, "ranks": self.subject.ranks}
        return self.luck.choice([name for name, kind in KINDS.items() if allowed[kind.needs]])

    def _stage(self, world: Path) -> str:
        """One of the stages that are still to come."""
        names, now = list(self.whole.stages), self.subject.stage(world)
        later = names[names.index(now) :] if now in names else names
        return self.luck.choice([name for name in dict.fromkeys([names[0], *later]) if name != "end"])

    def _reach(self, attempt: Attempt, world: Path, stage: str) -> bool:
        """Wait for a random moment of the stage. False if the command ended before."""
        moment = self.luck.uniform(0.0, self.whole.stages[stage])
        at_start = stage == next(iter(self.whole.stages))
        attempt.ended(PATIENCE, lambda: at_start or self.subject.stage(world) == stage)
        attempt.ended(moment)
        return attempt.process.poll() is None

    def _end(self, attempt: Attempt, kind: str, world: Path) -> None:
        """Wait for the end; a pipe that was full is read again once the work is done."""
        if kind == "full":
            if not attempt.ended(PATIENCE, lambda: self.subject.done(world)):
                raise FaultError("a full pipe holds it up")
            attempt.output.wake()
        if not attempt.ended(PATIENCE):
            raise FaultError(f"it does not end ({kind})")

    def _look(self, world: Path, attempt: Attempt, codes: tuple[int, ...]) -> None:
        """After each end: the exit code, what was said, and what is left."""
        code, said = attempt.process.returncode, attempt.said().strip()
        found = [*left_over(world, self.mark, self.mounts)]
        if code not in codes:
            found.append(f"exit {code}: {' | '.join(said.splitlines()[-3:])}")
        if "Traceback (most recent call last)" in said:
            found.append(f"a stack on stderr: {said.splitlines()[-1]}")
        if found:
            raise FaultError("; ".join(found), said)

    def _compare(self, world: Path) -> None:
        if written := half(world):
            raise FaultError(f"left in the end: {', '.join(written)}")
        try:
            result = self.subject.result(world)
        except (UserError, OSError, LookupError, ValueError) as wrong:
            raise FaultError(f"{type(wrong).__name__}: {wrong}") from None
        if result != self.whole.result:
            raise FaultError(f"another result: {different(self.whole.result, result)}")


def different(one: Any, other: Any, at: str = "") -> str:
    """Where two plain values differ first."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in {**one, **other}:
            if one.get(key) != other.get(key):
                return different(one.get(key), other.get(key), f"{at}.{key}")
    if isinstance(one, list) and isinstance(other, list):
        more, less = [x for x in other if x not in one], [x for x in one if x not in other]
        return f"{at[1:]}: more {more}, less {less}"
    return f"{at[1:]}: {one} before, {other} now"
