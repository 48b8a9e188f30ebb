"""Score-first training: its order, its options, and that ranks do not change it."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from pgolf.config.compose import rehearse
from pgolf.errors import ConfigError
from pgolf.eval import Sliding
from pgolf.machine.world import World
from pgolf.stages.evaluate import evaluate
from pgolf.ttt import (
    SGD,
    AdamW,
    EntropyTemperature,
    Everything,
    FixedTemperature,
    GradientScale,
    Hedge,
    LastBlocks,
    Ngram,
    Queries,
    TTTOptimizer,
)
from pgolf.ttt.score_first import byte_weights, cosine, scale_by_snr, trained_parameters
from pgolf.ttt.temperature import entropy_temperature
from tests.goldens.judging import IDS, NONE, SLIDING, TABLE, adamw, golden_names, model, sgd

ALONE = World.alone()


def run(ttt, ids=IDS, evaluation=SLIDING, world=ALONE):
    """(score, nats of each target, trained model)."""
    found, net = np.full(len(ids) - 1, np.nan, np.float32), model()

    def on_nll(first, nll):
        found[first : first + len(nll)] = nll

    return evaluate(world, net, ids, TABLE, evaluation, ttt, on_nll=on_nll), found, net


def test_the_published_choice_of_parameters():
    assert list(trained_parameters(adamw(), model())) == [
        n for n, _ in model().named_parameters() if n in golden_names()
    ]
    assert len(golden_names()) == len(set(golden_names())) == 30


def test_all_and_queries_only():
    names = [n for n, _ in model().named_parameters()]
    assert Everything().names(names, 5) == names
    assert Queries().names(names, 5) == [f"blocks.{i}.attn.q.weight" for i in range(5)]


def test_only_the_chosen_parameters_move():
    ttt = sgd(trained=Queries(), epochs=1)
    _, _, net = run(ttt, IDS[:800])
    for (name, after), (_, before) in zip(net.named_parameters(), model().named_parameters(), strict=True):
        assert torch.equal(before, after) == (not name.endswith("attn.q.weight")), name


def test_equal_runs_are_equal_to_the_bit():
    (one, a, _), (two, b, _) = run(adamw(epochs=1)), run(adamw(epochs=1))
    np.testing.assert_array_equal(a, b)
    assert [row.sha for row in one.trace] == [row.sha for row in two.trace]
    assert one.val_bpb == two.val_bpb


def test_a_chunk_is_scored_by_parameters_that_never_saw_it():
    """Flip a token of chunk 5: chunks 0 to 4 and their parameters, and those that score chunk 5, are the same."""
    at = 5 * 256 + 100
    flipped = IDS.copy()
    flipped[at + 1] = (flipped[at + 1] + 7) % 96
    (one, before, _), (two, after, _) = run(sgd(epochs=1)), run(sgd(epochs=1), flipped)
    np.testing.assert_array_equal(before[:at], after[:at])
    assert before[at] != after[at]
    sha = [[row.sha for row in score.trace if row.phase == "score"] for score in (one, two)]
    assert sha[0][:6] == sha[1][:6]
    assert all(a != b for a, b in zip(sha[0][6:], sha[1][6:], strict=True))


def test_the_last_chunk_is_scored_and_never_trained_on():
    score, _, _ = run(sgd(epochs=1))
    assert (score.trace[-1].phase, score.trace[-1].chunk) == ("score", 10)
    moved = [row.moved for row in score.trace if row.phase == "adapt"]
    assert len(moved) == 10
    assert all(m > 0 for m in moved)
    assert score.receipts[0].value == pytest.approx(sum(moved))


def test_micro_batches_do_not_change_what_is_learnt():
    (whole, _, _), (parts, _, _) = (run(sgd(micro_sequences=m), IDS[:1300]) for m in (32, 1))
    assert parts.val_loss == pytest.approx(whole.val_loss, abs=1e-6)


OPTIONS = [
    dict(polyak=0.5),
    dict(within_chunk_floor=0.1, batch_sequences=1),
    dict(gradient_scale=GradientScale.SNR),
    dict(gradient_scale=GradientScale.SNR_SQUARED),
    dict(byte_weighted=True),
    dict(temperature=FixedTemperature(value=0.9)),
    dict(temperature=EntropyTemperature(value=0.9, low=0.8, high=1.05)),
]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda o: "-".join(map(str, o.values()))[:40])
def test_every_option_acts_and_stays_causal(option):
    plain, changed = sgd(epochs=1, batch_sequences=option.get("batch_sequences", 32)), sgd(epochs=1, **option)
    at, flipped = 1000, IDS[:1300].copy()
    flipped[at + 1] = (flipped[at + 1] + 7) % 96
    score, before, _ = run(changed, IDS[:1300])
    assert score.val_loss != run(plain, IDS[:1300])[0].val_loss
    assert score.val_loss < run(NONE, IDS[:1300])[0].val_loss + 0.1
    assert all(receipt.alive for receipt in score.receipts)
    np.testing.assert_array_equal(before[:at], run(changed, flipped)[1][:at])


def test_polyak_scores_with_the_average_and_trains_the_model():
    ttt = sgd(epochs=1, polyak=0.9)
    learner = ttt.build(model(), ALONE, SLIDING.plan(len(IDS) - 1, 256))
    start = [p.detach().clone() for p in learner.averages]
    for _ in range(3):
        for p in learner.trained.values():
            p.data.add_(1.0)
        learner._average(list(learner.trained.values()))
    average = sum(0.1 * 0.9 ** (3 - step) * step for step in (1, 2, 3))
    for before, mean, raw in zip(start, learner.averages, learner.trained.values(), strict=True):
        torch.testing.assert_close(mean, before + average, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(raw, before + 3, atol=1e-5, rtol=1e-5)
    assert {n.split(".")[0] for n in learner.state()} == {"model", "scorer"}


def test_rates_follow_a_cosine_over_and_within_chunks():
    ttt = sgd(within_chunk_floor=0.1)
    learner = ttt.build(model(), ALONE, SLIDING.plan(len(IDS) - 1, 256))
    for chunk, done in [(0, 0.0), (3, 0.5), (10, 0.0)]:
        learner._set_rate(chunk, done)
        over = 0.5 * (1 + math.cos(math.pi * chunk / 10))
        within = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done))
        assert learner.optimizer.lr == pytest.approx(0.01 * over * within, abs=1e-12)
    assert (cosine(0, 0.1), cosine(1, 0.1)) == (1, pytest.approx(0.1))


def test_snr_scaling_is_what_it_says():
    grads = [torch.tensor([2.0, 2.0]), torch.tensor([1.0, -1.0]), torch.tensor([4.0]), torch.tensor([0.1] + [-0.1] * 3)]
    assert scale_by_snr(grads, 1).item() == 2  # the first tensor's factor of 3
    expected = [[6.0, 6.0], [1.0, -1.0], [4.0], [0.1 * 2 / math.sqrt(3)] + [-0.1 * 2 / math.sqrt(3)] * 3]
    for g, e in zip(grads, expected, strict=True):
        torch.testing.assert_close(g, torch.tensor(e))
    squared = [torch.tensor([0.1] + [-0.1] * 3)]
    assert scale_by_snr(squared, 2).item() == pytest.approx(1 / 3)
    torch.testing.assert_close(squared[0], torch.tensor([0.1] + [-0.1] * 3) * 4 / 3)


RECEIPTS = {
    "ttt.gradient_scale": dict(gradient_scale=GradientScale.SNR),
    "ttt.byte_weighted": dict(byte_weighted=True),
    "ttt.temperature": dict(temperature=FixedTemperature(value=0.9)),
}


@pytest.mark.parametrize("part", RECEIPTS)
def test_an_option_leaves_its_receipt_only_when_on(part):
    (off, _, _), (on, _, _) = run(sgd(epochs=1), IDS[:600]), run(sgd(epochs=1, **RECEIPTS[part]), IDS[:600])
    assert part not in {r.part for r in off.receipts}
    (receipt,) = (r for r in on.receipts if r.part == part)
    assert receipt.alive
    assert receipt.value > 0


def test_a_temperature_that_is_clamped_away_is_dead():
    score, _, _ = run(sgd(epochs=1, temperature=EntropyTemperature(value=0.9, low=1.0, high=1.05)), IDS[:600])
    (receipt,) = (r for r in score.receipts if r.part == "ttt.temperature")
    assert (receipt.value, receipt.alive) == (0.0, False)


@pytest.mark.slow
def test_a_byte_weight_does_not_depend_on_the_micro_batch():
    """The mean is that of the step's whole batch, so neither micro-batches nor ranks can change it."""
    (whole, _, _), (parts, _, _) = (run(sgd(micro_sequences=m, byte_weighted=True), IDS[:1300]) for m in (32, 1))
    assert parts.val_loss == pytest.approx(whole.val_loss, abs=1e-6)


def test_byte_weights_have_mean_one():
    np.testing.assert_array_equal(byte_weights(np.array([1, 3])), [0.5, 1.5])
    np.testing.assert_array_equal(byte_weights(np.array([0, 0])), [0, 0])


def test_temperature_comes_from_the_logits_alone():
    logits = torch.randn(2, 3, 11, generator=torch.Generator().manual_seed(0)) * 3
    T = entropy_temperature(logits, 0.98)
    p = logits.softmax(-1)
    H = -(p * p.log()).sum(-1, keepdim=True)
    torch.testing.assert_close(T, 1 - 0.02 * (1 - H / math.log(11)))
    torch.testing.assert_close(entropy_temperature(torch.zeros(1, 1, 8), 0.5), torch.ones(1, 1, 1))
    certain = torch.tensor([[[100.0, 0.0, 0.0]]])
    torch.testing.assert_close(entropy_temperature(certain, 0.5), torch.full((1, 1, 1), 0.5))


BAD = [
    (dict(epochs=0), "ttt.epochs=0: must be at least 1"),
    (dict(chunk_tokens=100), r"ttt.chunk_tokens=100: must be a multiple of ttt.sequence_length \(64\)"),
    (dict(clip=0.0), "ttt.clip=0.0: must be above 0"),
    (dict(polyak=1.0), "ttt.polyak=1.0: must be null or above 0 and below 1"),
    (dict(within_chunk_floor=2.0), "ttt.within_chunk_floor=2.0"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_impossible_training_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        sgd(**changes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Torchs(TTTOptimizer):
    """What builds a class of torch's, on which `lr` would be set to no effect."""

    def build(self, params):
        return torch.optim.Adagrad(params, self.lr)


@pytest.mark.parametrize("option", ["adamw_score_first", "lora_score_first", "pr1855"])
def test_an_optimiser_that_is_none_of_ours_is_refused(option):
    (job,) = rehearse([f"ttt={option}"], sweep=False)
    ttt, spec = job.recipe.ttt, job.recipe.model
    ttt.check_model(spec)
    told = r"ttt.optimizer='Torchs': must be one that builds a FirstOrder of .*, not a Adagrad"
    with pytest.raises(ConfigError, match=told):
        dataclasses.replace(ttt, optimizer=Torchs(lr=0.1)).check_model(spec)


def test_impossible_parts_are_refused():
    with pytest.raises(ConfigError, match=r"ttt\.optimizer.lr=0.0: must be above 0"):
        SGD(lr=0.0, momentum=0.9)
    with pytest.raises(ConfigError, match=r"ttt\.optimizer.momentum=1.0"):
        SGD(lr=0.1, momentum=1.0)
    with pytest.raises(ConfigError, match=r"ttt\.optimizer.betas"):
        AdamW(lr=0.1, betas=(0.9,), weight_decay=0.0)
    with pytest.raises(ConfigError, match=r"ttt\.trained.also"):
        LastBlocks(blocks=0, also=())
    with pytest.raises(ConfigError, match=r"ttt.trained.blocks=9: must be at most model.layers \(5\)"):
        trained_parameters(sgd(trained=LastBlocks(blocks=9, also=())), model())
    with pytest.raises(
        ConfigError, match=r"ttt.trained=.*must choose some of: .*embedding.weight.*blocks.N.attn.q.weight"
    ):
        trained_parameters(sgd(trained=LastBlocks(blocks=0, also=("nothing",))), model())
    with pytest.raises(ConfigError, match=r"ttt.temperature.low"):
        EntropyTemperature(value=0.98, low=2.0, high=1.0)


def test_a_text_of_one_chunk_teaches_nothing_and_says_so():
    with pytest.raises(ConfigError, match=r"ttt.chunk_tokens=256: must be below the 199 tokens to score"):
        run(sgd(), IDS[:200])


def test_the_ledger_is_told_to_score_windows_of_any_kind_before_training():
    score, _, _ = run(sgd(epochs=1), IDS[:1300], Sliding(context=48, stride=7, batch_windows=5))
    assert score.visits == (1, 1)
    assert score.tokens == 1299


CONF = Path(__file__).parent.parent / "conf"
WORDS = [f"{group}={file.stem}" for group in ("eval", "ttt") for file in sorted((CONF / group).glob("*.yaml"))]
NESTED = [f"ttt/{file.parent.name}={file.stem}" for file in sorted((CONF / "ttt").glob("*/*.yaml"))]


@pytest.mark.parametrize("word", [*WORDS, *NESTED])
def test_every_option_can_be_chosen_by_name(word):
    base = ["limits=study", "ttt=parallel_lora" if "phases" in word else "ttt=adamw_score_first"]
    (job,) = rehearse([*(b for b in base if b.split("=")[0] != word.split("=")[0]), word], sweep=False)
    assert dataclasses.fields(job.recipe.ttt)


def test_parts_are_swapped_whole_and_published_numbers_stand():
    (job,) = rehearse(["ttt=pr606", "ttt/trained=queries", "ttt/mixer=hedge", "ttt/optimizer=sgd"], sweep=False)
    ttt = job.recipe.ttt
    assert (ttt.trained, ttt.optimizer) == (Queries(), SGD(lr=1e-4, momentum=0.9))
    assert (ttt.chunk_tokens, ttt.epochs, ttt.polyak, ttt.temperature.value) == (131072, 3, 0.998, 0.98)
    assert isinstance(ttt.mixer, Hedge)


def test_training_on_validation_needs_limits_study():
    with pytest.raises(ConfigError, match=r"ttt='PrequantAdamW'.*breaks C3.*needs limits=study"):
        rehearse(["ttt=prequant_adamw"], sweep=False)


def compiled_run(ttt, monkeypatch, evaluation, ids):
    """Traced by dynamo, and run as traced: what compiling could change besides speed."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    plain, shapes = torch.compile, []

    def traced(function, **settings):
        made = plain(function, backend="eager", **settings)

        def called(x, y, last):
            shapes.append((torch.is_grad_enabled(), *x.shape, last))
            return made(x, y, last)

        return called

    monkeypatch.setattr(torch, "compile", traced)
    score = evaluate(ALONE, model(), ids, TABLE, evaluation, ttt, compile=True)
    return score, {s for s in shapes if not s[0]}, torch._dynamo.utils.counters["stats"]["unique_graphs"]


MIXED = dict(polyak=0.5, mixer=Hedge(neural_weight=0.9, rate=0.5, unigram_prior=1.0, bigram_prior=4.0))


TILTED = dict(mixer=Ngram(order=3, threshold=0.5, beta=2.0, slots=1024))


# Two graphs of scoring, two of learning: whole batches and a chunk's rest. Tables on the host break those of scoring into parts,
# none of which is made anew for another chunk.
@pytest.mark.parametrize(
    ("ttt", "most"),
    [(NONE, 4), (adamw(epochs=1, **MIXED), 4), (adamw(epochs=1, **TILTED), 7)],
    ids=["none", "mixed", "tilted"],
)
def test_compiled_graphs_see_what_was_learnt_and_have_few_shapes(ttt, most, monkeypatch):
    evaluation = Sliding(context=64, stride=16, batch_windows=6)
    score, shapes, graphs = compiled_run(ttt, monkeypatch, evaluation, IDS[:900])
    plain, _, _ = run(ttt, IDS[:900], evaluation)
    assert score.val_loss == pytest.approx(plain.val_loss, abs=1e-6)
    assert shapes == {(False, 1, 64, 64), (False, 6, 64, 16)}
    assert graphs <= most
