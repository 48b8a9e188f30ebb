"""The model group against reference logits, losses and gradient norms of the published architectures."""

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from pgolf.model import GPT, BigramHash, Loop, ValueEmbedding
from pgolf.model.activation import LeakyReluSquared
from pgolf.model.attention import Causal
from pgolf.model.kinds import Skips
from pgolf.model.layers import rotary_base, rotary_tables

torch.set_num_threads(1)

DATA = Path(__file__).parent / "data"
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
    "pr606_mha": dict(kv_heads=4, mlp_hidden=224),
    "pr639_vrl": dict(xsa_layers=2, value_residual=True),
    "pr1129_gqa": {},
    "pr1852_loop_off": LOOPED,
    "pr1852_loop_on": LOOPED,
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


def prefixed(golden: dict, prefix: str, spec: GPT) -> dict[str, np.ndarray]:
    layers = spec.value_embedding.layers if spec.value_embedding else ()
    return {our_name(k.removeprefix(prefix), layers): v for k, v in golden.items() if k.startswith(prefix)}


def load(case: str):
    with np.load(DATA / f"model_{case}.npz") as file:
        golden = {k: file[k] for k in file.files}
    spec = GPT(**COMMON | CASES[case])
    model = spec.build(0)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in prefixed(golden, "w/", spec).items()})
    model.set_looping(case.endswith("_on"))
    return golden, model


def rounding(model, ids: torch.Tensor) -> float:
    """How far float32 takes this model's logits from float64 on this machine's kernels: a gain of 5.25 makes much of it."""
    with torch.no_grad():
        return (model(ids) - copy.deepcopy(model).double()(ids)).abs().max().item()


@pytest.mark.parametrize("case", CASES)
def test_logits_loss_and_gradients_match_the_published_script(case):
    golden, model = load(case)
    ids, targets = torch.from_numpy(golden["ids"]), torch.from_numpy(golden["targets"])
    # The reference is float32 of one processor: equal to the bit there, and elsewhere within what rounding does.
    torch.testing.assert_close(
        model(ids), torch.from_numpy(golden["logits"]), atol=1e-5 + 3 * rounding(model, ids), rtol=0
    )
    loss = model.nll(ids, targets).mean()
    loss.backward()
    assert loss.item() == pytest.approx(golden["loss"].item(), rel=1e-6)
    for name, norm in prefixed(golden, "gradnorm/", model.spec).items():
        assert model.get_parameter(name).grad.norm().item() == pytest.approx(norm.item(), rel=1e-4), name


def test_the_looped_order_is_the_published_one():
    golden, model = load("pr1852_loop_on")
    order = [*golden["encoder_indices"], *golden["decoder_indices"]]
    assert list(model.spec.order(looping=True)) == order
    assert list(model.spec.order(looping=False)) == list(range(7))
    assert model.spec.skip_slots == len(golden["encoder_indices"])


def test_stretched_rotary_tables():
    with np.load(DATA / "rotary_ntk.npz") as golden:
        base = rotary_base(
            float(golden["base"]), int(golden["rope_dims"]), int(golden["seq_len"]), int(golden["train_seq_len"])
        )
        tables = rotary_tables(int(golden["seq_len"]), int(golden["rope_dims"]), base, torch.device("cpu"))
        for table, name in zip(tables, ("cos", "sin"), strict=True):
            expected = torch.from_numpy(golden[name])[0]
            torch.testing.assert_close(table, expected, atol=1e-6, rtol=0)
