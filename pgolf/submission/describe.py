"""submission.json and requirements.txt of an arm, from the records of its runs."""

import hashlib
from collections.abc import Sequence
from typing import Any

import pgolf
from pgolf.files import lookup
from pgolf.files.names import LOG
from pgolf.results.arguments import unlimited
from pgolf.results.readme import hardware
from pgolf.results.runfolder import Run

AUTHOR = ("author", "github_id", "name", "blurb")
UNLIMITED = "unlimited_16mb"
RECORD_LIMITS = {"train_seconds": 600, "eval_seconds": 600, "artifact_bytes": 16_000_000}


def describe(arm: dict, runs: Sequence[Run]) -> dict[str, Any]:
    """submission.json of an arm: the challenge's fields, and `pgolf` with the proofs."""
    first, rows = runs[0].record, arm["seeds"]
    person, extra = _author(first)
    return {
        **person,
        "date": max(r.when[0] for r in runs)[:10],
        "track": _track(first),
        **extra,
        "val_bpb": arm["val_bpb"]["mean"],
        "val_bpb_std": arm["val_bpb"]["std"],
        "val_loss": arm["val_loss"]["mean"],
        "val_loss_std": arm["val_loss"]["std"],
        "bytes_total": max(row["total_bytes"] for row in rows),
        "bytes_code": first["code"]["bytes"],
        "seeds": [row["seed"] for row in rows],
        "seed_results": {str(r.seed): _result(row, r) for row, r in zip(rows, runs, strict=True)},
        "hardware": hardware(first),
        "pytorch_version": first["environment"]["packages"].get("torch"),
        "technique_summary": " + ".join(f"{t['group']}={t['option']}" for t in first["techniques"]),
        "compliance": compliance(runs),
        "pgolf": _proofs(arm, runs, [k for k, v in person.items() if v is None]),
    }


def _author(record: dict) -> tuple[dict[str, Any], dict[str, Any]]:
    """Who and what, from the configuration and nowhere else; and the optional references, where they are given."""
    given = record.get("author") or {}
    extra = {k: given[k] for k in ("attribution", "base_pr") if given.get(k) is not None}
    return {k: given.get(k) or None for k in AUTHOR}, extra


def _track(record: dict) -> str | None:
    """The challenge's name for its own limits, the one without a limit of compute included; other limits are no track."""
    limits = record["limits"]
    if all(limits[k] == v for k, v in RECORD_LIMITS.items()):
        return "10min_16mb"
    others = all(limits[k] == v for k, v in RECORD_LIMITS.items() if k != "train_seconds")
    return UNLIMITED if others and unlimited(limits) and not limits.get("study") else None


def _result(row: dict, run: Run) -> dict[str, Any]:
    return {
        "val_bpb": row["val_bpb"],
        "val_loss": row["val_loss"],
        "artifact_bytes": row["artifact_bytes"],
        "bytes_total": row["total_bytes"],
        "steps": row["steps"],
        "train_time_s": row["train_seconds"],
        "eval_time_s": row["eval_seconds"],
        "val_tokens": run.record["evaluate"]["tokens"],
    }


def compliance(runs: Sequence[Run]) -> dict[str, bool]:
    """What the records say of the rules that are numbers, over all seeds."""
    records = [r.record for r in runs]
    return {
        "every_seed_within_artifact_bytes": all(
            r["artifact"]["bytes"] + r["code"]["bytes"] <= r["limits"]["artifact_bytes"] for r in records
        ),
        "training_within_clock": all(r["train"]["seconds"] <= r["limits"]["train_seconds"] for r in records),
        "evaluation_within_clock": all(r["evaluate"]["seconds"] <= r["limits"]["eval_seconds"] for r in records),
        "every_part_acted": all(receipt["alive"] for r in records for receipt in r["receipts"]),
        "verdict_consistent": all(r["verdict"] == "consistent" for r in records),
        "at_least_three_seeds": len(records) >= 3,
    }


def _proofs(arm: dict, runs: Sequence[Run], still_needed: list[str]) -> dict[str, Any]:
    def by_seed(key: str) -> dict[str, Any]:
        return {str(r.seed): lookup(r.record, key) for r in runs}

    return {
        "version": pgolf.__version__,
        "arm": arm["arm"],
        "arm_sha256": arm["arm_sha256"],
        "config_sha256": by_seed("config_sha256"),
        "code_sha256": runs[0].code_sha256,
        "artifact_sha256": by_seed("artifact.sha256"),
        "data_manifest": runs[0].record["data"]["manifest_sha256"],
        "log_sha256": {str(r.seed): hashlib.sha256((r.folder / LOG).read_bytes()).hexdigest() for r in runs},
        "receipts": by_seed("receipts"),
        "verdict": by_seed("verdict"),
        "training_hours": {str(r.seed): round(r.record["train"]["seconds"] / 3600, 3) for r in runs},
        "seeds_added": arm["seeds_added"],
        "interruptions": {str(r.seed): r.record.get("interruptions", []) for r in runs},
        "still_needed": still_needed,
    }


def requirements(environment: dict) -> str:
    """requirements.txt with the versions that ran; a build's local label (+cpu) cannot be installed, so it is a comment."""
    lines = [f"# Python {environment['python']}"]
    for name, version in sorted(environment["packages"].items()):
        public, _, local = str(version).partition("+")
        lines.append(f"{name}=={public}" + (f"  # ran as {version}" if local else ""))
    return "\n".join(lines) + "\n"
