"""GPTQ against the column loop and plain rounding; scales, storage plans, Hessians, estimates; what bad weights are told."""

import doctest
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pgolf.errors import ConfigError, UserError
from pgolf.machine.world import World
from pgolf.model.transformer import Linear
from pgolf.quant import MaxScale, Quant, QuantileScale, StdScale, budget, estimate, gptq, lowrank, rows, tensors
from pgolf.quant.hessian import collect_hessians
from pgolf.quant.tensors import QTensor, load_quantized
from tests.options import CONF, option
from tests.ranks import run_ranks

HERE = Path(__file__).parent
GOLDEN = np.load(HERE / "data" / "gptq.npz")
W, H = torch.from_numpy(GOLDEN["W"]), torch.from_numpy(GOLDEN["H"])
QUANTILES = (0.999, 0.9995, 0.9999, 0.99999, 1.0)


def tiny(seed: int = 1):
    """The laptop's model with every matrix away from zero."""
    model = option("model/tiny", vocab_size=64, layers=2, value_embedding=None, xsa_layers=2).build(seed, "cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.copy_(0.05 * torch.randn(p.shape, generator=generator))
    return model


def ids(n: int, length: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 64, (n, length), generator=torch.Generator().manual_seed(seed))


def correlated(n: int, seed: int, rank: int | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(rank or 4 * n, n, generator=generator) @ torch.randn(n, n, generator=generator)
    return X.mT @ X / len(X)


def error(q: torch.Tensor, scale: torch.Tensor, W: torch.Tensor = W, H: torch.Tensor = H) -> float:
    return rows.objective((W - q * scale.float()[:, None])[None].double(), [H.double()]).sum().item()


def classic_gptq(W, H, scale, c, damp=0.01):
    """The column loop of the paper: upper Cholesky factor of the inverse, error spread over later columns."""
    H = H.double() + damp * H.diagonal().mean() * torch.eye(len(H))
    order = H.diagonal().argsort(descending=True, stable=True)
    U = torch.linalg.cholesky(torch.linalg.inv(H[order][:, order]), upper=True)
    w, q, s = W.double()[:, order].clone(), torch.zeros(W.shape), scale.double()
    for j in range(W.shape[1]):
        q[:, j] = (w[:, j] / s).round().clamp(-c, c)
        w[:, j:] -= torch.outer((w[:, j] - q[:, j] * s) / U[j, j], U[j, j:])
    return q[:, order.argsort()].to(torch.int8)


@pytest.mark.parametrize("module", [gptq, rows, estimate, lowrank, budget])
def test_examples_in_docstrings(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("c", [3, 31])
def test_agrees_with_the_column_loop(c):
    H, W = correlated(96, 5), torch.randn(40, 96, generator=torch.Generator().manual_seed(5))
    scale = StdScale(k=3.0).steps(W, c)
    fast, slow = gptq.gptq(W, H, scale, c, block=32), classic_gptq(W, H, scale, c)
    assert (fast == slow).float().mean() >= 0.999


def test_block_size_only_changes_speed_and_runs_repeat_to_the_bit():
    scale = StdScale(k=4.0).steps(W, 15)
    reference = gptq.gptq(W, H, scale, 15)
    assert torch.equal(reference, gptq.gptq(W, H, scale, 15))
    for block in (1, 7, 160, 1000):
        assert (gptq.gptq(W, H, scale, 15, block=block) == reference).float().mean() >= 0.999


def test_activation_order_helps_on_uneven_inputs():
    scale = StdScale(k=4.0).steps(W, 15)
    uneven = H * torch.outer(*2 * [torch.logspace(-1, 1, 160)])
    ordered, plain = (gptq.gptq(W, uneven, scale, 15, act_order=order) for order in (True, False))
    assert error(ordered, scale, H=uneven) < error(plain, scale, H=uneven)


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(1, 40), st.integers(2, 8), st.integers(0, 2**16), st.sampled_from([None, 1, 5]))
def test_never_worse_than_rounding_and_in_range(r, n, bits, seed, rank):
    """Also with fewer inputs than columns (a singular Hessian)."""
    c, H = estimate.levels(bits), correlated(n, seed, rank)
    W = torch.randn(r, n, generator=torch.Generator().manual_seed(seed))
    scale = QuantileScale(quantiles=QUANTILES).steps(W, c)
    solution = gptq.solve(W[None], [H], [gptq.factor(H)], scale[None], c)
    q = solution.symbols[0]
    assert int(q.abs().max()) <= c
    size = error(torch.zeros_like(q), scale, W, H)
    assert error(q, scale, W, H) <= error(rows.nearest(W, scale, c), scale, W, H) + 1e-5 * size
    assert solution.error.sum().item() == pytest.approx(error(q, scale, W, H), rel=1e-3, abs=1e-5 * size)


def test_much_better_than_rounding_on_correlated_inputs():
    H, W = correlated(128, 3), torch.randn(64, 128, generator=torch.Generator().manual_seed(3))
    scale = MaxScale().steps(W, 15)
    assert error(gptq.gptq(W, H, scale, 15), scale, W, H) < 0.5 * error(rows.nearest(W, scale, 15), scale, W, H)


def test_layers_together_are_layers_alone():
    Hs = [correlated(48, seed) for seed in range(3)]
    Ws = torch.randn(3, 20, 48, generator=torch.Generator().manual_seed(9))
    scales = torch.stack([MaxScale().steps(one, 7) for one in Ws])
    together = gptq.GptqSolver(block=16, damp=0.01)(Ws, Hs, scales, 7).symbols
    alone = torch.stack([gptq.gptq(*three, 7, block=16) for three in zip(Ws, Hs, scales, strict=True)])
    assert (together == alone).float().mean() >= 0.999


@pytest.mark.parametrize(
    ("H", "said"),
    [
        (torch.zeros(8, 8), "no input was ever active"),
        (torch.diag(torch.tensor([1.0] * 6 + [0.0, 0.0])), "2 of 8 inputs"),
        (-torch.ones(8, 8) + 1.5 * torch.eye(8), "damping raised"),
        (torch.full((8, 8), -1e6) + (1e6 + 1.0) * torch.eye(8), "rounded"),
    ],
)
def test_bad_hessians_are_survived_and_told(H, said):
    W = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    scale = MaxScale().steps(W, 15)
    solution = gptq.GptqSolver(block=4, damp=0.01)(W[None], [H], scale[None], 15)
    assert said in solution.notices[0]
    if "rounded" in solution.notices[0]:
        assert torch.equal(solution.symbols[0], rows.nearest(W, scale, 15))


@pytest.mark.parametrize("policy", [QuantileScale(quantiles=QUANTILES), StdScale(k=4.0), MaxScale()])
@pytest.mark.parametrize(
    "W", [torch.zeros(3, 8), torch.full((2, 8), 0.7), torch.tensor([[0.3]]), torch.full((1, 8), 1e-9)]
)
def test_odd_rows(policy, W):
    """All zeros, constant rows, one element, weights below fp16: nothing is lost beyond a step, nothing is NaN."""
    scale = policy.steps(W, 15)
    q = gptq.gptq(W, torch.eye(W.shape[1]), scale, 15)
    back = QTensor(q, scale, 5).dequantize()
    assert (back - W).abs().max() <= max(0.51 * scale.max().item(), 1e-3 * W.abs().max().item(), 1e-8)


def test_quantile_scale_keeps_the_best_clip():
    rows_ = torch.randn(50, 2000, generator=torch.Generator().manual_seed(2))
    best = QuantileScale(quantiles=QUANTILES).steps(rows_, 15)
    for p in QUANTILES:
        one = QuantileScale(quantiles=(p,)).steps(rows_, 15)
        assert torch.allclose(one.float(), torch.quantile(rows_.abs(), p, dim=1) / 15, rtol=1e-3)
        left, right = (((rows_ - rows.nearest(rows_, s, 15) * s.float()[:, None]) ** 2).sum(1) for s in (best, one))
        assert (left <= right * (1 + 1e-6)).all()


@pytest.mark.parametrize("policy", [QuantileScale(quantiles=QUANTILES), StdScale(k=4.0), StdScale(k=10.0), MaxScale()])
@pytest.mark.parametrize("c", [3, 7, 15, 31, 127])
@pytest.mark.parametrize("columns", [128, 2048])
def test_entropy_estimate_on_gaussian_matrices(policy, c, columns):
    W = 0.02 * torch.randn(200, columns, generator=torch.Generator().manual_seed(c))
    measured = rows.entropy(rows.nearest(W, policy.steps(W, c), c))
    predicted = estimate.gaussian_bits(policy.sigmas(columns, c), c)
    assert predicted == pytest.approx(measured, rel=0.03)
    assert predicted <= np.log2(2 * c + 1)


@pytest.mark.parametrize("name", ["int8_gptq", "int6_gptq", "int5_gptq", "int4_gptq", "int8_round", "int6_round"])
def test_options_quantise_a_model_and_load_back(name):
    model, quant = tiny(), option(f"quant/{name}", keep_below=512)
    hessians = collect_hessians(model, [ids(4), ids(4, seed=1)], World.alone()) if quant.calibration else {}
    before = [p.clone() for p in model.parameters()]
    out = quant.quantize(model, hessians)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert list(out.tensors) == [n for n, _ in model.named_parameters()]
    assert all(receipt.alive for receipt in out.receipts)
    assert len(out.receipts) == (2 if quant.calibration else 1)
    for row in out.layers:
        assert 0 < row.error <= row.rounding_error * (1 + 1e-4)
        assert row.bits == quant.plan({row.name: row.shape}, {row.name: row.section})[row.name]
        assert 0 < row.entropy < row.bits
    reference = model.nll(ids(2), ids(2)).mean()
    load_quantized(model, out.tensors)
    for name_, p in model.named_parameters():
        assert torch.equal(p.detach(), tensors.dequantize(out.tensors[name_]).float())
    assert model.nll(ids(2), ids(2)).mean().item() == pytest.approx(reference.item(), rel=0.05)


@pytest.mark.parametrize(("name", "dtype"), [("none", torch.float16), ("fp32", torch.float32)])
def test_floats_of_the_bits_asked_for_and_control_in_full(name, dtype):
    out = option(f"quant/{name}").quantize(tiny(), {})
    kinds = {out.sections[name]: t.dtype for name, t in out.tensors.items()}
    assert kinds["control"] == torch.float32
    assert {t.dtype for n, t in out.tensors.items() if out.sections[n] != "control"} == {dtype}
    assert out.receipts == []


def test_predicted_bytes_follow_the_packed_file():
    from pgolf.stages.artifact import pack

    model = option("model/tiny", vocab_size=1024).build(0, "cpu")
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
    quant, codec = option("quant/int6_round"), option("codec/zstd22")
    predicted = quant.estimate_bytes({n: tuple(p.shape) for n, p in model.named_parameters()}, model.sections())
    out = quant.quantize(model, {})
    assert predicted == pytest.approx(len(pack(out.tensors, {}, codec, out.sections)), rel=0.03)


def plan(quant: Quant, shape: tuple[int, ...], section: str, name: str = "blocks.0.some.weight") -> int:
    return quant.plan(
        {name: shape, "blocks.3.other.weight": (1,)}, {name: section, "blocks.3.other.weight": "control"}
    )[name]


def test_sections_may_have_their_own_bits():
    quant = option("quant/int6_gptq", mlp_bits=4, attention_bits=None, embedding_bits=7, keep_below=100)
    assert [plan(quant, (64, 64), s) for s in ("attention", "mlp", "embedding", "control")] == [6, 4, 7, 32]
    assert plan(quant, (10, 10), "mlp") == 16
    assert plan(quant, (4096,), "embedding") == 16


def solver(**changed) -> dict:
    text = {"_target_": "pgolf.quant.TrainingWindows"}
    usual = {"block": 128, "damp": 0.01, "calibration_sequences": 1, "source": text}
    return {"_target_": "pgolf.quant.Gptq"} | usual | changed


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"bits": 9}, r"quant\.bits=9: must be between 2 and 8"),
        ({"mlp_bits": 1}, r"quant\.mlp_bits=1"),
        ({"keep_below": -1}, r"quant\.keep_below=-1"),
        ({"solver": solver(block=0)}, "block"),
        ({"solver": solver(damp=0.0)}, "damp"),
        ({"scale": {"_target_": "pgolf.quant.StdScale", "k": 0.0}}, r"quant\.scale\.k"),
        ({"scale": {"_target_": "pgolf.quant.QuantileScale", "quantiles": []}}, "quantiles"),
    ],
)
def test_what_cannot_be_is_refused(changed, said):
    with pytest.raises(ConfigError, match=said):
        option("quant/int6_gptq", **changed)


def test_diverged_weights_are_named():
    model = tiny()
    with torch.no_grad():
        model.blocks[0].attn.q.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match=r"blocks\.0\.attn\.q\.weight holds NaN"):
        option("quant/int6_round").quantize(model, {})
    with torch.no_grad():
        model.blocks[0].attn.q.weight[0, 0] = 1e6
    with pytest.raises(UserError, match=r"blocks\.0\.attn\.q\.weight holds 1e\+06, beyond fp16"):
        option("quant/int6_round").quantize(model, {})


def test_a_file_for_another_model_is_refused():
    model = tiny()
    stored = option("quant/none").quantize(model, {}).tensors
    with pytest.raises(UserError, match="nothing is stored"):
        load_quantized(model, {n: t for n, t in stored.items() if "skip" not in n})
    with pytest.raises(UserError, match=r"no parameter 'embeding\.weight'\. Did you mean 'embedding\.weight'"):
        load_quantized(model, stored | {"embeding.weight": stored["embedding.weight"]})
    with pytest.raises(UserError, match="stored as"):
        load_quantized(model, stored | {"embedding.weight": torch.zeros(2, 2)})


def reference_hessian(model, name: str, batch: torch.Tensor) -> torch.Tensor:
    seen = []
    layer = dict(model.named_modules())[name]
    handle = layer.register_forward_pre_hook(lambda _m, args: seen.append(args[0].detach().flatten(0, -2).double()))
    model(batch)
    handle.remove()
    return sum(X.mT @ X for X in seen) / batch.numel()


def test_hessians_are_those_of_the_inputs_and_shared():
    model, batch = tiny(), ids(6)
    hessians = collect_hessians(model, batch.split(2), World.alone())
    assert (hessians.sequences, hessians.positions) == (6, 6 * 32)
    for name in ("blocks.1.attn.v", "blocks.0.mlp.down", "head"):
        key = "embedding.weight" if name == "head" else f"{name}.weight"
        assert torch.allclose(hessians[key].double(), reference_hessian(model, name, batch), rtol=1e-4, atol=1e-5)
    q, k, v = (hessians[f"blocks.0.attn.{x}.weight"] for x in "qkv")
    assert q is k is v
    linears = sum(isinstance(m, Linear) for m in model.modules())
    assert len(hessians) == linears + 1


def test_looped_layers_add_up_their_visits():
    loop = {"_target_": "pgolf.model.Loop", "first": 0, "last": 1, "num_loops": 1}
    model = option("model/tiny", vocab_size=64, value_embedding=None, loop=loop).build(3, "cpu")
    model.set_looping(True)
    hessians = collect_hessians(model, [ids(2)], World.alone())
    expected = reference_hessian(model, "blocks.1.mlp.up", ids(2))
    assert torch.allclose(hessians["blocks.1.mlp.up.weight"].double(), expected, rtol=1e-4, atol=1e-5)


def test_calibration_stops_when_told_and_needs_one_sequence():
    model, asked = tiny(), []
    hessians = collect_hessians(model, ids(6).split(2), World.alone(), lambda: len(asked) >= 2 or asked.append(1))
    assert hessians.sequences == 4
    with pytest.raises(UserError, match="no calibration sequence"):
        collect_hessians(model, ids(6).split(2), World.alone(), lambda: True)


def fingerprint(hessians: dict) -> dict:
    """Every matrix as its product with one fixed vector: small enough for a pipe."""
    return {name: (H @ torch.linspace(-1, 1, len(H))).numpy() for name, H in hessians.items()}


def share(world: World, totals: tuple[int, ...]) -> list[tuple[int, dict]]:
    """This rank's Hessians for each number of sequences; with more ranks than sequences some ranks have none."""
    out = []
    for total in totals:
        mine = (one[None] for one in ids(total)[world.rank :: world.size])
        found = collect_hessians(tiny(), mine, world)
        out.append((found.sequences, fingerprint(found)))
    return out


def test_two_ranks_gather_what_one_does():
    totals = (3, 1)
    alone = [fingerprint(collect_hessians(tiny(), ids(total).split(1), World.alone())) for total in totals]
    for rank in run_ranks(share, 2, totals):
        for (sequences, found), total, expected in zip(rank, totals, alone, strict=True):
            assert sequences == total
            for name, Hv in found.items():
                assert np.allclose(Hv, expected[name], rtol=1e-4, atol=1e-5), name


def test_configuration_does_not_load_torch():
    import subprocess
    import sys

    code = "import sys, pgolf.quant, pgolf.qat, pgolf.codec; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_option_builds():
    for path in (CONF / "quant").glob("*.yaml"):
        assert isinstance(option(f"quant/{path.stem}"), Quant)
