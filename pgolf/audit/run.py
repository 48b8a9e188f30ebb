"""The audit of a run folder: its files against its record, its evaluator by experiment, its score by scoring again.

Only the artifact, the config and the validation text are used; nothing that training left, and none of its processes."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from pgolf.audit.files import arithmetic, clocks, counts, files, order, traced
from pgolf.audit.finding import Finding
from pgolf.audit.loaded import LoadedRun, Places
from pgolf.audit.probes import evaluations, probe
from pgolf.audit.show import EnoughError, Experiments, Rescoring
from pgolf.audit.watch import Harness
from pgolf.data.bytes import token_bytes
from pgolf.data.miscount import prove_or_explain
from pgolf.errors import UserError
from pgolf.eval.ledger import LedgerError
from pgolf.export.code import script
from pgolf.files import lookup
from pgolf.files.names import ARTIFACT
from pgolf.machine import Device, Machine
from pgolf.machine.hardware import cores
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
    loaded = LoadedRun.open(path, places, console, trust)
    torch.set_num_threads(threads(loaded.machine))
    found = [*files(loaded.run, loaded.config, loaded.corpus), *unfinished(loaded.run)]
    proven = prove_or_explain(loaded.ids, loaded.corpus.validation.tokenizer, loaded.table)
    if loaded.run.complete:
        found += [*recorded(loaded, proven), *judged_by(loaded)]
    try:
        loaded.model()
    except UserError as wrong:
        return [*found, Finding("mistake 21", "fail", ARTIFACT, str(wrong), "keep the artifact that was sealed")]
    return [*found, *experiments(loaded), *rescored(loaded, math.inf if full else RESCORE_SECONDS)]


def threads(machine: Machine) -> int:
    """As many as the run had, as far as this machine has them."""
    return min(machine.threads or cores(), cores())


def recorded(loaded: LoadedRun, proven: int) -> list[Finding]:
    """A complete record against its own arithmetic and against the text, of which `proven` bytes were decoded."""
    run, record = loaded.run, loaded.run.record
    scored = int(token_bytes(loaded.ids, loaded.table)[1:].sum())
    found = [*arithmetic(run), *clocks(record), *order(record), *traced(record, loaded.chunks())]
    return [*found, *counts(record, len(loaded.ids) - 1, proven, scored)]


def judged_by(loaded: LoadedRun) -> list[Finding]:
    """Whether what evaluated is what was weighed, and whether this package, which the experiments run, exports that very file."""
    stated, weighed = lookup(loaded.run.record, "evaluate.code_sha256"), loaded.run.code_sha256
    if stated is None:
        what = "the record does not say which code evaluated: it is of a version that did not keep it"
        return [Finding("code", "needs argument", "evaluation", f"other code: {what}", "run it again")]
    if stated != weighed:
        what = f"evaluated by a file with sha256 {stated}, weighed was {weighed}"
        return [Finding("mistake 21", "fail", "evaluation", what, "judge with the file that is submitted")]
    try:
        ours = script(loaded.here, loaded.corpus).section()["sha256"]
    except UserError as wrong:
        what = f"other code: the run was judged by {stated[:16]}, and this package cannot export its recipe: {wrong}"
        return [Finding("code", "needs argument", "evaluation", what, "audit it with the version that made it")]
    if ours == stated:
        return [Finding("code", "note", "evaluation", f"this package exports the file that evaluated, {ours[:16]}", "")]
    what = (
        f"other code: the experiments run this package, which exports {ours[:16]}; the run was judged by {stated[:16]}"
    )
    return [Finding("code", "needs argument", "evaluation", what, "audit it with the version that made it")]


def unfinished(run: Run) -> list[Finding]:
    """A finding for a run that did not end as complete."""
    if run.complete:
        return []
    what = f"the run is {run.status}: {run.why}"
    return [Finding("mistake 27", "needs argument", "record.json", what, "run it to its end")]


def experiments(loaded: LoadedRun) -> list[Finding]:
    """The probes, on an excerpt and with windows small enough for a CPU; the line says what was made smaller."""
    ttt, evaluation, positions = loaded.ttt, loaded.evaluation, excerpt(loaded.ids, loaded.table.boundary)
    ids = loaded.ids[positions]
    small = Harness(
        evaluation.shortened(CONTEXT), ttt.shortened(CONTEXT), loaded.model, loaded.table.at(positions), ids
    )
    with loaded.console.live():
        found = probe(replace(small, heard=Experiments(loaded.console, evaluations(ttt))))
    what = (
        f"experiments on {len(ids):,} of {len(loaded.ids):,} tokens, windows of {small.evaluation.context}"
        f" (the run: {evaluation.context}), chunks of {small.ttt.chunk_tokens:,} (the run: {ttt.chunk_tokens:,})"
    )
    return [Finding("scope", "note", "excerpt", what, ""), *found]


def excerpt(ids: np.ndarray, boundary: np.ndarray, tokens: int = EXCERPT, each: int = 400) -> np.ndarray:
    """Positions of the heads of the first documents, up to `each` tokens of one, `tokens` + 1 in all (fewer if the text is
    shorter)."""
    near = ids[: 64 * tokens]
    starts = np.unique([0, *np.flatnonzero(boundary[near]), len(near)])
    positions = np.concatenate([np.arange(a, min(a + each, b)) for a, b in pairwise(starts)])[: tokens + 1]
    return positions if len(positions) > tokens else np.arange(min(tokens + 1, len(ids)))


def rescored(loaded: LoadedRun, seconds: float) -> list[Finding]:
    """The running score of every chunk that `seconds` allow, from the artifact alone, against the record's trace."""
    world = World.alone(device(loaded.machine))
    with loaded.console.live():
        heard = Rescoring(loaded.console, seconds)
        try:
            evaluate(world, loaded.model(world), loaded.ids, loaded.table, loaded.evaluation, loaded.ttt, heard)
        except EnoughError:
            pass
        except LedgerError as stopped:
            return [Finding(stopped.rule, "fail", "scoring again", str(stopped), "see the rule")]
    return [compared(loaded, heard.scores, heard.total)]


def device(machine: Machine) -> str:
    """A GPU where there is one, unless the run was told to take none."""
    return "cuda" if torch.cuda.is_available() and machine.device is not Device.CPU else "cpu"


def compared(loaded: LoadedRun, again: dict[int, float], total: int) -> Finding:
    """The score after the last chunk that was scored again, beside the recorded one."""
    where = "scoring again"
    if not again:
        return Finding("score", "needs argument", where, "the time did not suffice for one chunk", "run with full=true")
    last = max(again)
    rest = "" if last == total else REST
    scope = f"{last} of {total} chunks from the artifact alone: val_bpb={again[last]:.8f}"
    if not loaded.run.complete:
        return Finding("score", "note", where, scope, rest)
    judged = loaded.run.record["evaluate"]
    bpbs = [row["bpb"] for row in judged["trace"] if row["phase"] == "score"]
    stated = judged["val_bpb"] if last == total else bpbs[last - 1] if last <= len(bpbs) else math.nan
    return weighed(loaded, scope, stated, again[last] - stated, rest)


def weighed(loaded: LoadedRun, scope: str, stated: float, apart: float, rest: str) -> Finding:
    """Whether a score that is `apart` from the `stated` one is the same but for arithmetic.

    A GPU's arithmetic counts where one was used here or is what the config asks for; the record's word is no proof."""
    machine, gpus = loaded.machine, loaded.run.record["environment"].get("gpus")
    drift = GPU_DRIFT if machine.device is Device.CUDA or device(machine) == "cuda" else CPU_DRIFT
    what = f"{scope}, recorded {stated:.8f} (difference {apart:+.1e}, up to {drift:g} is arithmetic)"
    if abs(apart) <= drift:
        return Finding("score", "note", "scoring again", f"holds: {what}", rest)
    if gpus and abs(apart) <= GPU_DRIFT:
        fix = f"score it again on such a GPU: {gpus[0]}"
        return Finding("score", "needs argument", "scoring again", f"{what}; the record says that a GPU did it", fix)
    return Finding("mistake 25", "fail", "scoring again", what, "report what the artifact scores")
