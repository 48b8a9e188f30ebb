"""The audit of a run folder: its files against its record, its evaluator by experiment, its score by scoring again.

Only the artifact, the config and the validation text are used; nothing that training left, and none of its processes."""

import math
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pgolf.audit.files import arithmetic, clocks, counts, files, order
from pgolf.audit.finding import Finding
from pgolf.audit.probes import ALONE, Bench, probe
from pgolf.data import Corpus, Data
from pgolf.errors import UserError
from pgolf.eval import Eval
from pgolf.eval.bytes import ByteTable, byte_table, prove, token_bytes
from pgolf.eval.evaluate import evaluate
from pgolf.eval.ledger import LedgerError, Progress
from pgolf.judge import load
from pgolf.runfolder import ARTIFACT, Run, lookup, read_run
from pgolf.schema import build
from pgolf.ttt import TTT

EXCERPT = 1536  # tokens of validation text that the experiments use
CONTEXT = 256  # their windows; the run's own where those are shorter
RESCORE_SECONDS = 120.0  # for scoring the beginning again, unless all is asked for
CPU_DRIFT, GPU_DRIFT = 1e-4, 2e-3  # bpb that may lie between one machine's arithmetic and another's


@dataclass(frozen=True)
class Case:
    """A run with what its config says is needed to judge it again."""

    run: Run
    config: dict[str, Any]
    evaluation: Eval
    ttt: TTT
    corpus: Corpus
    ids: np.ndarray
    table: ByteTable

    @classmethod
    def open(cls, folder: Path) -> "Case":
        run = read_run(folder)
        config = read_config(folder / "config.yaml")
        corpus = build(config.get("data"), Data, "data").prepare(lambda stage, done: None)
        parts = build(config.get("eval"), Eval, "eval"), build(config.get("ttt"), TTT, "ttt")
        return cls(run, config, *parts, corpus, corpus.validation.read(), byte_table(corpus.validation.tokenizer))

    def model(self) -> Any:
        """A fresh model from the artifact."""
        artifact = self.run.folder / ARTIFACT
        return load(artifact, lookup(self.run.record, "artifact.sha256"), self.corpus.validation, ALONE)


def read_config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as wrong:
        raise UserError(f"{path}: cannot be read: {wrong}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: must be a mapping of config groups")
    return config


def audit_run(path: Path, full: bool = False) -> list[Finding]:
    """Every check of the run in `path`; `full` scores all of the text again instead of what fits two minutes."""
    case = Case.open(path)
    record = case.run.record
    if lookup(record, "artifact.sha256") is None:
        raise UserError(f"{path}: this run sealed no artifact (status {case.run.status}), so there is nothing to judge")
    found = [*files(case.run, case.config, case.corpus), *unfinished(case.run)]
    if case.run.complete:
        found += [*arithmetic(case.run), *clocks(record), *order(record)]
    proven = prove(case.ids, case.corpus.validation.tokenizer, case.table)
    if case.run.complete:
        found += counts(record, len(case.ids) - 1, proven, int(token_bytes(case.ids, case.table)[1:].sum()))
    try:
        case.model()
    except UserError as wrong:
        return [*found, Finding("mistake 21", "fail", ARTIFACT, str(wrong), "keep the artifact that was sealed")]
    return [*found, *experiments(case), *rescored(case, math.inf if full else RESCORE_SECONDS)]


def unfinished(run: Run) -> list[Finding]:
    if run.complete:
        return []
    what = f"the run is {run.status}: {run.record.get('error') or 'no reason recorded'}"
    return [Finding("mistake 27", "needs argument", "record.json", what, "its artifact can still be scored: full=true")]


def experiments(case: Case) -> list[Finding]:
    """The probes, on an excerpt and with windows small enough for a CPU; the line says what was made smaller."""
    ttt, evaluation, ids = case.ttt, case.evaluation, excerpt(case.ids, case.table)
    small = Bench(evaluation.shortened(CONTEXT), ttt.shortened(CONTEXT), case.model, case.table, ids)
    what = (
        f"experiments on {len(ids):,} of {len(case.ids):,} tokens, windows of {small.evaluation.context}"
        f" (the run: {evaluation.context}), chunks of {small.ttt.chunk_tokens:,} (the run: {ttt.chunk_tokens:,})"
    )
    return [Finding("scope", "note", "excerpt", what, ""), *probe(small)]


def excerpt(ids: np.ndarray, table: ByteTable, tokens: int = EXCERPT, each: int = 400) -> np.ndarray:
    """The heads of the first documents, up to `each` tokens of one, `tokens` + 1 in all (fewer if the text is shorter)."""
    near = ids[: 64 * tokens]
    starts = np.unique([0, *np.flatnonzero(table.boundary[near]), len(near)])
    heads = [near[a : min(a + each, b)] for a, b in pairwise(starts)]
    taken = np.concatenate(heads)[: tokens + 1]
    return taken if len(taken) > tokens else ids[: tokens + 1]


class _EnoughError(Exception):
    """The time for scoring again is over."""


def rescored(case: Case, seconds: float) -> list[Finding]:
    """The running score of every chunk that `seconds` allow, from the artifact alone, against the record's trace."""
    began, again, total = time.monotonic(), {}, 0

    def listen(now: Progress) -> None:
        nonlocal total
        total = now.chunks
        if now.committed:
            again[now.committed] = now.bpb
        if time.monotonic() - began > seconds and now.committed < now.chunks:
            raise _EnoughError

    try:
        evaluate(ALONE, case.model(), case.ids, case.table, case.evaluation, case.ttt, listen)
    except _EnoughError:
        pass
    except LedgerError as stopped:
        return [Finding(stopped.rule, "fail", "scoring again", str(stopped), "see the rule")]
    return [compared(case.run, again, total)]


def compared(run: Run, again: dict[int, float], total: int) -> Finding:
    """The score after the last chunk that was scored again, beside the recorded one."""
    where, record = "scoring again", run.record
    if not again:
        return Finding("score", "needs argument", where, "the time did not suffice for one chunk", "run with full=true")
    last = max(again)
    scope = f"{last} of {total} chunks from the artifact alone: val_bpb={again[last]:.8f}"
    if not run.complete:
        return Finding("score", "note", where, scope, "")
    told = [row["bpb"] for row in record["evaluate"]["trace"] if row["phase"] == "score"]
    stated = record["evaluate"]["val_bpb"] if last == total else told[last - 1] if last <= len(told) else math.nan
    drift = GPU_DRIFT if record["environment"].get("gpus") else CPU_DRIFT
    what = f"{scope}, recorded {stated:.8f} (difference {again[last] - stated:+.1e}, up to {drift:g} is arithmetic)"
    if abs(again[last] - stated) <= drift:
        return Finding("score", "note", where, f"holds: {what}", "")
    return Finding("mistake 25", "fail", where, what, "report what the artifact scores")
