"""The order of everything: one run, from a checked job to a complete record."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pgolf.config.disk import written
from pgolf.config.gpu_faults import gpu_fault
from pgolf.config.plan import start_lines
from pgolf.errors import RankError, UserError
from pgolf.export.code import Script, script, weigh
from pgolf.files import lookup, write_bytes
from pgolf.files.checkpoints import require_start
from pgolf.files.names import ARTIFACT, CODE, CONFIG
from pgolf.machine.launch import launch, launch_program
from pgolf.machine.lock import in_turn
from pgolf.machine.needs import require_disk, require_seen
from pgolf.machine.nodes import Nodes, gathered
from pgolf.machine.signals import StoppedError, one_desk
from pgolf.results.arguments import whole_verdict
from pgolf.results.attempts import Before
from pgolf.results.plan import read_plan
from pgolf.results.record import Record, environment, now, opened
from pgolf.show.console import Console
from pgolf.show.observers import Observers
from pgolf.stages.checkpoint import Keeping, train_on
from pgolf.stages.train import Training
from pgolf.stages.views import card, final_line

if TYPE_CHECKING:
    from pgolf.config.compose import Job
    from pgolf.data import Corpus


def run(job: "Job", folder: Path, console: Console, go_on: Before | None = None) -> float:
    """Train, seal, judge and record one job in `folder`, which this process owns. Returns val_bpb.

    `go_on` is an earlier attempt there, whose artifact or checkpoint is taken up. Raises UserError for a person's mistake and for
    files that cannot be written, RefusedError for what this machine lacks, RankError for a
    rank that died, StoppedError if this process was told to stop.
    """
    recipe, stage = job.recipe, go_on and go_on.stage
    require_seen(recipe.machine)
    if stage != "evaluate":
        require_disk(folder, written(job))
    with console.live(), gathered(recipe.machine, job.config_sha256) as nodes:
        corpus = prepared(job, console)
        code = exported(job, corpus, console)
        earlier, start = continued(go_on, job, code.section(), corpus) if go_on else (None, None)
        write_bytes(folder / CONFIG, yaml.safe_dump(job.config, sort_keys=False).encode())
        write_bytes(folder / CODE, code.data)
        observers, plan = Observers(folder, recipe, console, bool(go_on)), start_lines(job, code.size, folder)
        with opened(
            folder,
            job,
            observers,
            plan,
            earlier,
            code=code.section(),
            data=corpus.section(),
            argument=late(folder, job),
        ) as record:
            if stage != "evaluate":
                record.update(**trained(job, corpus, record, nodes, console, start))
            require_room(record)
            record.observers.prepare_report()
            judged = evaluated(job, corpus, record, nodes, console)
            record.update(evaluate=judged, receipts=record["receipts"] + judged.pop("receipts"))
            record.update(reference=corpus.validation.reference(), verdict=whole_verdict(record.fields))
    console.card(f"{job.config['name']}, seed {recipe.seed.value}", [*card(record.fields), ("files", str(folder))])
    for notice in record["notices"]:
        console.line(f"notice: {notice}")
    console.result(final_line(record.fields, folder))
    return record["evaluate"]["val_bpb"]


def prepared(job: "Job", console: Console) -> "Corpus":
    """The text, which one process at a time builds into a cache."""
    data = job.recipe.data
    with in_turn(
        data.cache_folder / ".corpus.lock", lambda: console.progress("corpus", 0.0, "another run builds in this cache")
    ):
        corpus = data.prepare(lambda stage, done: console.progress("corpus", done, stage))
    job.recipe.require_text(corpus)
    return corpus


def exported(job: "Job", corpus: "Corpus", console: Console) -> Script:
    """The code that is weighed, whose making one process at a time keeps in a cache."""
    console.progress("export", 0.0, CODE)
    with in_turn(job.recipe.data.cache_folder / ".export.lock", lambda: None):
        return script(job.config, corpus)


def late(folder: Path, job: "Job") -> str | None:
    """What the sweep of this folder leaves to be argued about this seed."""
    plan = read_plan(folder.parent)
    return plan.argument(job.arm_sha256, job.recipe.seed.value) if plan and not plan.old else None


def continued(go_on: Before, job: "Job", code: dict[str, Any], corpus: "Corpus") -> tuple[dict[str, Any], Path | None]:
    """The fields of the earlier attempt that still hold, and the checkpoint to go on from, if it is training that goes on.

    UserError if it was of other code or text, or if the checkpoint is damaged.
    """
    record, folder = go_on.run.record, go_on.run.folder
    for what, theirs, ours in (
        ("code", lookup(record, "code.sha256"), code["sha256"]),
        ("text", lookup(record, "data.manifest_sha256"), corpus.manifest.text_sha256()),
    ):
        if theirs != ours:
            raise UserError(
                f"{folder}: was begun with another {what} (sha256 {str(theirs)[:12]}, now {ours[:12]}); run it anew"
            )
    chosen = go_on.stage == "train" and require_start(folder, code["sha256"], job.config_sha256, go_on.chosen)
    legal = job.recipe.ttt.legal
    again = dict.fromkeys(("error", "finished", "evaluate", "verdict", "log_sha256", "stopped"))
    now_holds = {
        "ranks": job.recipe.machine.world_size,
        "environment": environment(),
        "receipts": [r for r in record["receipts"] if not (legal and r["part"].startswith("ttt"))],
        "interruptions": [*record.get("interruptions", []), go_on.interruption(now(), chosen or None)],
    }
    return record | again | now_holds, chosen or None


def trained(
    job: "Job", corpus: "Corpus", record: Record, nodes: Nodes, console: Console, start: Path | None
) -> dict[str, Any]:
    """The record's account of training, and the artifact beside it: by the ranks, from the checkpoint `start` if there is one,
    or from the run to be judged again."""
    recipe, source, folder = job.recipe, job.source, record.path.parent
    if source:
        return source.copied_fields(folder, corpus.manifest.text_sha256(), recipe.ttt.legal)
    console.progress("start", 0.0, f"{recipe.machine.world_size} rank(s) to train")
    keeping = Keeping(job.config["checkpoint"]["every_seconds"], record["code"]["sha256"], job.config_sha256, start)
    finetuning = recipe.ttt.finetuning(corpus.validation)  # None, or for study: validation text on the training side
    training = Training(recipe, corpus.training, finetuning, record["code"]["bytes"], folder)
    try:
        ended = launch(train_on, training, keeping, machine=recipe.machine, folder=folder, nodes=nodes)
    except RankError as died:
        raise gpu_fault(recipe, str(died), "train") or died from died.__cause__
    record.note(ended["fault"])
    if stopped := ended["result"].get("stopped"):
        record.update(stopped=stopped)
        with one_desk() as desk:
            raise StoppedError(desk.number or signal.SIGTERM)
    return ended["result"]


def evaluated(job: "Job", corpus: "Corpus", record: Record, nodes: Nodes, console: Console) -> dict[str, Any]:
    """The record's account of evaluation: by ranks that run the file that was weighed, and nothing else of pgolf."""
    machine, text, folder = job.recipe.machine, corpus.validation, record.path.parent
    console.progress("start", 0.0, f"{machine.world_size} rank(s) to judge, by {CODE}")
    if weigh((folder / CODE).read_bytes()) != record["code"]:
        raise UserError(f"{folder / CODE}: was changed after it was weighed; nothing is judged by it")
    settings = {
        "ARTIFACT": folder / ARTIFACT,
        "ARTIFACT_SHA256": record["artifact"]["sha256"],
        "CODE_SHA256": record["code"]["sha256"],
        "DATA_PATH": Path(text.paths[0]).parent,
        "TOKENIZER_PATH": text.tokenizer,
        "SEED": job.recipe.seed.value,
        "DEVICE": machine.device.value,
        "THREADS": machine.threads,
        "FOLDER": folder,
    }
    args = [f"{name}={value}" for name, value in settings.items()]
    try:
        ended = launch_program([str(folder / CODE), "judge", *args], machine, folder, nodes)
    except RankError as died:
        raise gpu_fault(job.recipe, str(died), "evaluate") or died from died.__cause__
    record.note(ended["fault"])
    return ended["result"]


def require_room(record: Record) -> None:
    """Refuse to evaluate what may not be submitted."""
    artifact, code, cap = record["artifact"]["bytes"], record["code"]["bytes"], record["limits"]["artifact_bytes"]
    if artifact + code > cap:
        raise UserError(
            f"artifact {artifact:,} + code {code:,} = {artifact + code:,} bytes, over limits.artifact_bytes={cap:,} by"
            f" {artifact + code - cap:,}. Largest: {largest(record['artifact'])}."
            f" {_advice(record['artifact'])}"
        )


def _advice(artifact: dict) -> str:
    if artifact["fit"] is None:
        return "Fewer bits (quant=...), quant/fit=cap or a smaller model would fit."
    return "quant.fit was at its end: a smaller quant.keep_below, fewer bits (quant=...) or a smaller model would fit."


def largest(artifact: dict, count: int = 10) -> str:
    """The heaviest tensors of an artifact, with their bytes."""
    heavy = sorted(artifact["tensors"].items(), key=lambda pair: -pair[1])[:count]
    return ", ".join(f"{name} {size:,}" for name, size in heavy)
