"""A step per section, int8 gates, AWQ-lite and the published LQER: what the file holds, what they gain, what is refused."""

import doctest
from dataclasses import replace

import pytest
import torch

from pgolf.artifact import inventory
from pgolf.codec import Range
from pgolf.config.compose import register_experiments, rehearse
from pgolf.config.words import short_words
from pgolf.errors import ArtifactError, ConfigError
from pgolf.machine.world import World
from pgolf.quant import Cap, LqerPr1797, lqer, protect
from pgolf.quant.apply import planned
from pgolf.quant.budget import StepGuess
from pgolf.quant.forms import FineColumns, GroupedFactors
from pgolf.quant.gptq import factor, gptq
from pgolf.quant.hessian import collect_hessians
from pgolf.quant.protect import mixed
from pgolf.quant.sections import Protect, Step
from pgolf.quant.tensors import QTensor, dequantize
from pgolf.run import _check_model
from pgolf.stages.artifact import pack, unpack
from tests.options import option
from tests.test_model import spec
from tests.test_model_extras import RECORD
from tests.test_quant import correlated, ids

torch.set_num_threads(1)
LQER = LqerPr1797(rank=4, tensors=2, group=32)
CAP = Cap(within=300, encodings=4)


def sections(**changes):
    return replace(option("quant/int6_sections", keep_below=1024), **changes)


@pytest.fixture(scope="module")
def trained():
    """A record model away from its first values, and the Hessians of its layers."""
    model = spec(**RECORD | dict(vocab_size=64)).build(1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.copy_(0.05 * torch.randn(p.shape, generator=generator))
    model.set_looping(True)
    return model, collect_hessians(model, [ids(8)], World.alone())


def to_bytes(out) -> bytes:
    return pack(out.tensors, {}, Range(), out.sections)


@pytest.mark.parametrize("module", [protect, lqer])
def test_examples_in_docstrings(module):
    assert doctest.testmod(module).failed == 0


def test_every_section_has_its_bits_and_steps(trained):
    model, hessians = trained
    assert sections().attention == Step(bits=6, k=13.0)
    out = sections().quantize(model, hessians)
    bits = {name: t.bits for name, t in out.tensors.items() if isinstance(t, QTensor)}
    assert {bits[f"blocks.0.attn.{name}.weight"] for name in ("q", "k", "v", "out")} == {6}
    assert (bits["blocks.3.mlp.up.weight"], bits["embedding.weight"], bits["blocks.2.attn.head_gate.weight"]) == (
        6,
        7,
        8,
    )
    for name, k, c in (
        ("blocks.1.attn.q.weight", 13.0, 31),
        ("blocks.1.mlp.up.weight", 11.5, 31),
        ("embedding.weight", 14, 63),
    ):
        expected = (k * model.get_parameter(name).std(1) / c).half()
        torch.testing.assert_close(out.tensors[name].scale, expected)
        assert out.tensors[name].symbols.abs().max() < c, "nothing is clipped"
    assert out.tensors["skip_weights"].dtype == out.tensors["blocks.0.attn_scale"].dtype == torch.float16
    gate = model.blocks[2].attn.head_gate.weight
    assert (dequantize(out.tensors["blocks.2.attn.head_gate.weight"]) - gate).abs().max() <= gate.abs().max() / 253
    assert out.receipts[1].alive
    assert out.receipts[1].value < 1


def test_protected_columns_lose_less_and_the_file_keeps_them(trained):
    model, hessians = trained
    plain, quant = sections(), sections(protect=Protect(group=16, bits=8))
    before, after = (one.quantize(model, hessians) for one in (plain, quant))
    (name,) = (n for n, t in after.tensors.items() if isinstance(t, QTensor) and t.extras)
    (fine,) = after.tensors[name].extras
    W, columns = model.get_parameter(name).detach(), fine.columns
    errors = [(W - dequantize(out.tensors[name]))[:, columns].square().mean().item() for out in (before, after)]
    assert errors[1] < errors[0]
    assert after.receipts[-1].part == "quant.protect"
    assert after.receipts[-1].alive
    assert after.receipts[-1].value < 1
    data = to_bytes(after)
    back = unpack(data)[0]
    assert all(torch.equal(dequantize(t), dequantize(after.tensors[n])) for n, t in back.items())
    assert any(f"fine {columns.start}-{columns.stop}" in line.kind for line in inventory(data).lines)
    assert to_bytes(quant.quantize(model, hessians)) == data


def test_published_corrections_are_kept_beside_protected_columns(trained):
    model, hessians = trained
    quant = sections(protect=Protect(group=16, bits=8), low_rank=LQER)
    out = quant.quantize(model, hessians)
    corrected = [
        n for n, t in out.tensors.items() if isinstance(t, QTensor) and any("lqer" in e.text for e in t.extras)
    ]
    assert len(corrected) == 2
    assert out.receipts[-1].alive
    back = unpack(to_bytes(out))[0]
    assert all(torch.equal(dequantize(t), dequantize(out.tensors[n])) for n, t in back.items())
    plain = sections().quantize(model, hessians)
    for name in corrected:
        W = model.get_parameter(name)
        assert (W - dequantize(out.tensors[name])).norm() < (W - dequantize(plain.tensors[name])).norm()


def test_columns_one_by_one_with_one_step_are_gptq():
    W, H = torch.randn(20, 48, generator=torch.Generator().manual_seed(3)), correlated(48, 3)
    scale = torch.full((20,), 0.3).half()
    walked = mixed(W, factor(H), scale.float()[:, None].repeat(1, 48), torch.full((48,), 15))
    solved = gptq(W, H, scale, 15)
    assert (walked == solved).all(1).float().mean() > 0.8  # the others are rows where rounding is better


def test_a_fit_moves_every_k_by_one_factor(trained):
    model, hessians = trained
    quant = sections(low_rank=LQER, fit=CAP)
    whole = len(to_bytes(replace(quant, fit=None).quantize(model, hessians)))
    for target in (whole - 6000, whole + 4000):
        out, data = quant.compress(model, hessians, to_bytes, target)
        assert target - 300 <= len(data) <= target
        assert out.fit["what"].startswith("step k of attention")
        steps = {name: out.tensors[name].scale for name in ("blocks.1.attn.q.weight", "blocks.1.mlp.up.weight")}
        ratio = steps["blocks.1.attn.q.weight"] / model.blocks[1].attn.q.weight.std(1)
        other = steps["blocks.1.mlp.up.weight"] / model.blocks[1].mlp.up.weight.std(1)
        assert (ratio.mean() / other.mean()).item() == pytest.approx(13 / 11.5, rel=1e-3)


def test_predicted_and_packed_bytes_agree(trained):
    """The guess that steers the fit, and the prediction from shapes alone, which weights as Gaussian as these bear out."""
    model, hessians = trained
    quant = sections(low_rank=LQER)
    data = to_bytes(quant.quantize(model, hessians))
    guess = StepGuess.of(*planned(model, hessians, quant), model.sections(), quant)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert guess(1.0) + guess.rest == pytest.approx(len(data), rel=0.05)  # of 100 kB, where tables weigh
    assert quant.estimate_bytes(shapes, model.sections()) == pytest.approx(len(data), rel=0.05)


@pytest.mark.parametrize(
    ("kind", "suffix"), [("lqer", ":lqer_b"), ("lqer", ":lqer_a"), ("fine", ":fine"), ("fine", ":span")]
)
def test_files_with_a_part_missing_are_refused(kind, suffix):
    W = torch.randn(12, 16, generator=torch.Generator().manual_seed(0))
    stored = QTensor((W * 10).round().char(), torch.full((12,), 0.1).half(), 6)
    factors = lqer.in_few_bits(*lqer.factors(W, 2), 8)
    extra = factors if kind == "lqer" else FineColumns(stored.scale, torch.tensor([4.0, 4.0]))
    good = {"w": replace(stored, extras=(extra,))}
    assert torch.equal(dequantize(unpack(pack(good, {}, Range()))[0]["w"]), good["w"].dequantize())
    parts = dict(extra.named())
    bent = {name: part for name, part in parts.items() if name != suffix}
    loose = {"w": stored} | {f"w{name}": part for name, part in bent.items()}
    data = pack(loose, {}, Range())
    if suffix in (":lqer_b", ":span"):
        with pytest.raises(ArtifactError, match=r"^(correction|fine): w"):
            unpack(data)
    else:
        assert f"w{next(iter(bent))}" in unpack(data)[0], "a name that no model has a parameter for"


def test_columns_beyond_the_matrix_are_refused():
    stored = QTensor(torch.zeros(3, 4, dtype=torch.int8), torch.ones(3).half(), 6)
    for span in ([0.0, 5.0], [3.0, 2.0], [-1.0, 2.0], [float("nan"), 1.0]):
        with pytest.raises(ArtifactError, match="fine: w"):
            FineColumns.of((stored.scale, torch.tensor(span)), stored, "w")
    with pytest.raises(ArtifactError, match="correction: w"):
        GroupedFactors.of((stored, stored), stored, "w")


def checked(*words: str) -> None:
    """What `pgolf.run` checks of these words before it starts anything."""
    register_experiments()
    (job,) = rehearse([short_words(word) for word in words], sweep=False)
    _check_model(job)


REFUSED = [
    (["quant.mlp.k=0.5"], "quant.mlp.k=0.5: must be at least 1"),
    (["quant.attention.bits=9"], "quant.attention.bits=9: must be between 2 and 8"),
    (["quant.gate_bits=1"], "quant.gate_bits=1"),
    (["quant.control_bits=8"], "quant.control_bits=8: must be 16 or 32"),
    (
        ["quant.low_rank=lqer_pr1797", "quant.low_rank.rank=129"],
        r"quant.low_rank.rank=129: must be at most the rows and columns",
    ),
    (["quant/low_rank=lqer_pr1797", "quant.low_rank.group=48"], r"quant.low_rank.group=48: must be a divisor"),
    (["quant/protect=awq_lite", "quant.protect.group=48"], "quant.protect.group=48: must be a divisor of the columns"),
    (["quant/fit=cap", "limits.artifact_bytes=50000"], "quant.fit='Cap': cannot make the file fit"),
    (["quant/fit=cap", "limits.artifact_bytes=400000", "quant.keep_below=65536"], "quant.keep_below=4096 would fit"),
    (["model.lanes.first=1"], "model.lanes.first=1: must be above model.loop.last"),
    (["model.lanes.first=5"], "model.lanes.first=5: must be between 0 and 4, the last block"),
    (["model.head_gate.dims=200"], r"model.head_gate.dims=200: must be at most model.width \(128\)"),
    (["optim.matrix.ns_steps=7"], "optim.matrix.ns_steps=7: must be between 1 and 5"),
    (["data.loader.row_sequences=5"], "data.loader.row_sequences=5: must be a divisor of a micro-batch's 8 sequences"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=lambda value: value[-1] if isinstance(value, list) else "")
def test_bad_input_is_refused_before_anything_starts(words, said):
    with pytest.raises(ConfigError, match=said):
        checked("experiment=pr1855_record", "scale=laptop", *words)


@pytest.mark.slow
def test_other_bad_input_is_refused_too():
    with pytest.raises(ConfigError, match=r"data\.sidecar=None: must be the name of the files"):
        checked("experiment=pr1855_record", "machine=auto", "data.sidecar=null")
    with pytest.raises(
        ConfigError, match=r"quant.keep_below=65536 keeps \d+ tensors at fp16.*quant.keep_below=16384 would fit"
    ):
        checked("model=tiny", "quant=int8_gptq_to_cap", "limits.artifact_bytes=900000", "quant.keep_below=65536")
    with pytest.raises(ConfigError, match=r"quant\.fit='PruneToCap': cannot make the file fit"):
        checked("model=tiny", "quant=int8_gptq", "quant/fit=prune", "limits.artifact_bytes=300000")
    with pytest.raises(ConfigError, match=r"quant\.low_rank\.rank=200: must be at most"):
        checked("quant=int5_gptq_low_rank", "quant.low_rank.rank=200")
    with pytest.raises(ConfigError, match=r"quant\.scale\.k=0\.5: must be between 1 and"):
        checked("quant=int6_std_gptq", "quant.scale.k=0.5")
