"""`python -m pgolf.data build NAME docs=... [tokenizer=FILE | vocab_size=N] [transform=caseops] [val_docs=50000] [workers=N]`:
a data set of one's own, in the challenge's format, from text of any size.

    docs=...               files or globs (.txt .md .jsonl .parquet, also .gz and .zst): 'a.jsonl', '[a.jsonl,b/*.txt]'
    tokenizer=FILE         a SentencePiece model; or vocab_size=N to learn one, of model_type=bpe or unigram
    transform=caseops      capitals as markers; bytes are then counted beside the validation shards
    byte_rule=...          table, decoded or sidecar
    val_docs=N             the first N documents are validation (50000, as the challenge's); or val_files=..., or val_fraction=F
    field=text errors=strict document_separator=...    as of data=text
    out=DIR workers=N source=... licence=...           where to, how many processes, and what the manifest shall say
"""

import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pgolf.data.assemble import Plan
from pgolf.data.build import build
from pgolf.data.encode import BYTE_RULES, TRANSFORMS
from pgolf.data.manifest import MANIFEST, Manifest
from pgolf.data.sources import Files, Reading, checked_apart, found
from pgolf.data.text import inputs_of
from pgolf.data.tokenizer import SPLIT_AT_WORDS, pieces
from pgolf.data.words import elements, unescaped
from pgolf.errors import ConfigError, UserError, nearest
from pgolf.files.home import expanded
from pgolf.machine.hardware import cores

CHALLENGE_DOCS = 50_000
DEFAULTS = {
    **{
        "docs": None,
        "tokenizer": None,
        "vocab_size": None,
        "model_type": "bpe",
        "transform": "none",
        "byte_rule": None,
    },
    **{"val_docs": None, "val_files": None, "val_fraction": None, "field": "text", "errors": "strict"},
    **{"document_separator": None, "out": None, "workers": None, "source": None, "licence": None},
}
CHOICES = {
    **{"model_type": SPLIT_AT_WORDS, "transform": TRANSFORMS, "byte_rule": (None, *BYTE_RULES)},
    **{"errors": ("strict", "replace")},
}
SHOWN_SECONDS = 2.0


def main(args: Sequence[str], say: Callable[[str], None]) -> tuple[dict[str, Any], list[str]]:
    """Build, or find built; what there is, as plain values and in lines."""
    if not args or "=" in args[0]:
        raise UserError(f"usage: {__doc__}")
    name, options = args[0], parse(args[1:])
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UserError(f"{name!r}: a name is letters, digits, '.', '_' and '-'")
    plan, cache = planned(name, options), expanded(os.environ.get("PGOLF_CACHE", "~/.cache/pgolf"))
    goal = expanded(options["out"]) if options["out"] else cache / name
    sides = found(listed(options["docs"]), "docs"), found(listed(options["val_files"]), "val_files")
    checked_apart(*sides, "val_files")
    inputs = inputs_of(sides, cache)
    workers = number("workers", options["workers"], 1) if options["workers"] else cores()
    report = Report(Files(*sides, plan.reading).total, say)
    if goal.exists():
        require_same(goal, {"inputs": inputs, **plan.facts()})
    build(goal, plan, inputs, lambda: Files(*sides, plan.reading), report, workers)
    manifest = require_same(goal, {"inputs": inputs, **plan.facts()})  # another build may have been first
    manifest.verify(goal)
    value = {"name": manifest.name, "folder": str(goal), **counts(manifest), "use": use(manifest, goal)}
    return value, summary(manifest, goal)


def parse(args: Sequence[str]) -> dict:
    """The words as values by key; DEFAULTS for what is not among them."""
    options = dict(DEFAULTS)
    for word in args:
        key, equals, value = word.partition("=")
        if not equals or key not in DEFAULTS:
            more = " (several files: docs='[a,b]')" if not equals else ""
            raise UserError(
                f"{word!r}: must be KEY=VALUE with one of {', '.join(DEFAULTS)}{more}.{nearest(key, DEFAULTS)}"
            )
        options[key] = value or None
    for key, known in CHOICES.items():
        if options[key] not in known:
            raise ConfigError(key, options[key], f"must be one of {', '.join(filter(None, known))}")
    if not options["docs"]:
        raise UserError("docs=... is missing: the files to build from, as docs='corpus/*.jsonl'")
    if (options["tokenizer"] is None) == (options["vocab_size"] is None):
        raise UserError("give either tokenizer=FILE or vocab_size=N (a tokenizer of N pieces is then learned)")
    if sum(options[key] is not None for key in ("val_docs", "val_files", "val_fraction")) > 1:
        raise UserError("give one of val_docs=N, val_files=... and val_fraction=F")
    return options


def planned(name: str, options: dict) -> Plan:
    """What decides the bytes of the data set `name`."""
    given = expanded(options["tokenizer"]) if options["tokenizer"] else None
    transform, separator = options["transform"], options["document_separator"]
    rule = options["byte_rule"] or ("table" if transform == "none" else "sidecar")
    if transform != "none" and rule != "sidecar":
        raise ConfigError(
            "byte_rule", rule, f"must be sidecar with transform={transform}: a table counts the transformed text"
        )
    return Plan(
        name=name,
        prefix="fineweb" if name.startswith("fineweb") else name,
        reading=Reading(options["field"], options["errors"], unescaped(separator) if separator else None),
        transform=transform,
        byte_rule=rule,
        given=given,
        vocab_size=pieces(given) if given else number("vocab_size", options["vocab_size"], 259, 65536),
        model_type=options["model_type"],
        **validation(name, options),
        origin={"source": options["source"], "licence": options["licence"]},
    )


def validation(name: str, options: dict) -> dict:
    """How validation documents are chosen. A FineWeb set has at least the challenge's, or the rest would be trained on."""
    if options["val_files"]:
        return {"val_docs": None, "val_fraction": None}
    if options["val_fraction"]:
        fraction = float(options["val_fraction"]) if re.fullmatch(r"0?\.\d+", options["val_fraction"]) else 0.0
        if not 0 < fraction <= 0.5:
            raise ConfigError("val_fraction", options["val_fraction"], "must be above 0 and at most 0.5")
        return {"val_docs": None, "val_fraction": fraction}
    docs = number("val_docs", options["val_docs"] or str(CHALLENGE_DOCS), 1)
    if name.startswith("fineweb") and docs < CHALLENGE_DOCS:
        allowed = f"a set called fineweb has the challenge's {CHALLENGE_DOCS:,} validation documents; use another name for fewer"
        raise ConfigError("val_docs", docs, allowed)
    return {"val_docs": docs, "val_fraction": None}


def number(key: str, value: str, least: int, most: int = 1 << 60) -> int:
    """A whole number in [least, most]. Raises ConfigError."""
    if not value.isdecimal() or not least <= int(value) <= most:
        raise ConfigError(
            key, value, f"must be a whole number, at least {least}" + (f" and at most {most}" if most < 1 << 60 else "")
        )
    return int(value)


def listed(value: str | None) -> list[str]:
    """`a`, `a,b` and `[a,b]`, each with or without quotes."""
    inner = value[1:-1] if value and value[0] == "[" and value[-1] == "]" else value or ""
    return [part.strip("'\"") for part in elements(inner)]


def require_same(goal: Path, parameters: dict) -> Manifest:
    """The manifest of a folder that is there, which must be this data set."""
    manifest = Manifest.open(goal / MANIFEST) if (goal / MANIFEST).exists() else None
    if manifest is None:
        raise UserError(f"{goal} is there and is no data set; say out=... or another name")
    other = [key for key, value in parameters.items() if manifest.parameters.get(key) != value]
    if other:
        raise UserError(
            f"{goal} holds a data set with other {', '.join(other)}; delete it, or say out=... or another name"
        )
    return manifest


SPLITS = {"training": "train", "validation": "val"}


def counts(manifest: Manifest) -> dict[str, Any]:
    """Documents, tokens and bytes of each split, and what was dropped."""
    splits = {
        key: {"documents": manifest.documents_of(key), "tokens": manifest.tokens(key), "bytes": manifest.bytes(key)}
        for key in SPLITS.values()
    }
    return {"splits": splits, "dropped": manifest.dropped}


def use(manifest: Manifest, goal: Path) -> list[str]:
    """The words that train on it."""
    option = f"data={manifest.name}" if manifest.name == "fineweb_caseops" else "data=built"
    return [option, f"data.folder={goal}", f"data.vocab_size={manifest.tokenizer['vocab_size']}"]


def summary(manifest: Manifest, goal: Path) -> list[str]:
    """What was built, in lines."""
    splits = counts(manifest)["splits"]
    lines = [
        f"{split}: " + ", ".join(f"{count:,} {what}" for what, count in splits[key].items())
        for split, key in SPLITS.items()
    ]
    lines += [f"{key.replace('_', ' ')}: {count:,}" for key, count in sorted(manifest.dropped.items()) if count]
    return [*lines, f"use it with {' '.join(use(manifest, goal))}"]


class Report:
    """Says each stage as it goes, with its rate over `total` bytes of documents and the time that is left."""

    def __init__(self, total: int, say: Callable[[str], None]):
        self.say = say
        self.total, self.stage, self.began, self.shown, self.before = total, "", 0.0, 0.0, 0.0

    def __call__(self, stage: str, done: float) -> None:
        now = time.monotonic()
        if stage != self.stage:
            self.stage, self.began, self.shown, self.before = stage, now, 0.0, done
        if now - self.shown < SHOWN_SECONDS:
            return
        self.shown, spent, gained = now, now - self.began, done - self.before
        rate = ""
        if spent > SHOWN_SECONDS and gained > 0:
            left = round(spent * (1 - done) / gained)
            rate = f"  {self.total * gained / spent / 1e6:.1f} MB/s  {left // 60}:{left % 60:02} left"
        self.say(f"{done:4.0%}  {stage}{rate}")
