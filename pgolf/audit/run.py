"""The audit of a run folder: its files against its record, its evaluator by experiment, its score by scoring again.

Only the artifact, the config and the validation text are used; nothing that training left, and none of its processes."""

import math
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from pgolf.audit.case import Case, Places
from pgolf.audit.files import arithmetic, clocks, counts, files, order, traced
from pgolf.audit.finding import Finding
from pgolf.audit.probes import evaluations, probe
from pgolf.audit.show import EnoughError, Experiments, Rescoring
from pgolf.audit.watch import Bench
from pgolf.data.bytes import prove, token_bytes
from pgolf.errors import UserError
from pgolf.eval.ledger import LedgerError
from pgolf.export.code import script
from pgolf.files import lookup
from pgolf.files.names import ARTIFACT
from pgolf.machine import Device, Machine
from pgolf.machine.world import World
from pgolf.results.runfolder import Run
from pgolf.show.console import Console
from pgolf.stages.evaluate import evaluate

EXCERPT = 1536  # tokens of validation text that the experiments use
CONTEXT = 256  # their windows; the run's own where those are shorter
RESCORE_SECONDS = 120.0  # for scoring the beginning again, unless all is asked for
CPU_DRIFT, GPU_DRIFT = 1e-4, 2e-3  # bpb that may lie between one machine's arithmetic and another's
REST = "full=true scores the rest"


def audit_run(
    path: Path,
    full: bool = False,
    places: Places | None = None,
    console: Console | None = None,
    trust: bool = False,
) -> list[Finding]:
    """Every check of the run in `path`; `full` scores all of the text again instead of what fits two minutes, `trust` runs code
    that its config names outside of pgolf, which is refused otherwise (UserError)."""
    case = Case.open(path, places, console, trust)
    torch.set_num_threads(threads(case.machine))
    found = [*files(case.run, case.config, case.corpus), *unfinished(case.run)]
    proven = prove(case.ids, case.corpus.validation.tokenizer, case.table)
    if case.run.complete:
        found += [*recorded(case, proven), *judged_by(case)]
    try:
        case.model()
    except UserError as wrong:
        return [*found, Finding("mistake 21", "fail", ARTIFACT, str(wrong), "keep the artifact that was sealed")]
    return [*found, *experiments(case), *rescored(case, math.inf if full else RESCORE_SECONDS)]


def threads(machine: Machine) -> int:
    """As many as the run had, as far as this machine has them."""
    cores = len(os.sched_getaffinity(0))
    return min(machine.threads or cores, cores)


def recorded(case: Case, proven: int) -> list[Finding]:
    """A complete record against its own arithmetic and against the text, of which `proven` bytes were decoded."""
    run, record = case.run, case.run.record
    scored = int(token_bytes(case.ids, case.table)[1:].sum())
    found = [*arithmetic(run), *clocks(record), *order(record), *traced(record, case.chunks())]
    return [*found, *counts(record, len(case.ids) - 1, proven, scored)]


def judged_by(case: Case) -> list[Finding]:
    """Whether what evaluated is what was weighed, and whether this package, which the experiments run, exports that very file."""
    stated, weighed = lookup(case.run.record, "evaluate.code_sha256"), case.run.code_sha256
    if stated is None:
        what = "the record does not say which code evaluated: it is of a version that did not keep it"
        return [Finding("code", "needs argument", "evaluation", f"other code: {what}", "run it again")]
    if stated != weighed:
        what = f"evaluated by a file with sha256 {stated}, weighed was {weighed}"
        return [Finding("mistake 21", "fail", "evaluation", what, "judge with the file that is submitted")]
    ours = script(case.here, case.corpus).section()["sha256"]
    if ours == stated:
        return [Finding("code", "note", "evaluation", f"this package exports the file that evaluated, {ours[:16]}", "")]
    what = (
        f"other code: the experiments run this package, which exports {ours[:16]}; the run was judged by {stated[:16]}"
    )
    return [Finding("code", "needs argument", "evaluation", what, "audit it with the version that made it")]


def unfinished(run: Run) -> list[Finding]:
    if run.complete:
        return []
    what = f"the run is {run.status}: {run.record.get('error') or 'no reason recorded'}"
    return [Finding("mistake 27", "needs argument", "record.json", what, "run it to its end")]


def experiments(case: Case) -> list[Finding]:
    """The probes, on an excerpt and with windows small enough for a CPU; the line says what was made smaller."""
    ttt, evaluation, taken = case.ttt, case.evaluation, excerpt(case.ids, case.table.boundary)
    ids = case.ids[taken]
    small = Bench(evaluation.shortened(CONTEXT), ttt.shortened(CONTEXT), case.model, case.table.at(taken), ids)
    with case.console.live():
        found = probe(replace(small, heard=Experiments(case.console, evaluations(ttt))))
    what = (
        f"experiments on {len(ids):,} of {len(case.ids):,} tokens, windows of {small.evaluation.context}"
        f" (the run: {evaluation.context}), chunks of {small.ttt.chunk_tokens:,} (the run: {ttt.chunk_tokens:,})"
    )
    return [Finding("scope", "note", "excerpt", what, ""), *found]


def excerpt(ids: np.ndarray, boundary: np.ndarray, tokens: int = EXCERPT, each: int = 400) -> np.ndarray:
    """Positions of the heads of the first documents, up to `each` tokens of one, `tokens` + 1 in all (fewer if the text is
    shorter)."""
    near = ids[: 64 * tokens]
    starts = np.unique([0, *np.flatnonzero(boundary[near]), len(near)])
    taken = np.concatenate([np.arange(a, min(a + each, b)) for a, b in pairwise(starts)])[: tokens + 1]
    return taken if len(taken) > tokens else np.arange(min(tokens + 1, len(ids)))


def rescored(case: Case, seconds: float) -> list[Finding]:
    """The running score of every chunk that `seconds` allow, from the artifact alone, against the record's trace."""
    world = World.alone(device(case.machine))
    with case.console.live():
        heard = Rescoring(case.console, seconds)
        try:
            evaluate(world, case.model(world), case.ids, case.table, case.evaluation, case.ttt, heard)
        except EnoughError:
            pass
        except LedgerError as stopped:
            return [Finding(stopped.rule, "fail", "scoring again", str(stopped), "see the rule")]
    return [compared(case, heard.scores, heard.total)]


def device(machine: Machine) -> str:
    """A GPU where there is one, unless the run was told to take none."""
    return "cuda" if torch.cuda.is_available() and machine.device is not Device.CPU else "cpu"


def compared(case: Case, again: dict[int, float], total: int) -> Finding:
    """The score after the last chunk that was scored again, beside the recorded one."""
    where = "scoring again"
    if not again:
        return Finding("score", "needs argument", where, "the time did not suffice for one chunk", "run with full=true")
    last = max(again)
    rest = "" if last == total else REST
    scope = f"{last} of {total} chunks from the artifact alone: val_bpb={again[last]:.8f}"
    if not case.run.complete:
        return Finding("score", "note", where, scope, rest)
    judged = case.run.record["evaluate"]
    told = [row["bpb"] for row in judged["trace"] if row["phase"] == "score"]
    stated = judged["val_bpb"] if last == total else told[last - 1] if last <= len(told) else math.nan
    return weighed(case, scope, stated, again[last] - stated, rest)


def weighed(case: Case, scope: str, stated: float, apart: float, rest: str) -> Finding:
    """Whether a score that is `apart` from the `stated` one is the same but for arithmetic.

    A GPU's arithmetic counts where one was used here or is what the config asks for; the record's word is no proof."""
    machine, told = case.machine, case.run.record["environment"].get("gpus")
    drift = GPU_DRIFT if machine.device is Device.CUDA or device(machine) == "cuda" else CPU_DRIFT
    what = f"{scope}, recorded {stated:.8f} (difference {apart:+.1e}, up to {drift:g} is arithmetic)"
    if abs(apart) <= drift:
        return Finding("score", "note", "scoring again", f"holds: {what}", rest)
    if told and abs(apart) <= GPU_DRIFT:
        fix = f"score it again on such a GPU: {told[0]}"
        return Finding("score", "needs argument", "scoring again", f"{what}; the record says that a GPU did it", fix)
    return Finding("mistake 25", "fail", "scoring again", what, "report what the artifact scores")
