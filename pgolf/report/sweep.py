"""The report of a sweep, from summary.json: seeds, arms, and every arm against the first."""

from pathlib import Path
from typing import Any

from pgolf.files import read_json
from pgolf.report import REPORT, charts, page
from pgolf.results.summary import SUMMARY
from pgolf.stages.views import digits


def is_sweep(folder: Path) -> bool:
    """Whether a folder is a sweep's."""
    return (folder / SUMMARY).exists()


def sweep_page(folder: Path) -> str:
    """The whole page."""
    summary = read_json(folder / SUMMARY)
    arms = summary["arms"]
    done, absent = sum(len(arm["seeds"]) for arm in arms), sum(len(arm["not_complete"]) for arm in arms)
    text = f"{len(arms)} arm(s), {done} complete run(s), {absent} not complete  ·  pgolf {summary['pgolf']}"
    body = [
        page.heading(folder.name, text, "bad" if absent else ""),
        page.section("Arms", *arms_part(arms)),
        page.section("Seeds", *seeds_part(folder, arms)),
        page.section("Ablation", *ablation_part(summary["ablation"])),
    ]
    problems = [(p["run"], p["why"]) for p in summary["problems"]]
    if problems:
        body.append(page.section("Problems", page.table(("where", "what"), problems, wide=("what",))))
    return page.page(f"pgolf: {folder.name}", body)


def arms_part(arms: list[dict[str, Any]]) -> list[str]:
    """Means, and what became of each arm."""
    columns = ("arm", "n", "mean val_bpb", "std (n − 1)", "submission")
    rows = [(arm["arm"], arm["n"], _mean(arm, "mean"), _mean(arm, "std"), _submission(arm)) for arm in arms]
    values = {arm["arm"]: [row["val_bpb"] for row in arm["seeds"]] for arm in arms if arm["seeds"]}
    drawn = [page.chart(charts.dots(values, "val_bpb"), "val_bpb of every seed; the bar is the mean. Lower is better.")]
    return [page.table(columns, rows, wide=("arm", "submission")), *(drawn if values else [])]


def _mean(arm: dict[str, Any], which: str) -> page.Exact | None:
    value = (arm["val_bpb"] or {}).get(which)
    return None if value is None else page.Exact(digits(value))


def _submission(arm: dict[str, Any]) -> str:
    made = arm.get("submission")
    if not made:
        return "not asked for"
    return page.Link(f"{made['folder']}/README.md") if made["written"] else f"none: {made['why']}"


def seeds_part(folder: Path, arms: list[dict[str, Any]]) -> list[str]:
    """One row for each seed, those without a result included."""
    rows = [_seed(folder, arm["arm"], row) for arm in arms for row in arm["seeds"]]
    rows += [_absent(folder, arm["arm"], row) for arm in arms for row in arm["not_complete"]]
    columns = ("arm", "seed", "val_bpb", "artifact", "total bytes", "steps", "train s", "eval s", "verdict", "report")
    unused = [(arm["arm"], row["seed"], row["run"], row["why"]) for arm in arms for row in arm["not_used"]]
    more: list[str] = (
        [page.text("Runs that stand for no seed:"), page.table(("arm", "seed", "run", "why"), unused)] if unused else []
    )
    added = [
        (arm["arm"], part["created"], ", ".join(map(str, part["seeds"])), arm["argument"] or "")
        for arm in arms
        for part in arm.get("seeds_added", [])
    ]
    if added:
        more += [page.text("Seeds added to the plan:"), page.table(("arm", "when", "seeds", "verdict"), added)]
    again = [(arm["arm"], row["seed"], row["run"], row["why"]) for arm in arms for row in arm.get("attempts", [])]
    if again:
        more += [page.text("Attempts that were run again:"), page.table(("arm", "seed", "attempt", "why"), again)]
    return [page.table(columns, rows, wide=("arm", "verdict")), *more]


def _seed(folder: Path, arm: str, row: dict[str, Any]) -> tuple:
    size = (row["artifact_bytes"], row["total_bytes"])
    clocks = (round(row["train_seconds"], 1), round(row["eval_seconds"], 1))
    text = "; ".join([row["verdict"], *row["disagreements"]])
    known = (page.Exact(row["seed"]), page.Exact(digits(row["val_bpb"])), *size, row["steps"], *clocks)
    return (arm, *known, text, _report(folder, row["run"]))


def _absent(folder: Path, arm: str, row: dict[str, Any]) -> tuple:
    return (arm, page.Exact(row["seed"]), *[None] * 6, f"{row['status']}: {row['why']}", _report(folder, row["run"]))


def _report(folder: Path, run: str | None) -> str | None:
    return page.Link(f"{run}/{REPORT}") if run and (folder / run / REPORT).exists() else run


def ablation_part(ablation: dict[str, Any] | None) -> list[str]:
    """Differences with 95 % intervals."""
    if ablation is None:
        return [page.text("One arm: there is nothing to compare.", "muted")]
    known = [row for row in ablation["rows"] if row["difference_bpb"] is not None]
    drawn = charts.intervals(
        {r["arm"]: (r["difference_bpb"], r["low"], r["high"]) for r in known}, "difference in val_bpb"
    )
    columns = ("arm", "difference", "low", "high", "p", "seeds needed", "note")
    keys = ("arm", "difference_bpb", "low", "high", "p", "seeds_needed", "note")
    rows = [[row[key] for key in keys] for row in ablation["rows"]]
    caption = "val_bpb minus the baseline's, with 95 % intervals (Welch); left of the line is better."
    return [
        page.text(
            f"Against {ablation['baseline']}. Two-sided p; seeds needed per arm for p < .01 if this difference is true."
        ),
        *([page.chart(drawn, caption)] if known else []),
        page.table(columns, rows, wide=("arm", "note")),
    ]
