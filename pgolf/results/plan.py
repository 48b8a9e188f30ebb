"""plan.json: which arms and seeds a sweep was going to have, written once, before its first job, and only ever added to.

Seeds that come later are dated amendments, which say how many results there were by then. Each part carries a hash of itself
and of what was before it, so that a plan edited by hand is seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pgolf
from pgolf.config.identity import IDENTITY, sha256_of
from pgolf.errors import UserError
from pgolf.files import read_json, write_json

PLAN = "plan.json"
ADDED = "seeds added after results"  # what such seeds have to argue


@dataclass(frozen=True)
class Plan:
    """What plan.json holds; `arms` in order, each with arm, arm_sha256, seeds, and `program_sha256` (None in old plans)."""

    folder: Path
    fields: dict[str, Any]

    @property
    def arms(self) -> list[dict[str, Any]]:
        """As they were first planned."""
        return self.fields["arms"]

    @property
    def amendments(self) -> list[dict[str, Any]]:
        """What was added later, in order."""
        return self.fields.get("amendments", [])

    @property
    def old(self) -> bool:
        """Whether an earlier version wrote it, whose arms had other hashes."""
        return self.fields.get("identity") != IDENTITY

    def seeds(self, arm: str) -> list[int]:
        """All seeds of an arm (its sha256), the added ones last."""
        parts = [*self.arms, *(arm for amendment in self.amendments for arm in amendment["arms"])]
        return [seed for part in parts if part["arm_sha256"] == arm for seed in part["seeds"]]

    def added(self, arm: str) -> list[dict[str, Any]]:
        """The amendments of an arm: when, after how many results, and which seeds."""
        return [
            {"created": amendment["created"], "results": amendment["results"], "seeds": part["seeds"]}
            for amendment in self.amendments
            for part in amendment["arms"]
            if part["arm_sha256"] == arm
        ]

    def argument(self, arm: str, seed: int) -> str | None:
        """What this seed has to argue, if anything."""
        late = any(a["results"] and seed in a["seeds"] for a in self.added(arm))
        return ADDED if late else None


def read_plan(folder: Path) -> Plan | None:
    """The plan in a sweep's folder, or None. UserError if it is not one, or was changed after it was written."""
    if not (folder / PLAN).exists():
        return None
    fields = read_json(folder / PLAN)
    if not (isinstance(fields, dict) and _has_arms(fields) and all(map(_is_amendment, fields.get("amendments", [])))):
        raise UserError(f"{PLAN}: must hold arms, each with arm, arm_sha256 and whole-numbered seeds")
    plan = Plan(folder, fields)
    if not plan.old and not _sealed(fields):
        raise UserError(f"{PLAN}: was changed after it was written; put back what it was, or sweep in another folder")
    return plan


def _has_arms(part: dict[str, Any], keys: Sequence[str] = ("arm", "arm_sha256")) -> bool:
    arms = part.get("arms")
    return isinstance(arms, list) and all(
        isinstance(arm, dict)
        and all(isinstance(arm.get(key), str) for key in keys)
        and isinstance(arm.get("seeds"), list)
        and all(type(seed) is int for seed in arm["seeds"])
        for arm in arms
    )


def _is_amendment(part: Any) -> bool:
    fits = isinstance(part, dict) and isinstance(part.get("created"), str) and type(part.get("results")) is int
    return fits and _has_arms(part, ("arm_sha256",))


def agreed(folder: Path, arms: list[dict[str, Any]], results: int) -> Plan:
    """The plan of `folder` with `arms` in it: written, found to hold them already, or amended by the seeds that are new.

    `results` is how many runs are complete there. UserError where the folder holds a sweep of something else.
    """
    plan = read_plan(folder)
    if plan is None:
        fields = {"pgolf": pgolf.__version__, "identity": IDENTITY, "created": _now(), "arms": arms}
        return _written(folder, fields | {"seal": sha256_of(fields), "amendments": []})
    if plan.old:
        raise UserError(
            f"{folder}: its plan is of an older version, which called arms by other hashes; sweep in another folder"
        )
    known = {arm["arm_sha256"]: arm for arm in plan.arms}
    for arm in arms:
        _require_known(folder, arm, known)
    new = [(arm, [seed for seed in arm["seeds"] if seed not in plan.seeds(arm["arm_sha256"])]) for arm in arms]
    added = [{"arm_sha256": arm["arm_sha256"], "seeds": seeds} for arm, seeds in new if seeds]
    if not added:
        return plan
    part = {"created": _now(), "results": results, "arms": added}
    before = (plan.amendments or [plan.fields])[-1]["seal"]
    part["seal"] = sha256_of(part | {"before": before})
    return _written(folder, plan.fields | {"amendments": [*plan.amendments, part]})


def _require_known(folder: Path, arm: dict[str, Any], known: dict[str, dict[str, Any]]) -> None:
    there = known.get(arm["arm_sha256"])
    if there is None:
        theirs = {word for one in known.values() for word in one["arm"].split(",")}
        words = [word for word in arm["arm"].split(",") if word not in theirs]
        what = f"none of its arms has {', '.join(words)}" if words else "its arms were given more words"
        raise UserError(
            f"{folder} holds a sweep of other numbers: {what}. Give the words that it was given, or another hydra.sweep.dir"
        )
    if there["program_sha256"] != arm["program_sha256"]:
        raise UserError(
            f"{folder}: the code of {arm['arm']} is not the one of its plan (program {arm['program_sha256'][:12]}, planned"
            f" {there['program_sha256'][:12]}); seeds of different code have no mean. Sweep in another folder"
        )


def _written(folder: Path, fields: dict[str, Any]) -> Plan:
    write_json(folder / PLAN, fields)
    return Plan(folder, fields)


def _sealed(fields: dict[str, Any]) -> bool:
    """Whether every part still has the hash that it was written with."""
    first = {key: value for key, value in fields.items() if key not in ("seal", "amendments")}
    seal = sha256_of(first)
    if fields.get("seal") != seal:
        return False
    for part in fields.get("amendments", []):
        again = sha256_of({key: value for key, value in part.items() if key != "seal"} | {"before": seal})
        if part.get("seal") != again:
            return False
        seal = again
    return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
