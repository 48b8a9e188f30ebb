"""Scoring and learning on 1, 2 and 4 real gloo processes: one number, equal parameters, and a cheat on one rank stops all."""

import numpy as np
import pytest

from pgolf.eval.learner import Fixed
from pgolf.eval.ledger import Ledger
from pgolf.eval.text import LedgerError, Text
from pgolf.machine.world import World
from pgolf.stages.evaluate import evaluate
from tests.goldens.judging import IDS, NONE, SLIDING, TABLE, model, sgd
from tests.ranks import run_ranks

TEXT = IDS[:900]
TTT = sgd(epochs=1, batch_sequences=3, micro_sequences=1)  # of 4 ranks, one has no sequence and one batch in two is one


class Lazy(Fixed):
    """Leaves its last batch of every chunk unscored."""

    def score(self, scorer):
        for batch, x, y in list(scorer.batches())[:-1]:
            scorer.record_nll(batch, self.nll(x, y, batch.last).detach())


def scored(world, ttt) -> dict:
    found, net = np.full(len(TEXT) - 1, np.nan, np.float32), model()

    def on_nll(first, nll):
        found[first : first + len(nll)] = nll

    score = evaluate(world, net, TEXT, TABLE, SLIDING, ttt, on_nll=on_nll)
    moved, shas = [r.value for r in score.receipts], [row.sha for row in score.trace]
    weight = net.blocks[4].mlp.up.weight.detach()[:8].numpy()
    return dict(
        loss=score.val_loss, bpb=score.val_bpb, bytes=score.bytes, moved=moved, shas=shas, nll=found, weight=weight
    )


def one_rank_is_lazy(world) -> str:
    learner = Lazy(model()) if world.rank == world.size - 1 else Fixed(model())
    try:
        Ledger(world, Text(TEXT, TABLE, 64, world.device), SLIDING.plan(len(TEXT) - 1, 256), 4).run(learner)
    except LedgerError as error:
        return str(error)
    return "believed"


def everything(world):
    return scored(world, NONE), scored(world, TTT), one_rank_is_lazy(world)


@pytest.fixture(scope="module")
def alone():
    return everything(World.alone())


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_number_of_ranks_changes_nothing(alone, size):
    ranks = run_ranks(everything, size)
    for kind in (0, 1):
        check([rank[kind] for rank in ranks], alone[kind])
    assert all("scored 0 times, not once" in message for *_, message in ranks)


def check(ranks: list[dict], alone: dict) -> None:
    first = ranks[0]
    for rank in ranks:
        assert rank["loss"] == first["loss"]
        assert rank["bytes"] == alone["bytes"]
        assert rank["shas"] == first["shas"]
        np.testing.assert_array_equal(rank["weight"], first["weight"])  # ranks stay equal to the bit
        assert rank["loss"] == pytest.approx(alone["loss"], abs=1e-5)
        assert rank["bpb"] == pytest.approx(alone["bpb"], abs=1e-5)
        assert rank["moved"] == pytest.approx(alone["moved"], rel=1e-3)
        np.testing.assert_allclose(rank["weight"], alone["weight"], atol=1e-4)
    together = np.stack([rank["nll"] for rank in ranks])
    assert (np.isfinite(together).sum(0) == 1).all()  # each target by one rank only
    np.testing.assert_allclose(np.nanmax(together, 0), alone["nll"], atol=1e-3)
