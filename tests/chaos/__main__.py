"""`python -m tests.chaos kills=200 [seed=N] [subjects=run,ranks,sweep,corpus,search,clock] [counts=FILE] [place=DIR]`

Hits pgolf's commands at random moments, takes them up until they are done, and looks whether anything was lost or left. Every
hit prints a line. Hits are counted by subject, stage and kind in FILE (chaos.json), which adds up over calls. A fault prints
the words that repeat its life; exit code 1. Full disks and read-only folders need namespaces of mounts (`unshare`).
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pgolf.errors import UserError, nearest
from pgolf.files import read_json, write_json
from tests.chaos.life import FaultError, Hit, Life, Whole, undisturbed
from tests.chaos.subjects import SUBJECTS

APART = ("unshare", "--user", "--map-root-user", "--mount")
APART_NOW = "PGOLF_CHAOS_APART"  # this process is in a namespace of mounts of its own
DEFAULTS = {"kills": "20", "seed": None, "subjects": ",".join(SUBJECTS), "counts": "chaos.json", "place": None}


@dataclass(frozen=True)
class Asked:
    """The words of a call."""

    kills: int
    seed: int
    subjects: tuple[str, ...]
    counts: Path
    place: Path


def asked(words: Sequence[str]) -> Asked:
    """The words as values. Raises UserError."""
    given = dict(DEFAULTS)
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in DEFAULTS:
            raise UserError(f"{word!r}: must be KEY=VALUE with one of {', '.join(DEFAULTS)}.{nearest(key, DEFAULTS)}")
        given[key] = value
    subjects = tuple(given["subjects"].split(","))
    for name in subjects:
        if name not in SUBJECTS:
            raise UserError(f"subjects={name}: must be among {', '.join(SUBJECTS)}.{nearest(name, SUBJECTS)}")
    place = Path(given["place"] or tempfile.gettempdir()).absolute()
    if not place.is_dir():
        raise UserError(f"place={given['place']}: must be a folder")
    seed = number("seed", given["seed"], 0) if given["seed"] else time.time_ns() % 1_000_000
    return Asked(number("kills", given["kills"], 1), seed, subjects, Path(given["counts"]).absolute(), place)


def number(key: str, value: str, least: int) -> int:
    if not value.isdecimal() or int(value) < least:
        raise UserError(f"{key}={value}: must be a whole number from {least}")
    return int(value)


class Counts:
    """Hits by "subject stage kind", and lives, in a file that adds up over calls."""

    def __init__(self, path: Path):
        self.path, self.here = path, 0
        self.kept = {"hits": {}, "lives": {}, "faults": []}
        if path.exists():
            found = read_json(path)
            if not isinstance(found, dict) or found.keys() != self.kept.keys():
                raise UserError(f"counts={path}: holds no counts of hits")
            self.kept = found
        write_json(path, self.kept)

    def hit(self, hit: Hit, seed: int) -> None:
        """Count a hit and print its line."""
        self.here += 1
        self._add("hits", f"{hit.subject} {hit.stage} {hit.kind}")
        print(
            f"{self.here:5}  seed {seed:<7} {hit.subject:7} {hit.stage:10} {hit.kind:9}"
            f" exit {hit.code:3}  {hit.seconds:6.1f} s",
            flush=True,
        )

    def life(self, name: str) -> None:
        """Count a life that came to a good end."""
        self._add("lives", name)

    def fault(self, name: str, seed: int, what: str, said: str) -> None:
        """Keep a fault, and print it with the words that repeat it."""
        self.kept["faults"].append({"subject": name, "seed": seed, "what": what, "said": said})
        write_json(self.path, self.kept)
        print(
            f"FAULT  {name}: {what}\n       again: python -m tests.chaos kills=1 subjects={name} seed={seed}",
            flush=True,
        )

    def _add(self, table: str, key: str) -> None:
        self.kept[table][key] = self.kept[table].get(key, 0) + 1
        write_json(self.path, self.kept)


def hit_all(want: Asked, place: Path, mounts: bool) -> int:
    """Lives until there were enough hits. Returns the number of faults."""
    counts, wholes, faults, seed = Counts(want.counts), {}, 0, want.seed
    while counts.here < want.kills:
        name = want.subjects[seed % len(want.subjects)]
        try:
            wholes[name] = wholes.get(name) or whole(name, place, mounts)
            Life(name, seed, wholes[name], place, mounts, lambda hit, seed=seed: counts.hit(hit, seed)).live()
            counts.life(name)
        except FaultError as wrong:
            faults += 1
            counts.fault(name, seed, str(wrong), wrong.said)
            if name not in wholes:
                raise UserError("without a life that nobody disturbs there is nothing to hold others against") from None
        seed += 1
    print(f"{counts.here} hits, {faults} faults; {sum(counts.kept['hits'].values())} hits in all: {counts.path}")
    return faults


def whole(name: str, place: Path, private: bool) -> Whole | None:
    """A life without hits, which the life of a clock has no use for."""
    if name == "clock":
        return Whole(None, {})
    print(f"       {name}, undisturbed …", flush=True)
    return undisturbed(name, place, f"whole-{place.name}", private)


def alone(words: Sequence[str]) -> int:
    """Become the same command in a namespace of mounts of its own, where that may be had; else say what is left out."""
    tried = [*APART, "mount", "-t", "tmpfs", "chaos", "/dev/shm"]
    try:
        refused = subprocess.run(tried, capture_output=True, text=True)
        why = refused.stderr.strip() if refused.returncode else ""
    except OSError as wrong:
        why = str(wrong)
    if why:
        print(f"left out: full disk, read-only folder and a look at shared memory (no namespace of mounts: {why})")
        return 0
    os.environ[APART_NOW] = "1"
    os.execvp(APART[0], [*APART, sys.executable, "-m", "tests.chaos", *words])


def main(words: Sequence[str]) -> int:
    """Exit code 0: no fault; 1: faults; 2: a mistake in the words."""
    if {"-h", "--help"} & {*words}:
        print(__doc__.strip())
        return 0
    try:
        want = asked(words)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        mounts = APART_NOW in os.environ
        if not mounts:
            alone([f"seed={want.seed}", *(word for word in words if not word.startswith("seed="))])
        else:
            subprocess.run(["mount", "-t", "tmpfs", "chaos", "/dev/shm"], check=True)
        place = Path(tempfile.mkdtemp(prefix="chaos", dir=want.place))
        try:
            return min(1, hit_all(want, place, mounts))
        finally:
            shutil.rmtree(place, ignore_errors=True)
    except UserError as wrong:
        print(f"tests.chaos: {wrong}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
