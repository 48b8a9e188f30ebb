"""README.md of a submission, written from its records: the same numbers as submission.json and the logs, to the digit."""

import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from pgolf.files import lookup
from pgolf.results.runfolder import Run
from pgolf.stages.views import digits


def readme(arm: dict, runs: Sequence[Run], submission: dict) -> str:
    """The page: what, results, techniques, clocks, artifact, receipts, verdict, reproduction, what is still needed."""
    sections = [
        _what(arm, runs, submission),
        _results(arm, submission),
        _not_averaged(arm),
        _techniques(runs[0].record),
        _stages(arm),
        _clock("Training", "train", runs),
        _clock("Evaluation", "evaluate", runs),
        _artifact(runs),
        _receipts(runs),
        _verdict(runs, submission),
        _references(runs[0].record, submission),
        _environment(runs),
        _reproduce(arm, runs),
        _needed(submission),
    ]
    return "\n\n".join(s for s in sections if s) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; bars and line breaks inside cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(c) for c in row) + " |" for row in lines)


def _cell(value: Any) -> str:
    return "–" if value is None else str(value).replace("|", "\\|").replace("\n", " ")


def count(value: int) -> str:
    """count(15990832) == '15,990,832'"""
    return f"{value:,}"


def seconds(value: float) -> str:
    """Two decimals."""
    return f"{value:.2f}"


def _maybe(value: float | None) -> str | None:
    return None if value is None else digits(value)


def hardware(record: dict) -> str:
    """'8x NVIDIA H100 80GB HBM3', or the processor where there is no GPU."""
    env, ranks = record["environment"], record.get("ranks")
    gpus = env.get("gpus") or []
    if gpus:
        return " + ".join(f"{gpus.count(g)}x {g}" for g in dict.fromkeys(gpus))
    return f"CPU: {env.get('cpu') or 'unknown'}" + (f", {ranks} ranks" if ranks and ranks > 1 else "")


def _what(arm: dict, runs: Sequence[Run], submission: dict) -> str:
    first, n = runs[0].record, arm["n"]
    title = submission["name"] or first.get("name") or arm["arm"]
    spread = f" ± {digits(arm['val_bpb']['std'])} (std, n − 1)" if n > 1 else " (one seed, no spread)"
    limits, data = first["limits"], first["data"]
    return "\n\n".join(
        part
        for part in (
            f"# {title}",
            submission["blurb"],
            f"**val_bpb {digits(arm['val_bpb']['mean'])}**{spread} over {n} seed{'s' * (n > 1)} of arm `{arm['arm']}`, "
            f"largest seed {count(submission['bytes_total'])} of {count(limits['artifact_bytes'])} bytes, on "
            f"{hardware(first)}; training ≤ {limits['train_seconds']:g} s, evaluation ≤ {limits['eval_seconds']:g} s. "
            f"Validation: the whole validation split of `{data['name']}`, {count(first['evaluate']['tokens'])} tokens "
            f"scored over {count(first['evaluate']['bytes'])} bytes.",
        )
        if part
    )


def _results(arm: dict, submission: dict) -> str:
    head = ("seed", "val_bpb", "val_loss", "artifact bytes", "code bytes", "total bytes", "steps", "train s", "eval s")
    rows: list[Sequence[Any]] = [
        (
            r["seed"],
            digits(r["val_bpb"]),
            digits(r["val_loss"]),
            *(count(r[k]) for k in ("artifact_bytes", "code_bytes", "total_bytes", "steps")),
            *(seconds(r[k]) for k in ("train_seconds", "eval_seconds")),
        )
        for r in arm["seeds"]
    ]
    for label, key in (("mean", "mean"), ("std (n − 1)", "std")):
        rows.append((label, _maybe(arm["val_bpb"][key]), _maybe(arm["val_loss"][key]), *[""] * 6))
    return "## Results\n\n" + table(head, rows)


def _not_averaged(arm: dict) -> str | None:
    plan = None if arm["seeds_planned"] else "The seeds of this arm were not fixed in a plan before the first run."
    head = ("seed", "run", "status", "val_bpb", "why it is not in the mean")
    rows = [(r["seed"], r["run"], r["status"], _maybe(r["val_bpb"]), r["why"]) for r in arm["not_used"]]
    rows += [(r["seed"], r["run"], r["status"], None, f"{r['why']}; run again") for r in arm["attempts"]]
    others = ["## Runs that are not in the mean", table(head, rows)] if rows else []
    return "\n\n".join(part for part in (plan, _added(arm), *others) if part) or None


def _added(arm: dict) -> str | None:
    """Which seeds the plan got later."""
    if not arm["seeds_added"]:
        return None
    rows = [(part["created"], ", ".join(map(str, part["seeds"])), part["results"]) for part in arm["seeds_added"]]
    stated = f"**{arm['argument']}**\n\n" if arm["argument"] else ""
    return f"## Seeds added to the plan\n\n{stated}" + table(("when", "seeds", "results there were by then"), rows)


def _techniques(record: dict) -> str:
    rows = [(t["group"], t["option"], t["summary"]) for t in record["techniques"]]
    return "## Techniques\n\n" + table(("group", "option", "what it does"), rows)


def _stages(arm: dict) -> str | None:
    """bpb on held-out training text as the weights were averaged and quantized."""
    names = list(dict.fromkeys(k for r in arm["seeds"] for k in r["dev_bpb"]))
    if not names:
        return None
    rows = [(r["seed"], *(_maybe(r["dev_bpb"].get(k)) for k in names)) for r in arm["seeds"]]
    return "## Stages (dev_bpb, on held-out training text)\n\n" + table(("seed", *names), rows)


def _clock(title: str, key: str, runs: Sequence[Run]) -> str:
    """Seconds by phase, one column per seed."""
    names = list(dict.fromkeys(p for r in runs for p in r.record[key]["phases"]))
    limit = runs[0].record["limits"]["train_seconds" if key == "train" else "eval_seconds"]
    rows: list[Sequence[Any]] = []
    for name in names:
        spent = [r.record[key]["phases"].get(name) for r in runs]
        rows.append((name, *(None if s is None else seconds(s) for s in spent)))
    rows.append(("**clock**", *(seconds(r.record[key]["seconds"]) for r in runs)))
    head = ("phase", *(f"seed {r.seed}" for r in runs))
    return f"## {title} clock (seconds, limit {limit:g})\n\n" + table(head, rows)


def _artifact(runs: Sequence[Run]) -> str:
    names = list(dict.fromkeys(g for r in runs for g in r.record["artifact"]["groups"]))
    rows: list[Sequence[Any]] = [(n, *(r.record["artifact"]["groups"].get(n) for r in runs)) for n in names]
    rows.append(("**artifact**", *(r.record["artifact"]["bytes"] for r in runs)))
    rows.append(("**train_gpt.py**", *(r.record["code"]["bytes"] for r in runs)))
    counted = [(name, *(None if v is None else count(v) for v in values)) for name, *values in rows]
    bits = [lookup(r.record, "artifact.bits_per_weight") for r in runs]
    counted.append(("bits per weight", *(None if b is None else f"{b:.4f}" for b in bits)))
    return "## Artifact (bytes)\n\n" + table(("section", *(f"seed {r.seed}" for r in runs)), counted)


def _receipts(runs: Sequence[Run]) -> str:
    rows = [
        (r.seed, x["part"], x["what"], f"{x['value']:.6g}", "yes" if x["alive"] else "NO")
        for r in runs
        for x in r.record["receipts"]
    ]
    body = table(("seed", "part", "what it did", "by", "acted"), rows) if rows else "No part of this recipe leaves one."
    return "## Liveness receipts\n\n" + body


def _verdict(runs: Sequence[Run], submission: dict) -> str:
    rows = table(("seed", "verdict"), [(r.seed, r.record["verdict"]) for r in runs])
    checks = table(("check", "holds"), [(k, "yes" if v else "NO") for k, v in submission["compliance"].items()])
    return f"## Legality\n\n{rows}\n\n{checks}"


def _references(record: dict, submission: dict) -> str | None:
    lines = record.get("reference") or {}
    if not lines:
        return None
    rows = [*((name, _maybe(bpb)) for name, bpb in lines.items()), ("this submission", digits(submission["val_bpb"]))]
    return "## Reference lines (the same validation bytes)\n\n" + table(("compressor", "bits per byte"), rows)


def _environment(runs: Sequence[Run]) -> str:
    keys = ("python", "packages.torch", "platform", "cpu", "commit")
    rows = [(k, *(lookup(r.record, f"environment.{k}") for r in runs)) for k in keys]
    rows.append(("hardware", *(hardware(r.record) for r in runs)))
    rows.append(("ranks", *(r.record.get("ranks") for r in runs)))
    return "## Environment\n\n" + table(("", *(f"seed {r.seed}" for r in runs)), rows)


def _reproduce(arm: dict, runs: Sequence[Run]) -> str:
    commands = [shlex.join(["python", "-m", "pgolf.run", *map(str, r.record["overrides"])]) for r in runs]
    ranks = runs[0].record.get("ranks") or 1
    alone = [f"SEED={r.seed} torchrun --standalone --nproc_per_node={ranks} train_gpt.py" for r in runs]
    sealed = [r.record["artifact"]["sha256"] for r in runs]
    judged = [f"{a} judge ARTIFACT=artifact.pgolf ARTIFACT_SHA256={s}" for a, s in zip(alone, sealed, strict=True)]
    return "\n".join(
        (
            f"## How to reproduce\n\nWith pgolf {runs[0].record['pgolf']}:\n\n```",
            *commands,
            "```\n\nWithout it, from this folder, after `pip install -r requirements.txt`:\n\n```",
            *alone,
            "```\n\nAn artifact alone is judged again, to the same val_bpb, by:\n\n```",
            *judged,
            "```\n\n`DATA_PATH` names the folder of the shards, and `TOKENIZER_PATH` the tokenizer, where they have moved.",
            f"\nCode sha256 `{runs[0].code_sha256}`; arm sha256 `{arm['arm_sha256']}`.",
        )
    )


def _needed(submission: dict) -> str | None:
    missing = submission["pgolf"]["still_needed"]
    if not missing:
        return None
    return (
        "## Still needed\n\nNot in the configuration, and not invented: " + ", ".join(f"`{k}`" for k in missing) + "."
    )
