"""Checkpoints on disk: one is whole, or it is not called one. `checkpoint.json` in it has the sha256 of every file and its own.

Nothing is loaded here: whoever only lists or removes checkpoints needs no torch.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgolf.errors import UserError
from pgolf.files import read_json, write_json
from pgolf.files.names import CHECKPOINTS, WHOLE

KEPT = 2  # the last ones
BLOCK = 1 << 20


@dataclass(frozen=True)
class CheckpointFacts:
    """What a checkpoint is of: `step` steps done, on so many ranks, by this code and config."""

    step: int
    ranks: int
    code_sha256: str
    config_sha256: str
    torch: str


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, whole ones alone as far as names tell, the last first."""
    return sorted((run / CHECKPOINTS).glob("step[0-9]*"), reverse=True)


def made_whole(made: Path, facts: dict[str, Any]) -> Path:
    """Call what was written at `made` a checkpoint, and remove those that are older than the last KEPT."""
    files = {str(path.relative_to(made)): _file(path) for path in sorted(made.rglob("*")) if path.is_file()}
    said = facts | {"files": files}
    write_json(made / WHOLE, said | {"sha256": _sha256_of(said)})
    final = made.with_name(f"step{facts['step']:08d}")
    if final.exists():  # of a run that got as far as here before
        shutil.rmtree(final)
    made.rename(final)
    _sync(final.parent)
    for old in checkpoints(final.parent.parent)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def whole_checkpoint(folder: Path) -> dict[str, Any]:
    """What checkpoint.json of a checkpoint says, once every file has been hashed. UserError names the first that is wrong."""
    said = read_json(folder / WHOLE)
    if not isinstance(said, dict) or said.get("sha256") != _sha256_of({k: v for k, v in said.items() if k != "sha256"}):
        raise UserError(f"{folder / WHOLE}: is not what was written: cut short, or changed")
    for name, stated in said["files"].items():
        path = folder / name
        found = _file(path) if path.is_file() else None
        if found != stated:
            how = (
                "is gone"
                if found is None
                else f"has {found['bytes']} bytes, not the {stated['bytes']} that were written"
            )
            if found and found["bytes"] == stated["bytes"]:
                how = "was changed after it was written"
            raise UserError(f"{path}: {how}")
    return said


def require_start(run: Path, code_sha256: str, config_sha256: str, chosen: Path | None = None) -> Path:
    """The checkpoint to go on from: the `chosen` one or the last. UserError if it is damaged or of something else, with the
    words for the one before, if there is one that can be used."""
    there = checkpoints(run)
    start = chosen or there[0]
    try:
        _require(start, code_sha256, config_sha256)
    except UserError as wrong:
        for other in there:
            if other.name < start.name and _usable(other, code_sha256, config_sha256):
                raise UserError(f"{wrong}. The one before is whole: resume={other}") from None
        raise
    return start


def _require(folder: Path, code_sha256: str, config_sha256: str) -> None:
    said = whole_checkpoint(folder)
    for what, theirs, ours in (
        ("code", said["code_sha256"], code_sha256),
        ("config", said["config_sha256"], config_sha256),
    ):
        if theirs != ours:
            raise UserError(f"{folder}: is a checkpoint of another {what} (sha256 {theirs[:12]}, now {ours[:12]})")


def _usable(folder: Path, code_sha256: str, config_sha256: str) -> bool:
    try:
        _require(folder, code_sha256, config_sha256)
    except UserError:
        return False
    return True


def _file(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _sha256_of(plain: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _sync(folder: Path) -> None:
    """A rename is on disk once its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
