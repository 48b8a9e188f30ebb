"""The order of everything: one run, from a checked job to a complete record."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from pgolf.errors import UserError
from pgolf.export.code import script
from pgolf.files import write_bytes
from pgolf.journal import Nowhere, Plain, Screen, Terminal, Written
from pgolf.judge import judge
from pgolf.machine.launch import launch
from pgolf.plan import start_lines
from pgolf.record import Record, opened
from pgolf.report import reported
from pgolf.train import train
from pgolf.verdict import verdict
from pgolf.views import card, closing_lines, final_line

if TYPE_CHECKING:
    from pgolf.compose import Job
    from pgolf.data import Corpus


def run(job: "Job", folder: Path) -> float:
    """Train, seal, judge and record one job in `folder`. Returns val_bpb."""
    recipe, terminal = job.recipe, on_terminal()
    recipe.machine.require()
    screen = Terminal() if terminal else Plain()
    journal = Written(folder, recipe.logger, screen)
    (folder / "config.yaml").write_text(yaml.safe_dump(job.config, sort_keys=False), encoding="utf-8")
    corpus = prepared(recipe, screen)
    code = script(job.config, corpus)
    write_bytes(folder / "train_gpt.py", code.data)
    for line in start_lines(job, code.size, folder):
        screen.line(line)
    paper = Written(folder, recipe.logger, Nowhere()) if terminal else journal  # plan and card say it on a terminal
    with (
        recipe.logger.mirrored(folder, screen.line),
        reported(folder, screen.line),
        opened(folder, job, paper, code=code.section(), data=corpus.section()) as record,
    ):
        record.update(**trained(job, corpus, code.size, folder, terminal))
        weigh(record)
        judged = launch(
            judge,
            recipe,
            folder / "artifact.pgolf",
            record["artifact"]["sha256"],
            corpus.validation,
            folder,
            terminal,
            machine=recipe.machine,
            logs=folder / "ranks",
        )
        record.update(evaluate=judged, receipts=record["receipts"] + judged.pop("receipts"))
        record.update(reference=corpus.validation.reference(), verdict=verdict(record.fields))
        for line in closing_lines(record.fields):
            paper.line(line)
    screen.card(f"{job.config['name']}, seed {recipe.seed.value}", [*card(record.fields), ("files", str(folder))])
    print(final_line(record.fields, folder), flush=True)
    return record["evaluate"]["val_bpb"]


def on_terminal() -> bool:
    return sys.stdout.isatty() and not os.environ.get("CI")


def prepared(recipe, screen: Screen):
    """The corpus, built or found, with a bar while it is built; a text that cannot be scored is refused here."""
    with screen.bar("corpus") as bar:
        corpus = recipe.data.prepare(lambda stage, done: bar.update(done, stage))
    recipe.check_text(corpus)
    return corpus


def trained(job: "Job", corpus: "Corpus", code: int, folder: Path, terminal: bool) -> dict:
    """The record's account of training, and the artifact in `folder`: by the ranks, or from the run to be judged again."""
    recipe, earlier = job.recipe, job.earlier
    if earlier:
        return earlier.taken(folder, corpus.manifest.text_sha256(), recipe.ttt.legal)
    exam = recipe.ttt.exam(corpus.validation)  # None, or for study: validation text on the training side
    about = (recipe, corpus.training, exam, code, folder, terminal)
    return launch(train, *about, machine=recipe.machine, logs=folder / "ranks")


def weigh(record: Record) -> None:
    """Refuse to evaluate what may not be submitted."""
    artifact, code, cap = record["artifact"]["bytes"], record["code"]["bytes"], record["limits"]["artifact_bytes"]
    if artifact + code > cap:
        raise UserError(
            f"artifact {artifact:,} + code {code:,} = {artifact + code:,} bytes, over limits.artifact_bytes={cap:,} by"
            f" {artifact + code - cap:,}. Largest: {largest(record['artifact'])}."
            " Fewer bits (quant=...), quant/fit=cap or a smaller model would fit."
        )


def largest(artifact: dict, count: int = 10) -> str:
    """The heaviest tensors of an artifact, with their bytes."""
    heavy = sorted(artifact["tensors"].items(), key=lambda pair: -pair[1])[:count]
    return ", ".join(f"{name} {size:,}" for name, size in heavy)
