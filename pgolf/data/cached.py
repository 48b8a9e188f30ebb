"""Data sets that are built when they are first asked for, and kept: a folder of the cache is named after a hash of everything
that decides its bytes. One whose files are not what its manifest says is built anew.
"""

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from pgolf.data.assemble import Plan, Source, made_with
from pgolf.data.base import Show
from pgolf.data.build import build
from pgolf.data.manifest import MANIFEST, Manifest
from pgolf.errors import UserError

STALE_SECONDS = 7 * 24 * 3600  # an unfinished build this old will not be taken up again
BUILDERS = (
    *("assemble.py", "build.py", "caseops.py", "encode.py", "manifest.py", "shards.py"),
    *("sources.py", "split.py", "streams.py", "tokenizer.py"),
)


def place(cache: Path, plan: Plan, inputs: str, builders: Sequence[str] = ()) -> Path:
    """The folder for a plan and documents of the hash `inputs`: by them, the versions, and the code that builds."""
    facts = json.dumps({"inputs": inputs, **plan.facts(), **made_with()}, sort_keys=True)
    digest = hashlib.sha256(facts.encode())
    for name in (*BUILDERS, *builders):
        digest.update(Path(__file__).with_name(name).read_bytes())
    return cache / f"{plan.name}-{digest.hexdigest()[:16]}"


def kept(folder: Path, plan: Plan, inputs: str, source: Callable[[], Source], show: Show, workers: int) -> Path:
    """The folder with the data set in it: found sound, or built."""
    if folder.exists():
        fault = flaw(folder)
        if fault is None:
            return folder
        show(f"building anew, {fault}", 0.0)
        aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
        with suppress(FileNotFoundError):  # another process was quicker
            folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
    _remove_stale(folder.parent)
    return build(folder, plan, inputs, source, show, workers)


def flaw(folder: Path) -> str | None:
    """What is wrong with a built data set, or None: every file is hashed."""
    try:
        Manifest.open(folder / MANIFEST).verify(folder)
    except UserError as fault:
        return str(fault)
    return None


def _remove_stale(cache: Path) -> None:
    for left in cache.glob(".*.building"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
