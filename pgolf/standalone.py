"""The entry of an exported `train_gpt.py`: the same stages as `pgolf.run`, started by torchrun, without Hydra.

The recipe and the names and hashes of the texts are frozen in. The environment says the rest: the ranks (torchrun), SEED,
DATA_PATH and TOKENIZER_PATH. What it makes goes into a folder named after the seed.
"""

import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from pgolf import __version__
from pgolf.code import weigh
from pgolf.data import TrainingText, ValidationText
from pgolf.frozen import thaw
from pgolf.journal import Journal, open_journal
from pgolf.judge import judge
from pgolf.logger import NoLogger
from pgolf.machine.launch import joined
from pgolf.machine.world import World
from pgolf.recipe import Recipe
from pgolf.seed import Seed
from pgolf.train import train
from pgolf.verdict import verdict
from pgolf.views import closing_lines, code_line


def main(frozen: dict) -> None:
    """Train, seal and judge on the ranks that torchrun started; rank 0 prints the lines that a record needs."""
    texts = frozen.pop("texts")
    recipe = recipe_of(frozen)
    folder = Path(f"seed{recipe.seed.value}")
    folder.mkdir(exist_ok=True)
    with joined(recipe.machine) as world:
        if world.main:
            (folder / "train.log").write_text("")
        run(world, recipe, placed(TrainingText, texts), placed(ValidationText, texts), folder)


def recipe_of(frozen: dict) -> Recipe:
    """The frozen groups, with what the environment says."""
    ranks, seed = int(os.environ["WORLD_SIZE"]), int(os.environ.get("SEED", "1337"))
    parts = {group: thaw(part) for group, part in (frozen | {"machine": frozen["machine"] | {"ranks": ranks}}).items()}
    return Recipe(**parts, seed=Seed(value=seed, model=seed, loader=seed), logger=NoLogger())


def placed(cls: type, texts: dict):
    """The frozen half of a corpus, its files where DATA_PATH and TOKENIZER_PATH say, or else where they were."""
    folder = Path(os.environ.get("DATA_PATH", texts["folder"])).expanduser()
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in texts[cls.__name__].items()}
    fields["paths"] = tuple(str(folder / name) for name in fields["paths"])
    fields["tokenizer"] = os.environ.get("TOKENIZER_PATH", str(folder / fields["tokenizer"]))
    return cls(**fields)


def run(world: World, recipe: Recipe, training: TrainingText, validation: ValidationText, folder: Path) -> None:
    """Both stages, with a log that names the code at both ends."""
    journal = open_journal(world, folder, recipe.logger, False)
    record = {"pgolf": __version__, "code": weigh(Path(sys.argv[0]).read_bytes()), "limits": asdict(recipe.limits)}
    begin(journal, record, recipe)
    record |= train(world, recipe, training, recipe.ttt.exam(validation), record["code"]["bytes"], folder, False)
    world.barrier()
    sealed = record["artifact"]["sha256"]
    judged = judge(world, recipe, folder / "artifact.pgolf", sealed, validation, folder, False)
    record |= {"evaluate": judged, "receipts": record["receipts"] + judged["receipts"], "reference": None}
    record |= {"data": {"val_tokens": validation.tokens, "val_bytes": validation.bytes}}
    for line in [*closing_lines(record | {"verdict": verdict(record)}), code_line("end", record)]:
        journal.line(line)


def begin(journal: Journal, record: dict, recipe: Recipe) -> None:
    """What runs, on what."""
    journal.line(code_line("begin", record))
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    journal.line(
        f"seed {recipe.seed.value}  {recipe.machine.world_size} rank(s)  GPUs {gpus}  {platform.platform()}"
        f"  python={platform.python_version()} torch={torch.__version__} numpy={np.__version__} cuda={torch.version.cuda}"
    )
