"""Checks of a run's record against its files, its own arithmetic, its clocks, and the validation split it names."""

import hashlib
import math
from typing import Any

from pgolf.audit.finding import Finding
from pgolf.config.identity import fits
from pgolf.data.corpus import Corpus
from pgolf.files import lookup
from pgolf.files.names import CODE
from pgolf.results.runfolder import Run, disagreements

SLACK = 0.5  # seconds by which sums of phases may miss a clock


def files(run: Run, config: dict, corpus: Corpus) -> list[Finding]:
    """Hashes: code, config, data. (The log's and the artifact's are among `arithmetic`.)"""
    record, path = run.record, run.folder / CODE
    stated, found = record["code"], path.read_bytes() if path.exists() else b""
    same_code = (hashlib.sha256(found).hexdigest(), len(found)) == (stated["sha256"], stated["bytes"])
    rows = [
        (
            "mistake 28",
            same_code,
            CODE,
            f"{len(found):,} bytes that are not the code the record weighed",
            "code's sha256",
        ),
        (
            "mistake 28",
            fits(config, record),
            "config.yaml",
            "not the config the record was made with",
            "config's sha256",
        ),
        (
            "mistake 7",
            corpus.manifest.text_sha256() == record["data"]["manifest_sha256"],
            "data",
            f"the text of {corpus.manifest.name} here is not the one the run names",
            "sha256 of every shard and the tokenizer",
        ),
    ]
    return [judged(*row) for row in rows]


def arithmetic(run: Run) -> list[Finding]:
    """Score, log, artifact and record must agree with each other."""
    wrong = disagreements(run)
    fix = "generate every file from the record"
    if wrong:
        return [Finding("mistake 25", "fail", run.folder.name, what, fix) for what in wrong]
    return [judged("mistake 25", True, run.folder.name, "", "score, log and artifact agree with the record")]


def clocks(record: dict[str, Any]) -> list[Finding]:
    """Size, both clocks and what must lie inside them, dead parts, and validation text on the training side."""
    train, judged_, limits = record["train"], record["evaluate"], record["limits"]
    size, cap = record["artifact"]["bytes"] + record["code"]["bytes"], limits["artifact_bytes"]
    dead = ", ".join(r["part"] for r in record["receipts"] if not r["alive"])
    seen = lookup(record, "train.validation_tokens")
    scoring = sum(row["seconds"] for row in judged_["trace"])
    rows = [
        ("mistake 20", size <= cap, "size", f"{size:,} bytes, {cap:,} allowed", f"{size:,} of {cap:,} bytes"),
        _clock("mistake 18", "training clock", train, limits["train_seconds"]),
        _clock("mistake 19", "evaluation clock", judged_, limits["eval_seconds"]),
        (
            "mistake 19",
            scoring <= judged_["seconds"] + SLACK,
            "evaluation trace",
            f"its phases took {scoring:.1f} s, the clock says {judged_['seconds']:.1f}",
            f"{scoring:.1f} s of scoring and learning lie inside the clock",
        ),
        ("mistake 33", not dead, "receipts", f"on but did nothing: {dead}", f"{len(record['receipts'])} parts acted"),
        (
            "C3",
            seen == 0,
            "training side",
            f"trained on {seen or 'an unknown number of'} validation tokens before they were scored",
            "no validation text reached it",
        ),
    ]
    return [judged(*row) for row in rows]


def _clock(rule: str, where: str, stage: dict[str, Any], limit: float) -> tuple:
    spent, phases = stage["seconds"], sum(seconds or 0.0 for seconds in stage["phases"].values())
    ok = spent <= limit and phases <= spent + SLACK
    return rule, ok, where, f"{spent:.1f} s ({phases:.1f} in phases) of {limit:g}", f"{spent:.1f} s of {limit:g}"


def order(record: dict[str, Any]) -> list[Finding]:
    """C3 in the trace: score, adapt, score, adapt …, score; what adapts is what scored."""
    trace = record["evaluate"]["trace"]
    chunks = (len(trace) + 1) // 2
    expected = [(c, phase) for c in range(chunks) for phase in ("score", "adapt")][:-1]
    recorded = [(row["chunk"], row["phase"]) for row in trace]
    if recorded != expected:
        at = next((i for i, (a, b) in enumerate(zip(recorded, expected, strict=False)) if a != b), len(expected))
        return [judged("C3", False, f"trace row {at}", "the phases are not score, adapt, score, …, score", "")]
    apart = [a["chunk"] for s, a in zip(trace[::2], trace[1::2], strict=False) if s["sha"] != a["sha"]]
    what = f"chunk {apart[0] if apart else 0} was not scored by the parameters that then learnt from it"
    return [judged("C3", not apart, "trace", what, f"{chunks} chunks, each scored before it was learnt from")]


def traced(record: dict[str, Any], chunks: int) -> list[Finding]:
    """The trace ends at the recorded score, after as many chunks as the plan has."""
    recorded = record["evaluate"]["val_bpb"]
    scores = [row["bpb"] for row in record["evaluate"]["trace"] if row["phase"] == "score"]
    last = scores[-1] if scores else math.nan
    rows = [
        (
            "mistake 25",
            math.isclose(last, recorded, rel_tol=1e-12),
            "trace",
            f"val_bpb is {recorded:.8f}, but the trace ends at {last:.8f}",
            "it ends at the recorded val_bpb",
        ),
        (
            "mistake 25",
            len(scores) == chunks,
            "trace",
            f"{len(scores)} chunks were scored, the plan has {chunks}",
            f"it has the plan's {chunks} chunks",
        ),
    ]
    return [judged(*row) for row in rows]


def counts(record: dict[str, Any], targets: int, proven: int, scored_bytes: int) -> list[Finding]:
    """Tokens, bytes and visits of the whole split, counted again."""
    recorded = record["evaluate"]
    rows = [
        (
            "mistake 7",
            recorded["tokens"] == targets,
            "tokens",
            f"{recorded['tokens']:,} scored, the split has {targets:,} to score",
            f"all {targets:,} were scored",
        ),
        (
            "mistakes 1-6",
            recorded["bytes"] == scored_bytes,
            "bytes",
            f"{recorded['bytes']:,} counted, table and decoding give {scored_bytes:,}",
            f"{scored_bytes:,} scored; {proven:,} of the split proven by document",
        ),
        (
            "mistake 8",
            recorded.get("visits") == [1, 1] or recorded.get("visits_ok") is True,  # a claim, before it was counted
            "visits",
            "not every target was scored once",
            "recorded as exactly one",
        ),
    ]
    return [judged(*row) for row in rows]


def judged(rule: str, ok: bool, where: str, bad: str, good: str) -> Finding:
    """A finding that `rule` holds (`good`) or fails (`bad`) at `where`."""
    if ok:
        return Finding(rule, "note", where, f"holds: {good}", "")
    return Finding(rule, "fail", where, bad, "see the rule")
