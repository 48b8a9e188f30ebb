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
from pgolf.ttt.ngram import hints, tilted
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


def check_tilt(golden: Golden) -> None:
    """Hints and gates of a stream in its own order, and what the tilt makes of given scores."""
    for name in {key.split("/")[0] for key in golden if key.startswith("order")}:
        part = golden.under(f"{name}/")
        found, gates = hints(golden["tokens"], int(name.removeprefix("order")), float(part["threshold"]))
        np.testing.assert_array_equal(gates, part["gates"])
        np.testing.assert_array_equal(found, part["hints"])
        # Three tokens: the target, the hint, and the rest; where the hint is right, the first two are one.
        hit = torch.from_numpy(gates & (part["hints"] == golden["tokens"][1:]))
        p, h = torch.from_numpy(-part["nll"]).double().exp(), torch.from_numpy(part["log_p_hint"]).double().exp()
        h = torch.where(torch.from_numpy(gates), h, 0.0)
        log_p = torch.stack([p, torch.where(hit, 0.0, h), 1 - p - torch.where(hit, 0.0, h)], -1).log()[:, None]
        bonus = torch.from_numpy(gates).double()[:, None] * float(part["beta"])
        mixed = tilted(log_p, torch.where(hit, 0, 1)[:, None], bonus)
        np.testing.assert_allclose(-mixed[:, 0, 0].numpy(), part["tilted_nll"], atol=1e-6)
        assert torch.allclose(mixed.exp().sum(-1), torch.ones((), dtype=torch.double))


def not_built(golden: Golden) -> None:
    raise AssertionError(f"{golden.path.name} is of a part that is not built")


PARTS = (
    Part("score first", has("tokens", "token_bytes", "sliding", "sgd_all_params", "adamw_last2"), check_score_first),
    Part("lora forward", has("lora/*", "nll_zero_B"), not_built, missing="parallel LoRA per visit (ttt)"),
    Part("lora ttt", has("nll/all", "sgd_after_documents"), not_built, missing="parallel LoRA per visit (ttt)"),
    Part("tilt", has("tokens", "order*"), check_tilt),
)
