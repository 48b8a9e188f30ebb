"""`python -m pgolf.doctor [words of a run]`: has this machine what these words need, and what would a run get done here?

One line for each thing that has stopped somebody before, with what to do about it: Python, torch and its CUDA, GPUs, attention,
the compiler where machine.compile is on, cores and quota, memory, shared memory, disks, W&B, the limits of a Slurm job, the text,
and some seconds of steps. The exit code is 1 if anything is wrong.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from pgolf.config.command import Result, StatusLines, command
from pgolf.config.compose import register_experiments, rehearse
from pgolf.config.words import short_words
from pgolf.doctor import place, software
from pgolf.doctor.finding import Finding
from pgolf.doctor.probe import speed, text
from pgolf.machine import tune_runtime


def findings(overrides: list[str]) -> Iterator[Finding]:
    """Everything, the quick things first; `overrides` are the words of a run."""
    (job,) = rehearse(overrides, sweep=False)
    recipe, machine = job.recipe, job.recipe.machine
    yield software.python()
    yield software.torch_itself()
    yield software.gpus(machine)
    yield software.attention()
    yield software.compiler(machine)
    yield place.cores(machine)
    needed = place.memory_needed(recipe)
    yield place.memory(needed)
    yield place.shared_memory(machine)
    yield from place.disks(job)
    yield software.wandb(recipe.logger)
    yield place.slurm(recipe, needed)
    corpus, found = text(recipe)
    yield found
    if corpus is not None:
        yield from speed(job, corpus)


@command(__doc__)
def main(args: Sequence[str], say: StatusLines) -> Result:
    """Every finding as it is made, and whether all are good; exit code 1 if one is bad."""
    tune_runtime()  # as in a run, before torch is imported
    register_experiments()
    found = []
    for finding in findings([short_words(word) for word in args]):
        say(str(finding))
        found.append(finding)
    bad = [f"{one.what}: {one.do or one.found}" for one in found if not one.ok]
    value = {"ready": not bad, "words": [*args], "findings": [asdict(one) for one in found]}
    text = f"not ready: {'; '.join(bad)}" if bad else " ".join(["ready: python -m pgolf.run", *args])
    return Result("pgolf.doctor/1", value, text, 1 if bad else 0)
