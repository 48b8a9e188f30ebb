"""Experiments on evaluators: every cheat is caught by the name of the rule it breaks, every legal option passes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pgolf.audit.finding import Finding, overall
from pgolf.audit.probes import evaluations, flip_positions, probe
from pgolf.audit.watch import Harness
from pgolf.eval import Chunked, Sliding
from pgolf.eval.learner import Fixed
from pgolf.ttt import (
    AdamW,
    AdamWEps,
    EntropyTemperature,
    FixedTemperature,
    GlobalSGD,
    GradientScale,
    Hedge,
    LoraScoreFirst,
    Ngram,
    NoTTT,
    ParallelLora,
    Queries,
)
from tests import cheats
from tests.goldens.judging import IDS, NONE, TABLE, adamw, model, sgd

torch.set_num_threads(1)
WINDOWS = Sliding(context=32, stride=16, batch_windows=4)
HEDGE = Hedge(neural_weight=0.9, rate=0.1, unigram_prior=1.0, bigram_prior=32.0)
NGRAM = Ngram(order=3, threshold=0.3, beta=1.5, slots=2**12)
SMALL = dict(chunk_tokens=64, sequence_length=32, batch_sequences=2, epochs=1)
LORA = LoraScoreFirst(
    chunk_tokens=16,
    optimizer=AdamW(lr=0.01, betas=(0.9, 0.999), weight_decay=0.0),
    rank=2,
    alpha=2.0,
    layers=("attn.q", "attn.v", "head"),
    documents=3,
    epochs=1,
    clip=1.0,
    seed=0,
    mixer=None,
)

PARALLEL = ParallelLora(
    chunk_tokens=16,
    optimizer=AdamWEps(lr=0.005, betas=(0.0, 0.99), weight_decay=0.5, eps=1e-8),
    rank=2,
    alpha=4.0,
    places=("q", "k", "v", "o", "mlp", "head"),
    documents=2,
    short_tokens=(40,),
    short_chunks=(8,),
    warm=False,
    seed=0,
    phases=None,
    mixer=None,
)
PHASES = GlobalSGD(after=(1,), lr=0.02, momentum=0.9, clip=1.0, chunk_tokens=32)


def examined(ttt, evaluation=WINDOWS, tokens=321) -> list[Finding]:
    return probe(Harness(evaluation, ttt, model, TABLE, IDS[:tokens]))


CAUGHT = {
    cheats.PeekInTheGate: ("C1", "the score of target"),
    cheats.AdaptThenScore: ("C3", "scored by what was learnt from it"),
    cheats.AdaptInTheOpen: ("C3", "parameters changed while it was being scored"),
    cheats.Rescoring: ("C4", "scored a second time"),
    cheats.BestOfTwo: ("C2", "from the distribution predicted without the target"),
    cheats.HashedNgram: ("C2", "nats, predicted"),
    cheats.Unnormalised: ("C2", "probabilities of all pieces sum to 1.0"),
    cheats.ValidationCalibration: ("C1", "the score of target"),
    cheats.PartialSplit: ("mistake 7", "a plan for 160 of the text's 320 targets"),
    cheats.SkippedTail: ("mistake 8", "scored 0 times"),
    cheats.TargetTemperature: ("C2", "from the distribution predicted without the target"),
    cheats.ClaimsIsolation: ("mistake 16", "of another document changed its score"),
    cheats.ReadsAhead: ("C3", "parameters that score chunk"),
    cheats.ScaledSum: ("mistake 25", "the nats entered have a mean of"),
    cheats.MoreBytes: ("mistakes 1-6", "bytes were counted, the text has"),
    cheats.OverwritesText: ("mistake 7", "handed out for target 64 is not the text's"),
    cheats.PlansAnotherText: ("mistake 7", "handed out for target 0 is not the text's"),
    cheats.EasyWindows: ("mistake 7", "handed out for target 0 is not the text's"),
    cheats.ScalingBatch: ("mistake 8", "the plan changes the scores that it hands on"),
    cheats.EasyPlaces: ("mistake 8", "32 targets are scored at 1 places"),
    cheats.FeelsWatched: ("C2", "another when nobody asks"),
    cheats.ALittleOff: ("C2", "before the target was known"),
}


def test_no_cheat_is_left_out():
    assert set(CAUGHT) == set(cheats.Cheat.__subclasses__())


@pytest.mark.parametrize("cheat", CAUGHT, ids=lambda c: c.__name__)
def test_a_cheat_is_caught_by_name(cheat):
    rule, words = CAUGHT[cheat]
    found = examined(cheat(chunk_tokens=64))
    assert any(f.rule == rule and f.verdict == "fail" and words in f.what for f in found), found
    assert overall(found).startswith("fail (")


def test_documents_that_see_each_other_in_a_chunk_are_caught():
    found = examined(cheats.SeesItsNeighbours(**vars(LORA)))
    assert any(f.rule == "C1" and f.verdict == "fail" and "the score of target" in f.what for f in found), found


LEGAL = {
    "none": NONE,
    "sgd": sgd(**SMALL),
    "adamw_last2": adamw(**SMALL),
    "queries_snr": sgd(**SMALL, trained=Queries(), gradient_scale=GradientScale.SNR),
    "polyak_entropy": sgd(**SMALL, polyak=0.9, temperature=EntropyTemperature(value=0.98, low=0.9, high=1.05)),
    "bytes_fixed_floor": sgd(
        **SMALL, byte_weighted=True, within_chunk_floor=0.1, temperature=FixedTemperature(value=0.9)
    ),
    "hedge": sgd(**SMALL, mixer=HEDGE),
    "ngram": sgd(**SMALL, mixer=NGRAM),
    "lora": LORA,
    "lora_ngram": replace(LORA, mixer=NGRAM),
    "parallel": PARALLEL,
    "parallel_everything": replace(PARALLEL, warm=True, phases=PHASES, mixer=NGRAM),
}


@pytest.mark.parametrize("name", LEGAL)
def test_every_legal_option_passes(name):
    found = examined(LEGAL[name])
    assert overall(found) == "consistent", found
    assert all(f.what.startswith("holds: ") for f in found)
    assert {"C1", "C2", "C3", "C4"} <= {f.rule for f in found}


def test_windows_side_by_side_pass():
    assert overall(examined(NONE, Chunked(context=32, batch_windows=4))) == "consistent"


def test_learning_is_seen_to_act_on_later_chunks_only():
    rewritten = [f.what for f in examined(sgd(**SMALL)) if f.where.endswith("rewritten")]
    assert rewritten == ["holds: its own parameters and all scores before are the same; 3 later ones are not"]


def test_a_random_evaluator_is_not_believed():
    class Noisy(Fixed):
        def log_p(self, x_BT, last):
            return (self.model.logits(x_BT, last=last) + 1e-7 * torch.rand(())).log_softmax(-1)

    class Random(NoTTT):
        def build(self, model, world, plan):
            return Noisy(model)

    found = examined(Random(chunk_tokens=64))
    assert any((f.rule, f.verdict) == ("repeat", "needs argument") for f in found)


def test_flips_are_drawn_by_chance_one_in_each_part_of_the_text():
    harness = Harness(WINDOWS, NONE, model, TABLE, IDS[:321])
    places = flip_positions(harness)
    assert places == flip_positions(harness)
    assert [place * 4 // 321 for place in places] == [0, 1, 2, 3]
    assert len(set(np.diff(places))) == 3


@pytest.mark.parametrize("name", ["none", "lora"])
def test_progress_is_told_of_as_many_evaluations_as_are_promised(name):
    heard = []
    probe(Harness(WINDOWS, LEGAL[name], model, TABLE, IDS[:161], heard.append))
    assert sum(now.committed == now.chunks for now in heard) == evaluations(LEGAL[name])


def test_changes_never_touch_a_documents_edge():
    harness = Harness(WINDOWS, NONE, model, TABLE, IDS[:321])
    places = np.array(flip_positions(harness))
    other = harness.changed(places)
    assert (np.flatnonzero(other != harness.ids) == places).all()
    assert not TABLE.boundary[other[places]].any()
    assert not TABLE.boundary[harness.ids[places]].any()


def test_the_worst_finding_is_the_verdict():
    def f(rule, verdict):
        return Finding(rule, verdict, "here", "this", "")

    assert overall([]) == "consistent"
    assert overall([f("C1", "note")]) == "consistent"
    assert overall([f("C1", "note"), f("mistake 9", "needs argument")]) == "needs argument (mistake 9)"
    assert overall([f("C3", "fail"), f("x", "needs argument"), f("C3", "fail"), f("C2", "fail")]) == "fail (C3, C2)"
