"""Logits, losses and gradient norms of the published architectures, and the models that reproduce them."""

import copy
import re

import numpy as np
import pytest
import torch

from pgolf.model import GPT, BigramHash, Loop, ValueEmbedding
from pgolf.model.activation import LeakyReluSquared
from pgolf.model.attention import Causal
from pgolf.model.extras import FusedLoss, GatedSmear, Loss, PlainLoss, SparseHeadGate, TwoLanes
from pgolf.model.kinds import Skips
from pgolf.model.layers import rotary_base, rotary_tables
from pgolf.model.loss import fused_nll, plain_nll
from pgolf.model.pieces import Pieces
from pgolf.model.transformer import Transformer
from tests.goldens import Golden, Part, has

COMMON = dict(
    vocab_size=96,
    layers=5,
    width=64,
    embed_width=64,
    heads=4,
    kv_heads=2,
    mlp_hidden=192,
    activation=LeakyReluSquared(slope=0.5),
    attention=Causal(),
    head_gate=None,
    window_smear=None,
    lanes=None,
    loss=PlainLoss(),
    rope_dims=8,
    rope_base=1e4,
    rope_train_len=1024,
    qk_gain=1.5,
    xsa_layers=5,
    value_residual=False,
    value_embedding=ValueEmbedding(dim=16, layers=(3, 4), std=0.01, scale=0.1),
    bigram=BigramHash(slots=64, dim=16, scale=0.05),
    smear=True,
    ln_scale=True,
    skips=Skips.PLAIN,
    resid_mix=True,
    parallel_from=None,
    loop=None,
    tied=True,
    embed_std=0.005,
    softcap=30.0,
)
LOOPED = dict(
    layers=7,
    mlp_hidden=256,
    qk_gain=5.25,
    xsa_layers=7,
    value_embedding=None,
    bigram=None,
    smear=False,
    skips=Skips.GATED,
    parallel_from=4,
    loop=Loop(first=2, last=3, num_loops=2),
)
CASES = {
    "pr606": dict(kv_heads=4, mlp_hidden=224),
    "pr639": dict(xsa_layers=2, value_residual=True),
    "pr1129": {},
    "pr1852": LOOPED,
}
NAMES = (
    (r"^tok_emb\.", "embedding."),
    (r"^ve_shared\.", "value_embedding."),
    (r"^(bigram|value_embedding)\.embed\.", r"\1.table."),
    (r"\.attn\.c_([qkv])\.", r".attn.\1."),
    (r"\.attn\.proj\.", ".attn.out."),
    (r"\.attn\.vrl_lambda$", ".attn.value_residual"),
    (r"\.mlp\.fc\.", ".mlp.up."),
    (r"\.mlp\.proj\.", ".mlp.down."),
    (r"\.attn_gate_w$", ".head_gate.weight"),
    (r"^smear_gate\.", "window_smear."),
    (r"^smear_lambda$", "window_smear.scale"),
    (r"^parallel_resid_lambdas$", "lanes.residual"),
    (r"^parallel_post_lambdas$", "lanes.post"),
)


def our_name(public: str, value_layers: tuple[int, ...]) -> str:
    """The published scripts' name of a parameter, as pgolf calls it."""
    if (scale := re.match(r"ve_layer_scales\.(\d+)$", public)) is not None:
        return f"blocks.{value_layers[int(scale[1])]}.attn.value_embedding_scale"
    for pattern, ours in NAMES:
        public = re.sub(pattern, ours, public)
    return public


def ours(spec: GPT, published: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Entries under pgolf's names of the parameters."""
    layers = spec.value_embedding.layers if spec.value_embedding else ()
    return {our_name(name, layers): value for name, value in published.items()}


def loaded(spec: GPT, weights: dict[str, np.ndarray]):
    """The model of `spec` with published weights."""
    model = spec.build(0)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in ours(spec, weights).items()})
    return model


def by_name(golden: Golden) -> GPT:
    """The model of a file that does not state its sizes: those of the README, by the system in its name."""
    system = next(system for system in CASES if system in golden.path.stem)
    return GPT(**COMMON | CASES[system])


def by_config(config: dict, masked: bool, loss: Loss) -> GPT:
    """The record stack's model of these sizes, with the smear's mask at the beginning of documents or without."""
    changes = dict(
        vocab_size=config["vocab"],
        width=config["width"],
        embed_width=config["width"],
        layers=config["layers"],
        heads=config["heads"],
        kv_heads=config["kv_heads"],
        mlp_hidden=config["mlp_hidden"],
        rope_dims=config["rope_dims"],
        rope_base=config["rope_base"],
        rope_train_len=2**20,
        activation=LeakyReluSquared(slope=config["leaky_slope"]),
        xsa_layers=config["xsa_layers"],
        loop=Loop(first=config["loop_first"], last=config["loop_last"], num_loops=config["num_loops"]),
        lanes=TwoLanes(first=config["lanes_from"], residual=1.1),
        head_gate=SparseHeadGate(dims=config["gate_dims"], scale=config["head_gate_scale"]),
        window_smear=GatedSmear(dims=config["gate_dims"], bos=config["bos"] if masked else None),
        softcap=config["softcap"],
        loss=loss,
    )
    return GPT(**COMMON | dict(value_embedding=None, bigram=None, smear=False, skips=Skips.GATED) | changes)


def rounding(model, ids: torch.Tensor) -> float:
    """How far float32 takes this model's logits from float64 on this machine's kernels: a gain of 5.25 makes much of it."""
    with torch.no_grad():
        return (model(ids) - copy.deepcopy(model).double()(ids)).abs().max().item()


def check_model(golden: Golden) -> None:
    model = loaded(by_name(golden), golden.under("w/"))
    model.set_looping("encoder_indices" in golden)
    agree(model, golden, torch.from_numpy(golden["ids"]), torch.from_numpy(golden["targets"]), "", gradients=1e-4)
    if "encoder_indices" in golden:
        order = [*golden["encoder_indices"], *golden["decoder_indices"]]
        assert list(model.spec.order(looping=True)) == order
        assert list(model.spec.order(looping=False)) == list(range(model.spec.layers))
        assert model.spec.skip_slots == len(golden["encoder_indices"])


def agree(
    model,
    golden: Golden,
    ids: torch.Tensor,
    targets: torch.Tensor,
    prefix: str,
    gradients: float,
    pieces: Pieces | None = None,
) -> None:
    """Logits, mean loss and gradient norms under `prefix`. The reference is float32 of one processor: equal to the bit there,
    and elsewhere within what rounding does."""
    expected = torch.from_numpy(golden[f"{prefix}logits"])
    torch.testing.assert_close(model(ids, pieces), expected, atol=1e-5 + 3 * rounding(model, ids), rtol=0)
    loss = model.nll(ids, targets, pieces).mean()
    loss.backward()
    assert loss.item() == pytest.approx(golden[f"{prefix}loss"].item(), rel=1e-6)
    for name, norm in ours(model.spec, golden.under(f"{prefix}gradnorm/")).items():
        assert model.get_parameter(name).grad.norm().item() == pytest.approx(norm.item(), rel=gradients), name


def check_record(golden: Golden) -> None:
    """Whole rows, and the same rows laid end to end with attention inside pieces; both losses."""
    looping = len(golden["encoder_indices"]) + len(golden["decoder_indices"]) > golden.config["layers"]
    for loss in (PlainLoss(), FusedLoss(rows=7)):
        model = loaded(by_config(golden.config, True, loss), golden.under("w/"))
        model.set_looping(looping)
        order = [*golden["encoder_indices"], *golden["decoder_indices"]]
        assert list(model.spec.order(looping)) == order
        agree_twice(model, golden, golden, "")


def check_unmasked(golden: Golden) -> None:
    """The weights and rows of a file beside it, without the mask at the beginning of documents, loop off and on."""
    rows = golden.beside(lambda other: "w/tok_emb.weight" in other and other.config == golden.config)
    for name, looping in (("off/", False), ("on/", True)):
        model = loaded(by_config(golden.config, False, FusedLoss(rows=64)), rows.under("w/"))
        model.set_looping(looping)
        agree_twice(model, golden, rows, name)


def agree_twice(model, golden: Golden, rows: Golden, prefix: str) -> None:
    """Rows one by one, then packed."""
    bounds = torch.from_numpy(rows["packed/cu_seqlens"])
    pieces = Pieces(bounds, int(rows["packed/max_seqlen"]))
    for part, inside in (("", None), ("packed/", pieces)):
        model.zero_grad()
        ids, targets = (torch.from_numpy(rows[f"{part}{name}"]) for name in ("ids", "targets"))
        agree(model, golden, ids, targets, prefix + part, 1e-5, inside)


# In bf16, relative to float32: logits (their distance's norm), and the loss. A gain of 5.25 enlarges what rounding does.
BF16_LOGITS, BF16_LOGITS_PR1852, BF16_LOSS = 0.03, 0.1, 3e-3


def check_bf16(golden: Golden, device: str) -> None:
    """A published model in the dtype of a GPU run, within the stated tolerances of its float32 logits and loss."""
    with_pieces = "packed/logits" in golden
    spec = by_config(golden.config, True, PlainLoss()) if with_pieces else by_name(golden)
    model = Transformer(spec, torch.bfloat16)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in ours(spec, golden.under("w/")).items()})
    model.to(device).set_looping("encoder_indices" in golden and "loop_on" in golden.path.stem)
    ids, targets, expected = (torch.from_numpy(golden[name]).to(device) for name in ("ids", "targets", "logits"))
    with torch.no_grad():
        apart = ((model(ids) - expected).norm() / expected.norm()).item()
        loss = model.nll(ids, targets).mean().item()
    assert apart < (BF16_LOGITS_PR1852 if "pr1852" in golden.path.stem else BF16_LOGITS)
    assert loss == pytest.approx(golden["loss"].item(), rel=BF16_LOSS)


def check_loss(golden: Golden) -> None:
    """Nats of every target and the gradient of their mean, in float64 as in float32, by both forms."""
    cap, targets = golden["softcap"].item(), torch.from_numpy(golden["targets"])
    C_form, sigmoid_form = golden["losses"], golden["losses_sigmoid_form"]
    np.testing.assert_allclose(C_form, sigmoid_form, rtol=1e-12)
    for nll in (plain_nll, lambda *args: fused_nll(*args, rows=2)):
        x = torch.from_numpy(golden["logits"]).requires_grad_()
        losses = nll(x, targets, cap)
        (grad,) = torch.autograd.grad(losses.mean(), x)
        np.testing.assert_allclose(losses.detach(), C_form, rtol=1e-12 if losses.dtype == torch.float64 else 2e-6)
        np.testing.assert_allclose(grad, golden["grad_of_mean"], atol=1e-12 if losses.dtype == torch.float64 else 1e-7)


def check_rotary(golden: Golden) -> None:
    names = ("base", "rope_dims", "seq_len", "train_seq_len")
    start, dims, length, trained = (golden[name].item() for name in names)
    tables = rotary_tables(length, dims, rotary_base(float(start), dims, length, trained), torch.device("cpu"))
    for table, name in zip(tables, ("cos", "sin"), strict=True):
        torch.testing.assert_close(table, torch.from_numpy(golden[name])[0], atol=1e-6, rtol=0)


def _without_config(keys: set[str], _: str) -> bool:
    return has("w/*", "logits", "loss", "gradnorm/*")(keys, "") and "config" not in keys


PARTS = (
    Part("model", _without_config, check_model),
    Part("model", lambda keys, _: has("w/*", "logits", "packed/logits", "config")(keys, ""), check_record),
    Part("model", has("off/logits", "on/packed/logits", "config"), check_unmasked),
    Part("loss", has("logits", "losses", "grad_of_mean"), check_loss),
    Part("rotary", has("cos", "sin", "rope_dims"), check_rotary),
)
