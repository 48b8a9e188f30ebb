"""The small reference model, text and byte table that the eval and ttt tests share, and the figures it scores."""

import numpy as np
import pytest
import torch

from pgolf.data.bytes import ByteTable
from pgolf.eval import Sliding
from pgolf.machine.world import World
from pgolf.model import GPT
from pgolf.stages.evaluate import evaluate
from pgolf.ttt import SGD, AdamW, Everything, GradientScale, LastBlocks, NoTTT, ScoreFirst
from tests.goldens import DATA, Golden, Part, has
from tests.goldens.models import CASES, COMMON, loaded, our_name

torch.set_num_threads(1)

GOLDEN = Golden(DATA / "score_first_ttt.npz")
IDS = GOLDEN["tokens"].astype(np.uint16)
TABLE = ByteTable(GOLDEN["token_bytes"], GOLDEN["has_leading_space"], GOLDEN["is_boundary"])
SPEC = GPT(**COMMON | CASES["pr606"])
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


def model(golden: Golden = GOLDEN):
    """The reference model with the reference weights."""
    return loaded(SPEC, golden.under("w/"))


def sgd(**changes) -> ScoreFirst:
    return ScoreFirst(**_BASE | _SGD | changes)


def adamw(**changes) -> ScoreFirst:
    return ScoreFirst(**_BASE | _ADAMW | changes)


def golden_names() -> list[str]:
    return [our_name(str(name), SPEC.value_embedding.layers) for name in GOLDEN["adamw_last2_param_names"]]


def check_score_first(golden: Golden) -> None:
    """Sliding windows without learning, and two ways of learning, each in nats per token and bits per byte."""
    ids = golden["tokens"].astype(np.uint16)
    table = ByteTable(golden["token_bytes"], golden["has_leading_space"], golden["is_boundary"])
    for name, ttt in (("sliding", NONE), ("sgd_all_params", sgd()), ("adamw_last2", adamw())):
        score = evaluate(World.alone(), model(golden), ids, table, SLIDING, ttt)
        assert score.val_loss == pytest.approx(golden[name][0], abs=1e-6)
        assert score.val_bpb == pytest.approx(golden[name][1], abs=1e-6)
        if name != "sliding":
            assert score.val_loss < golden["sliding"][0]  # it learns
            assert score.receipts[0].alive


def not_built(golden: Golden) -> None:
    raise AssertionError(f"{golden.path.name} is of a part that is not built")


PARTS = (
    Part("score first", has("tokens", "token_bytes", "sliding", "sgd_all_params", "adamw_last2"), check_score_first),
    Part("lora forward", has("lora/*", "nll_zero_B"), not_built, missing="parallel LoRA per visit (ttt)"),
    Part("lora ttt", has("nll/all", "sgd_after_documents"), not_built, missing="parallel LoRA per visit (ttt)"),
    Part("tilt", has("tokens", "order*"), not_built, missing="the n-gram tilt (ttt.mixer)"),
)
