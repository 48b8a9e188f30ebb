"""The published systems as small as goes with every part still at work."""

from pgolf.config.compose import dotted_keys, register_experiments, rehearse

SYSTEMS = (
    *("baseline_sp1024", "pr606_int5_softround", "pr639_full_gptq", "pr1129_crownq", "pr1852_prequant_ttt"),
    *("pr1852_legal", "pr1855_record", "pr2014_long_context", "pr2135_token_tilt", "frontier"),
)
IN_OTHERS = SYSTEMS[5:9]  # whose parts are all in another system too
# Words for all, and for what only some have.
SMALL = (
    "scale=laptop",
    "limits.train_steps=8",
    "data.batch_tokens=1024",
    "data.sequence_length=128",
    "data.dev_tokens=4096",
    "data.dev_checks=1",
    "data.val_fraction=0.0025",
    "schedule.warmup_steps=1",
    "machine.threads=1",
)
FEW = {
    "model.width": 64,
    "model.embed_width": 64,
    "model.mlp_hidden": 128,
    "model.rope_dims": 16,
    "quant.keep_below": 1024,
    "eval.context": 128,
    "eval.batch_windows": 32,
    "ttt.chunk_tokens": 4096,
    "ttt.epochs": 1,
    "ttt.sequence_length": 128,
    "quant.solver.calibration_sequences": 8,
    "quant.solver.source.length": 32,
}
FEW_BY_DOCUMENT = {
    "ttt.chunk_tokens": 128,
    "ttt.rank": 4,
    "ttt.documents": 3,
    "ttt.short_tokens": [1024],
    "ttt.short_chunks": [64],
}


def small(name: str) -> list[str]:
    """The words for `name` in the least time that shows all its parts."""
    register_experiments()
    (job,) = rehearse([f"experiment={name}", "scale=laptop"], sweep=False)
    present = dotted_keys(job.config)
    few = FEW | (FEW_BY_DOCUMENT if "ttt.documents" in present else {})
    return [f"experiment={name}", *SMALL, *(f"{key}={value}" for key, value in few.items() if key in present)]
