"""Kernels in Triton's interpreter against their plain forms, compiled for sm_90, shipped as they stand; who runs, and why not."""

import copy
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from pgolf.config.compose import rehearse
from pgolf.export.code import script, unpack
from pgolf.machine import kernels
from pgolf.machine.kernels import AutoKernels, PlainKernels
from pgolf.model import fused, layers
from tests.command import TINY, record, run
from tests.options import option

CHILD = Path(__file__).parent / "triton_child.py"
needs_triton = pytest.mark.skipif(not find_spec("triton"), reason="needs pgolf[triton]")
MOST_REGISTERS = 128  # four programs of 128 threads on each of an SM's four parts


def child(work: str, file: Path, folder: Path) -> dict:
    flags = {"TRITON_CACHE_DIR": str(folder / "cache"), "TRITON_DEFAULT_FP_FUSION": "1", "OMP_NUM_THREADS": "1"}
    if work == "interpret":
        flags["TRITON_INTERPRET"] = "1"
    command = [sys.executable, str(CHILD), work, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | flags, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_triton
def test_in_the_interpreter_every_kernel_is_its_plain_form(tmp_path):
    """Exactly where no sum is taken in another order and nothing is rounded to bf16, which the interpreter rounds otherwise."""
    found = child("interpret", kernels.path(), tmp_path)
    for name, apart in found.items():
        if name.startswith("heads") and "again" not in name:
            in_float32 = 2e-6 if "exact" in name else 2
            assert apart < (in_float32 if "float32" in name else 2e-2 if "exact" in name else 10), name
        elif "again" in name or (name.startswith("leaky") and "float32" in name):
            assert apart == 0, name
        else:
            bf16_gradient = "bfloat16" in name and "nll float" not in name
            assert apart < (8e-3 if bf16_gradient else 2e-5), name


@pytest.mark.slow
@needs_triton
def test_compiled_for_a_hopper_nothing_spills_and_an_export_carries_the_same_kernels(tmp_path):
    here = child("compile", kernels.path(), tmp_path)
    for name, used in here.items():
        assert used["registers"] <= MOST_REGISTERS, (name, used)
        assert used["spilled"] == 0, (name, used)
        assert used["shared"] <= 1024, (name, used)
    (job,) = rehearse([*TINY, "machine/kernels=auto"], sweep=False)
    lines = unpack(script(job.config).data).recipe["machine"]["kernels"]["source"]
    shipped = tmp_path / "shipped.py"
    shipped.write_text("\n".join(lines) + "\n")
    assert shipped.read_bytes() == kernels.path().read_bytes()
    assert child("compile", shipped, tmp_path) == here


@pytest.mark.slow
def test_an_export_with_plain_kernels_carries_none():
    (job,) = rehearse(list(TINY), sweep=False)
    inside = unpack(script(job.config).data)
    assert "capped_nll_forward" not in inside.modules["program"] + json.dumps(inside.recipe)


def test_what_is_missing_has_one_line(monkeypatch):
    model = option("model/tiny", vocab_size=512).build(0)
    assert PlainKernels().install(model) == []
    (receipt,) = AutoKernels(source=None).install(model)
    assert receipt.alive
    assert receipt.what.startswith("plain: needs a torch that is built with CUDA")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    for capability, triton, lack in (((7, 5), True, "compute capability 8.0"), ((9, 0), False, "pgolf[triton]")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        monkeypatch.setattr(kernels, "find_spec", lambda name, there=triton: there or None)
        assert lack in kernels.missing(torch.device("cuda"))
    assert kernels.missing(torch.device("cpu")) == "a CUDA device"
    monkeypatch.setattr(kernels, "find_spec", lambda name: True)
    monkeypatch.setattr(kernels, "which", lambda name: None)
    monkeypatch.delenv("CC", raising=False)
    assert "a C compiler" in kernels.missing(torch.device("cuda"))


@pytest.mark.slow
def test_fused_without_a_gpu_stops_a_run_and_auto_says_what_ran(tmp_path):
    words = (*TINY, "limits.train_steps=4", "ttt=none")
    refused = run(tmp_path, *words, "machine.kernels=fused", "hydra.run.dir=refused", code=1)
    assert "machine.kernels='fused': needs a" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr
    run(tmp_path, *words, "machine.kernels=auto", "hydra.run.dir=auto")
    told = [r["what"] for r in record(tmp_path / "auto")["receipts"] if r["part"] == "machine.kernels"]
    assert len(told) == 2  # of training, and of judging by the exported file
    assert all(what.startswith("plain: needs") for what in told)


NARROW = {"width": 32, "embed_width": 32, "heads": 4, "kv_heads": 2, "mlp_hidden": 64, "rope_dims": 4}


@pytest.mark.parametrize(
    ("name", "changed"), [("model/tiny", {}), ("model/pr1855", NARROW)]
)  # the latter has head gates
def test_parts_are_replaced_where_the_model_has_them(name, changed):
    """By plain forms of the same signature here; attention by the masked form."""

    class Plain:
        capped_nll = staticmethod(lambda s, y, cap: nll(s, y, cap))
        leaky_relu_squared = staticmethod(lambda x, slope: torch.nn.functional.leaky_relu(x, slope).square())
        normed_heads = staticmethod(lambda x, cos, sin, gain: layers.normed_heads(x, (cos, sin), gain))
        exclusive_heads = staticmethod(layers.gated_heads)

    model = option(name, vocab_size=512, **changed).build(0)
    nll, ids = model.loss, torch.randint(512, (2, 65), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)), alpha=0.02)
    before = model.nll(ids[:, :-1], ids[:, 1:])
    assert fused.replace_parts(model, Plain) == [
        "softcap + cross entropy",
        "leaky_relu²",
        "norm + RoPE + gain",
        "exclusive self-attention + gate",
        "attention inside documents",
    ]
    for one in (model, copy.deepcopy(model)):  # as adaptation copies it
        assert torch.equal(one.nll(ids[:, :-1], ids[:, 1:]), before)
