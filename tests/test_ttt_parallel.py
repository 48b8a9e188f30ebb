"""Adapters in the record's form with every stateful part on: ranks, isolation, order of scoring, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pgolf.data.bytes import ByteTable
from pgolf.errors import ConfigError
from pgolf.eval import Sliding
from pgolf.eval.ledger import Ledger
from pgolf.eval.outline import Outline
from pgolf.eval.text import Text
from pgolf.machine.world import World
from pgolf.stages.evaluate import evaluate
from pgolf.ttt import AdamWEps, GlobalSGD, Ngram, ParallelLora
from pgolf.ttt.documents import DocumentPlan
from tests.goldens import DATA, Golden
from tests.goldens.judging import adapters, record_model
from tests.ranks import run_ranks

ALONE = World.alone()
GOLDEN = Golden(DATA / "lora_ttt_pr1855.npz")
IDS = GOLDEN["tokens"].astype(np.uint16)
V = GOLDEN.config["vocab"]
TABLE = ByteTable(np.ones(V, np.int16), np.zeros(V, bool), np.arange(V) == GOLDEN.config["bos"])
WINDOWS = Sliding(context=32, stride=1, batch_windows=1)
OPTIMIZER = AdamWEps(lr=0.005, betas=(0.0, 0.99), weight_decay=0.5, eps=1e-8)
PLAIN = adapters(GOLDEN, optimizer=OPTIMIZER, chunk_tokens=16, documents=3)
PHASES = GlobalSGD(after=(2, 7), lr=0.02, momentum=0.9, clip=1.0, chunk_tokens=64)
TILT = Ngram(order=3, threshold=0.3, beta=1.5, slots=2**10)
ALL = replace(PLAIN, warm=True, phases=PHASES, mixer=TILT, short_tokens=(20,), short_chunks=(8,))


def scored(ids: np.ndarray, ttt: ParallelLora, world: World = ALONE):
    found = np.full(len(ids) - 1, np.nan, np.float32)

    def on_nll(first, nll):
        found[first : first + len(nll)] = nll

    score = evaluate(world, record_model(GOLDEN), ids, TABLE, WINDOWS, ttt, on_nll=on_nll)
    return found, [row.sha for row in score.trace], {r.part: r.value for r in score.receipts}


def everything(world: World):
    return scored(IDS, ALL, world), scored(flipped(), ALL, world)[0]


def flipped() -> np.ndarray:
    """The text with another token in the middle of its fifth document."""
    other = IDS.copy()
    other[AT] = (int(other[AT]) + 40) % (V - 2) + 2
    return other


AT = 150


@pytest.fixture(scope="module")
def alone():
    return everything(ALONE)


def test_every_stateful_part_acts(alone):
    (nll, _, receipts), _ = alone
    assert np.isfinite(nll).all()
    assert {"ttt", "ttt.mixer", "ttt.phases"} == set(receipts)
    assert all(value > 0 for value in receipts.values())


def before(ttt: ParallelLora, target: int) -> np.ndarray:
    """Targets that come before in order of scoring, or in another slot of the same chunk."""
    plan = ttt.plan(WINDOWS, Outline.of(IDS, TABLE))
    found = np.zeros(len(IDS) - 1, bool)
    for chunk in range(plan.chunks):
        spans = plan.spans(chunk)
        mine = [span for span in spans if span[0] <= target < span[1]]
        for first, end in spans:
            found[first : target if (first, end) in mine else end] = True
        if mine:
            return found
    raise AssertionError("no chunk holds the target")


@pytest.mark.parametrize("size", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_changed_token_changes_nothing_before_it_in_order_of_scoring(alone, size):
    """Earlier chunks and other slots of the same chunk are equal to the bit, on any number of ranks; and ranks change little."""
    ranks = [alone] if size == 1 else run_ranks(everything, size)
    (nll, shas, receipts), other = ranks[0][0], np.nanmax(np.stack([rank[1] for rank in ranks]), 0)
    nll = np.nanmax(np.stack([rank[0][0] for rank in ranks]), 0)
    earlier = before(ALL, AT - 1)
    np.testing.assert_array_equal(nll[earlier], other[earlier])
    assert nll[AT - 1] != other[AT - 1]
    assert 50 < earlier.sum() < len(earlier) - 50
    assert all(rank[0][1:] == (shas, receipts) for rank in ranks)  # ranks agree on state, hints and movement
    assert receipts["ttt.mixer"] == alone[0][2]["ttt.mixer"]  # and on hints whatever their number
    np.testing.assert_allclose(nll, alone[0][0], atol=1e-5)


def test_fresh_documents_are_isolated_and_warm_ones_are_not():
    plain, fresh = scored(IDS, PLAIN)[0], scored(flipped(), PLAIN)[0]
    starts = np.flatnonzero(GOLDEN.config["bos"] == IDS)
    mine = np.arange(len(plain))
    inside = (mine >= starts[starts < AT].max()) & (mine < starts[starts > AT].min())
    np.testing.assert_array_equal(plain[~inside], fresh[~inside])
    warm = replace(PLAIN, warm=True)
    assert (scored(IDS, warm)[0] != scored(flipped(), warm)[0])[~inside].any()
    assert (PLAIN.isolated, warm.isolated, replace(PLAIN, mixer=TILT).isolated) == (True, False, False)


@pytest.mark.parametrize(
    "ids", [IDS[:60], np.tile(IDS[:1], 12), IDS[:2]], ids=["one document", "of one token", "one target"]
)
def test_odd_texts_are_scored_whole(ids):
    """Also with more slots than documents."""
    nll, _, _ = scored(ids, replace(PLAIN, documents=64, short_tokens=(20,), short_chunks=(8,)))
    assert np.isfinite(nll).all()


def test_groups_are_cut_from_the_shortest_and_short_documents_have_short_chunks():
    lengths = np.array([40, 30, 20, 10, 5])
    plan = DocumentPlan(np.cumsum([0, *lengths])[:-1], lengths, 32, 16, 2, ((11, 4), (31, 8)))
    assert plan.edges == [0, 1, 3, 5]
    assert plan.chunk_of == [16, 8, 4]
    assert [plan.place(c)[0] for c in range(plan.chunks)] == [0] * 3 + [1] * 4 + [2] * 3
    assert plan.spans(3) == [(40, 48), (70, 78)]


BAD = [
    (dict(rank=0), r"ttt\.rank=0: must be at least 1"),
    (dict(alpha=0.0), r"ttt\.alpha=0\.0: must be above 0"),
    (dict(places=()), r"ttt\.places=\[\]: must be at least one of q, k, v, o, mlp, head, each once"),
    (dict(places=("q", "w")), r"ttt\.places=\['q', 'w'\]: must be at least one of"),
    (dict(documents=0), r"ttt\.documents=0"),
    (dict(chunk_tokens=33), r"ttt\.chunk_tokens=33: must be at most eval\.context \(32\)"),
    (dict(short_tokens=(9, 5), short_chunks=(1, 1)), r"ttt\.short_tokens=\[9, 5\]: must be rising"),
    (dict(short_tokens=(9,)), r"ttt\.short_chunks=\[\]: must be one of at least 1 for each of ttt\.short_tokens \(1\)"),
    (dict(short_tokens=(9,), short_chunks=(64,)), r"ttt\.short_chunks=\[64\]: must be at most eval\.context \(32\)"),
    (
        dict(phases=replace(PHASES, chunk_tokens=8)),
        r"ttt\.phases\.chunk_tokens=8: must be at least eval\.context \(32\)",
    ),
    (dict(mixer=replace(TILT, order=2000)), r"ttt\.mixer\.order=2000: must be at most the 373 tokens to score"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_impossible_adapters_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        scored(IDS, replace(PLAIN, **changes))


def test_impossible_phases_are_refused():
    for after in ((), (0,), (5, 3)):
        with pytest.raises(ConfigError, match=r"ttt\.phases\.after"):
            replace(PHASES, after=after)


BAD_TEXTS = [
    ([10], {}, None),
    ([10], dict(documents=2), None),
    ([10], dict(chunk_tokens=10), r"ttt\.chunk_tokens=10: must be below the 10 tokens of the longest document"),
    ([1] * 50, {}, r"ttt\.chunk_tokens=4: must be below the 1 tokens of the longest document"),
    ([9] * 50, dict(mixer=replace(TILT, order=10)), r"ttt\.mixer\.order=10: must be at most the 9 tokens"),
    ([9] * 7, dict(documents=4, warm=True), r"ttt\.warm=True: must be false: of 7 documents, 1 whole group"),
    ([9] * 8, dict(documents=4, warm=True), None),
    (
        [9] * 7,
        dict(documents=4, phases=replace(PHASES, after=(1, 4))),
        r"ttt\.phases\.after=\[1, 4\]: must be .* up to 3, of 7",
    ),
    ([9] * 7, dict(documents=4, phases=replace(PHASES, after=(1, 3))), None),
]


@pytest.mark.parametrize(("lengths", "changes", "message"), BAD_TEXTS)
def test_texts_that_leave_a_part_nothing_to_do_are_refused(lengths, changes, message):
    text = Outline(sum(lengths), np.cumsum([0, *lengths[:-1]]))
    asked = replace(PLAIN, **(dict(chunk_tokens=4, documents=1) | changes))
    if message is None:
        return asked.check_documents(lambda: text)
    with pytest.raises(ConfigError, match=message):
        asked.check_documents(lambda: text)


def test_a_step_follows_the_forward_that_scored():
    """One forward a chunk: the network is not asked again when it learns."""
    asked = []
    learner = PLAIN.build(record_model(GOLDEN), ALONE, PLAIN.plan(WINDOWS, Outline.of(IDS, TABLE)))
    plain = learner.network
    learner.network = lambda x, last: asked.append(torch.is_grad_enabled()) or plain(x, last)
    text = Text(IDS, TABLE, WINDOWS.context, ALONE.device)
    Ledger(ALONE, text, learner.plan, 1).run(learner)
    assert len(asked) == learner.plan.chunks
    assert 0 < sum(asked) < len(asked)  # no graph where no document goes on
