"""Filling a budget: the search lands where it should, the step and the pruning do what they say, and the worst is admitted."""

import doctest
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pgolf.codec import Range
from pgolf.errors import ConfigError, UserError
from pgolf.files.frozen import thaw
from pgolf.machine.world import World
from pgolf.quant import Fit, budget, pruning
from pgolf.quant.apply import planned
from pgolf.quant.budget import Search, StepGuess
from pgolf.quant.hessian import collect_hessians
from pgolf.stages.artifact import pack
from tests.options import option
from tests.test_quant import ids, tiny

torch.set_num_threads(1)
CAP = {"_target_": "pgolf.quant.Cap", "within": 300, "encodings": 4}
PRUNE = {"_target_": "pgolf.quant.PruneToCap", "within": 300, "encodings": 4}


@pytest.fixture(scope="module")
def trained():
    """A model and the Hessians of its layers."""
    model = tiny()
    return model, collect_hessians(model, [ids(8)], World.alone())


def to_bytes(out) -> bytes:
    return pack(out.tensors, {}, Range(), out.sections)


def cap(**changed):
    return option("quant/int8_gptq_to_cap", keep_below=512, **({"fit": CAP} | changed))


@pytest.mark.parametrize("module", [budget, pruning])
def test_examples_in_docstrings(module):
    assert doctest.testmod(module).failed == 0


@settings(max_examples=200)
@given(
    st.integers(20_000, 400_000),
    st.floats(0.9, 1.15),
    st.integers(-8_000, 8_000),
    st.integers(0, 200),
    st.integers(0, 9),
)
def test_a_search_lands_within_few_encodings(target, slope, shift, wobble, seed):
    """Sizes as a coder makes them: not quite the guess, not quite straight, and a little rough."""

    def guess(variable: float) -> float:
        return 500_000 / variable

    def encode(variable: float) -> SimpleNamespace:
        rough = wobble * (int(variable * 1e6 + seed) % 3 - 1)
        return SimpleNamespace(variable=variable, size=int(slope * guess(variable) + shift + rough))

    best, encodings = Search(encode, guess, 1.0, 50.0, 0.0, 2000, 6).best(target)
    assert encodings <= 6
    assert best.size <= target
    assert best.size >= target - 2000 or best.variable == 1.0


def test_the_step_fills_the_budget(trained):
    model, hessians = trained
    quant = cap()
    for target in (280_000, 400_000):
        out, data = quant.compress(model, hessians, to_bytes, target)
        assert target - 300 <= len(data) <= target
        assert out.fit == {"target": target, "reached": len(data), "what": "step k"} | {
            key: out.fit[key] for key in ("value", "encodings")
        }
        assert out.fit["encodings"] <= 4
        assert out.receipts[-1].part == "quant.fit"
        assert out.receipts[-1].alive
        finer = quant.coarser(0.98 * out.fit["value"] / quant.scale.k).quantize(model, hessians)
        assert len(to_bytes(finer)) > target  # so there is no finer step that fits
        assert quant.compress(model, hessians, to_bytes, target)[1] == data


def test_a_large_budget_ends_at_the_step_of_least_error(trained):
    model, hessians = trained
    quant = cap()
    out, _ = quant.compress(model, hessians, to_bytes, 10**9)
    assert (out.fit["what"], out.fit["encodings"]) == ("step k of least error, which leaves room", 1)
    error = sum(row.error for row in out.layers)
    for factor in (0.5, 2.0):
        other = quant.coarser(factor * out.fit["value"] / quant.scale.k).quantize(model, hessians)
        assert error < sum(row.error for row in other.layers)


def test_an_impossible_budget_is_admitted(trained):
    model, hessians = trained
    for quant in (cap(), option("quant/int6_gptq_prune_to_cap", keep_below=512)):
        out, data = quant.compress(model, hessians, to_bytes, 100)
        assert out.fit["reached"] == len(data) > 100
        assert not out.receipts[-1].alive


def test_the_guess_is_near_the_file(trained):
    model, _ = trained
    quant = cap()
    guess = StepGuess.of(*planned(model, {}, quant), model.sections(), quant)
    for factor in (0.5, 1.0, 2.0):
        size = len(to_bytes(quant.coarser(factor).quantize(model, {})))
        assert guess(factor) + guess.rest == pytest.approx(size, rel=0.03)


def test_pruning_ones_fills_the_budget_and_touches_nothing_else(trained):
    model, hessians = trained
    quant = option("quant/int4_gptq", keep_below=512, fit=PRUNE)
    whole = option("quant/int4_gptq", keep_below=512).quantize(model, hessians)
    target = len(to_bytes(whole)) - 1500
    out, data = quant.compress(model, hessians, to_bytes, target)
    assert target - 300 <= len(data) <= target
    assert 0 < out.fit["value"] < 1
    for name, before in whole.tensors.items():
        if not hasattr(before, "symbols"):
            continue
        moved = before.symbols != out.tensors[name].symbols
        assert (out.tensors[name].symbols[moved] == 0).all()
        assert (before.symbols[moved].abs() == 1).all()
        assert not moved.any() or whole.sections[name] in ("attention", "mlp")
    worse = zip(out.layers, whole.layers, strict=True)
    assert all(a.error >= b.error * 0.9 for a, b in worse)
    unneeded, _ = quant.compress(model, hessians, to_bytes, 10**9)
    assert unneeded.fit["value"] == 0
    assert all(
        torch.equal(unneeded.tensors[n].symbols, t.symbols) for n, t in whole.tensors.items() if hasattr(t, "symbols")
    )


def test_the_cheapest_ones_cost_less_than_any_ones(trained):
    model, hessians = trained
    whole = option("quant/int4_gptq", keep_below=512).quantize(model, hessians)
    ranked = pruning.PruningCandidates.of(whole, dict(model.named_parameters()), hessians)
    chance = pruning.PruningCandidates.of(whole, dict(model.named_parameters()), hessians)
    generator = torch.Generator().manual_seed(0)
    for name, c in chance.costs.items():
        chance.costs[name] = torch.where(c.isfinite(), torch.rand(c.shape, generator=generator), torch.inf)
    wisely, blindly = (sum(row.error for row in o.without(0.3).layers) for o in (ranked, chance))
    assert wisely < blindly
    assert ranked.guess(0.3) < ranked.guess(0.0)


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(ConfigError, match=r"quant\.fit='Cap': must be used with quant\.scale of the kind StdScale"):
        option("quant/int6_gptq", fit=CAP)
    for key, value in (("within", 0), ("encodings", 1)):
        with pytest.raises(ConfigError, match=rf"quant\.fit\.{key}={value}"):
            cap(fit=CAP | {key: value})


@pytest.mark.parametrize("fit", [CAP, PRUNE], ids=["cap", "prune"])
def test_bad_weights_are_named_or_survived(fit):
    model = tiny()
    quant = cap(fit=fit)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    out, data = quant.compress(model, {}, to_bytes, 10**6)
    assert len(data) < 10**5
    assert all(row.error == 0 for row in out.layers)
    with torch.no_grad():
        model.blocks[0].mlp.up.weight[0, 0] = float("inf")
    with pytest.raises(UserError, match=r"blocks\.0\.mlp\.up\.weight holds NaN or Inf"):
        quant.compress(model, {}, to_bytes, 10**6)


def test_options_of_the_fit_group_are_options():
    for path in (Path(__file__).parent.parent / "conf" / "quant" / "fit").glob("*.yaml"):
        assert thaw(yaml.safe_load(path.read_text()), Fit).within == 2000
