"""What a GPU can do at most: dense bf16 operations per second, from the makers' data sheets, by a word of its name."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgolf.recipe import Recipe

PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "L40S": 362e12,
    "A100": 312e12,
    "RTX 4090": 165e12,
    "A10": 125e12,
    "L4": 121e12,
    "RTX 3090": 71e12,
}  # the first that fits counts: longer names before the shorter ones inside them


def peak_of(name: str) -> float:
    """Operations per second of one device of this name; 0 where it is not known.

    >>> peak_of("NVIDIA H100 80GB HBM3") / 1e12
    989.0
    """
    return next((peak for word, peak in PEAKS.items() if word in name), 0.0)


def peak_flops(recipe: "Recipe", gpus: Sequence[str]) -> float:
    """Of all ranks of a recipe together, on GPUs of these names; 0 on CPUs and unknown GPUs."""
    return recipe.machine.world_size * peak_of(gpus[0]) if recipe.machine.on_gpu and gpus else 0.0
