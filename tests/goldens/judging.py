"""The small reference model, text and byte table that the eval and ttt tests share, and the figures it scores."""

from unittest import mock

import numpy as np
import pytest
import torch

from pgolf.data.bytes import ByteTable
from pgolf.eval import Sliding
from pgolf.machine.world import World
from pgolf.model import GPT
from pgolf.model.extras import PlainLoss
from pgolf.stages.evaluate import evaluate
from pgolf.ttt import (
    SGD,
    AdamW,
    AdamWEps,
    Everything,
    GlobalSGD,
    GradientScale,
    LastBlocks,
    NoTTT,
    ParallelLora,
    ScoreFirst,
)
from pgolf.ttt.by_document import PLACES
from pgolf.ttt.documents import DocumentPlan
from pgolf.ttt.ngram import hints, tilted
from pgolf.ttt.parallel import ParallelLoraLearner
from tests.goldens import DATA, Golden, Part, has
from tests.goldens.models import CASES, COMMON, by_config, loaded, our_name

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


def adapters(golden: Golden, **changes) -> ParallelLora:
    """The record's adapters with the settings that a file states."""
    config = dict(
        chunk_tokens=int(golden.get("chunk", 8)),
        optimizer=SGD(lr=1e-3, momentum=0.0),
        rank=int(golden["rank"]),
        alpha=float(golden["alpha"]),
        documents=int(golden.get("side", 2)),
        seed=0,
        mixer=None,
        places=PLACES,
        short_tokens=(),
        short_chunks=(),
        warm=False,
        phases=None,
    )
    return ParallelLora(**config | changes)


def record_model(golden: Golden):
    model = loaded(by_config(golden.config, True, PlainLoss()), weights_of(golden))
    model.set_looping(True)
    return model


def check_lora_forward(golden: Golden) -> None:
    """Nats under given adapters, their gradients, and that zero B leaves the model as it was."""
    ids, targets = (torch.from_numpy(golden[key]) for key in ("ids", "targets"))
    plan = DocumentPlan(np.array([0, 9]), np.array([9, 9]), ids.shape[1], 8, len(ids))
    learner = ParallelLoraLearner(adapters(golden), record_model(golden), World.alone(), plan)
    zero = -learner.network(ids, ids.shape[1]).gather(-1, targets[..., None]).squeeze(-1)
    torch.testing.assert_close(zero, torch.from_numpy(golden["nll_zero_B"]), atol=1e-5, rtol=0)
    for name, value in adapter_weights(golden, "lora/").items():
        learner.adapters.get_parameter(name).data = torch.from_numpy(value)
    nll = -learner.network(ids, ids.shape[1]).gather(-1, targets[..., None]).squeeze(-1)
    torch.testing.assert_close(nll, torch.from_numpy(golden["nll"]), atol=1e-5, rtol=0)
    loss = nll[:, ids.shape[1] // 2 :].mean(1).sum()
    assert loss.item() == pytest.approx(golden["loss_second_half"].item(), abs=1e-5)
    loss.backward()
    for name, norm in adapter_weights(golden, "loragradnorm/").items():
        grad = learner.adapters.get_parameter(name).grad
        assert grad.norm().item() == pytest.approx(norm.item(), rel=1e-4, abs=1e-5), name


def adapter_weights(golden: Golden, prefix: str) -> dict[str, np.ndarray]:
    """Entries by pgolf's names of the adapters' parameters."""
    words = {"lm_head_lora": "head"} | {f"{place}_loras": place for place in PLACES}
    parts = {name: name.split(".") for name in golden.under(prefix)}
    return {".".join([words[parts[name][0]], *parts[name][1:]]): value for name, value in golden.under(prefix).items()}


def check_lora_ttt(golden: Golden) -> None:
    """A whole evaluation by documents, in each variant."""
    ids = golden["tokens"].astype(np.uint16)
    config, V = golden.config, golden.config["vocab"]
    table = ByteTable(np.ones(V, np.int16), np.zeros(V, bool), np.arange(V) == config["bos"])
    optimizer = AdamWEps(
        lr=float(golden["lr"]),
        betas=tuple(golden["betas"].tolist()),
        weight_decay=float(golden["weight_decay"]),
        eps=float(golden["eps"]),
    )
    sgd = GlobalSGD(
        after=(int(golden["sgd_after_documents"]),),
        lr=float(golden["sgd_lr"]),
        momentum=float(golden["sgd_momentum"]),
        clip=float(golden["sgd_clip"]),
        chunk_tokens=int(golden["sgd_chunk"]),
    )
    variants = {
        "all": {},
        "no_qv": dict(places=("k", "o", "mlp", "head")),
        "no_k": dict(places=("q", "v", "o", "mlp", "head")),
        "warm": dict(warm=True),
        "short": dict(zip(("short_tokens", "short_chunks"), map(tuple, golden["short_steps"].T.tolist()), strict=True)),
        "sgd": dict(phases=sgd),
    }
    first = torch.from_numpy(golden["A"])
    windows = Sliding(context=int(golden["context"]), stride=1, batch_windows=1)
    for name in (name for name in variants if f"nll/{name}" in golden):
        found = np.full(len(ids) - 1, np.nan, np.float32)

        def on_nll(at, nll, found=found):
            found[at : at + len(nll)] = nll

        with mock.patch("pgolf.ttt.lora.init_weights", return_value=first):
            ttt = adapters(golden, optimizer=optimizer, **variants[name])
            evaluate(World.alone(), record_model(golden), ids, table, windows, ttt, on_nll=on_nll)
        expected = golden[f"nll/{name}"]
        assert found.mean() == pytest.approx(golden[f"mean/{name}"].item(), abs=1e-4), name
        assert (np.abs(found - expected) < 1e-4).mean() >= 0.98, name


def weights_of(golden: Golden) -> dict[str, np.ndarray]:
    """The weights in the file, or in the one beside it that has its sizes and visits more blocks than it has."""

    def looped(other: Golden) -> bool:
        visits = len(other.get("encoder_indices", ())) + len(other.get("decoder_indices", ()))
        return other.config == golden.config and visits > golden.config["layers"]

    return golden.under("w/") or golden.beside(looped).under("w/")


PARTS = (
    Part("score first", has("tokens", "token_bytes", "sliding", "sgd_all_params", "adamw_last2"), check_score_first),
    Part("lora forward", has("lora/*", "nll_zero_B"), check_lora_forward),
    Part("lora ttt", has("nll/all", "sgd_after_documents"), check_lora_ttt),
    Part("tilt", has("tokens", "order*"), check_tilt),
)
