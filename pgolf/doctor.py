"""`python -m pgolf.doctor [group=option ...]`: is this machine ready, and what would a run get done here?

One line for each thing that has stopped somebody before, with what to do about it. The exit code is 1 if anything is wrong.
"""

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf.config.command import Result, StatusLines, command
from pgolf.config.compose import register_experiments, rehearse
from pgolf.config.words import short_words
from pgolf.errors import UserError
from pgolf.logger.key import has_key
from pgolf.machine import Machine, gpus_present

if TYPE_CHECKING:
    from pgolf.data import Corpus
    from pgolf.recipe import Recipe

PYTHONS = ((3, 11), (3, 13))
MEMORY_GIB, DISK_GIB = 2, 2  # a laptop run uses about 1.5 and 0.2
RECORD_SECONDS = 600
MEASURE_SECONDS = 4.0


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, whether a run can do with it, and, if not, what to do."""

    what: str
    found: str
    ok: bool = True
    do: str = ""

    def __str__(self) -> str:
        line = f"{'ok ' if self.ok else 'BAD'}  {self.what:<12} {self.found}"
        return line if not self.do else f"{line}\n{' ' * 18}→ {self.do}"


def findings(overrides: list[str]) -> Iterator[Finding]:
    """Everything, the quick things first; `words` are those of a run."""
    recipe = rehearse([*overrides, "machine.ranks=1"], sweep=False)[0].recipe
    machine = rehearse(overrides, sweep=False)[0].recipe.machine
    yield python()
    yield torch_itself()
    yield gpus(machine)
    yield attention()
    yield cores()
    yield memory()
    yield disk(recipe.data.cache_folder)
    yield wandb()
    corpus, found = text(recipe)
    yield found
    if corpus is not None:
        yield speed(recipe, corpus, machine.world_size)


def python() -> Finding:
    """3.11 to 3.13: Hydra 1.3 does not run on later ones."""
    low, high = PYTHONS
    ok = low <= sys.version_info[:2] <= high
    do = "" if ok else f"make a virtual environment with Python {low[0]}.{low[1]} to {high[0]}.{high[1]}"
    return Finding("python", f"{platform.python_version()} at {sys.executable}", ok, do)


def torch_itself() -> Finding:
    """The version of torch and of its CUDA."""
    import torch

    return Finding("torch", f"{torch.__version__}, CUDA {torch.version.cuda or 'not built in'}")


def gpus(machine: Machine) -> Finding:
    """Those the driver shows, those torch can use, and those the words ask for."""
    import torch

    present, usable = gpus_present(), torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = ", ".join(sorted({torch.cuda.get_device_name(i) for i in range(usable)})) or "none"
    if present > usable:
        do = "install the build of torch for the driver's CUDA (nvidia-smi shows it), then look again"
        return Finding("GPUs", f"{present} in the machine, {usable} usable by torch", False, do)
    try:
        machine.require_devices()
    except UserError as wrong:
        return Finding("GPUs", str(wrong), False)
    return Finding("GPUs", f"{usable} ({names})" if usable else "none: ranks run on the CPU")


def attention() -> Finding:
    """Which kernel scaled_dot_product_attention has for a causal bf16 call like ours."""
    import torch
    from torch.nn.attention import SDPBackend

    device = "cuda" if torch.cuda.is_available() else "cpu"
    backends = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
    works = [backend.name.lower() for backend in backends if _attends(backend, device)]
    fast = device == "cpu" or works[:1] != ["math"]
    do = "" if fast else "a GPU of compute capability 8 or more has the fused kernels; here attention will be slow"
    return Finding("attention", f"on {device}: {', '.join(works) or 'none'}", bool(works) and fast, do)


def _attends(backend, device: str) -> bool:
    import warnings

    import torch
    from torch.nn.attention import sdpa_kernel

    q = torch.zeros(1, 2, 64, 64, dtype=torch.bfloat16, device=device)
    try:
        with warnings.catch_warnings(), sdpa_kernel(backend):
            warnings.simplefilter("ignore")  # they say why a kernel is not for this call
            torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)
    except RuntimeError:
        return False
    return True


def cores() -> Finding:
    """Usable cores and how busy they are."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    busy = os.getloadavg()[0]
    do = "other programs are running: clocks will be short of steps" if busy > usable / 2 else ""
    return Finding("cores", f"{usable} usable, load {busy:.1f}", True, do)


def memory() -> Finding:
    """Physical memory."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    ok = size >= MEMORY_GIB
    return Finding("memory", f"{size:.0f} GiB", ok, "" if ok else f"{MEMORY_GIB} GiB are needed for the laptop run")


def disk(cache: Path) -> Finding:
    """Where corpora are kept, and where runs are written: here."""
    place = next(path for path in (cache, *cache.parents) if path.exists())
    free = {where: shutil.disk_usage(where).free / 2**30 for where in (place, Path.cwd())}
    ok = min(free.values()) >= DISK_GIB and all(os.access(where, os.W_OK) for where in free)
    found = ", ".join(f"{size:.0f} GiB free at {where}" for where, size in free.items())
    return Finding(
        "disk",
        found,
        ok,
        "" if ok else f"{DISK_GIB} GiB that can be written; PGOLF_CACHE names another place for corpora",
    )


def wandb() -> Finding:
    """The client, and whether there is a key; without one logger=wandb keeps its files for later."""
    try:
        import wandb as client
    except Exception as wrong:  # an import can fail in any way where packages do not fit each other
        return Finding("W&B", f"cannot be imported: {wrong}", False, "pip install 'wandb>=0.19', or keep logger=jsonl")
    number, key = client.__version__, has_key()
    found = "a key: logger.mode=online works" if key else "no key: logger=wandb stays offline"
    return Finding("W&B", f"{number}, {found}", True, "" if key else "wandb login, only to have logger.mode=online")


def text(recipe: "Recipe") -> tuple["Corpus | None", Finding]:
    """The corpus of the words, built if that needs no network, verified file by file. What is wrong says what to do."""
    data = recipe.data
    try:
        corpus = data.prepare(lambda stage, done: None)
    except UserError as wrong:
        return None, Finding("corpus", f"{data.name}: {wrong}", False)
    train, judge = corpus.training, corpus.validation
    return corpus, Finding(
        "corpus", f"{data.name}: {train.tokens:,} training and {judge.tokens:,} validation tokens, verified"
    )


def speed(recipe: "Recipe", corpus: "Corpus", ranks: int) -> Finding:
    """Optimiser steps for a few seconds on one rank, and what `ranks` of them would do in the challenge's clock."""
    import torch

    from pgolf.machine.world import World
    from pgolf.stages.train import Trainer

    torch.set_num_threads(recipe.machine.threads_per_rank)
    device = "cuda" if recipe.machine.on_gpu else "cpu"
    seconds = step_seconds(Trainer(World.alone(device), recipe, corpus.training), MEASURE_SECONDS)
    tokens = ranks * recipe.data.batch_tokens / seconds
    rate = f"{tokens:,.0f} tokens/s on {ranks} rank(s){', if ranks cost nothing' if ranks > 1 else ''}"
    steps = int(RECORD_SECONDS * ranks / seconds)
    return Finding(
        "speed", f"{rate}: about {steps:,} steps in {RECORD_SECONDS} s ({recipe.data.batch_tokens:,} tokens each)"
    )


def step_seconds(trainer, budget: float, clock: Callable[[], float] = time.perf_counter) -> float:
    """Mean seconds of a step over `budget` seconds, one at the least; a first one, with its first times, does not count."""
    from pgolf.schedule import Progress

    began, steps = _stepped(trainer, Progress(0, 0.0, 1.0), clock), 0
    while not steps or clock() - began < budget:
        _stepped(trainer, Progress(steps, 0.0, 1.0), clock)
        steps += 1
    return (clock() - began) / steps


def _stepped(trainer, progress, clock: Callable[[], float]) -> float:
    trainer.step(progress).item()  # waits for the device
    return clock()


@command(__doc__)
def main(args: Sequence[str], say: StatusLines) -> Result:
    """Every finding as it is made, and whether all are good; exit code 1 if one is bad."""
    register_experiments()
    found = []
    for finding in findings([short_words(word) for word in args]):
        say(str(finding))
        found.append(finding)
    bad = [f"{one.what}: {one.do or one.found}" for one in found if not one.ok]
    value = {"ready": not bad, "words": [*args], "findings": [asdict(one) for one in found]}
    text = f"not ready: {'; '.join(bad)}" if bad else " ".join(["ready: python -m pgolf.run", *args])
    return Result("pgolf.doctor/1", value, text, 1 if bad else 0)


if __name__ == "__main__":
    sys.exit(main())
