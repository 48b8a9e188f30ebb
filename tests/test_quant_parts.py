"""Corrections of low rank, pruning, bits of the last layers, and the three sources of calibration text."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pgolf.artifact import inventory
from pgolf.codec import Range
from pgolf.config.compose import register_experiments, rehearse
from pgolf.errors import ArtifactError, ConfigError, UserError
from pgolf.machine.world import World
from pgolf.quant import LowRank, MaxScale, Nearest, RandomIds, SelfGenerated, StdScale, TrainingWindows
from pgolf.quant.calibration import FEWEST, CalibrationContext, sampled
from pgolf.quant.hessian import collect_hessians
from pgolf.quant.lowrank import corrected, output_directions
from pgolf.quant.rows import nearest, objective, pruned, std_steps
from pgolf.quant.tensors import QTensor, dequantize
from pgolf.stages import artifact
from pgolf.stages.artifact import pack, unpack
from tests.options import option
from tests.test_artifact import sealed
from tests.test_data_loaders import windows_over
from tests.test_quant import correlated, ids, tiny

torch.set_num_threads(1)
PLAN = LowRank(rank=4, tensors=3, left_bits=4, right_bits=2)


def rounded(W: torch.Tensor, bits: int = 4) -> QTensor:
    c = 2 ** (bits - 1) - 1
    scale = std_steps(W, c, 3.0)
    return QTensor(nearest(W, scale, c), scale, bits)


def error(W: torch.Tensor, stored: QTensor, H: torch.Tensor) -> float:
    return objective((W - stored.dequantize())[None], [H]).sum().item()


def test_directions_are_the_leading_eigenvectors():
    E, H = torch.randn(20, 30, generator=torch.Generator().manual_seed(1)), correlated(30, 2)
    found = output_directions(E, H, 3)
    values, vectors = torch.linalg.eigh(E @ H @ E.mT)
    assert torch.allclose(found.mT @ found, torch.eye(3), atol=1e-5)
    kept = (found.mT @ (E @ H @ E.mT) @ found).diagonal().sum()
    assert kept == pytest.approx(values[-3:].sum().item(), rel=1e-2)
    assert abs(found[:, 0] @ vectors[:, -1]) > 0.99


@settings(max_examples=25)
@given(st.integers(1, 24), st.integers(1, 40), st.integers(0, 2**16), st.integers(2, 8), st.integers(2, 8))
def test_a_correction_of_any_shape_is_finite_and_of_the_right_form(rows, columns, seed, left, right):
    W, H = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)), correlated(columns, seed)
    better = corrected(W, rounded(W), H, replace(PLAN, left_bits=left, right_bits=right))
    A, B = better.extras[0].parts()
    assert A.shape == (min(4, rows, columns), rows)
    assert B.shape == (min(4, rows, columns), columns)
    assert better.dequantize().isfinite().all()
    assert better.dequantize().shape == W.shape


def test_a_correction_takes_back_most_of_an_error_of_low_rank():
    g = torch.Generator().manual_seed(0)
    W, H = torch.randn(48, 64, generator=g), correlated(64, 1)
    stored = rounded(W)
    W = stored.dequantize() + torch.randn(48, 2, generator=g) @ torch.randn(2, 64, generator=g)
    assert error(W, corrected(W, stored, H, replace(PLAN, left_bits=8, right_bits=8)), H) < 0.02 * error(W, stored, H)
    assert error(W, corrected(W, stored, H, PLAN), H) < 0.5 * error(W, stored, H)


def test_the_worst_tensors_get_one_and_the_file_keeps_it():
    model = tiny()
    hessians = collect_hessians(model, [ids(8)], World.alone())
    plain = option("quant/int4_gptq", keep_below=512).quantize(model, hessians)
    quant = option("quant/int5_gptq_low_rank", bits=4, keep_below=512)
    out = quant.quantize(model, hessians)
    with_one = [n for n, t in out.tensors.items() if isinstance(t, QTensor) and t.extras]
    worst = sorted(plain.layers, key=lambda row: -row.error)[:4]
    assert 0 < len(with_one) <= 4
    assert set(with_one) <= {row.name for row in worst}
    for before, after in zip(plain.layers, out.layers, strict=True):
        assert after.error < before.error if after.name in with_one else after.error == before.error
    assert out.receipts[-1].alive
    assert out.receipts[-1].value < 1
    data = pack(out.tensors, {}, Range(), out.sections)
    back = unpack(data)[0]
    assert list(back) == list(out.tensors)
    assert all(torch.equal(dequantize(t), dequantize(out.tensors[n])) for n, t in back.items())
    found = inventory(data)
    assert found.total == len(data)
    assert {line.kind for line in found.lines if line.name in with_one} <= {"int4+rank4", "int8+rank4"}
    assert found.tensors.keys() == out.tensors.keys()


@pytest.mark.parametrize(
    ("row", "change"), [*((r, c) for r in range(2, 6) for c in ("name", "shape")), (2, "float"), (4, "float")]
)
def test_forged_corrections_are_refused(row, change):
    g = torch.Generator().manual_seed(0)
    W = torch.randn(12, 10, generator=g)
    good = pack({"w": corrected(W, rounded(W), torch.eye(10), PLAN)}, {}, Range())
    rows, meta, start = artifact.read_index(good)
    assert [r.name for r in rows] == ["w", "w:scale", "w:left", "w:left:scale", "w:right", "w:right:scale"]
    table = {"meta": meta} | {key: [getattr(r, key) for r in rows] for key in artifact.COLUMNS}
    if change == "name":
        table["name"][row] = "elsewhere"
    elif change == "shape":
        table["shape"][row] = [table["raw"][row] // artifact.DTYPES[table["dtype"][row]].itemsize, 1]
    else:
        table["dtype"][row], table["bits"][row] = "float16", 0
        table["raw"][row] = int(np.prod(table["shape"][row])) * 2
    with pytest.raises(ArtifactError, match=r"^(correction|scale|raw length|data)"):
        unpack(sealed(json.dumps(table).encode(), good[start:]))


def test_pruning_takes_the_smallest_of_each_matrix():
    W = torch.randn(2, 10, 20, generator=torch.Generator().manual_seed(0))
    out = pruned(W, 0.1)
    for one, before in zip(out, W, strict=True):
        assert (one == 0).sum() == 20
        assert before[one == 0].abs().max() <= before[one != 0].abs().min()
        assert torch.equal(one[one != 0], before[one != 0])
    assert torch.equal(pruned(W, 0.0), W)


def test_pruned_models_have_their_zeros_and_a_receipt():
    model = tiny()
    out = option("quant/int6_round", keep_below=512, prune=0.3).quantize(model, {})
    told = {receipt.part: receipt for receipt in out.receipts}
    assert told["quant.prune"].value >= 0.299
    assert told["quant.prune"].alive
    for row in out.layers:
        zeros = (out.tensors[row.name].symbols == 0).float().mean()
        assert (zeros >= 0.299) == (row.section in ("attention", "mlp"))


def test_the_last_layers_have_bits_of_their_own():
    model = tiny()
    quant = option("quant/int6_round", keep_below=512, last_layers=1, last_layers_bits=8)
    out = quant.quantize(model, {})
    bits = {name: t.bits for name, t in out.tensors.items() if isinstance(t, QTensor)}
    assert {b for n, b in bits.items() if n.startswith("blocks.1.")} == {8}
    assert {b for n, b in bits.items() if n.startswith("blocks.0.")} == {6}
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters()}
    assert quant.estimate_bytes(shapes, model.sections()) > option("quant/int6_round", keep_below=512).estimate_bytes(
        shapes, model.sections()
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"last_layers": 1}, r"quant\.last_layers_bits=None: must be given exactly when"),
        ({"last_layers_bits": 6}, r"quant\.last_layers_bits=6: must be given exactly when"),
        ({"last_layers": 1, "last_layers_bits": 9}, r"quant\.last_layers_bits=9"),
        ({"last_layers": -1}, r"quant\.last_layers=-1"),
        ({"prune": 1.0}, r"quant\.prune=1\.0"),
        ({"embedding_bits": 1}, r"quant\.embedding_bits=1"),
    ],
)
def test_what_cannot_be_is_refused(changed, said):
    with pytest.raises(ConfigError, match=said):
        option("quant/int6_round", **changed)
    for key in ("rank", "tensors"):
        with pytest.raises(ConfigError, match=rf"quant\.low_rank\.{key}=0"):
            replace(PLAN, **{key: 0})
    with pytest.raises(ConfigError, match=r"quant\.low_rank\.left_bits=9"):
        replace(PLAN, left_bits=9)
    with pytest.raises(ConfigError, match=r"temperature=0\.0"):
        SelfGenerated(length=8, temperature=0.0)


def context(model, rank: int = 0, size: int = 1, count: int = 5) -> CalibrationContext:
    windows = windows_over([4000], 32, 100)
    return CalibrationContext(model, windows, World(rank, size, torch.device("cpu")), count, 2, 7)


@pytest.mark.parametrize("source", [TrainingWindows(), RandomIds(), SelfGenerated(length=20, temperature=0.8)])
def test_sources_do_not_depend_on_the_ranks(source):
    model = tiny()
    alone = torch.cat(list(source.batches(context(model), lambda: False)))
    assert torch.equal(alone, torch.cat(list(source.batches(context(model), lambda: False))))
    shares = [torch.cat(list(source.batches(context(model, rank, 2), lambda: False))) for rank in range(2)]
    assert torch.equal(alone[::2], shares[0])
    assert torch.equal(alone[1::2], shares[1])
    assert alone.shape == (5, 20 if isinstance(source, SelfGenerated) else 32)
    assert alone.dtype == torch.int64
    if not isinstance(source, TrainingWindows):
        assert 0 <= int(alone.min()) <= int(alone.max()) < 64


def test_sampling_is_autoregressive_and_follows_the_model():
    """Each token is where its number falls in the model's own distribution after the tokens before it."""
    model, samples = tiny(), torch.rand(3, 12, generator=torch.Generator().manual_seed(3))
    made = sampled(model, samples, 0.7)
    for t in range(1, 12):
        cumulated = (model(made[:, :t])[:, -1] / 0.7).softmax(-1).cumsum(-1)
        expected = (cumulated < samples[:, t, None] * cumulated[:, -1:]).sum(-1)
        assert torch.equal(made[:, t], expected)
    greedy = sampled(model, samples, 1e-4)
    assert torch.equal(greedy[:, 1:], model(greedy)[:, :-1].argmax(-1))


def test_sampling_ends_early_when_it_is_late():
    model, samples = tiny(), torch.rand(2, 40, generator=torch.Generator().manual_seed(3))
    short = sampled(model, samples, 1.0, lambda: True)
    assert short.shape == (2, FEWEST)
    assert torch.equal(short, sampled(model, samples, 1.0)[:, :FEWEST])


def test_overflowing_activations_are_named():
    model = tiny()
    hessians = collect_hessians(model, [ids(2)], World.alone())
    hessians["blocks.1.mlp.up.weight"] = torch.full_like(hessians["blocks.1.mlp.up.weight"], torch.inf)
    with pytest.raises(UserError, match=r"the Hessian of blocks\.1\.mlp\.up\.weight holds NaN or Inf"):
        option("quant/int6_gptq", keep_below=512).quantize(model, hessians)


def test_parts_are_swapped_whole_and_by_name():
    """Numbers of the part that a system states go with it, also under scale=laptop."""
    register_experiments()
    words = ["experiment=pr606_int5_softround", "scale=laptop", "quant/solver=nearest", "quant/scale=std"]
    (job,) = rehearse([*words, "quant/scale@quant.embedding_scale=max"], sweep=False)
    quant = job.recipe.quant
    assert (quant.bits, quant.solver, quant.scale, quant.embedding_scale) == (
        5,
        Nearest(),
        StdScale(k=12.85),
        MaxScale(),
    )
    with pytest.raises(
        UserError, match=r"quant/solver that is chosen has no source; of its options these have one: gptq"
    ):
        rehearse(["quant=int6_round", "quant/solver/source=random_ids"], sweep=False)
    with pytest.raises(
        ConfigError, match=r"quant\.scale='std': must be a component: .*quant/scale=std chooses one by its name"
    ):
        rehearse(["quant.scale=std"], sweep=False)
