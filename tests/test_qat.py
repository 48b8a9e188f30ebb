"""Quantisation-aware training: the export's own range and steps, and a switch that compiled code obeys."""

import doctest

import pytest
import torch
import torch._dynamo.testing

from pgolf.errors import ConfigError
from pgolf.qat import QAT, crownq
from pgolf.qat import round as rounding
from pgolf.qat.crownq import crown_q
from pgolf.qat.fake import FakeQuant
from pgolf.qat.round import soft_round, soft_stairs, straight_through
from pgolf.quant.tensors import load_quantized
from tests.options import CONF, option
from tests.test_quant import ids, tiny

KINDS = ["ste", "soft_round", "crownq"]


def test_examples_in_docstrings():
    assert doctest.testmod(rounding).failed == doctest.testmod(crownq).failed == 0


def test_soft_round_goes_from_the_identity_to_rounding():
    y = torch.linspace(-3, 3, 101)
    assert torch.allclose(soft_round(y, torch.tensor(1e-2)), y, atol=1e-4)
    apart = (y - y.floor() - 0.5).abs() > 0.05
    assert torch.allclose(soft_round(y, torch.tensor(200.0))[apart], y.round()[apart], atol=1e-4)


def test_range_is_symmetric_and_zero_rows_keep_their_gradient():
    w = torch.tensor([[-20.0, 20.0], [0.0, 0.0]], requires_grad=True)
    s = torch.tensor([[1.0], [0.0]])
    for rounded in (straight_through(w, s, 15), soft_stairs(w, s, 15, torch.tensor(4.0))):
        assert rounded[0].tolist() == [-15.0, 15.0]
        (grad,) = torch.autograd.grad(rounded.sum(), w)
        assert grad[1].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("kind", KINDS)
def test_on_is_what_the_export_stores(kind):
    """STE's forward pass is the dequantised file's, to the bit; a soft staircase at α = 100 comes close."""
    model, quant = tiny(), option("quant/int5_round", keep_below=512)
    runtime = option(f"qat/{kind}").build(model, quant)
    runtime.refresh()
    runtime.set(True, alpha=100.0)
    seen = {n: m.fake_quant(m.weight).detach() for n, m in model.named_modules() if hasattr(m, "fake_quant")}
    stored = quant.quantize(model, {}).tensors
    for name, weight in seen.items():
        exported = stored[f"{name}.weight"].dequantize()
        if kind != "soft_round":
            assert torch.allclose(weight, exported, rtol=1e-6, atol=1e-8)
        else:
            assert ((weight - exported).abs() < 1e-6).float().mean() > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_off_is_nothing(kind):
    model, reference = tiny(), tiny()
    runtime = option(f"qat/{kind}").build(model, option("quant/int5_round", keep_below=512))
    runtime.update(False, 0.0, lambda: model.nll(ids(1), ids(1)))
    assert torch.equal(model.nll(ids(2), ids(2)), reference.nll(ids(2), ids(2)))
    assert model.state_dict().keys() == reference.state_dict().keys()
    assert not any(receipt.alive for receipt in runtime.receipts())


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_code_obeys_the_switch_without_recompiling(kind):
    """Fails if the switch is folded into the trace: the compiled loss must change at switch-on and on every α."""
    torch._dynamo.reset()
    model = tiny()
    runtime = option(f"qat/{kind}").build(model, option("quant/int4_gptq", keep_below=512))
    counter = torch._dynamo.testing.CompileCounterWithBackend("eager")
    compiled = torch.compile(model.nll, backend=counter, dynamic=False)

    def loss() -> torch.Tensor:
        return compiled(ids(2), ids(2)).mean()

    off = loss().item()
    graphs = counter.frame_count
    runtime.update(True, 0.5, loss)
    early = loss().item()
    runtime.update(True, 0.9, loss)
    late = loss().item()
    assert off != early
    assert (early != late) == (kind == "soft_round")
    assert late == pytest.approx(model.nll(ids(2), ids(2)).mean().item(), rel=1e-5)
    assert counter.frame_count == graphs
    change, steps = runtime.receipts()[:2]
    assert change.alive
    assert change.value == pytest.approx(abs(early - off), rel=1e-3)
    assert (steps.value, steps.alive) == (2, True)
    runtime.set(False)
    assert loss().item() == off
    assert counter.frame_count == graphs
    torch._dynamo.reset()


def distance_after_training(kind: str | None) -> float:
    """Loss of a small model after rounding to int2, trained for a while with or without QAT on one batch."""
    model, quant = tiny(), option("quant/int8_round", bits=2, embedding_bits=8, keep_below=512)
    runtime = option(f"qat/{kind}", refresh_every=2).build(model, quant) if kind else None
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    batch, targets = ids(4, 16), ids(4, 16, seed=5)
    for step in range(40):
        if runtime:
            runtime.update(True, step / 40, lambda: model.nll(batch, targets).mean())
        optimizer.zero_grad()
        model.nll(batch, targets).mean().backward()
        optimizer.step()
    if runtime:
        runtime.set(False)
    load_quantized(model, quant.quantize(model, {}).tensors)
    return model.nll(batch, targets).mean().item()


def test_training_through_rounding_pays_after_rounding():
    plain = distance_after_training(None)
    for kind in KINDS:
        assert distance_after_training(kind) < plain


def test_annealing_runs_from_switch_on_to_the_end():
    model = tiny()
    runtime = option("qat/soft_round").build(model, option("quant/int5_round", keep_below=512))
    fake = next(m for m in model.modules() if isinstance(m, FakeQuant))
    seen = []
    for fraction in (0.6, 0.8, 1.0):
        runtime.update(True, fraction, lambda: model.nll(ids(1), ids(1)))
        seen.append(fake.alpha.item())
    assert seen == pytest.approx([1.0, 4.0, 16.0], rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_reset_forgets_a_rehearsal(kind):
    model = tiny()
    runtime = option(f"qat/{kind}").build(model, option("quant/int5_round", keep_below=512))
    weights = next(iter(runtime.layers.fakes)).weight
    for fraction in (0.5, 1.0):
        runtime.update(True, fraction, lambda: model.nll(ids(1), ids(1)))
        runtime.regularise([weights], torch.ones(1, *weights.shape))
    runtime.reset()
    assert torch.equal(model.nll(ids(2), ids(2)), tiny().nll(ids(2), ids(2)))
    assert not any(receipt.alive for receipt in runtime.receipts())


def test_crown_q_has_the_gradient_of_its_formula():
    """At the largest weight of a row λ · h · 2Δ/12c, elsewhere nothing; by central differences in float64."""
    c, h = 15, torch.tensor([0.5, 2.0], dtype=torch.float64)
    w = torch.tensor([[0.3, -0.9, 0.1], [0.2, 0.4, -0.1]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: crown_q(w, h, c), (w,))
    (grad,) = torch.autograd.grad(crown_q(w, h, c), w)
    assert grad.tolist() == [
        [0.0, pytest.approx(-0.5 * 2 * 0.9 / c / 12 / c), 0.0],
        [0.0, pytest.approx(2.0 * 2 * 0.4 / c / 12 / c), 0.0],
    ]


def test_the_penalty_reaches_the_gradient_and_follows_curvature():
    model, weight = tiny(), 3.0
    runtime = option("qat/crownq", weight=weight).build(model, option("quant/int5_round", keep_below=512))
    layer, fake = next(iter(runtime.layers.fakes.items()))
    other = model.blocks[0].attn_scale
    g = torch.zeros(3, *layer.weight.shape)
    g[0, 0], g[0, 1] = 1.0, 2.0  # the second row's second moment is four times the first's, all others' are zero
    before = g.clone()
    runtime.regularise([layer.weight], g)
    assert torch.equal(g, before), "off, it adds nothing"
    runtime.update(True, 0.5, lambda: model.nll(ids(1), ids(1)))
    runtime.regularise([layer.weight, other], g)
    rows = layer.weight.shape[0]
    h = torch.zeros(rows)
    h[0], h[1] = 1.0 * rows / 5, 4.0 * rows / 5
    expected = torch.autograd.grad(weight * crown_q(layer.weight, h, fake.c), layer.weight)[0]
    assert expected.norm() > 0
    assert torch.allclose(g[0] - before[0], expected, rtol=1e-4, atol=1e-7)
    assert torch.equal(g[1:], before[1:]), "neither padding nor what is not rounded"
    receipt = runtime.receipts()[2]
    assert receipt.alive
    assert receipt.value == pytest.approx(expected.norm().item(), rel=1e-4)


def test_the_penalty_makes_steps_finer():
    """Alone with the penalty, the largest weight of each row shrinks and nothing else moves."""
    model = tiny()
    runtime = option("qat/crownq").build(model, option("quant/int5_round", keep_below=512))
    w = next(iter(runtime.layers.fakes)).weight
    with torch.no_grad():
        w.normal_(generator=torch.Generator().manual_seed(0))
    before = w.detach().clone()
    runtime.update(True, 0.5, lambda: model.nll(ids(1), ids(1)))
    g = torch.ones(1, *w.shape)
    runtime.regularise([w], g)
    moved = before - (g[0] - 1.0)
    assert (moved.abs().amax(1) < before.abs().amax(1)).all()
    assert ((moved != before).sum(1) == 1).all()


def test_nothing_to_anticipate_is_an_error():
    with pytest.raises(ConfigError, match="nothing to anticipate"):
        option("qat/ste").build(tiny(), option("quant/none"))


@pytest.mark.parametrize(
    ("path", "changed", "key"),
    [
        ("crownq", {"weight": 0.0}, r"qat\.weight=0"),
        ("crownq", {"decay": 1.0}, r"qat\.decay=1"),
        ("ste", {"refresh_every": 0}, r"qat\.refresh_every=0"),
        ("soft_round", {"alpha_start": 0.0}, r"qat\.alpha_start=0"),
        ("soft_round", {"alpha_end": 1000.0}, r"qat\.alpha_end=1000"),
    ],
)
def test_settings_out_of_range(path, changed, key):
    with pytest.raises(ConfigError, match=key):
        option(f"qat/{path}", **changed)


def test_none_does_nothing():
    model = tiny()
    runtime = option("qat/none").build(model, option("quant/none"))
    runtime.update(True, 0.5, lambda: None)
    runtime.regularise([], torch.zeros(0, 1, 1))
    runtime.set(True)
    runtime.reset()
    assert runtime.receipts() == []
    assert torch.equal(model.nll(ids(1), ids(1)), tiny().nll(ids(1), ids(1)))


def test_every_option_builds():
    for path in (CONF / "qat").glob("*.yaml"):
        assert isinstance(option(f"qat/{path.stem}"), QAT)
