"""The report of one run, from record.json, events.jsonl and config.yaml. What is missing is said, whatever it is."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pgolf.machine.liveness import state
from pgolf.report import charts, page
from pgolf.report.seen import Seen, finite, seen
from pgolf.stages.views import digits

MOST_LAYERS = 32  # in a drawing; the table beside it has them all


def run_page(folder: Path) -> str:
    """The whole page."""
    run = seen(folder)
    parts: Sequence[tuple[str, Callable[[Seen], list[str]], str]] = (
        ("Training", training, "No training: there are no events of steps."),
        ("Evaluation", evaluation, "No evaluation: the run did not get there."),
        (
            "Quantisation",
            quantisation,
            "No quantisation: the run did not get to an artifact, or kept weights as they are.",
        ),
        ("Bytes", size, "No artifact: the run did not get there."),
        ("Receipts", receipts, "No receipts: the run did not get there."),
        ("Clocks", clocks, "No clocks: no stage has ended."),
        ("What ran", provenance, "Not known: there is no record."),
    )
    body = [*opening(run)]
    body += [page.section(title, *(make(run) or [page.text(absent, "muted")])) for title, make, absent in parts]
    config = (
        page.folded("Resolved configuration", page.code(run.config))
        if run.config
        else page.text("config.yaml is not there", "muted")
    )
    return page.page(f"pgolf: {name(run)}", [*body, page.section("Configuration", config)])


def name(run: Seen) -> str:
    """The run's name and seed, or its folder's name."""
    return f"{run.get('name')} seed {run.get('seed')}" if run.record else run.folder.name


def opening(run: Seen) -> list[str]:
    """Title, verdict, the main figures, and everything that is wrong or missing."""
    verdict, status = run.get("verdict"), state(run.folder, run.record) if run.record else "no record"
    tone = {True: "good", False: "bad"}[status == "complete" and not str(verdict).startswith("fail")]
    text = f"{status}: verdict {verdict}" if verdict else status
    arm = f"arm {str(run.get('arm')).replace(',', ', ')}  ·  started {run.get('started')}  ·  pgolf {run.get('pgolf')}"
    unsaid = {"running": "it was killed, or is still running", "lost": "its process is gone: it was killed"}
    error = run.get("error") or unsaid.get(status)
    breaks = ["taken up again {taken_up} at the stage {stage}: it was {status} ({why})".format(**i) for i in run.breaks]
    return [
        page.heading(name(run), text, tone),
        *([page.text(arm, "muted")] if run.record else []),
        *([page.text(error, "bad")] if error else []),
        *(page.text(line, "muted") for line in breaks),
        *(page.text(fault, "bad") for fault in run.faults),
        page.cards(main_figures(run)),
    ]


def main_figures(run: Seen) -> dict[str, str]:
    """Those that are known, by what they are."""
    get = run.get
    dev, size = get("train.dev_bpb") or {}, get("artifact.bytes")
    gap = dev["quantized"] - dev["averaged"] if finite(dev.get("quantized")) and finite(dev.get("averaged")) else None
    total = size + get("code.bytes") if size is not None and get("code.bytes") is not None else None
    facts = {
        "val_bpb": _shown(get("evaluate.val_bpb"), digits),
        "dev_bpb after packing": _shown(dev.get("quantized"), "{:.4f}".format),
        "dev_bpb lost to quantising": _shown(gap, "{:+.4f}".format),
        "bytes, artifact + code": _shown(total, "{:,}".format),
        "of the cap": _shown(total and total / get("limits.artifact_bytes"), "{:.1%}".format),
        "training, s": _shown(get("train.seconds"), "{:.1f}".format),
        "evaluation, s": _shown(get("evaluate.seconds"), "{:.1f}".format),
        "steps": _shown(get("train.steps"), "{:,}".format),
        "tokens trained on": _shown(get("train.tokens"), "{:,}".format),
        "parameters": _shown(get("train.parameters"), "{:,}".format),
        "ranks": _shown(get("ranks"), str),
    }
    return {what: text for what, text in facts.items() if text}


def _shown(value: Any, how: Callable[[Any], str]) -> str:
    return "" if value is None else how(value)


def training(run: Seen) -> list[str]:
    """Loss and dev_bpb over both axes, and the schedule."""
    drawn = []
    for x, label in (("seconds", "seconds of training"), ("step", "steps")):
        loss, dev = run.points("step", x, "loss"), run.points("dev", x, "dev_bpb")
        panels = {"loss, nats/token": {"loss": loss}, "dev_bpb": {"dev_bpb": dev}}
        panels = {y: lines for y, lines in panels.items() if all(lines.values())}
        if panels:
            caption = f"Loss on training text and bits per byte of its held-out slice, over {label}."
            drawn.append(page.chart(charts.curves(panels, label, x == "step"), caption))
    rates = {y: {y: run.points("step", "step", key)} for y, key in (("lr multiplier", "lr"), ("momentum", "momentum"))}
    rates = {y: lines for y, lines in rates.items() if all(lines.values())}
    if rates:
        drawn.append(page.chart(charts.curves(rates, "step", True), f"The schedule: {' and '.join(rates)}."))
    if speed := run.points("step", "step", "tokens_per_second"):
        panels = {"tokens/s": {"tokens/s": speed}}
        drawn.append(
            page.chart(charts.curves(panels, "step", True), "Training tokens a second, mean since the clock began.")
        )
    stages = run.get("train.dev_bpb") or {}
    steps = "dev_bpb: " + " → ".join(f"{stage} {bpb:.4f}" for stage, bpb in stages.items() if finite(bpb))
    return [page.charts(drawn), *([page.text(steps)] if stages else [])] if drawn else []


def evaluation(run: Seen) -> list[str]:
    """bpb chunk by chunk, and what the learner did between them."""
    shown = [page.chart(charts.curves(panels, "chunk", True), caption) for panels, caption in _chunks(run) if panels]
    judged = run.get("evaluate") or {}
    score = {"val_bpb": judged.get("val_bpb"), "val_loss, nats/token": judged.get("val_loss")}
    facts: dict[str, Any] = {what: page.Exact(digits(value)) for what, value in score.items() if value is not None}
    facts |= {"tokens scored": judged.get("tokens"), "bytes scored": judged.get("bytes")}
    facts |= {f"bpb of {name} on the same bytes": bpb for name, bpb in (run.get("reference") or {}).items()}
    facts = {what: value for what, value in facts.items() if value is not None}
    return [
        *([page.charts(shown)] if shown else []),
        *([page.table(("what", "value"), list(facts.items()))] if facts else []),
    ]


def _chunks(run: Seen) -> list[tuple[dict, str]]:
    trace = [row for row in run.get("evaluate.trace") or [] if isinstance(row, dict)]
    scored = [(r["chunk"] + 1, r["bpb"]) for r in trace if r.get("phase") == "score" and finite(r.get("bpb"))]
    moved = [(r["chunk"] + 1, r["moved"]) for r in trace if r.get("phase") == "adapt" and finite(r.get("moved"))]
    scored = scored or run.points("chunk", "chunk", "val_bpb")
    return [
        (
            {"val_bpb": {"bpb": scored}} if scored else {},
            "Bits per byte of all chunks so far; each was scored before anything was learnt from it.",
        ),
        (
            {"L2 distance": {"moved": moved}} if any(m for _, m in moved) else {},
            "How far learning from each chunk moved the weights.",
        ),
    ]


def quantisation(run: Seen) -> list[str]:
    """Error by tensor: as it is, and as plain rounding would have left it."""
    layers = [row for row in run.get("artifact.layers") or [] if isinstance(row, dict)]
    errors = {
        r["name"]: (r["error"], r["rounding_error"])
        for r in layers
        if _positive(r.get("error")) and _positive(r.get("rounding_error"))
    }
    if not errors:
        return []
    worst = set(sorted(errors, key=lambda tensor: -errors[tensor][0])[:MOST_LAYERS])
    shown = {tensor: pair for tensor, pair in errors.items() if tensor in worst}
    which = (
        "every quantised tensor" if len(shown) == len(errors) else f"the {MOST_LAYERS} worst of {len(errors)} tensors"
    )
    drawn = charts.pairs(shown, ("as packed", "plain rounding"), "relative output error")
    columns = ("name", "section", "bits", "error", "rounding_error", "entropy", "notice")
    rows = [[row.get(c) for c in columns] for row in layers]
    titles = ("tensor", "section", "bits", "error", "of rounding", "bits/weight", "notice")
    return [
        page.chart(drawn, f"Output error of {which}, in the model's order."),
        page.folded("All tensors", page.table(titles, rows)),
    ]


def _positive(value: Any) -> bool:
    return finite(value) and value > 0


def size(run: Seen) -> list[str]:
    """Bytes by tensor group, and all that ships against the cap."""
    groups, code, cap = run.get("artifact.groups"), run.get("code.bytes"), run.get("limits.artifact_bytes")
    if not (isinstance(groups, dict) and code and cap):
        return []
    rows = {group: n for group, n in sorted(groups.items(), key=lambda pair: -pair[1]) if n} | {
        "code (train_gpt.py)": code
    }
    artifact = sum(groups.values())
    left = cap - artifact - code
    text = f"{artifact:,} artifact + {code:,} code = {artifact + code:,} bytes of {cap:,}: "
    text += f"{left:,} to spare" if left >= 0 else f"{-left:,} over"
    share = max(cap, artifact + code)
    parts = page.meter((("a", artifact / share), ("b", code / share)))
    table = page.table(("group", "bytes", "% of the cap"), [(g, n, round(100 * n / cap, 3)) for g, n in rows.items()])
    drawn = page.chart(charts.bars(rows, "bytes"), "Bytes as they lie in the artifact, by tensor group, and the code.")
    return [page.text(text, "bad" if left < 0 else ""), parts, page.charts([drawn, table])]


def receipts(run: Seen) -> list[str]:
    """Proof that each part that was on acted."""
    rows = [(r.get("part"), r.get("what"), r.get("value"), r.get("alive")) for r in run.get("receipts") or []]
    return [page.table(("part", "what it did", "by", "alive"), rows, wide=("what it did",))] if rows else []


def clocks(run: Seen) -> list[str]:
    """Seconds by stage and phase, against the limits."""
    rows = []
    for stage, limit in (("train", "train_seconds"), ("evaluate", "eval_seconds")):
        phases: Mapping[str, float] = run.get(f"{stage}.phases") or {}
        rows += [(stage, phase, round(spent, 2), None) for phase, spent in phases.items()]
        if run.get(f"{stage}.seconds") is not None:
            rows.append((stage, "whole clock", round(run.get(f"{stage}.seconds"), 2), run.get(f"limits.{limit}")))
    return [page.table(("stage", "phase", "seconds", "limit"), rows)] if rows else []


def provenance(run: Seen) -> list[str]:
    """Parts, machine, packages and hashes."""
    if not run.record:
        return []
    parts = [(t.get("group"), t.get("option"), t.get("summary")) for t in run.get("techniques") or []]
    env = run.get("environment") or {}
    facts = {key: env.get(key) for key in ("platform", "cpu", "cores", "python", "commit")}
    facts |= {"GPUs": ", ".join(env.get("gpus") or []) or "none"} | (env.get("packages") or {})
    facts |= {"data": run.get("data.name"), "finished": run.get("finished")}
    hashes = ("config_sha256", "arm_sha256", "code.sha256", "artifact.sha256", "data.manifest_sha256", "log_sha256")
    facts |= {key: run.get(key) for key in hashes}
    return [
        page.table(("group", "option", "what it does"), parts, wide=("what it does",)),
        page.text("Words: " + (" ".join(map(str, run.get("overrides") or [])) or "none")),
        page.folded("Machine, packages and hashes", page.table(("what", "value"), list(facts.items()))),
    ]
