"""The small reference model, text and byte table that the eval and ttt tests share."""

from pathlib import Path

import numpy as np
import torch

from pgolf.data.bytes import ByteTable
from pgolf.eval import Sliding
from pgolf.model import GPT
from pgolf.ttt import SGD, AdamW, Everything, GradientScale, LastBlocks, NoTTT, ScoreFirst
from tests.test_model_golden import CASES, COMMON, our_name, prefixed

torch.set_num_threads(1)

with np.load(Path(__file__).parent / "data" / "score_first_ttt.npz") as file:
    GOLDEN = {k: file[k] for k in file.files}

IDS = GOLDEN["tokens"].astype(np.uint16)
TABLE = ByteTable(GOLDEN["token_bytes"], GOLDEN["has_leading_space"], GOLDEN["is_boundary"])
SPEC = GPT(**COMMON | CASES["pr606_mha"])
SLIDING = Sliding(context=64, stride=16, batch_windows=32)
NONE = NoTTT(chunk_tokens=256)
_BASE = dict(
    chunk_tokens=256,
    batch_sequences=32,
    micro_sequences=32,
    sequence_length=64,
    clip=1.0,
    within_chunk_floor=None,
    gradient_scale=GradientScale.NONE,
    byte_weighted=False,
    polyak=None,
    temperature=None,
    mixer=None,
)
_SGD = dict(optimizer=SGD(lr=0.01, momentum=0.9), trained=Everything(), epochs=2)
_ADAMW = dict(
    optimizer=AdamW(lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0),
    trained=LastBlocks(blocks=2, also=("norm", "scale", "head")),
    epochs=3,
)


def model():
    """The reference model with the reference weights."""
    module = SPEC.build(0)
    module.load_state_dict({k: torch.from_numpy(v) for k, v in prefixed(GOLDEN, "w/", SPEC).items()})
    return module


def sgd(**changes) -> ScoreFirst:
    return ScoreFirst(**_BASE | _SGD | changes)


def adamw(**changes) -> ScoreFirst:
    return ScoreFirst(**_BASE | _ADAMW | changes)


def golden_names() -> list[str]:
    return [our_name(str(name), SPEC.value_embedding.layers) for name in GOLDEN["adamw_last2_param_names"]]
