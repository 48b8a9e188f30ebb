"""The names of everything that is logged: events and their fields, and what W&B and TensorBoard call them.

A test holds the program to this table: an event or field that is written and not listed here is a failure.
"""

from collections.abc import Mapping
from typing import Any

# Event -> field -> the name it has in a history, or None for what stays in events.jsonl. Every event also has `time`,
# seconds since 1970. `seconds` is on the clock of the event's stage.
EVENTS: Mapping[str, Mapping[str, str | None]] = {
    "stage": {"stage": None},  # begins: train or evaluate
    "step": {
        "step": "step",
        "seconds": "seconds",
        "loss": "train/loss",  # nats per token, of the global batch
        "lr": "train/lr",  # multiplier of every learning rate
        "momentum": "train/momentum",
        "tokens_per_second": "train/tokens_per_second",  # since the clock began
    },
    "ready": {"reserve": None},  # the warm-up is done; seconds kept for sealing
    "epoch": {"step": None, "epoch": None},  # the training text has come to its end; the pass that begins
    "dev": {"step": "step", "seconds": "seconds", "dev_bpb": "dev/bpb", "took": None},  # on held-out training text
    "sealed": {
        "seconds": "seconds",
        "bytes": "dev/artifact_bytes",
        "dev_bpb": None,  # raw, averaged, quantized
        "gap": None,  # quantized less averaged
    },
    "validation": {"tokens": None, "bytes": None},  # proven by document
    "chunk": {"chunk": "chunk", "seconds": "seconds", "val_bpb": "eval/val_bpb"},  # of all chunks so far
    "score": {"seconds": "seconds", "val_bpb": "eval/val_bpb", "val_loss": "eval/val_loss"},  # of the whole text
    "notice": {"text": None},
    "progress": {"label": None, "done": None, "text": None, "tokens_per_second": None},  # for live views, 4 a second
}

# Histories are drawn over these; each is a metric of its own, so that a chart may be switched to the other.
AXES = {"train/*": "step", "dev/*": "step", "eval/*": "seconds"}

# Name in the summary -> dotted place in record.json, as far as the record has got when a stage ends.
SUMMARY = {
    "final/val_bpb": "evaluate.val_bpb",
    "final/val_loss": "evaluate.val_loss",
    "final/eval_seconds": "evaluate.seconds",
    "final/dev_bpb_raw": "train.dev_bpb.raw",
    "final/dev_bpb_averaged": "train.dev_bpb.averaged",
    "final/dev_bpb_quantized": "train.dev_bpb.quantized",
    "final/train_loss": "train.train_loss",
    "final/train_seconds": "train.seconds",
    "final/steps": "train.steps",
    "final/tokens": "train.tokens",
    "final/parameters": "train.parameters",
    "final/artifact_bytes": "artifact.bytes",
    "final/bits_per_weight": "artifact.bits_per_weight",
    "final/code_bytes": "code.bytes",
    "final/verdict": "verdict",
    "final/status": "status",
}

# Tables and their columns; rows are mappings of a record or a summary, read by these names.
TABLES = {
    "tables/layers": ("name", "section", "bits", "weighted", "error", "rounding_error", "entropy", "notice"),
    "tables/receipts": ("part", "what", "value", "alive"),
    "tables/arms": ("arm", "n", "mean", "std", "refused"),
    "tables/seeds": (
        "arm",
        "seed",
        "val_bpb",
        "val_loss",
        "artifact_bytes",
        "code_bytes",
        "steps",
        "train_seconds",
        "eval_seconds",
        "verdict",
    ),
    "tables/ablation": ("arm", "baseline", "difference_bpb", "low", "high", "p", "seeds_needed", "note"),
}

# The summary of a sweep's aggregate run: the arm with the lowest mean, and how many arms there are.
AGGREGATE = ("final/val_bpb", "final/val_bpb_std", "final/seeds", "final/arm", "final/arms")


def history(event: Mapping[str, Any]) -> dict[str, float]:
    """An event's numbers by their names in a history. {"event": "dev", "step": 3, "dev_bpb": 2}: {"step": 3, "dev/bpb": 2}."""
    names = EVENTS.get(event["event"], {})
    return {name: event[field] for field, name in names.items() if name and event.get(field) is not None}


def axis(name: str) -> str:
    """What a history is drawn over. axis("eval/val_bpb") == "seconds" """
    return AXES[f"{name.partition('/')[0]}/*"]


def table(name: str, rows: list[Mapping[str, Any]]) -> list[list[Any]]:
    """Rows of a table in the order of its columns."""
    return [[row.get(column) for column in TABLES[name]] for row in rows]
