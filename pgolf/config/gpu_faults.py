"""What a rank that a GPU failed means to a person: memory that ran out, and who else
holds some; a GPU that another process has alone; a torch that cannot use it."""

import re
from typing import TYPE_CHECKING

from pgolf.errors import UserError

if TYPE_CHECKING:
    from pgolf.recipe import Recipe

OUT_OF_MEMORY = "OutOfMemoryError"  # how torch calls it
BUSY = "busy or unavailable"  # of a GPU in exclusive mode
UNUSABLE = re.compile(
    r"Torch not compiled with CUDA|Found no NVIDIA driver|driver on your system is too old|No CUDA GPUs are"
)
_OTHER = re.compile(r"Process (\d+) has ([\d.]+ [KMG]iB) memory in use")


def gpu_fault(recipe: "Recipe", said: str, stage: str) -> UserError | None:
    """The message for what a rank of `stage` ("train" or "evaluate") said before it died; None if it is not a GPU's fault."""
    if BUSY in said:
        return UserError(
            "a GPU is busy: another process has it for itself (nvidia-smi shows which), or it was not let go. End that"
            " process, or choose other GPUs with CUDA_VISIBLE_DEVICES"
        )
    if found := UNUSABLE.search(said):
        return UserError(
            f"torch cannot use this machine's GPUs ({found[0]}): install the build of torch for the driver's CUDA (nvidia-smi"
            " shows it), or machine.device=CPU; python -m pgolf.doctor looks again"
        )
    if OUT_OF_MEMORY not in said:
        return None
    others = [f"process {number} holds {size}" for number, size in _OTHER.findall(said)]
    return UserError((_in_training if stage == "train" else _in_evaluation)(recipe) + _shared(others))


def _in_training(recipe: "Recipe") -> str:
    from pgolf.config.memory import memory_text

    return (
        f"a GPU ran out of memory with machine.micro_batch_tokens={recipe.micro_batch_tokens}. By its shapes it holds:"
        f" {memory_text(recipe)}."
    )


def _in_evaluation(recipe: "Recipe") -> str:
    windows = recipe.eval.batch_windows
    return (
        f"a GPU ran out of memory while judging, with eval.batch_windows={windows} windows of {recipe.eval.context}:"
        f" eval.batch_windows={max(1, windows // 2)} takes half of it, and trained=RUN judges this artifact again."
    )


def _shared(others: list[str]) -> str:
    if others:
        return f" The GPU is shared: {', '.join(others)}. End that, or choose other GPUs with CUDA_VISIBLE_DEVICES."
    return " If that fits, another process may hold memory of the GPU (nvidia-smi shows it)."
