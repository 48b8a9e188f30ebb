"""The entry of an exported `train_gpt.py`: the same stages as `pgolf.run`, started by torchrun, without Hydra.

The recipe and the names and hashes of the texts are frozen in. The environment says the rest: the ranks (torchrun), SEED,
DATA_PATH and TOKENIZER_PATH. What it makes goes into a folder named after the seed.
"""

import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pgolf import __version__
from pgolf.data import TrainingText, ValidationText
from pgolf.export.code import weigh
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
    adopt(frozen)
    texts = frozen.pop("texts")
    recipe = recipe_of(frozen)
    folder = Path(f"seed{recipe.seed.value}")
    folder.mkdir(exist_ok=True)
    with joined(recipe.machine) as world:
        if world.main:
            (folder / "train.log").write_text("")
        training, validation = placed(texts, "training"), placed(texts, "validation")
        run(world, recipe, TrainingText(**training), ValidationText(**validation), folder)


def adopt(frozen: Any) -> None:
    """Let every component be found by the dotted name that the recipe has for it: an exported file is a single module."""
    for part in frozen.values() if isinstance(frozen, dict) else frozen if isinstance(frozen, list) else ():
        adopt(part)
    if isinstance(frozen, dict) and "_target_" in frozen:
        module, _, name = frozen["_target_"].rpartition(".")
        sys.modules[module] = sys.modules[__name__]
        sys.modules[__name__].__dict__[name].__module__ = module


def recipe_of(frozen: dict) -> Recipe:
    """The frozen groups, with what the environment says."""
    ranks, seed = int(os.environ["WORLD_SIZE"]), int(os.environ.get("SEED", "1337"))
    parts = {group: thaw(part) for group, part in (frozen | {"machine": frozen["machine"] | {"ranks": ranks}}).items()}
    return Recipe(**parts, seed=Seed(value=seed, model=seed, loader=seed), logger=NoLogger())


def placed(texts: dict, half: str) -> dict:
    """The fields of a frozen half of a corpus, its files where DATA_PATH and TOKENIZER_PATH say, or else where they were."""
    folder = Path(os.environ.get("DATA_PATH", texts["folder"])).expanduser()
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in texts[half].items()}
    fields["paths"] = tuple(str(folder / name) for name in names(fields["paths"], len(fields["counts"])))
    fields["tokenizer"] = os.environ.get("TOKENIZER_PATH", str(folder / fields["tokenizer"]))
    return fields


def names(paths: tuple, count: int) -> Iterable[str]:
    """File names, written out or, if they only count up, as what is before and after the number, and its digits."""
    if not isinstance(paths[-1], int):
        return paths
    head, tail, digits = paths
    return (f"{head}{i:0{digits}}{tail}" for i in range(count))


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
