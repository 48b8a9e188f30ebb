"""What a GPU step takes, on paper: against torch's own memory tracker, and what the plan says of it."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from pgolf.config.compose import rehearse
from pgolf.config.memory import GPU_BYTES, KEPT_FREE, memory, memory_text, traffic_text
from pgolf.model.transformer import Transformer
from tests.command import TINY, run

WORDS = (*TINY, "machine=gpu8", "machine.threads=1", "data.batch_tokens=65536", "data.sequence_length=512")
MODELS = {"laptop's": (), "wider": ("model.width=128", "model.mlp_hidden=256", "model.layers=3")}


def recipe(*words: str):
    torch.set_num_threads(1)
    return rehearse([*WORDS, "machine.micro_batch_tokens=2048", *words], sweep=False)[0].recipe


def tracked(here, rows: int) -> int:
    """Activations and temporaries at the peak, as MemTracker counts them on fake CPU tensors."""
    with FakeTensorMode():
        model = Transformer(here.model, torch.bfloat16)
        both = torch.zeros(rows, here.data.sequence_length + 1, dtype=torch.int64)
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        tracker = MemTracker()
        tracker.track_external(model)
        with tracker:
            model.nll(both[:, :-1], both[:, 1:]).sum().backward()
    (peak,) = tracker.get_tracker_snapshot("peak").values()
    return sum(size for kind, size in peak.items() if any(word in str(kind) for word in ("ACT", "TEMP")))


@pytest.mark.parametrize("model", MODELS)
def test_activations_are_what_torchs_tracker_counts(model):
    here = recipe(*MODELS[model])
    assert memory(here).activations(4) == pytest.approx(tracked(here, 4), rel=0.1)


def test_weights_and_optimiser_are_counted_by_their_elements():
    here = recipe("average=blend")
    held, model = memory(here), here.model.outline()
    count, roles = here.model.parameters_count(), model.roles()
    matrices = sum(p.numel() for n, p in model.named_parameters() if roles[n].value == "matrix")
    assert held.weights == 4 * count
    assert held.optimizer == 4 * matrices // 8 + 8 * (count - matrices)
    assert held.averages == 2 * 4 * count  # an exponential and a stochastic one


def test_what_does_not_fit_says_what_would():
    here = recipe("data.batch_tokens=268435456", "machine.micro_batch_tokens=33554432")
    text = memory_text(here)
    would = int(text.rpartition("machine.micro_batch_tokens=")[2].split()[0])
    held = memory(here)
    assert "33,554,432 tokens do NOT fit" in text
    assert held.peak(would // 512) <= GPU_BYTES - KEPT_FREE < held.peak(2 * would // 512)
    assert "tokens fit" in memory_text(recipe(f"data.batch_tokens={8 * would}", f"machine.micro_batch_tokens={would}"))


def test_one_rank_sends_nothing():
    assert "nothing travels" in traffic_text(recipe("machine.ranks=1"))


def test_the_plan_of_a_gpu_recipe_has_memory_traffic_and_floor(tmp_path):
    said = run(tmp_path, *WORDS, "machine.micro_batch_tokens=2048", "dry=true").stdout
    for word in ("\nmemory ", "\ntraffic ", "\nfloor ", "of 75.0 GB", "reduce-scatter"):
        assert word in said
