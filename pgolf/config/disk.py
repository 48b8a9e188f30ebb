"""Bytes that a run writes into its folder, from its shapes and words: an upper bound, known before anything starts."""

from typing import TYPE_CHECKING

from pgolf.files.checkpoints import KEPT

if TYPE_CHECKING:
    from pgolf.config.compose import Job

STATES = 4  # fp32 copies of the weights in a checkpoint: weights, two moments (Muon has one), an average


def written(job: "Job") -> dict[str, int]:
    """What takes room, by name. Checkpoints are KEPT, and one more while it is written; the artifact stays below the cap.

    With `trained=` a sealed artifact is copied, and nothing is kept besides."""
    weights = sum(p.numel() for p in job.recipe.model.outline().parameters()) * 4
    found = {"artifact": min(job.recipe.limits.artifact_bytes, weights)}
    if job.config["checkpoint"]["every_seconds"] is not None and not job.config["trained"]:
        found["checkpoints"] = (KEPT + 1) * STATES * weights
    return found
