"""Logits, losses and gradient norms of the published architectures, and the models that reproduce them."""

import copy
import re

import numpy as np
import pytest
import torch

from pgolf.model import GPT, BigramHash, Loop, ValueEmbedding
from pgolf.model.activation import LeakyReluSquared
from pgolf.model.attention import Causal
from pgolf.model.kinds import Skips
from pgolf.model.layers import rotary_base, rotary_tables
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


def agree(model, golden: Golden, ids: torch.Tensor, targets: torch.Tensor, prefix: str, gradients: float) -> None:
    """Logits, mean loss and gradient norms under `prefix`. The reference is float32 of one processor: equal to the bit there,
    and elsewhere within what rounding does."""
    expected = torch.from_numpy(golden[f"{prefix}logits"])
    torch.testing.assert_close(model(ids), expected, atol=1e-5 + 3 * rounding(model, ids), rtol=0)
    loss = model.nll(ids, targets).mean()
    loss.backward()
    assert loss.item() == pytest.approx(golden[f"{prefix}loss"].item(), rel=1e-6)
    for name, norm in ours(model.spec, golden.under(f"{prefix}gradnorm/")).items():
        assert model.get_parameter(name).grad.norm().item() == pytest.approx(norm.item(), rel=gradients), name


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
    Part("rotary", has("cos", "sin", "rope_dims"), check_rotary),
)
