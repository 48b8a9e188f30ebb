"""The model group: exact parameter counts, causality, partial scoring, slow references, determinism, impossible configs."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pgolf.errors import ConfigError
from pgolf.model import GPT, BigramHash, Loop, ValueEmbedding
from pgolf.model.activation import LeakyReluSquared
from pgolf.model.kinds import Role, Skips
from pgolf.model.layers import Linear, Smear, bigram_slots, exclusive_self_attention, rms_norm, rotary_base, rotate
from pgolf.model.pieces import attend
from tests.goldens.models import COMMON, LOOPED
from tests.options import option

COUNTS = {
    "baseline": (1024, 17_059_912),
    "pr606": (1024, 33_580_124),
    "pr639": (1024, 27_124_848),
    "pr1129": (1024, 26_993_756),
    "pr1852": (8192, 35_944_536),
}
PLAIN = dict(value_embedding=None, bigram=None, smear=False, skips=Skips.NONE, resid_mix=False, ln_scale=False)
VARIANTS = {
    "everything": dict(value_residual=True),
    "looped": LOOPED | dict(loop=Loop(first=1, last=6, num_loops=1), value_residual=True),
    "plain": PLAIN | dict(layers=1, xsa_layers=0, rope_dims=0, softcap=None, activation=LeakyReluSquared(slope=0.0)),
    "narrow embedding, untied": dict(embed_width=32, tied=False, skips=Skips.GATED, parallel_from=0),
}


def spec(**changes: object) -> GPT:
    return GPT(**COMMON | changes)


def lively(model_spec: GPT, seed: int = 0):
    """A model whose every parameter matters: the zeros and ones of the first values are disturbed."""
    model = model_spec.build(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    model.set_looping(True)
    return model


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 96, shape, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize(("name", "vocab_size", "count"), [(k, *v) for k, v in COUNTS.items()])
def test_published_parameter_counts(name, vocab_size, count):
    assert option(f"model/{name}", vocab_size=vocab_size).parameters_count() == count


@pytest.mark.parametrize(("name", "count"), [("pr606", 5_780_500), ("pr1129", 4_731_924)])
def test_names_select_what_published_test_time_training_adapts(name, count):
    model = option(f"model/{name}", vocab_size=1024).outline()
    chosen = [p for n, p in model.named_parameters() if n.startswith(("blocks.9.", "blocks.10.")) or "scale" in n]
    assert sum(p.numel() for p in chosen) == count


def test_tiny_trains_on_a_repeated_text():
    model = option("model/tiny", vocab_size=96).build(0)
    ids = tokens(2, 65)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = model.nll(ids[:, :-1], ids[:, 1:]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(torch.tensor(96.0).log().item(), abs=0.05)  # small scores: nearly uniform
    assert losses[-1] < 2.0


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_equal_seeds_give_equal_bits(changes):
    first, second = (spec(**changes).build(5) for _ in range(2))
    other = spec(**changes).build(6)
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert not torch.equal(first.embedding.weight, other.embedding.weight)
    assert torch.equal(first(tokens(2, 16)), second(tokens(2, 16)))


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_no_logit_sees_a_later_token(changes):
    model, ids = lively(spec(**changes)), tokens(2, 24)
    with torch.inference_mode():
        before = model(ids)
        for t in (1, 11, 23):
            changed = ids.clone()
            changed[:, t] = (changed[:, t] + 1) % 96
            after = model(changed)
            assert torch.equal(before[:, :t], after[:, :t])
            assert not torch.equal(before[:, t], after[:, t])


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_scoring_the_last_positions_gives_the_bits_of_the_full_pass(changes):
    model, ids = lively(spec(**changes)), tokens(3, 113)
    ids, targets = ids[:, :-1], ids[:, 1:]
    with torch.inference_mode():
        full = model.nll(ids, targets)
        for last in (1, 2, 15, 16, 17, 32, 64, 111, 112):
            assert torch.equal(model.nll(ids, targets, last=last), full[:, -last:]), last


def test_odd_lengths_score_the_same_within_rounding():
    model, ids = lively(spec()), tokens(2, 102)
    full = model.nll(ids[:, :-1], ids[:, 1:])
    torch.testing.assert_close(model.nll(ids[:, :-1], ids[:, 1:], last=7), full[:, -7:], atol=1e-5, rtol=0)


def test_the_last_positions_cost_less():
    model, ids = spec().build(0), tokens(2, 65)
    rows = []
    watched = (model.head, model.blocks[-1].mlp.up, model.blocks[-1].attn.q, model.blocks[-1].attn.out)
    for module in watched:
        module.register_forward_pre_hook(lambda _, args: rows.append(args[0].shape[1]))
    model.nll(ids[:, :-1], ids[:, 1:], last=16)
    assert rows == [16] * len(watched)


def test_loss_is_the_cross_entropy_of_the_logits():
    model, ids = lively(spec()), tokens(2, 17)
    chosen = model(ids[:, :-1]).log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    torch.testing.assert_close(model.nll(ids[:, :-1], ids[:, 1:]), -chosen)


def test_softcap_bounds_the_logits_and_null_does_not():
    ids = tokens(1, 16)
    loud = {on: lively(spec(softcap=on)) for on in (0.5, None)}
    assert loud[0.5](ids).abs().max() <= 0.5 < loud[None](ids).abs().max()


def test_recurrence_switches_without_rebuilding():
    model, ids = lively(spec(**LOOPED)), tokens(2, 16)
    on = model(ids)
    model.set_looping(False)
    off = model(ids)
    model.set_looping(True)
    assert torch.equal(on, model(ids))
    assert not torch.allclose(on, off)


@given(
    layers=st.integers(1, 9),
    first=st.integers(0, 8),
    length=st.integers(1, 9),
    num_loops=st.integers(1, 3),
)
def test_every_order_visits_every_block_and_pairs_every_skip(layers, first, length, num_loops):
    first = min(first, layers - 1)
    last = min(first + length, layers) - 1
    model_spec = spec(
        layers=layers, xsa_layers=0, value_embedding=None, loop=Loop(first=first, last=last, num_loops=num_loops)
    )
    order = model_spec.order(looping=True)
    visits = [order.count(i) for i in range(layers)]
    assert visits == [num_loops + 1 if first <= i <= last else 1 for i in range(layers)]
    assert model_spec.skip_slots == min(len(order) // 2, len(order) - len(order) // 2)


def slow_unet(model, ids):
    """The stream written as in the description, one vector statement at a time, with naive attention."""
    s, w = model.spec, dict(model.named_parameters())
    norm = lambda x: x / (x.pow(2).mean(-1, keepdim=True) + 1.1920929e-07).sqrt()  # noqa: E731
    x = x0 = norm(w["embedding.weight"][ids])
    order = s.order(model.looping)
    half, stack, v_first = len(order) // 2, [], None
    for turn, i in enumerate(order):
        p = {k.removeprefix(f"blocks.{i}."): v for k, v in w.items() if k.startswith(f"blocks.{i}.")}
        if turn >= half and stack:
            skip, g = w["skip_weights"][turn - half] * stack.pop(), w["skip_gates"][turn - half].sigmoid()
            x = skip * (1 - g) + x * g
        x = p["resid_mix"][0] * x + p["resid_mix"][1] * x0
        n = norm(x) / (i + 1) ** 0.5
        B, T, _ = x.shape
        q = norm((n @ p["attn.q.weight"].T).view(B, T, s.heads, -1)) * p["attn.q_gain"][:, None]
        k = norm((n @ p["attn.k.weight"].T).view(B, T, s.kv_heads, -1))
        v = (n @ p["attn.v.weight"].T).view(B, T, s.kv_heads, -1)
        v_first = v if v_first is None else v_first
        if i > 0:
            v = p["attn.value_residual"][0] * v_first + p["attn.value_residual"][1] * v
        heads = []
        for h in range(s.heads):
            kv = h // (s.heads // s.kv_heads)
            scores = q[:, :, h] @ k[:, :, kv].transpose(1, 2) / s.head_dim**0.5
            scores = scores.masked_fill(torch.ones(T, T).triu(1).bool(), float("-inf"))
            y = scores.softmax(-1) @ v[:, :, kv]
            unit = v[:, :, kv] / v[:, :, kv].norm(dim=-1, keepdim=True)
            heads.append(y - (y * unit).sum(-1, keepdim=True) * unit if i >= s.layers - s.xsa_layers else y)
        attended = p["attn_scale"] * (torch.cat(heads, -1) @ p["attn.out.weight"].T)
        m = n if i >= s.parallel_from else norm(x + attended) / (i + 1) ** 0.5
        u = m @ p["mlp.up.weight"].T
        x = x + attended + p["mlp_scale"] * (torch.where(u > 0, u, 0.5 * u).pow(2) @ p["mlp.down.weight"].T)
        if turn < half:
            stack.append(x)
    return s.softcap * torch.tanh(norm(x) @ w["embedding.weight"].T / s.softcap)


@pytest.mark.parametrize("num_loops", [1, 3])
def test_looped_value_residual_stack_agrees_with_a_slow_reference(num_loops):
    loop = Loop(first=0, last=2, num_loops=num_loops)
    model = lively(spec(**LOOPED | dict(rope_dims=0, xsa_layers=3, value_residual=True, loop=loop, qk_gain=1.5)))
    ids = tokens(2, 12)
    torch.testing.assert_close(model(ids), slow_unet(model, ids), atol=2e-4, rtol=1e-4)


@settings(max_examples=20)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5))
def test_exclusive_self_attention_leaves_nothing_along_the_own_value(groups, kv_heads, T):
    y, v = torch.randn(2, T, kv_heads * groups, 8), torch.randn(2, T, kv_heads, 8)
    left = exclusive_self_attention(y, v).view(2, T, kv_heads, groups, 8)
    assert torch.einsum("btkgd,btkd->btkg", left, v).abs().max() < 1e-4


def test_exclusive_self_attention_survives_a_zero_value():
    y, v = torch.randn(1, 2, 4, 8, requires_grad=True), torch.zeros(1, 2, 2, 8, requires_grad=True)
    out = exclusive_self_attention(y, v)
    out.sum().backward()
    assert torch.equal(out, y)
    assert y.grad.isfinite().all()
    assert v.grad.isfinite().all()


def test_smear_takes_from_the_position_before():
    smear = Smear(4)
    with torch.no_grad():
        smear.gate.copy_(torch.tensor([0.0, 1.0, -1.0, 3.0]))
    x, g = torch.randn(2, 5, 4), smear.gate.sigmoid()
    slow = torch.stack([(1 - g) * x[:, t] + (g * x[:, t - 1] if t else 0) for t in range(5)], 1)
    torch.testing.assert_close(smear(x), slow)


@given(st.lists(st.integers(0, 65_535), min_size=1, max_size=9), st.integers(2, 8192))
def test_bigram_slots_wrap_like_int32(ids, slots):
    def slow(t: int) -> int:
        wrap = lambda n: (n + 2**31) % 2**32 - 2**31  # noqa: E731
        return (wrap(36313 * ids[t]) ^ wrap(27191 * ids[t - 1])) % (slots - 1) if t else slots - 1

    assert bigram_slots(torch.tensor([ids]), slots)[0].tolist() == [slow(t) for t in range(len(ids))]


def test_rotation_keeps_norms_and_sees_only_distances():
    angles = torch.outer(torch.arange(6.0), torch.tensor([1.0, 0.1]))[:, None]
    q, k = torch.randn(2, 1, 1, 1, 10).expand(2, 1, 6, 1, 10).unbind(0)
    turned_q, turned_k = (rotate(x, angles.cos(), angles.sin()) for x in (q, k))
    torch.testing.assert_close(turned_q.norm(dim=-1), q.norm(dim=-1))
    assert torch.equal(turned_q[..., 4:], q[..., 4:])
    products = turned_q[0, :, 0] @ turned_k[0, :, 0].T
    torch.testing.assert_close(products[1:, 1:], products[:-1, :-1], atol=1e-5, rtol=1e-5)


def test_long_texts_run_on_the_stretched_base():
    stretched, ids = lively(spec(rope_train_len=20)), tokens(1, 40)
    by_hand = lively(spec(rope_base=1e4 * 2 ** (8 / 6)))
    assert torch.equal(stretched(ids), by_hand(ids))
    assert torch.equal(stretched(ids[:, :20]), lively(spec())(ids[:, :20]))


def test_worked_examples():
    torch.testing.assert_close(rms_norm(torch.tensor([3.0, 4.0])), torch.tensor([0.8485, 1.1314]), atol=1e-4, rtol=0)
    assert round(rotary_base(1e4, 16, 2048, 1024)) == 22_082
    assert rotary_base(1e4, 16, 1024, 1024) == 1e4
    x = torch.randn(3, 5, 64)
    torch.testing.assert_close(rms_norm(x), F.rms_norm(x, (64,)))


def test_fewer_queries_are_the_last_positions():
    q, k, v = torch.randn(2, 20, 4, 8), torch.randn(2, 20, 2, 8), torch.randn(2, 20, 2, 8)
    torch.testing.assert_close(attend(q[:, -5:], k, v), attend(q, k, v)[:, -5:])


def test_init_weights():
    model = option("model/tiny", vocab_size=96).build(0)
    q = model.blocks[0].attn.q.weight
    torch.testing.assert_close(q @ q.T, torch.eye(128), atol=1e-5, rtol=0)
    narrow = model.bigram.proj.weight
    torch.testing.assert_close(narrow.T @ narrow, torch.eye(64) / 8, atol=1e-5, rtol=0)
    for block in model.blocks:
        assert not block.attn.out.weight.any()
        assert not block.mlp.down.weight.any()
    assert not model.bigram.table.weight.any()
    assert model.embedding.weight.std().item() == pytest.approx(0.005, rel=0.05)
    assert model.value_embedding.table.weight.std().item() == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_every_parameter_has_a_role_and_a_section(changes):
    model = lively(spec(**changes))
    roles, sections = model.roles(), model.sections()
    assert list(roles) == list(sections) == [name for name, _ in model.named_parameters()]
    assert list(model.state_dict()) == list(roles)
    assert all(model.get_parameter(name).ndim == 2 for name, role in roles.items() if role is not Role.SCALAR)
    assert {n for n, r in roles.items() if r is Role.SCALAR} == {n for n, s in sections.items() if s == "control"}
    model.nll(tokens(2, 16), tokens(2, 16)).mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_roles_by_name():
    roles, sections = (
        f(spec(tied=False, embed_width=32).outline()) for f in (lambda m: m.roles(), lambda m: m.sections())
    )
    for name in ("embedding.weight", "head.weight", "bigram.table.weight", "value_embedding.table.weight"):
        assert (roles[name], sections[name]) == (Role.EMBEDDING, "embedding")
    for name in ("bigram.proj.weight", "value_embedding.proj.weight", "embed_proj.weight", "head_proj.weight"):
        assert (roles[name], sections[name]) == (Role.MATRIX, "embedding")
    assert (roles["blocks.0.attn.q.weight"], sections["blocks.0.attn.q.weight"]) == (Role.MATRIX, "attention")
    assert (roles["blocks.0.mlp.down.weight"], sections["blocks.0.mlp.down.weight"]) == (Role.MATRIX, "mlp")
    assert (roles["blocks.0.resid_mix"], sections["blocks.0.resid_mix"]) == (Role.SCALAR, "control")


def test_fake_quant_replaces_the_weight_in_use():
    class Zero(torch.nn.Module):
        def forward(self, weight):
            return 0 * weight

    layer = Linear(3, 2)
    torch.nn.init.ones_(layer.weight)
    assert layer(torch.ones(1, 3)).tolist() == [[3, 3]]
    layer.fake_quant = Zero()
    assert not layer(torch.ones(1, 3)).any()


def test_bfloat16_stream_keeps_float32_losses_and_masters():
    model, ids = lively(spec()), tokens(2, 33)
    exact = model.nll(ids[:, :-1], ids[:, 1:])
    model.dtype = torch.bfloat16
    rough = model.nll(ids[:, :-1], ids[:, 1:])
    rough.mean().backward()
    assert rough.dtype == torch.float32
    assert rough.mean().item() == pytest.approx(exact.mean().item(), rel=0.02)
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())


def test_flops_count_looped_visits_and_never_lookups():
    model_spec = spec(**LOOPED)
    per_block = 6 * (2 * 64 * 64 + 2 * 64 * 32 + 2 * 64 * 256) + 12 * 64 * 128
    assert model_spec.flops_per_token(128, looping=False) == 7 * per_block + 6 * 96 * 64
    assert model_spec.flops_per_token(128, looping=True) == 11 * per_block + 6 * 96 * 64
    bigger_table = spec(bigram=BigramHash(slots=640, dim=16, scale=0.05))
    assert bigger_table.flops_per_token(128, True) == spec().flops_per_token(128, True)
    seen = sum(p.numel() for n, p in spec().outline().named_parameters() if p.ndim == 2 and "." in n)
    lookups = 16 * (64 + 96) + sum(2 * 64 for _ in range(5))  # two tables; resid_mix is no matrix
    assert spec().flops_per_token(0, False) == 6 * (seen - lookups)


BAD = {
    "heads": dict(heads=5),
    "kv_heads": dict(kv_heads=3),
    "rope_dims": dict(rope_dims=7),
    "rope_base": dict(rope_base=0.0),
    "rope_train_len": dict(rope_train_len=0),
    "xsa_layers": dict(xsa_layers=6),
    "parallel_from": dict(parallel_from=5),
    "embed_std": dict(embed_std=-1.0),
    "softcap": dict(softcap=0.0),
    "layers": dict(layers=0),
    "vocab_size": dict(vocab_size=0),
    "loop.last": dict(loop=Loop(first=1, last=5, num_loops=1)),
    "value_embedding.layers": dict(value_embedding=ValueEmbedding(dim=16, layers=(3, 5), std=0.01, scale=0.1)),
}


@pytest.mark.parametrize(("key", "changes"), BAD.items(), ids=BAD)
def test_impossible_models_are_refused_by_key(key, changes):
    with pytest.raises(ConfigError, match=r"model\.[a-z_.]+=.*must be") as error:
        spec(**changes)
    assert error.value.key == f"model.{key}"


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("model.bigram.slots", lambda: BigramHash(slots=1, dim=16, scale=0.05)),
        ("model.bigram.dim", lambda: BigramHash(slots=64, dim=0, scale=0.05)),
        ("model.value_embedding.dim", lambda: ValueEmbedding(dim=0, layers=(1,), std=0.01, scale=0.1)),
        ("model.value_embedding.layers", lambda: ValueEmbedding(dim=16, layers=(2, 1), std=0.01, scale=0.1)),
        ("model.value_embedding.std", lambda: ValueEmbedding(dim=16, layers=(1,), std=-0.01, scale=0.1)),
        ("model.activation.slope", lambda: LeakyReluSquared(slope=-0.5)),
        ("model.activation.slope", lambda: LeakyReluSquared(slope=1.5)),
        ("model.loop.first", lambda: Loop(first=-1, last=2, num_loops=1)),
        ("model.loop.last", lambda: Loop(first=3, last=2, num_loops=1)),
        ("model.loop.num_loops", lambda: Loop(first=1, last=2, num_loops=0)),
    ],
)
def test_impossible_parts_are_refused_by_key(key, part):
    with pytest.raises(ConfigError) as error:
        part()
    assert error.value.key == key


def test_components_are_known_without_torch():
    code = "import sys, pgolf.model; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_copy_with_other_numbers_is_checked_too():
    with pytest.raises(ConfigError):
        replace(spec(), heads=7)
