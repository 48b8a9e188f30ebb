"""What only a GPU can show: `python -m pytest -m gpu` on a machine that has one. The timings are `python -m pgolf.bench`'s."""

import numpy as np
import pytest
import torch
import torch.distributed as dist

from pgolf.config.compose import rehearse
from pgolf.machine.kernels import FusedKernels, loaded
from pgolf.machine.world import World
from pgolf.model.fused import attend_varlen
from pgolf.model.layers import gated_heads, normed_heads, rotary_tables
from pgolf.model.loss import plain_nll
from pgolf.model.pieces import Pieces, attend_masked
from pgolf.schedule import END, START
from pgolf.stages.train import Trainer, stages
from tests.command import TINY, environment, record, run
from tests.goldens import Golden
from tests.goldens.models import check_bf16
from tests.ranks import free_port
from tests.test_compiled import DOCUMENTS
from tests.test_golden import MODELS

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
ON_GPU = (*TINY, "limits.train_steps=20", "machine.device=CUDA", "machine.ranks=1")


@pytest.fixture(scope="module", params=["false", "true"], ids=["eager", "compiled"])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    run(folder, *ON_GPU, f"machine.compile={request.param}", "hydra.run.dir=run")
    return folder


def test_the_whole_line_ends_consistent(trained):
    kept = record(trained / "run")
    assert kept["verdict"] == "consistent"
    assert kept["environment"]["gpus"]
    assert kept["train"]["dev_bpb"]["quantized"] < 6


def test_its_artifact_scores_the_same_again_and_on_the_cpu(trained):
    before = record(trained / "run")["evaluate"]["val_bpb"]
    for device in ("CUDA", "CPU"):
        words = [w for w in ON_GPU if "device" not in w]
        run(trained, *words, f"machine.device={device}", "trained=run", f"hydra.run.dir=again_{device}")
        again = record(trained / f"again_{device}")["evaluate"]["val_bpb"]
        assert again == pytest.approx(before, abs=2e-3 if device == "CUDA" else 1e-2), device


def test_a_large_model_agrees_with_the_cpu():
    from pgolf.config.compose import register_experiments, rehearse

    register_experiments()
    spec = rehearse(["experiment=pr606_int5_softround"], sweep=False)[0].recipe.model
    ids = torch.randint(spec.vocab_size, (1, 257), generator=torch.Generator().manual_seed(0))
    nats = [
        spec.build(0, torch.device(d)).nll(ids[:, :-1].to(d), ids[:, 1:].to(d)).mean().item() for d in ("cpu", "cuda")
    ]
    assert nats[1] == pytest.approx(nats[0], rel=5e-3)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_golden_model_in_bf16_is_near(path):
    check_bf16(Golden(path), "cuda")


def generator() -> torch.Generator:
    return torch.Generator("cuda").manual_seed(0)


def trainer(monkeypatch, *words: str) -> Trainer:
    monkeypatch.setenv("PGOLF_CACHE", environment()["PGOLF_CACHE"])
    here = rehearse([*ON_GPU, *words], sweep=False)[0].recipe
    return Trainer(World.alone("cuda"), here, here.data.prepare(lambda what, done: None).training)


@pytest.mark.parametrize("words", [(), DOCUMENTS], ids=["windows", "documents"])
def test_a_step_waits_for_nothing_and_its_memory_does_not_grow(monkeypatch, words):
    """But for the one wait that keeps the host two steps ahead, which is an event's, not a copy's."""
    made = trainer(monkeypatch, *words, "machine.compile=true", "machine/kernels=fused")
    with made.loader:
        for progress in stages(made.recipe):
            made.step(progress)
        torch.cuda.set_sync_debug_mode("error")
        try:
            sizes = []
            for progress in (START, END) * 4:
                made.step(progress)
                sizes.append(torch.cuda.memory_allocated())
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert sizes[2:4] == sizes[-2:]


def test_capped_nll_is_its_plain_form_and_repeats():
    scores = torch.randn(513, 8192, generator=generator(), device="cuda").mul_(20).bfloat16().requires_grad_()
    targets = torch.randint(8192, (513,), generator=generator(), device="cuda")
    made = []
    for nll in (plain_nll, loaded(None).capped_nll, loaded(None).capped_nll):
        value = nll(scores, targets, 30.0)
        made.append((value.detach(), *torch.autograd.grad(value.sum(), scores)))
    torch.testing.assert_close(made[1][0], made[0][0], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(made[1][1], made[0][1], atol=1e-5, rtol=1e-2)
    assert all(torch.equal(a, b) for a, b in zip(made[1], made[2], strict=True))


def test_leaky_relu_squared_is_its_plain_form_to_the_bit():
    x = torch.randn(1000, 333, generator=generator(), device="cuda").bfloat16().requires_grad_()
    grad = torch.randn(1000, 333, generator=generator(), device="cuda").bfloat16()
    ours, plain = loaded(None).leaky_relu_squared(x, 0.5), torch.nn.functional.leaky_relu(x, 0.5).square()
    assert torch.equal(ours, plain)
    assert torch.equal(*(torch.autograd.grad(y, x, grad)[0] for y in (ours, plain)))


def test_kernels_of_heads_are_their_plain_forms():
    x = torch.randn(2, 333, 8, 64, generator=generator(), device="cuda").bfloat16().requires_grad_()
    v = torch.randn(2, 333, 4, 64, generator=generator(), device="cuda").bfloat16().requires_grad_()
    gate = torch.rand(2, 333, 8, generator=generator(), device="cuda").bfloat16().requires_grad_()
    gain = torch.full((8,), 1.5, device="cuda", requires_grad=True)
    rotary, here = rotary_tables(333, 16, 1e4, x.device), loaded(None)
    for plain, ours, inputs in (
        (normed_heads(x, rotary, gain), here.normed_heads(x, *rotary, gain), (x, gain)),
        (gated_heads(x, v, gate), here.exclusive_heads(x, v, gate), (x, v, gate)),
    ):
        torch.testing.assert_close(ours, plain, atol=2e-2, rtol=2e-2)
        grads = zip(*(torch.autograd.grad(y.float().square().sum(), inputs) for y in (ours, plain)), strict=True)
        for mine, theirs in grads:
            assert (mine - theirs).float().norm() < 2e-2 * theirs.float().norm()


def test_attention_over_variable_lengths_is_the_masked_reference():
    shape = (2, 256, 8, 64)
    q, k, v = (torch.randn(shape, generator=generator(), device="cuda").bfloat16() for _ in range(3))
    k, v = (t[:, :, :4].contiguous() for t in (k, v))
    bounds = np.array([0, 5, 12, 150, 256, 400, 512, 512, 512], np.int32)
    pieces = Pieces.of(bounds, 144, q.device)
    ours, plain = attend_varlen(q, k, v, pieces), attend_masked(q, k, v, pieces)
    torch.testing.assert_close(ours, plain, atol=2e-2, rtol=2e-2)


def test_a_model_with_fused_kernels_has_the_plain_ones_loss_and_gradients(monkeypatch):
    from pgolf.bench.step import accumulated, agreement
    from tests.options import option

    spec = option("model/pr1852", vocab_size=8192)
    plain, fused = (spec.build(0, torch.device("cuda")) for _ in range(2))
    (receipt,) = FusedKernels(source=None).install(fused)
    assert receipt.what.startswith("fused: softcap + cross entropy, leaky_relu², norm + RoPE + gain, exclusive")
    ids = torch.randint(8192, (2, 1025), generator=generator(), device="cuda")
    agreement({"plain": accumulated(plain, plain.nll, [ids]), "fused": accumulated(fused, fused.nll, [ids])}, 0.02)


def test_nccl_with_one_rank_changes_nothing():
    dist.init_process_group("cpu:gloo,cuda:nccl", init_method=f"tcp://localhost:{free_port()}", rank=0, world_size=1)
    try:
        given = torch.randn(1000, generator=generator(), device="cuda")
        summed = given.clone()
        dist.all_reduce(summed)
        assert torch.equal(summed, given)
    finally:
        dist.destroy_process_group()
