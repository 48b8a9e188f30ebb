"""submission.json as it was found: read strictly, its fields' types checked, and its figures by seed made comparable."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from pgolf.audit.bounded import read
from pgolf.audit.finding import Finding
from pgolf.errors import UserError
from pgolf.results import stats
from pgolf.results.jsonshape import submission_schema, violations
from pgolf.results.scores import Scores, published
from pgolf.results.seedtable import SeedTable, seed_table

NAME = "submission.json"
NEEDED = ("author", "github_id", "val_bpb")
NUMBERS = (
    "val_bpb", "val_loss", "val_bpb_std", "val_loss_std", "bytes_total", "bytes_code", "artifact_bytes", "steps",
    "train_time_s", "eval_time_s", "val_tokens", "p_value",
)  # fmt: skip
FIX = "write the file from the records, with a program"
TINY = 2e-5  # bpb by which figures may differ without consequence
NON_RECORD = ("non_record", "non-record", "nonrecord", "unlimited", "notable")


@dataclass
class Submission:
    """The object, its text for line numbers, and its scores by seed, as far as they could be read."""

    value: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    scores: Scores | None = None
    table: SeedTable = field(default_factory=SeedTable)
    findings: list[Finding] = field(default_factory=list)
    folder: str = ""

    @property
    def ours(self) -> bool:
        """Whether pgolf wrote it."""
        return isinstance(self.value.get("pgolf"), dict)

    @property
    def timed(self) -> bool:
        """Whether it is on the track of ten minutes: no other is named, by itself or by the folders that it lies in."""
        track = self.value.get("track")
        if self.ours:
            return track is not None
        text = f"{track} {self.value.get('category')} {self.folder}".lower()
        return not any(word in text for word in NON_RECORD)

    @property
    def seeds(self) -> list[int]:
        """Every seed it names, in any of the shapes in use."""
        return self.table.seeds

    def number(self, key: str) -> float | None:
        """A field that is a number."""
        value = self.value.get(key)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def where(self, key: str) -> str:
        """File and line of a key."""
        at = self.text.find(f'"{key}"')
        return f"{NAME}:{self.text.count(chr(10), 0, at) + 1}" if at >= 0 else NAME


def read_submission(path: Path | None, folder: Path) -> Submission:
    """The file, whatever is wrong with it."""
    found = Submission(folder=str(folder.absolute()))
    if path is None:
        return found
    data, skipped = read(path)
    try:
        if skipped:
            raise ValueError(f"{len(data) + skipped:,} bytes are too many to read")
        if data.startswith(b"\xef\xbb\xbf"):
            found.findings.append(_malformed(1, "begins with a byte-order mark, which JSON parsers refuse"))
        found.text = data.decode("utf-8-sig")
        value = json.loads(found.text, parse_constant=_refused, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as wrong:
        what = "nested too deeply" if isinstance(wrong, RecursionError) else wrong
        found.findings.append(_malformed(getattr(wrong, "lineno", 1), f"is not JSON: {what}"))
        return found
    if not isinstance(value, dict):
        found.findings.append(_malformed(1, f"must be an object, is {type(value).__name__}"))
        return found
    found.value, found.table = value, seed_table(value)
    try:
        found.scores = published(path.parent.name, value)
    except UserError as wrong:
        found.findings.append(Finding("mistake 26", "fail", found.where("val_bpb"), str(wrong), FIX))
    return found


def _malformed(line: int, what: str) -> Finding:
    return Finding("mistake 26", "fail", f"{NAME}:{line}", what, FIX)


def _refused(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a JSON number")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"{twice!r} stands twice in one object")
    return found


def check_submission(found: Submission) -> Iterator[Finding]:
    """Fields, types, and whether its means are those of its own seeds."""
    yield from found.findings
    if not found.value:
        return
    if found.ours:
        for what in violations(found.value, submission_schema()):
            key = what.partition(":")[0].partition(".")[0].partition("[")[0]
            yield Finding("mistake 26", "fail", found.where(key), what, FIX)
        for name in found.value["pgolf"].get("still_needed") or []:
            yield Finding("mistake 26", "note", found.where(name), f"{name} is still needed", f"set author.{name}=...")
    else:
        yield from _fields(found)
    yield from _means(found)


def _fields(found: Submission) -> Iterator[Finding]:
    for key in NEEDED:
        value, where = found.value.get(key), found.where(key)
        if key in found.value and (value in (None, "") or (value == 0 and found.scores)):
            yield Finding("mistake 26", "fail", where, f"{key} is {value!r}", "the challenge requires it")
        elif key not in found.value and not (key == "val_bpb" and found.scores):
            yield Finding("mistake 26", "fail", NAME, f"{key} is missing", "the challenge requires it")
    for where, row in (("", found.value), *((f"seed {seed}: ", row) for seed, row in found.table.rows.items())):
        for key in NUMBERS:
            if isinstance(row.get(key), str | bool):
                what = f"{where}{key} is {row[key]!r}, which is not a number"
                yield Finding("mistake 26", "fail", found.where(key), what, FIX)


def _means(found: Submission) -> Iterator[Finding]:
    """What contradicts itself, as `pgolf.results.scores` finds it, and the best seeds that pass for the mean."""
    scores, stated = found.scores, found.number("val_bpb")
    if scores is None:
        return
    picked = _picked(list(scores.bpb.values()), stated)
    if picked:
        n, of = picked
        what = (
            f"{stated} is the best seed, not the mean"
            if n == 1
            else f"{stated} is the mean of the best {n} of {of} seeds"
        )
        yield Finding(
            "mistake 25" if n == 1 else "mistake 32", "fail", found.where("val_bpb"), what, "state the mean of all"
        )
    for note in scores.notes:
        key = note.partition(" ")[0]
        if "is stated as" not in note or (picked and key == "val_bpb"):
            continue
        close = stated is not None and key == "val_bpb" and abs(stated - scores.sample.mean) <= TINY
        verdict = "note" if key.endswith("_std") or close else "fail"
        fix = "state the mean and the deviation (n − 1) of all seeds"
        yield Finding("mistake 25", verdict, found.where(key), note, fix)


def _picked(values: list[float], stated: float | None) -> tuple[int, int] | None:
    """(n, of) where `stated` is the mean of the best n and not of all. _picked([1.1, 1.2, 1.3], 1.15) == (2, 3)"""
    ordered = sorted(values)
    means = [stats.mean(ordered[:n]) for n in range(1, len(ordered) + 1)]
    if stated is None or not means or abs(stated - means[-1]) <= TINY:
        return None
    return next(((n, len(means)) for n, mean in enumerate(means[:-1], 1) if abs(stated - mean) <= 1e-6), None)
