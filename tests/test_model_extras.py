"""Head gates, window smear, two lanes, the fused loss and the wide head: slow references, invariants, what cannot be."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pgolf.errors import ConfigError
from pgolf.model import Loop
from pgolf.model.attention import Causal
from pgolf.model.extras import FusedLoss, GatedSmear, SparseHeadGate, TwoLanes
from pgolf.model.gates import SmearGate, SparseGate
from pgolf.model.kinds import Role, Skips
from pgolf.model.layers import gated_heads, rms_norm
from pgolf.model.loss import capped, fused_nll, plain_nll
from pgolf.model.pieces import Pieces
from pgolf.model.product import WideProduct, head_product
from tests.options import option
from tests.test_model import lively, spec, tokens

torch.set_num_threads(1)

RECORD = dict(
    layers=6,
    value_embedding=None,
    bigram=None,
    smear=False,
    skips=Skips.GATED,
    xsa_layers=6,
    loop=Loop(first=2, last=3, num_loops=2),
    head_gate=SparseHeadGate(dims=12, scale=0.5),
    window_smear=GatedSmear(dims=12, bos=1),
    lanes=TwoLanes(first=4, residual=1.1),
)


def test_whole_rows_and_pieces_of_them_are_attended_alike():
    attention, g = Causal().build(), torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 12, heads, 8, generator=g) for heads in (4, 2, 2))
    inside = attention(q, k, v, Pieces(torch.tensor([0, 5, 12, 12], dtype=torch.int32), 7))
    apart = [attention(q[:, a:b], k[:, a:b], v[:, a:b], None) for a, b in ((0, 5), (5, 12))]
    torch.testing.assert_close(inside, torch.cat(apart, 1))
    assert spec().attention == Causal()


def test_the_published_number_of_parameters():
    assert option("model/pr1855", vocab_size=8192).parameters_count() == 35_945_671


def test_what_is_new_belongs_to_the_scalars_and_starts_as_published():
    model = spec(**RECORD).build(0)
    roles = model.roles()
    new = [name for name in roles if "gate.weight" in name or name.startswith(("lanes", "window_smear"))]
    assert len(new) == 6 + 2 + 2
    assert {roles[name] for name in new} == {Role.SCALAR}
    assert (model.lanes.residual == 1.1).all()
    assert (model.lanes.post == 1).all()
    assert (model.blocks[0].attn.head_gate(torch.randn(2, 5, 64)) == 0.5).all()
    e = torch.randn(2, 5, 64)
    assert torch.equal(model.window_smear(e, tokens(2, 5)), e)  # λ = 0


def test_gates_are_what_their_formulas_say():
    gate, y, n = SparseGate(3, 4, 0.5), torch.randn(2, 5, 3, 6), torch.randn(2, 5, 8)
    smear, ids = SmearGate(4, 1), torch.tensor([[7, 1, 3, 1, 2], [1, 2, 3, 4, 5]])
    with torch.no_grad():
        gate.weight.copy_(torch.randn(3, 4))
        smear.weight.copy_(torch.randn(1, 4))
        smear.scale.fill_(0.7)
    for b in range(2):
        for t in range(5):
            for h in range(3):
                g = torch.sigmoid(0.5 * (gate.weight[h] * n[b, t, :4]).sum())
                torch.testing.assert_close(gated_heads(y, None, gate(n))[b, t, h], g * y[b, t, h])
            expected = n[b, t]
            if t and ids[b, t] != 1:
                expected = expected + 0.7 * torch.sigmoid((smear.weight[0] * n[b, t, :4]).sum()) * n[b, t - 1]
            torch.testing.assert_close(smear(n, ids)[b, t], expected)


def test_nothing_leaks_from_the_document_before_but_where_the_mask_is_off():
    """Change the last token of the document before: with pieces and the mask nothing after the boundary moves."""
    ids = torch.tensor([[1, 5, 6, 7, 1, 8, 9, 10]])
    other, inside = ids.clone(), Pieces(torch.tensor([0, 4, 8], dtype=torch.int32), 4)
    other[0, 3] = 50
    for bos, leaks in ((1, False), (None, True)):
        model = lively(spec(**RECORD | dict(window_smear=GatedSmear(dims=12, bos=bos))))
        with torch.no_grad():
            before, after = model(ids, inside)[0, 4:], model(other, inside)[0, 4:]
        assert torch.equal(before, after) != leaks


def test_two_lanes_are_what_their_formulas_say():
    """The last blocks written out, in float64."""
    model = lively(spec(**RECORD | dict(loop=None, softcap=None))).double()
    model.dtype, seen = torch.float64, {}
    model.set_looping(False)
    ids = tokens(2, 12)
    model.blocks[3].register_forward_hook(lambda block, args, out: seen.update(x=out, shared=args[1]))
    made = model(ids)
    x, shared, order = seen["x"], seen["shared"], model.spec.order(False)
    encoded = []
    hooks = [b.register_forward_hook(lambda block, args, out: encoded.append(out)) for b in model.blocks[:3]]
    model(ids)
    for hook in hooks:
        hook.remove()
    lane = [x, x]
    for i in (4, 5):
        block, skip, slot = model.blocks[i], encoded[5 - i], i - len(order) // 2
        w, g = model.skip_weights[slot] * skip, model.skip_gates[slot].sigmoid()
        lane[0] = w + g * (lane[0] - w)
        mix, mix0 = block.resid_mix
        a = block.attn_scale * block.attn(rms_norm(mix * lane[0] + mix0 * shared.x0) * block.norm_gain, shared, None)
        m = block.mlp_scale * block.mlp(rms_norm(lane[1]) * block.norm_gain)
        rho, pi = model.lanes.residual[i], model.lanes.post[i]
        lane = [rho[j] * lane[j] + pi[0, j] * a + pi[1, j] * m for j in (0, 1)]
    expected = rms_norm((lane[0] + lane[1]) / 2) @ model.embedding.weight.T
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)  # norms are float32


@pytest.mark.parametrize("last", [1, 5, 16, 32])
def test_scoring_the_last_positions_alone_is_the_full_pass(last):
    model, ids = lively(spec(**RECORD)), tokens(2, 32)
    with torch.no_grad():
        assert torch.equal(model.logits(ids, last=last), model(ids)[:, -last:])


@settings(max_examples=25)
@given(
    st.integers(1, 20), st.integers(2, 30), st.integers(1, 25), st.sampled_from([None, 3.0, 30.0]), st.integers(0, 99)
)
def test_the_fused_loss_is_the_plain_one(N, V, rows, cap, seed):
    g = torch.Generator().manual_seed(seed)
    x, y = 20 * torch.randn(N, V, generator=g), torch.randint(V, (N,), generator=g)
    weights, grads = torch.randn(N, generator=g), []
    for nll in (plain_nll, lambda *args: fused_nll(*args, rows)):
        leaf = x.clone().requires_grad_()
        losses = nll(leaf, y, cap)
        grads.append((losses.detach(), *torch.autograd.grad((losses * weights).sum(), leaf)))
    torch.testing.assert_close(grads[0][0], grads[1][0], rtol=0, atol=0)
    torch.testing.assert_close(grads[0][1], grads[1][1], rtol=1e-5, atol=1e-6)


def test_the_fused_loss_keeps_the_scores_alone_and_repeats_to_the_bit():
    x, y, kept = torch.randn(64, 32, requires_grad=True), torch.randint(32, (64,)), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        loss = fused_nll(x, y, 30.0, 16).mean()
    assert sum(t.numel() for t in kept if t.is_floating_point()) <= x.numel() + 1
    (first,) = torch.autograd.grad(loss, x)
    (again,) = torch.autograd.grad(fused_nll(x, y, 30.0, 16).mean(), x)
    assert torch.equal(first, again)
    assert torch.autograd.gradcheck(lambda t: fused_nll(t, y[:4], 3.0, 3), x[:4].detach().double().requires_grad_())


def test_the_head_multiplies_bfloat16_into_float32():
    h, W = torch.randn(2, 6, 32).bfloat16().requires_grad_(), torch.randn(40, 32, requires_grad=True)
    scores = head_product(h, W)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, (h.float() @ W.bfloat16().float().mT).detach())
    assert not torch.equal(scores, scores.bfloat16().float())
    grad = torch.randn_like(scores)
    dh, dW = torch.autograd.grad(scores, (h, W), grad)
    assert (dh.dtype, dW.dtype) == (torch.bfloat16, torch.float32)
    near = grad.bfloat16().float().flatten(0, 1)
    torch.testing.assert_close(dW, near.mT @ h.float().flatten(0, 1))
    torch.testing.assert_close(dh.float().flatten(0, 1), near @ W.bfloat16().float(), rtol=2e-2, atol=5e-2)
    plain, wide = F.linear(h.float(), W), head_product(h.float(), W)
    assert torch.equal(plain, wide)
    assert WideProduct.apply(h.flatten(0, 1), W).shape == (12, 40)
    assert capped(scores, None) is scores


def test_it_learns():
    model, ids = spec(**RECORD | dict(loss=FusedLoss(rows=16))).build(0), tokens(2, 33)
    model.set_looping(True)
    optimiser, losses = torch.optim.Adam(model.parameters(), lr=3e-3), []
    for _ in range(30):
        loss = model.nll(ids[:, :-1], ids[:, 1:]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert (model.lanes.residual[4:] != 1.1).all()
    assert (model.window_smear.weight != 0).any()
    assert all((block.attn.head_gate.weight != 0).any() for block in model.blocks)


@pytest.mark.parametrize(
    ("changes", "key", "allowed"),
    [
        (dict(lanes=TwoLanes(first=3, residual=1.0)), "model.lanes.first", "above model.loop.last"),
        (dict(lanes=TwoLanes(first=6, residual=1.0)), "model.lanes.first", "between 0 and 5, the last block"),
        (dict(lanes=TwoLanes(first=-1, residual=1.0)), "model.lanes.first", "between 0 and 5, the last block"),
        (dict(loop=None, lanes=TwoLanes(first=2, residual=1.0)), "model.lanes.first", "in the second half"),
        (dict(parallel_from=5), "model.parallel_from", "null where there are lanes"),
        (dict(head_gate=SparseHeadGate(dims=65, scale=0.5)), "model.head_gate.dims", r"at most model.width \(64\)"),
        (dict(window_smear=GatedSmear(dims=65, bos=1)), "model.window_smear.dims", "at most model.embed_width"),
        (dict(window_smear=GatedSmear(dims=12, bos=96)), "model.window_smear.bos", "null or an id below"),
    ],
)
def test_what_cannot_be_is_refused(changes, key, allowed):
    with pytest.raises(ConfigError, match=allowed) as wrong:
        spec(**RECORD | changes)
    assert wrong.value.key == key


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: SparseHeadGate(dims=0, scale=0.5), "model.head_gate.dims"),
        (lambda: SparseHeadGate(dims=1, scale=0.0), "model.head_gate.scale"),
        (lambda: GatedSmear(dims=0, bos=1), "model.window_smear.dims"),
        (lambda: FusedLoss(rows=0), "model.loss.rows"),
    ],
)
def test_numbers_are_checked(make, key):
    with pytest.raises(ConfigError, match=key):
        make()


def test_another_token_for_the_beginning_of_documents_is_refused():
    model = spec(**RECORD)
    model.check_bos(1)
    replace(model, window_smear=GatedSmear(dims=12, bos=None)).check_bos(3)
    with pytest.raises(ConfigError, match=r"model\.window_smear\.bos=1: must be 3"):
        model.check_bos(3)
