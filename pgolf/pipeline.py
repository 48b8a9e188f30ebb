"""The order of everything: one run, from a checked job to a complete record."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pgolf.config.plan import start_lines
from pgolf.errors import UserError
from pgolf.export.code import script, weigh
from pgolf.files import write_bytes
from pgolf.files.names import ARTIFACT, CODE, CONFIG
from pgolf.machine.launch import launch, launch_program
from pgolf.results.record import Record, opened
from pgolf.show.console import Console
from pgolf.show.observers import Observers
from pgolf.stages.train import Training, train
from pgolf.stages.verdict import verdict
from pgolf.stages.views import card, final_line

if TYPE_CHECKING:
    from pgolf.config.compose import Job
    from pgolf.data import Corpus


def run(job: "Job", folder: Path, console: Console) -> float:
    """Train, seal, judge and record one job in `folder`. Returns val_bpb.

    Raises UserError for a person's mistake and for files that cannot be written, RankError for a rank that died.
    """
    recipe = job.recipe
    recipe.machine.require_devices()
    write_bytes(folder / CONFIG, yaml.safe_dump(job.config, sort_keys=False).encode())
    with console.live():
        corpus = recipe.data.prepare(lambda stage, done: console.progress("corpus", done, stage))
        recipe.require_text(corpus)
        console.progress("export", 0.0, CODE)
        code = script(job.config, corpus)
        write_bytes(folder / CODE, code.data)
        plan = start_lines(job, code.size, folder)
        with opened(
            folder, job, Observers(folder, recipe, console), plan, code=code.section(), data=corpus.section()
        ) as record:
            record.update(**trained(job, corpus, record, folder, console))
            require_room(record)
            record.observers.prepare_report()
            judged = evaluated(job, corpus, record, folder, console)
            record.update(evaluate=judged, receipts=record["receipts"] + judged.pop("receipts"))
            record.update(reference=corpus.validation.reference(), verdict=verdict(record.fields))
    console.card(f"{job.config['name']}, seed {recipe.seed.value}", [*card(record.fields), ("files", str(folder))])
    for notice in record["notices"]:
        console.line(f"notice: {notice}")
    console.line(final_line(record.fields, folder))
    return record["evaluate"]["val_bpb"]


def trained(job: "Job", corpus: "Corpus", record: Record, folder: Path, console: Console) -> dict[str, Any]:
    """The record's account of training, and the artifact in `folder`: by the ranks, or from the run to be judged again."""
    recipe, source = job.recipe, job.source
    if source:
        return source.copied_fields(folder, corpus.manifest.text_sha256(), recipe.ttt.legal)
    console.progress("start", 0.0, f"{recipe.machine.world_size} rank(s) to train")
    finetuning = recipe.ttt.finetuning(corpus.validation)  # None, or for study: validation text on the training side
    training = Training(recipe, corpus.training, finetuning, record["code"]["bytes"], folder)
    ended = launch(train, training, machine=recipe.machine, folder=folder)
    record.note(ended["fault"])
    return ended["result"]


def evaluated(job: "Job", corpus: "Corpus", record: Record, folder: Path, console: Console) -> dict[str, Any]:
    """The record's account of evaluation: by ranks that run the file that was weighed, and nothing else of pgolf."""
    machine, text = job.recipe.machine, corpus.validation
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
        "THREADS": machine.threads_per_rank,
        "FOLDER": folder,
        "PARENT": os.getpid(),
    }
    args = [f"{name}={value}" for name, value in settings.items()]
    ended = launch_program([sys.executable, str(folder / CODE), "judge", *args], machine, folder)
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
