"""torch.compile: whole graphs, as many as are stated, and all of them before a clock runs."""

import numpy as np
import pytest
import torch
import torch._dynamo
from torch._dynamo.testing import CompileCounterWithBackend

from pgolf.config.compose import rehearse
from pgolf.data.bytes import ByteCounts
from pgolf.machine.world import World
from pgolf.model.pieces import Pieces
from pgolf.schedule import Progress
from pgolf.stages.evaluate import build_graphs, evaluate
from pgolf.stages.train import Trainer, stages
from tests.command import TINY, environment
from tests.small import small

ALONE = World.alone()
LOOP = "model.loop={_target_: pgolf.model.Loop, first: 0, last: 1, num_loops: 1}"
DOCUMENTS = (
    LOOP,
    "schedule.loop_at=0.35",
    "qat=soft_round",
    "schedule.qat_below=0.5",
    "data/loader=documents",
    "data.loader.cuts=[32,64,128]",
    "data.loader.until=[0.1,0.7]",
)
# torch's compiler makes an object of an autograd function's class, and warns of it.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
BACK_ENDS = "eager", "aot_eager"  # the second also traces through autograd, as the compiler does
# System: graphs of the training step (recurrence off and on), and of scoring and adapting.
GRAPHS = {
    "baseline_sp1024": (1, 1),
    "pr606_int5_softround": (1, 2),
    "pr639_full_gptq": (1, 2),
    "pr1129_crownq": (1, 2),
    "pr1852_prequant_ttt": (2, 1),
    "pr1852_legal": (2, 2),
    "pr1855_record": (2, 7),
    "pr2014_long_context": (6, 24),
    "pr2135_token_tilt": (2, 16),
    "frontier": (6, 24),
}
AT_MOST = ("pr2014_long_context", "pr2135_token_tilt", "frontier")  # how many depends on the lengths of the documents


@pytest.fixture(autouse=True)
def cache(monkeypatch):
    monkeypatch.setenv("PGOLF_CACHE", environment()["PGOLF_CACHE"])


@pytest.fixture
def graphs(request, monkeypatch):
    """Counts what torch.compile hands to its back end; a graph that breaks is an error, as where pgolf compiles."""
    torch._dynamo.reset()
    counter, compile_ = CompileCounterWithBackend(getattr(request, "param", "eager")), torch.compile

    def counted(f, *, dynamic, fullgraph):
        assert fullgraph
        return compile_(f, backend=counter, dynamic=dynamic, fullgraph=True)

    monkeypatch.setattr(torch, "compile", counted)
    yield counter
    torch._dynamo.reset()


def recipe(*words: str):
    torch.set_num_threads(1)
    return rehearse([*words, "machine.compile=true"], sweep=False)[0].recipe


def warmed(trainer: Trainer) -> None:
    for progress in stages(trainer.recipe):
        trainer.step(progress)


def text_of(corpus, targets: int) -> tuple[np.ndarray, ByteCounts]:
    return corpus.validation.read()[: targets + 1], corpus.validation.byte_counts()


# With QAT, and with recurrence; the others take longer than they tell.
QUICK = (("pr606_int5_softround", "eager"), ("pr1852_prequant_ttt", "aot_eager"))


def cases() -> list:
    pairs = [(back_end, system) for back_end in BACK_ENDS for system in GRAPHS]
    return [pytest.param(*p, marks=() if p[::-1] in QUICK else pytest.mark.slow) for p in pairs]


@pytest.mark.parametrize(("graphs", "system"), cases(), indirect=["graphs"])
def test_the_graphs_of_every_system_are_whole_few_and_built_beforehand(graphs, system):
    here = recipe(*small(system))
    corpus = here.data.prepare(lambda what, done: None)
    ids, table = text_of(corpus, 10_240 + 37)  # two chunks and a half
    training, judging = GRAPHS[system]
    trainer = Trainer(ALONE, here, corpus.training)
    with trainer.loader:
        warmed(trainer)
        trained = graphs.frame_count
        for step in range(3):
            trainer.step(Progress(step, float(step), 2.0))
    assert graphs.frame_count == trained
    build_graphs(ALONE, here.model.build(0), ids, table, here.eval, here.ttt)
    judged = graphs.frame_count - trained
    evaluate(ALONE, here.model.build(1), ids, table, here.eval, here.ttt, compile=True)
    assert graphs.frame_count == trained + judged
    if system in AT_MOST:
        assert trained <= training
        assert judged <= judging
    else:
        assert (trained, judged) == (training, judging)


@pytest.mark.slow
def test_documents_their_number_and_their_cuts_are_few_graphs(graphs):
    """Cuts of 32, 64 and 128 at 0, .1 and .7 of the clock, recurrence from .35 on: four graphs, whatever the documents."""
    here = recipe(*TINY, "limits.train_steps=10", *DOCUMENTS)
    moments = [round(progress.fraction, 2) for progress in stages(here)]
    assert moments == [0.0, 0.1, 0.35, 1.0]  # the last with QAT, which is no graph of its own
    trainer = Trainer(ALONE, here, here.data.prepare(lambda what, done: None).training)
    with trainer.loader:
        warmed(trainer)
        assert graphs.frame_count == 4
        for step in range(10):
            trainer.step(Progress(step, float(step), 10.0))
    x, y = torch.zeros(2, 1, 1024, dtype=torch.int64).unbind()
    for count in (64, 128, 192):
        bounds = np.minimum(np.arange(count, dtype=np.int32) * 20, 1024)
        trainer.nll(x, y, Pieces.of(bounds, 128, x.device)).sum().backward()
    assert graphs.frame_count == 4
    assert all(receipt.alive for receipt in trainer.qat.receipts())


# Adapters' words, and the most graphs: eight for each length of a chunk. A longest document's own group makes single rows.
ADAPTERS = {
    "lora_score_first": ((), 8),
    "parallel_lora": (("ttt.short_tokens=[300,900]", "ttt.short_chunks=[8,16]"), 24),
}


@pytest.mark.slow
@pytest.mark.parametrize("ttt", ADAPTERS)
def test_adapters_are_as_many_graphs_for_documents_of_all_lengths(graphs, ttt):
    """Scoring and adapting, one document or several, windows of the chunk alone or longer ones, chunks by length."""
    words, most = ADAPTERS[ttt]
    here = recipe(*TINY, f"ttt={ttt}", "ttt.rank=2", "ttt.chunk_tokens=32", "ttt.documents=3", *words)
    corpus = here.data.prepare(lambda what, done: None)
    ids, table = text_of(corpus, 6_000)
    build_graphs(ALONE, here.model.build(0), ids, table, here.eval, here.ttt)
    built = graphs.frame_count
    assert built <= most
    evaluate(ALONE, here.model.build(1), ids, table, here.eval, here.ttt, compile=True)
    assert graphs.frame_count == built
