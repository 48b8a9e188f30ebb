"""submission.json as it was found: read strictly, its fields' types checked, and its figures by seed made comparable."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from pgolf.audit.finding import Finding
from pgolf.errors import UserError
from pgolf.jsonshape import submission_schema, violations
from pgolf.scores import Scores, published

NAME = "submission.json"
NEEDED = ("author", "github_id", "val_bpb")
NUMBERS = (
    "val_bpb", "val_loss", "val_bpb_std", "val_loss_std", "bytes_total", "bytes_code", "artifact_bytes", "steps",
    "train_time_s", "eval_time_s", "val_tokens", "p_value",
)  # fmt: skip
FIX = "write the file from the records, with a program"


@dataclass
class Submission:
    """The object, its text for line numbers, and its scores by seed, as far as they could be read."""

    value: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    scores: Scores | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def ours(self) -> bool:
        """Whether pgolf wrote it."""
        return isinstance(self.value.get("pgolf"), dict)

    @property
    def track(self) -> str | None:
        return self.value.get("track")

    @property
    def seeds(self) -> list[int]:
        """Every seed it names, in any of the shapes in use."""
        stated = self.value.get("seeds")
        named = list(stated) if isinstance(stated, list | dict) else []
        named += list(self.value.get("seed_results") or []) + list(self.scores.bpb if self.scores else [])
        named = [s.get("seed") if isinstance(s, dict) else s for s in named]
        digits = [str(s).removeprefix("seed").strip("_ ") for s in named if isinstance(s, str | int)]
        return list(dict.fromkeys(int(s) for s in digits if s.isdigit()))

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(seed, its row) where rows are objects."""
        for table in (self.value.get("seed_results"), self.value.get("seeds")):
            pairs = table.items() if isinstance(table, dict) else ()
            for seed, row in pairs:
                digits = str(seed).removeprefix("seed").strip("_ ")
                if isinstance(row, dict) and digits.isdigit():
                    yield int(digits), row

    def where(self, key: str) -> str:
        """File and line of a key."""
        at = self.text.find(f'"{key}"')
        return f"{NAME}:{self.text.count(chr(10), 0, at) + 1}" if at >= 0 else NAME


def read_submission(path: Path) -> Submission:
    """The file, whatever is wrong with it."""
    found = Submission()
    if not path.is_file():
        return found
    try:
        data = path.read_bytes()
        if data.startswith(b"\xef\xbb\xbf"):
            found.findings.append(_malformed(1, "begins with a byte-order mark, which JSON parsers refuse"))
        found.text = data.decode("utf-8-sig")
        value = json.loads(found.text, parse_constant=_refused, object_pairs_hook=_distinct)
    except (OSError, ValueError, RecursionError) as wrong:
        found.findings.append(_malformed(getattr(wrong, "lineno", 1), f"is not JSON: {wrong}"))
        return found
    if not isinstance(value, dict):
        found.findings.append(_malformed(1, f"must be an object, is {type(value).__name__}"))
        return found
    found.value = value
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
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} stands twice in one object")
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
        value = found.value.get(key)
        if key in found.value and (value is None or value == ""):
            yield Finding("mistake 26", "fail", found.where(key), f"{key} is {value!r}", "the challenge requires it")
        elif key not in found.value and not (key == "val_bpb" and found.scores):
            yield Finding("mistake 26", "fail", NAME, f"{key} is missing", "the challenge requires it")
    for where, row in (("", found.value), *((f"seed {seed}: ", row) for seed, row in found.rows())):
        for key in NUMBERS:
            if isinstance(row.get(key), str | bool):
                what = f"{where}{key} is {row[key]!r}, which is not a number"
                yield Finding("mistake 26", "fail", found.where(key), what, FIX)


def _means(found: Submission) -> Iterator[Finding]:
    """What contradicts itself, as `pgolf.scores` finds it, and the best seed that passes for the mean."""
    scores = found.scores
    if scores is None:
        return
    for note in scores.notes:
        if "is stated as" in note:
            key = note.partition(" ")[0]
            verdict = "note" if key.endswith("_std") else "fail"
            yield Finding(
                "mistake 25", verdict, found.where(key), note, "state the mean and the deviation (n − 1) of all seeds"
            )
    best, stated = min(scores.bpb.values(), default=None), found.value.get("val_bpb")
    if len(set(scores.bpb.values())) > 1 and stated == best:
        yield Finding(
            "mistake 25", "fail", found.where("val_bpb"), f"{stated} is the best seed, not the mean", "state the mean"
        )
