"""The entry of an exported `train_gpt.py`: the same stages as `pgolf.run`, without Hydra and without the package.

    python train_gpt.py                     train, seal and judge: one rank, or as many as torchrun starts
    python train_gpt.py judge ARTIFACT=…    score a sealed artifact

The recipe, the texts' names and hashes are frozen in. Words KEY=VALUE, or the environment, say the rest: SEED, DATA_PATH (the
folder of the texts), TOKENIZER_PATH, DEVICE (auto, cpu, cuda), THREADS (of a rank). What training makes goes to seed<SEED>/.
"""

import os
import platform
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import torch

from pgolf import __version__
from pgolf.data import TrainingText, ValidationText
from pgolf.errors import UserError
from pgolf.export.code import weigh
from pgolf.files.events import EVENTS, Events, line_of
from pgolf.files.frozen import thaw
from pgolf.files.names import ARTIFACT, LOG
from pgolf.logger import NoLogger
from pgolf.machine import Device, Machine
from pgolf.machine.hardware import affinity
from pgolf.machine.kernels import Kernels
from pgolf.machine.rank import die_with, errors_recorded, joined, leave_result
from pgolf.machine.world import World
from pgolf.recipe import Recipe
from pgolf.seed import Seed
from pgolf.stages.judge import Evaluation, judge
from pgolf.stages.train import Training, train
from pgolf.stages.verdict import verdict
from pgolf.stages.views import code_line, receipt_text

if TYPE_CHECKING:
    from pgolf.stages.judge import Meaning

JUDGE = "judge"


def main(frozen: dict, script: str, meaning: "Meaning | None" = None) -> None:
    """Run the stages that the command line asks for; `script` is the file that runs. A mistake is one line and exit code 2.

    `meaning` completes the description of a model that an older version sealed.
    """
    try:
        with errors_recorded():
            start(frozen, script, sys.argv[1:], meaning)
    except UserError as wrong:
        if os.environ.get("RANK", "0") == "0":
            print(f"{Path(script).name}: {wrong}", file=sys.stderr)
        sys.exit(2)


def start(frozen: dict, script: str, args: list[str], meaning: "Meaning | None" = None) -> None:
    """Read the words and the environment, join the other ranks, and run."""
    require_alone()
    alone = args[:1] != [JUDGE]
    given = settings_of(args if alone else args[1:])
    settings = dict(os.environ) | given
    texts = frozen.pop("texts")
    recipe, code = recipe_of(frozen, settings), weigh(Path(script).read_bytes())
    if code["sha256"] != given.get("CODE_SHA256", code["sha256"]):
        raise UserError(f"its sha256 is {code['sha256']}, but {given['CODE_SHA256']} was weighed: it was changed")
    training = placed(texts, "training", TrainingText, settings)
    validation = placed(texts, "validation", ValidationText, settings)
    with joined(recipe.machine) as world, errors_recorded():
        if alone:
            whole(world, recipe, training, validation, code)
        else:
            judged(world, recipe, validation, code, given, meaning)
    require_alone()


def require_alone() -> None:
    """What is judged is this file: nothing of the package may run beside it."""
    if any(name.partition(".")[0] == "pgolf" for name in sys.modules):
        raise RuntimeError("this file runs without the package pgolf")


def settings_of(args: list[str]) -> dict[str, str]:
    """KEY=VALUE words as a mapping; UserError with the usage for any other word."""
    if all("=" in word for word in args):
        return dict(word.split("=", 1) for word in args)
    raise UserError("usage: train_gpt.py [judge ARTIFACT=FILE] [SEED=N] [DATA_PATH=DIR] [TOKENIZER_PATH=FILE]")


def number(settings: Mapping[str, str], name: str, otherwise: int | None) -> int | None:
    """The whole number that a setting holds."""
    if name not in settings:
        return otherwise
    if not settings[name].isdecimal() or int(settings[name]) >= 2**31:
        raise UserError(f"{name}={settings[name]!r}: must be a whole number below 2147483648")
    return int(settings[name])


def recipe_of(frozen: dict, settings: Mapping[str, str]) -> Recipe:
    """The frozen groups, with what the settings say."""
    seed, size = number(settings, "SEED", 1337), int(os.environ.get("WORLD_SIZE", 1))
    ranks, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", size)), torch.cuda.device_count()
    if (device := settings.get("DEVICE", "auto")) not in Device.__members__:
        raise UserError(f"DEVICE={device!r}: must be auto, cpu or cuda")
    given = frozen.pop("machine")
    machine = Machine(
        ranks=ranks,
        nodes=size // ranks,
        node_rank=0,
        rendezvous="-:1",  # they have met by torchrun
        rendezvous_seconds=1,
        device=Device[device],
        threads=number(settings, "THREADS", None),
        kernels=thaw(given.pop("kernels"), Kernels),
        **given,
    ).settled(affinity(), gpus)
    machine.require_gpus(gpus)
    groups = get_type_hints(Recipe)
    parts = {group: thaw(part, groups[group]) for group, part in frozen.items()}
    recipe = Recipe(**parts, machine=machine, seed=Seed(value=seed, model=seed, loader=seed), logger=NoLogger())
    recipe.require_ranks()
    return recipe


def placed(texts: dict, half: str, base: type, settings: Mapping[str, str]) -> Any:
    """A frozen half of a corpus, its files where DATA_PATH and TOKENIZER_PATH say."""
    fields, folder = texts[half], Path(os.path.expanduser(settings.get("DATA_PATH", texts["folder"])))
    tokenizer = Path(settings.get("TOKENIZER_PATH", folder / fields["tokenizer"]))
    for path, name in ((folder, "DATA_PATH"), (tokenizer, "TOKENIZER_PATH")):
        if not path.exists():
            raise UserError(f"{path}: is not there; {name}=... says where it is")
    paths = [str(folder / name) for name in names(fields["paths"], len(fields["counts"]))]
    return thaw(fields | {"paths": paths, "tokenizer": str(tokenizer)}, base)


def names(paths: list, count: int) -> Iterable[str]:
    """File names, written out or, if they only count up, as what is before and after the number, and its digits."""
    if not isinstance(paths[-1], int):
        return paths
    head, tail, digits = paths
    return (f"{head}{i:0{digits}}{tail}" for i in range(count))


def judged(
    world: World, recipe: Recipe, text: ValidationText, code: dict, given: Mapping[str, str], meaning: "Meaning | None"
) -> None:
    """Score ARTIFACT. With FOLDER, for the parent that draws its events; without, for a person, who reads lines."""
    artifact = Path(given.get("ARTIFACT", f"seed{recipe.seed.value}/artifact.pgolf"))
    sha256 = given.get("ARTIFACT_SHA256") or weigh(contents(artifact))["sha256"]
    evaluation = Evaluation(recipe, artifact, sha256, text, code["sha256"], meaning)
    if "FOLDER" not in given:
        events = Events(None, printed) if world.main else Events(None)
        score = judge(world, evaluation, events)
        return events.write("notice", text=f"val_bpb={score['val_bpb']:.8f} artifact_sha256={sha256}")
    die_with(int(given["PARENT"]))
    folder = Path(given["FOLDER"])
    events = Events(folder if world.main else None)
    score = judge(world, evaluation, events)
    if world.main:
        leave_result(folder, score, events)


def contents(path: Path) -> bytes:
    """The bytes of a file, or UserError."""
    try:
        return path.read_bytes()
    except OSError as wrong:
        raise UserError(f"{path}: cannot be read: {wrong.strerror}") from None


def printed(event: dict[str, Any]) -> None:
    """An event as its line on standard output, whose end is no reason to stop."""
    if line := line_of(event):
        with suppress(OSError, ValueError):
            print(line, flush=True)


def whole(world: World, recipe: Recipe, training: TrainingText, validation: ValidationText, code: dict) -> None:
    """Both stages, with a log that names the code at both ends."""
    folder = Path(f"seed{recipe.seed.value}")
    events = Events(None)
    if world.main:
        folder.mkdir(exist_ok=True)
        (folder / EVENTS).write_text("")
        (folder / LOG).write_text("")
        events = Events(folder, lambda event: logged(folder / LOG, event))
    record = {"pgolf": __version__, "code": code, "limits": asdict(recipe.limits)}
    for line in (code_line("begin", record), surroundings(recipe)):
        events.write("notice", text=line)
    record |= train(world, Training(recipe, training, recipe.ttt.finetuning(validation), code["bytes"], folder), events)
    world.barrier()
    sealed = record["artifact"]["sha256"]
    score = judge(world, Evaluation(recipe, folder / ARTIFACT, sealed, validation, code["sha256"]), events)
    record |= {"evaluate": score, "receipts": record["receipts"] + score["receipts"]}
    record |= {"data": {"val_tokens": validation.tokens, "val_bytes": validation.bytes}}
    size, total = record["artifact"]["bytes"], record["artifact"]["bytes"] + code["bytes"]
    for line in (
        *(f"receipt   {receipt_text(r)}" for r in record["receipts"]),
        f"verdict   {verdict(record)}",
        f"artifact_sha256={sealed} artifact_bytes={size} code_bytes={code['bytes']} total_bytes={total}",
        f"val_loss={score['val_loss']:.8f} val_bpb={score['val_bpb']:.8f}",
        code_line("end", record),
    ):
        events.write("notice", text=line)


def logged(log: Path, event: dict[str, Any]) -> None:
    """An event as its line in a log and on standard output."""
    printed(event)
    if line := line_of(event):
        with suppress(OSError), open(log, "a", encoding="utf-8") as out:
            out.write(line + "\n")


def surroundings(recipe: Recipe) -> str:
    """What runs, on what."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return (
        f"seed {recipe.seed.value}  {recipe.machine.world_size} rank(s)  GPUs {gpus}  {platform.platform()}"
        f"  python={platform.python_version()} torch={torch.__version__}"
    )
