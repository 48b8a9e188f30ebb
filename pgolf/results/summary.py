"""`summary.json`: all runs of a sweep by arm, with means, and every seed that is not in a mean named with the reason.

A pure view of the record files, so it can be made after every job and again at any time with the same bytes.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pgolf
from pgolf.config.identity import IDENTITY, arm_sha256
from pgolf.config.schema import TARGET, completed, read_config
from pgolf.errors import UserError, nearest
from pgolf.files import lookup, write_json
from pgolf.files.names import RECORD
from pgolf.results import stats
from pgolf.results.plan import ADDED, PLAN, Plan, read_plan
from pgolf.results.runfolder import Run, checked_record, disagreements, read_runs

SUMMARY, ATTEMPTS = "summary.json", "attempts"


def aggregate(sweep_dir: Path) -> dict[str, Any]:
    """Read every record below `sweep_dir`, write its summary.json, and return it.

    Raises UserError, after writing, when one seed was run with two versions of the code: there is no mean of that.
    """
    summary = summarise(sweep_dir)
    write_json(sweep_dir / SUMMARY, summary)
    refuse_mixed_code(summary)
    return summary


def refuse_mixed_code(summary: dict[str, Any]) -> None:
    """Raise UserError for the arms of `summary` that have no mean because the code differs."""
    refused = [f"{arm['arm']}: {arm['refused']}" for arm in summary["arms"] if arm["refused"]]
    if refused:
        raise UserError("\n".join(refused))


def summarise(sweep_dir: Path, patient: bool = True) -> dict[str, Any]:
    """What `aggregate` writes, from the files of `sweep_dir` alone. `patient`: as for `read_run`."""
    plan, problems = _read_plan(sweep_dir)
    runs, found = _readable(job_folders(sweep_dir), patient)
    earlier, _ = _readable(job_folders(sweep_dir / ATTEMPTS) if (sweep_dir / ATTEMPTS).is_dir() else [], False)
    arms = [_arm(plan, earlier, *group) for group in _grouped(runs, plan)]
    return {
        "pgolf": pgolf.__version__,
        "planned": plan and plan.fields.get("created"),
        "arms": arms,
        "ablation": _ablation(arms),
        "problems": [*problems, *found],
    }


def _readable(folders: list[Path], patient: bool) -> tuple[list[Run], list[dict[str, str]]]:
    """The runs that can be read, and what is wrong with the others."""
    whole, problems = [], []
    for folder in folders:
        try:
            checked_record(folder)
            whole.append(folder)
        except UserError as error:
            problems.append({"run": folder.name, "why": str(error)})
    return read_runs(whole, patient), problems


def job_folders(sweep_dir: Path) -> list[Path]:
    """The direct children that hold, or should hold, a record, in the order of their numbers."""
    if not sweep_dir.is_dir():
        raise UserError(f"{sweep_dir}: not a folder")
    children = [p for p in sweep_dir.iterdir() if p.is_dir() and not p.name.startswith(".")]
    jobs = [p for p in children if (p / RECORD).exists() or (p / ".hydra").exists() or (p / "config.yaml").exists()]
    return sorted(
        jobs, key=lambda p: [(not w.isdigit(), int(w) if w.isdigit() else 0, w) for w in re.split(r"(\d+)", p.name)]
    )


def find_arm(summary: dict, name: str) -> dict[str, Any]:
    """The arm of `summary` with this label, whose arm_sha256 begins so, or that alone has these words."""
    arms, wanted = summary["arms"], set(name.split(","))
    found = (
        [a for a in arms if a["arm"] == name]
        or [a for a in arms if len(name) >= 6 and a["arm_sha256"].startswith(name)]
        or [a for a in arms if wanted <= set(a["arm"].split(","))]
    )
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(
            f"{name!r} names {len(found)} arms; use one of {', '.join(a['arm_sha256'][:12] for a in found)}"
        )
    labels = [a["arm"] for a in arms]
    raise UserError(f"no arm {name!r} among {', '.join(map(repr, labels)) or 'none'}.{nearest(name, labels)}")


def _read_plan(sweep_dir: Path) -> tuple[Plan | None, list[dict]]:
    try:
        return read_plan(sweep_dir), []
    except UserError as error:
        return None, [{"run": PLAN, "why": str(error)}]


def _grouped(runs: Sequence[Run], plan: Plan | None) -> list[tuple[str, str, list[int] | None, list[Run]]]:
    """(sha, label, planned seeds, runs) of each arm: as planned, then as found.

    Arms of older versions count by what their configs compute, so that a seed of today joins them.
    """
    now = {run.folder: arm_of(run) for run in runs}
    renamed = {run.record["arm_sha256"]: now[run.folder] for run in runs}
    planned = plan.arms if plan else []
    arms = {renamed.get(a["arm_sha256"], a["arm_sha256"]): (a["arm"], plan.seeds(a["arm_sha256"])) for a in planned}
    for run in runs:
        arms.setdefault(now[run.folder], (run.record["arm"], None))
    return [(sha, *arm, [r for r in runs if now[r.folder] == sha]) for sha, arm in arms.items()]


def arm_of(run: Run) -> str:
    """The sha256 of a run's arm; made anew, from its config, for a record of a version that hashed places too."""
    if run.record.get("identity") == IDENTITY:
        return run.record["arm_sha256"]
    try:
        config = completed(read_config(run.folder))
        built = config["data"][TARGET].endswith(".BuiltText")
        return arm_sha256(config, lookup(run.record, "data.manifest_sha256") if built else None, {})
    except (UserError, LookupError, TypeError, AttributeError):
        return run.record["arm_sha256"]


def _arm(
    plan: Plan | None, earlier: list[Run], sha: str, label: str, planned: list[int] | None, runs: list[Run]
) -> dict[str, Any]:
    seeds = planned if planned is not None else list(dict.fromkeys(r.seed for r in runs))
    chosen = {s: _choose([r for r in runs if r.seed == s]) for s in seeds}
    used = [r for r in chosen.values() if r and r.complete]
    why = _differs(runs, used)
    rows = [_row(r) for r in used]
    added = plan.added(sha) if plan else []
    return {
        "arm": label,
        "arm_sha256": sha,
        "seeds_planned": planned,
        "seeds_added": added,
        "argument": f"needs argument ({ADDED})" if any(part["results"] for part in added) else None,
        "n": len(rows),
        "val_bpb": None if why else _moments([r["val_bpb"] for r in rows]),
        "val_loss": None if why else _moments([r["val_loss"] for r in rows]),
        "nats_per_bpb": _nats_per_bpb(rows),
        "code_sha256": sorted({r.code_sha256 for r in used}),
        "data": sorted({r.record["data"]["manifest_sha256"] for r in used}),
        "seeds": rows,
        "not_complete": [_absent(s, r) for s, r in chosen.items() if not (r and r.complete)],
        "not_used": [_unused(r, chosen) for r in runs if r is not chosen.get(r.seed)],
        "attempts": [_attempt(r) for r in earlier if arm_of(r) == sha],
        "refused": why,
    }


def _choose(runs: list[Run]) -> Run | None:
    """The run that stands for its seed: the latest that is complete, or else the latest."""
    return max([r for r in runs if r.complete] or runs, key=lambda r: r.when, default=None)


def _differs(runs: Sequence[Run], used: Sequence[Run]) -> str | None:
    """A sentence when one seed was completed by two versions of the code, or the seeds of a mean were, or on two texts."""
    complete = [r for r in runs if r.complete]
    for run in complete:
        for other in complete:
            if run.seed == other.seed and run.code_sha256 != other.code_sha256:
                return (
                    f"seed {run.seed} was run twice and the code differs: {run.folder.name} has {run.code_sha256[:12]}, "
                    f"{other.folder.name} has {other.code_sha256[:12]}; move one of the two folders away"
                )
    if len({r.code_sha256 for r in used}) > 1:
        which = ", ".join(f"{r.folder.name} (seed {r.seed}) has {r.code_sha256[:12]}" for r in used)
        return f"the code differs between seeds: {which}; run them with one version, in a folder of their own"
    if len({r.record["data"]["manifest_sha256"] for r in used}) > 1:
        which = ", ".join(f"seed {r.seed} has {r.record['data']['manifest_sha256'][:12]}" for r in used)
        return f"the text differs between seeds: {which}; run them on one build of it, in a folder of their own"
    return None


def _row(run: Run) -> dict[str, Any]:
    r = run.record
    return {
        "seed": run.seed,
        "run": run.folder.name,
        "trained": r.get("trained"),
        "val_bpb": stats.rounded(r["evaluate"]["val_bpb"]),
        "val_loss": stats.rounded(r["evaluate"]["val_loss"]),
        "artifact_bytes": r["artifact"]["bytes"],
        "code_bytes": r["code"]["bytes"],
        "total_bytes": r["artifact"]["bytes"] + r["code"]["bytes"],
        "limit_bytes": r["limits"]["artifact_bytes"],
        "steps": r["train"]["steps"],
        "train_seconds": r["train"]["seconds"],
        "eval_seconds": r["evaluate"]["seconds"],
        "dev_bpb": {k: v and stats.rounded(v) for k, v in (lookup(r, "train.dev_bpb") or {}).items()},
        "verdict": r["verdict"],
        "disagreements": disagreements(run),
    }


def _moments(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and std of the numbers as printed, so that anybody gets the same from the table."""
    if not values:
        return {"mean": None, "std": None}
    deviation = stats.std(values)
    return {"mean": stats.rounded(stats.mean(values)), "std": None if deviation is None else stats.rounded(deviation)}


def _nats_per_bpb(rows: Sequence[dict]) -> float | None:
    ratios = [stats.nats_per_bpb(r["val_loss"], r["val_bpb"]) for r in rows if r["val_bpb"] > 0]
    return round(stats.mean(ratios), 6) if ratios else None


def _absent(seed: int, run: Run | None) -> dict[str, Any]:
    if run is None:
        return {"seed": seed, "status": "missing", "why": "planned, and there is no record of it", "run": None}
    return {"seed": seed, "status": run.status, "why": run.why, "run": run.folder.name}


def _attempt(run: Run) -> dict[str, Any]:
    """A run that did not come to its end and was put aside when its seed was run again."""
    return {"seed": run.seed, "status": run.status, "run": f"{ATTEMPTS}/{run.folder.name}", "why": run.why}


def _unused(run: Run, chosen: dict[int, Run | None]) -> dict[str, Any]:
    """A run that is listed and not averaged: another run stands for its seed, or its seed was not planned."""
    other = chosen.get(run.seed)
    why = f"{other.folder.name} stands for this seed" if other else "this seed is not in the plan"
    if other and other.record.get("config_sha256") != run.record.get("config_sha256"):
        why += ", with another machine.compile or machine.micro_batch_tokens"
    bpb = stats.rounded(run.record["evaluate"]["val_bpb"]) if run.complete else None
    return {"seed": run.seed, "status": run.status, "run": run.folder.name, "val_bpb": bpb, "why": why}


def _ablation(arms: Sequence[dict]) -> dict[str, Any] | None:
    """Every arm against the first; null when there is nothing to compare."""
    if len(arms) < 2:
        return None
    return {"baseline": arms[0]["arm"], "rows": [_against(arm, arms[0]) for arm in arms[1:]]}


def sample_of(arm: dict) -> stats.Sample | None:
    """n, mean and std of an arm of a summary, or None when it has no mean."""
    if arm["refused"] or not arm["n"]:
        return None
    return stats.Sample(arm["n"], arm["val_bpb"]["mean"], stats.std([r["val_bpb"] for r in arm["seeds"]]))


def _against(arm: dict, first: dict) -> dict[str, Any]:
    ours, baseline = sample_of(arm), sample_of(first)
    row = dict.fromkeys(("difference_bpb", "difference_nats_per_token", "t", "df", "p", "low", "high", "seeds_needed"))
    row = {"arm": arm["arm"], **row, "note": None if arm["data"] == first["data"] else "not the same data set"}
    if not ours or not baseline:
        return {**row, "note": "no mean on " + ("this side" if baseline else "the baseline's side")}
    difference = ours.mean - baseline.mean
    row["difference_bpb"] = stats.rounded(difference)
    row["difference_nats_per_token"] = stats.rounded(difference * arm["nats_per_bpb"])
    if ours.spread and baseline.spread:
        test = stats.welch(ours, baseline)
        row |= {
            "t": test.t,
            "df": test.df,
            "p": test.p,
            "low": stats.rounded(test.low),
            "high": stats.rounded(test.high),
        }
        row["seeds_needed"] = stats.seeds_needed(difference, ours.std, baseline.std)
    return row
