"""What only a GPU can show: `python -m pytest -m gpu` on a machine that has one. The timings are `python -m pgolf.bench`'s."""

import pytest
import torch

from tests.command import TINY, record, run

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
