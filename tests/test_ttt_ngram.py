"""The n-gram tilt: hints as a dictionary of tuples gives them, in chunks and slots as in one row, normalised, and bounded."""

from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pgolf.config.compose import rehearse
from pgolf.config.plan import plan
from pgolf.errors import ConfigError
from pgolf.machine.world import World
from pgolf.stages.evaluate import evaluate
from pgolf.ttt import Ngram
from pgolf.ttt.ngram import Contexts, Tables, hints, tilted
from tests.goldens.judging import SLIDING, TABLE, model, sgd
from tests.ranks import run_ranks
from tests.test_ttt_lora import TEXT, documents, lora

ALONE = World.alone()
SPEC = Ngram(order=3, threshold=0.5, beta=1.5, slots=2**12)


class Slow:
    """A dictionary from contexts to how often each token followed; the lead changes only to a strictly larger count."""

    def __init__(self):
        self.came, self.lead = defaultdict(Counter), {}

    def copy(self):
        other = Slow()
        other.came |= {context: Counter(counts) for context, counts in self.came.items()}
        other.lead |= self.lead
        return other

    def hint(self, context, threshold):
        counts = self.came[context]
        best = counts[self.lead[context]] if counts else 0
        gate = bool(counts) and np.float32(best) / np.float32(counts.total()) >= np.float32(threshold)
        return (self.lead[context] if gate else 0), gate

    def feed(self, context, token):
        counts = self.came[context]
        counts[token] += 1
        if context not in self.lead or counts[token] > counts[self.lead[context]]:
            self.lead[context] = token


def slowly(rows, order, threshold, tables):
    """(hint, gate) of each target of `rows` (lists of tokens, −1 for none), each row beside the others; then all are fed."""
    found, fed = [], []
    for row in rows:
        own = tables.copy()
        for t in range(order - 1, len(row)):
            context, token = tuple(row[t - order + 1 : t]), row[t]
            if min(*context, token) < 0:
                found.append((0, False))
                continue
            found.append(own.hint(context, threshold))
            own.feed(context, token)
            fed.append((context, token))
    for context, token in fed:
        tables.feed(context, token)
    return found


@st.composite
def chunks(draw):
    """An order, and rounds of rows of few tokens, some with nothing at an end."""
    order, few = draw(st.integers(2, 5)), draw(st.integers(1, 3))
    token = st.integers(0, few)
    rounds = []
    for _ in range(draw(st.integers(1, 4))):
        width = draw(st.integers(order, order + 12))
        row = st.tuples(st.lists(token, min_size=width, max_size=width), st.integers(0, width), st.integers(0, width))
        drawn = draw(st.lists(row, min_size=1, max_size=4))
        rounds.append(
            np.array([[t if a <= 2 * i < 2 * width - b else -1 for i, t in enumerate(r)] for r, a, b in drawn])
        )
    return order, draw(st.sampled_from([0.3, 0.5, 0.8, 1.0])), rounds


@settings(max_examples=200)
@given(chunks())
def test_hints_are_those_of_a_dictionary(case):
    order, threshold, rounds = case
    tables, slow = Tables(2**10), Slow()
    for rows in rounds:
        expected = slowly(rows.tolist(), order, threshold, slow)
        at = Contexts(rows, order)
        before = at.spread(*tables.seen(at).gated(threshold))
        again = at.spread(*tables.feed(at).gated(threshold))
        for found, gates in (before, again):
            assert list(zip(found.ravel().tolist(), gates.ravel().tolist(), strict=True)) == expected


@given(st.lists(st.integers(0, 3), min_size=3, max_size=60), st.integers(2, 6))
def test_a_stream_gives_what_a_dictionary_gives(tokens, order):
    seeded = [-1] * (order - 2) + tokens[1:2] + tokens[1:]
    expected = slowly([seeded], order, 0.5, Slow())
    found, gates = hints(np.array(tokens), order, 0.5)
    assert list(zip(found.tolist(), gates.tolist(), strict=True)) == expected


def test_the_tilt_is_a_distribution_and_raises_the_hint():
    g = torch.Generator().manual_seed(0)
    log_p = torch.randn(3, 4, 11, generator=g).log_softmax(-1)
    hint, bonus = torch.randint(11, (3, 4), generator=g), torch.tensor([0.0, 0.5, 2.625, 9.0]).expand(3, 4)
    after = tilted(log_p, hint, bonus)
    torch.testing.assert_close(after.exp().sum(-1), torch.ones(3, 4))
    torch.testing.assert_close(after[:, 0], log_p[:, 0])
    odds = (after - log_p).gather(-1, hint[..., None])[..., 0]
    assert (odds[:, 1:] > 0).all()
    rest = torch.ones_like(log_p, dtype=torch.bool).scatter(-1, hint[..., None], False)
    apart = (after - log_p)[rest].view(3, 4, 10)
    torch.testing.assert_close(apart, apart[..., :1].expand(3, 4, 10))  # the others keep their proportions


def test_full_tables_leave_new_contexts_out_and_count_on_with_the_old():
    tables = Tables(8)
    first, later = np.array([[1, 2, 3, 1, 2, 3]]), np.arange(4, 60)[None]
    for rows in (first, later, first):
        tables.feed(Contexts(rows, 3))
    assert np.count_nonzero(tables.contexts.keys) <= 6
    at = Contexts(first, 3)
    assert tables.seen(at).total.tolist() == [4, 2, 2, 5]  # (1, 2) came twice in each, once more before the fourth


def test_counts_end_at_their_24_bits():
    tables = Tables(8)
    at = Contexts(np.array([[1, 1, 1]]), 3)
    tables.feed(at)
    place = tables.contexts.find(at.keys)
    tables.contexts.values[place] |= np.uint64((2**24 - 1) << 40)
    tables.feed(at)
    assert tables.seen(at).total.tolist() == [2**24 - 1]


def scored(world, ttt, ids=TEXT):
    found = np.full(len(ids) - 1, np.nan, np.float32)

    def on_nll(first, nll):
        found[first : first + len(nll)] = nll

    score = evaluate(world, model(), ids, TABLE, SLIDING, ttt, on_nll=on_nll)
    return found, [row.sha for row in score.trace], score.receipts[-1].value, score.val_loss


def both(world):
    return scored(world, lora(mixer=SPEC, chunk_tokens=8)), scored(world, sgd(epochs=1, mixer=SPEC), REPEATED)


ONCE = documents(90)
REPEATED = np.concatenate([ONCE, ONCE[1:], ONCE, ONCE[1:], ONCE, ONCE[1:]]).astype(np.uint16)


@pytest.fixture(scope="module")
def alone():
    return both(ALONE)


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_have_equal_tables_and_scores(alone, size):
    ranks = run_ranks(both, size)
    for kind, whole in enumerate(alone):
        shares = [rank[kind] for rank in ranks]
        assert all(share[1:] == shares[0][1:] for share in shares)  # fingerprints, hints and score
        assert shares[0][2] == whole[2]
        together = np.stack([share[0] for share in shares])
        assert (np.isfinite(together).sum(0) == 1).all()
        np.testing.assert_allclose(np.nanmax(together, 0), whole[0], atol=1e-5)


def test_it_helps_where_text_repeats_itself():
    plain = scored(ALONE, sgd(epochs=1), REPEATED)
    tilt = scored(ALONE, sgd(epochs=1, mixer=SPEC), REPEATED)
    assert tilt[3] < plain[3] - 0.2
    assert 0 < tilt[2] < 1


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("order", 1, "at least 2"),
        ("threshold", 0.0, "above 0 and at most 1"),
        ("threshold", 1.5, "above 0 and at most 1"),
        ("beta", 0.0, "above 0"),
        ("slots", 3000, "a power of two"),
        ("slots", 1, "a power of two"),
    ],
)
def test_impossible_tilts_are_refused(key, value, allowed):
    with pytest.raises(ConfigError, match=rf"ttt\.mixer\.{key}={value}: must be {allowed}"):
        Ngram(**dict(order=3, threshold=0.5, beta=1.5, slots=2**12) | {key: value})


def test_an_order_longer_than_the_text_is_refused():
    spec = Ngram(order=300, threshold=0.5, beta=1.5, slots=2**12)
    with pytest.raises(ConfigError, match=r"ttt\.mixer\.order=300: must be at most the 292 tokens to score"):
        scored(ALONE, lora(mixer=spec))


def test_the_plan_states_the_tables_memory():
    (with_tilt,), (without,) = (
        rehearse([*words, "limits.train_steps=1"], sweep=False)
        for words in (["ttt/mixer=ngram"], ["ttt=lora_score_first"])
    )
    assert "n-gram tables of at most 4,294,967,296 bytes a rank" in plan(with_tilt, [1], 0)
    assert "n-gram" not in plan(without, [1], 0)
