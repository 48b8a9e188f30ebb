"""`python -m pgolf.compare A B`: two results side by side, their difference with its test, and the record bar.

A is the baseline and B is ours, so that a negative difference is B's gain. A public record is named by its row of
baselines.yaml; whether B beats it is decided per token, in nats, and shown in the units that people use instead.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pgolf.audit.finding import once
from pgolf.audit.folder import read_folder
from pgolf.audit.folder_legal import check_plausible
from pgolf.config.command import Parser, Result, StatusLines, aligned, command
from pgolf.errors import UserError, nearest
from pgolf.files import read_json
from pgolf.files.names import RECORD
from pgolf.results import stats
from pgolf.results.baselines import baselines
from pgolf.results.runfolder import read_run
from pgolf.results.scores import Scores, known, published
from pgolf.results.summary import find_arm, job_folders, summarise
from pgolf.stages.views import digits

WHERE = "SWEEP:ARM, a sweep, run or submission folder, a submission.json, TABLE.json:ROW, or a shipped baseline's name"
SUBMISSION = "submission.json"
SAME_STREAM = 0.01  # nats per bpb is a constant of the token stream; further apart than this are two streams


@command()
def main(args: Sequence[str], say: StatusLines) -> Result:
    """The comparison of two results."""
    parser = Parser("compare", "Compare two results; A is the baseline.")
    parser.add_argument("a", metavar="A", nargs="?", help=f"the baseline: {WHERE}")
    parser.add_argument("b", metavar="B", nargs="?", help="ours, named in the same ways")
    parser.add_argument("--baselines", action="store_true", help="list the shipped baselines and stop")
    options = parser.parse_args(args)
    if options.baselines:
        return shipped()
    if options.b is None:
        parser.error("two results are compared, A and B")
    a, b = scores(options.a), scores(options.b)
    return Result("pgolf.compare/1", plain_values(a, b), report(a, b))


def shipped() -> Result:
    """The shipped baselines, as a table."""
    found = {name: scores(name).sample for name in baselines()}
    rows = [("baseline", "n", "mean val_bpb", "std (n − 1)")]
    rows += [(name, str(s.n), digits(s.mean), "–" if s.std is None else digits(s.std)) for name, s in found.items()]
    value = {"baselines": {name: asdict(sample) for name, sample in found.items()}}
    return Result("pgolf.compare.baselines/1", value, aligned(rows))


def plain_values(a: Scores, b: Scores) -> dict[str, Any]:
    """The whole comparison: both sides, B less A, the test of that difference, and the record bar; null where there is none."""
    tested, nats = difference_test(a.sample, b.sample), b.nats_per_bpb
    difference = b.sample.mean - a.sample.mean
    claim, why = record_bar(a, b)
    return {
        "a": side(a),
        "b": side(b),
        "difference_bpb": difference,
        "difference_nats": nats and difference * nats,
        "test": tested.found and {"name": tested.name, **asdict(tested.found)},
        "no_test": tested.why,
        "seeds_needed": tested.needed,
        "record_bar": claim and {"met": claim.met, "readings": [asdict(r) | {"met": r.met} for r in claim.readings]},
        "no_record_bar": why,
        "notes": notes(a, b),
    }


def side(s: Scores) -> dict[str, Any]:
    """One result: n, mean and std of its val_bpb, and by seed what is known."""
    return {"label": s.label, **asdict(s.sample), "nats_per_bpb": s.nats_per_bpb, "val_bpb": s.bpb}


def report(a: Scores, b: Scores) -> str:
    """The whole comparison as text."""
    parts = [_table(a, b), _difference(a, b), _bar(a, b), "\n".join(notes(a, b))]
    return "\n\n".join(p for p in parts if p)


def _table(a: Scores, b: Scores) -> str:
    rows = [("", "n", "mean val_bpb", "std (n − 1)", "nats/bpb", "seeds")]
    for name, s in (("A", a), ("B", b)):
        deviation = "–" if s.sample.std is None else digits(s.sample.std)
        ratio = "–" if s.nats_per_bpb is None else f"{s.nats_per_bpb:.4f}"
        n = str(s.sample.n) if s.bpb or s.sample.n > 1 else "–"
        rows.append((f"{name} {s.label}", n, digits(s.sample.mean), deviation, ratio, ", ".join(s.bpb) or "–"))
    return aligned(rows)


def _difference(a: Scores, b: Scores) -> str:
    difference = b.sample.mean - a.sample.mean
    rows = [("B − A", f"{difference:+.8f} bpb")]
    if b.nats_per_bpb:
        rows.append(
            ("", f"{difference * b.nats_per_bpb:+.8f} nats per token (at B's {b.nats_per_bpb:.4f} nats per bpb)")
        )
    else:
        rows.append(("", "nats per token not known: B states no val_loss"))
    return aligned(rows + _tests(a.sample, b.sample))


@dataclass(frozen=True)
class Tested:
    """`found` by the test `name`, or `why` there is none; `needed` seeds a side for p < .01, where both sides have a spread."""

    name: str = ""
    found: stats.TTest | None = None
    why: str | None = None
    needed: int | None = None


def difference_test(a: stats.Sample, b: stats.Sample) -> Tested:
    """Welch where both sides have a spread; one-sample where one side is a single figure; else the reason."""
    needed = None
    if a.spread and b.spread:
        found, name = stats.welch(b, a), "Welch"
        needed = stats.seeds_needed(b.mean - a.mean, a.std, b.std)
    elif a.spread or b.spread:
        one, fixed, who = (b, a, "B") if b.spread else (a, b, "A")
        found, name = stats.one_sample(one, fixed.mean), f"one-sample, {who} against the other's single figure,"
    else:
        return Tested(why="at least one side needs two results or a stated std")
    return Tested(name, found, None, needed) if found.p is not None else Tested(why="the results do not vary")


def _tests(a: stats.Sample, b: stats.Sample) -> list[tuple[str, str]]:
    tested = difference_test(a, b)
    if (found := tested.found) is None:
        return [("test", f"none: {tested.why}")]
    rows = [(tested.name, f"t = {found.t:.3f}, df = {found.df:.2f}, two-sided p = {found.p:.4g}")]
    rows.append(("95 % interval", f"{found.low:+.8f} to {found.high:+.8f} bpb"))
    if a.spread and b.spread:
        seeds = tested.needed or f"more than {stats.MOST_SEEDS}"
        rows.append(("seeds needed for p < .01", f"{seeds} per side, if means and stds stay"))
    return rows


def record_bar(a: Scores, b: Scores) -> tuple[stats.Claim | None, str | None]:
    """The record bar in its three readings, or why it cannot be asked."""
    if b.nats_per_bpb is None or not b.sample.spread:
        return None, "B states no val_loss" if b.sample.spread else "one result of B cannot be tested"
    return stats.claim(b.sample, a.sample, b.nats_per_bpb), None


def _bar(a: Scores, b: Scores) -> str:
    """The record bar as a table; nats per token decides."""
    claim, why = record_bar(a, b)
    if claim is None:
        return f"whether B meets the bar of a record cannot be said: {why}"
    rows = [("bar: 0.005 lower at p < .01", "in bpb", "gain", "one-sample p", "Welch p", "met")]
    for r in claim.readings:
        p_values = ("–" if p is None else f"{p:.4g}" for p in (r.one_sample_p, r.welch_p))
        rows.append((r.unit, f"{r.bar:.5f}", f"{r.gain:+.6f}", *p_values, "yes" if r.met else "no"))
    return f"{aligned(rows)}\ndecided per token in nats: the bar is {'met' if claim.met else 'not met'}"


def notes(a: Scores, b: Scores) -> list[str]:
    """What is odd about either side, and that they cannot be compared token by token where that is so."""
    lines = [f"note on {name}: {note}" for name, s in (("A", a), ("B", b)) for note in s.notes]
    ratios = (a.nats_per_bpb, b.nats_per_bpb)
    if all(ratios) and abs(ratios[0] / ratios[1] - 1) > SAME_STREAM:
        lines.append(
            "note: the two are on different token streams; bpb compares them, nats per token is converted at B's rate"
        )
    return lines


def scores(where: str) -> Scores:
    """The results that `where` names: SWEEP:ARM, a sweep, run or submission folder, a submission.json, TABLE.json:ROW, or
    a shipped baseline."""
    if where in baselines() and not Path(where).exists():
        return published(where, baselines()[where])
    path, part = _split(where)
    if path.is_file():
        return _file(path, part)
    if (path / SUBMISSION).is_file():
        return _with_logs(published(path.name, read_json(path / SUBMISSION)), path)
    if (path / RECORD).is_file():
        return _run(path)
    if job_folders(path) or (path / "plan.json").exists():
        return _sweep(path, part)
    raise UserError(f"{path}: holds neither {SUBMISSION}, nor {RECORD}, nor folders of runs")


def _with_logs(stated: Scores, path: Path) -> Scores:
    """A submission folder's scores with what its logs add: figures by seed, val_loss, and what is not plausible about them."""
    folder = read_folder(path)
    label, results = folder.head.label, {str(log.seed_value): r for log, r in folder.head.results.items()}
    doubts = once(check_plausible(folder.submission, folder.logs, folder.head))
    notes = [*stated.notes, *(f"{f.what} (x{f.times})" if f.times > 1 else f.what for f in doubts)]
    if not stated.bpb and len(results) > 1 and "None" not in results and not folder.head.alone:
        notes = [n for n in notes if not n.startswith("results by seed")] + [
            f"results by seed are read from its logs ({label})"
        ]
        stated = known(stated.label, {seed: r.bpb for seed, r in results.items()}, {}, ())
    ratios = [stats.nats_per_bpb(r.loss, r.bpb) for r in results.values() if r.loss and r.bpb]
    if stated.nats_per_bpb is None and ratios:
        notes.append(f"val_loss is read from its logs ({label})")
        stated = replace(stated, nats_per_bpb=stats.mean(ratios))
    return replace(stated, notes=tuple(notes))


def _split(where: str) -> tuple[Path, str | None]:
    """The path that exists, and what follows its colon."""
    if Path(where).exists():
        return Path(where), None
    for colon in (m.start() for m in re.finditer(":", where)):
        if Path(where[:colon]).exists() and where[:colon]:
            return Path(where[:colon]), where[colon + 1 :]
    raise UserError(
        f"{where}: no such file, folder or baseline (allowed: SWEEP:ARM, a sweep, run or submission folder, a"
        f" submission.json, or one of --baselines).{nearest(where, baselines())}"
    )


def _run(folder: Path) -> Scores:
    run = read_run(folder)
    if not run.complete:
        raise UserError(f"{folder}: its run is {run.status}, so it has no score")
    e = run.record["evaluate"]
    return known(folder.name, {str(run.seed): e["val_bpb"]}, {str(run.seed): e["val_loss"]}, ())


def _sweep(folder: Path, name: str | None) -> Scores:
    summary = summarise(folder)
    labels = [a["arm"] for a in summary["arms"]]
    if name is None and len(labels) != 1:
        raise UserError(
            f"{folder}: has {len(labels)} arms; say which, as {folder}:ARM, of {', '.join(labels) or 'none'}"
        )
    arm = find_arm(summary, labels[0] if name is None else name)
    if arm["refused"] or not arm["n"]:
        raise UserError(f"{folder}:{arm['arm']}: {arm['refused'] or 'no seed is complete'}")
    notes = [f"seed {a['seed']} is {a['status']}" for a in arm["not_complete"]]
    notes += [f"seed {r['seed']}: {d}" for r in arm["seeds"] for d in r["disagreements"]]
    tables = ({str(r["seed"]): r[key] for r in arm["seeds"]} for key in ("val_bpb", "val_loss"))
    return known(arm["arm"], *tables, tuple(notes))


def _file(path: Path, row: str | None) -> Scores:
    value = read_json(path)
    if not isinstance(value, list):
        return published(path.parent.name if path.name == SUBMISSION else path.stem, value)
    rows = {r.get("folder") or r.get("name"): r for r in value if isinstance(r, dict)}
    names = [str(n) for n in rows]
    if row is None or row not in rows:
        raise UserError(f"{path}: a table of {len(rows)} results; say which, as {path}:ROW.{nearest(row or '', names)}")
    return published(row, rows[row])


if __name__ == "__main__":
    sys.exit(main())
