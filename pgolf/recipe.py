"""One experiment, frozen: a component per config group, in the order of the pipeline, and the numbers they imply."""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from pgolf.average import Average
from pgolf.codec import Codec
from pgolf.data import Corpus, Data
from pgolf.errors import ConfigError, need
from pgolf.eval import Eval
from pgolf.limits import Limits
from pgolf.logger import Logger
from pgolf.machine import Machine
from pgolf.model import Model
from pgolf.optim import Optim
from pgolf.qat import QAT
from pgolf.quant import Quant
from pgolf.schedule import END, Schedule
from pgolf.seed import Seed
from pgolf.ttt import TTT

if TYPE_CHECKING:
    from pgolf.data.corpus import ValidationText
    from pgolf.eval.outline import Outline


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything a run needs to know. Fields are the config groups; a group's base class is its field's type."""

    machine: Machine
    data: Data
    model: Model
    optim: Optim
    schedule: Schedule
    average: Average
    qat: QAT
    quant: Quant
    codec: Codec
    eval: Eval
    ttt: TTT
    limits: Limits
    seed: Seed
    logger: Logger

    def __post_init__(self) -> None:
        if not (self.limits.study or self.ttt.legal):
            allowed = "trains on validation text before scoring it (breaks C3) and needs limits=study; try ttt=sgd_score_first"
            raise ConfigError("ttt", type(self.ttt).__name__, allowed)
        self._check_switches()
        self.ttt.check(self.eval)
        row = self.data.loader.row_sequences
        allowed = f"a divisor of a micro-batch's {self.micro_sequences} sequences (machine.micro_batch_tokens)"
        need(self.micro_sequences % row == 0, "data.loader.row_sequences", row, allowed)
        self.require_ranks()

    def require_ranks(self) -> None:
        """Refuse numbers of ranks, and micro-batches, that do not divide the batch."""
        data, ranks = self.data, self.machine.world_size
        if data.batch_tokens % (ranks * data.sequence_length):
            raise ConfigError(
                "data.batch_tokens",
                data.batch_tokens,
                f"must be a multiple of machine.ranks x data.sequence_length = {ranks} x {data.sequence_length}",
            )
        micro = self.micro_batch_tokens
        need(
            micro % data.sequence_length == 0 and self.rank_tokens % micro == 0,
            "machine.micro_batch_tokens",
            micro,
            f"a multiple of data.sequence_length={data.sequence_length} that divides a rank's {self.rank_tokens} tokens",
        )

    def _check_switches(self) -> None:
        """What waits for the schedule must be switched on by it; a schedule may switch what is not there."""
        if self.qat.acts and not self.schedule.qat(END):
            allowed = "is never switched on by the schedule: set schedule.qat_below, or choose qat=none"
            raise ConfigError("qat", type(self.qat).__name__, allowed)
        if self.model.recurrent and not self.schedule.looping(END):
            allowed = "is never switched on by the schedule: set schedule.loop_at, or model.loop=null"
            raise ConfigError("model.loop", "on", allowed)

    def require_text(self, corpus: Corpus) -> None:
        """Refuse texts too short to train on, or to be judged by."""
        corpus.training.check_enough(self.data.batch_tokens)
        targets = corpus.validation.tokens - 1
        self.eval.check_text(targets)
        self.ttt.check_text(targets)
        self.ttt.check_documents(lambda: outline(corpus.validation))
        self.model.check_bos(corpus.training.windows().bos)

    @property
    def rank_tokens(self) -> int:
        """Tokens of one step that fall to one rank."""
        return self.data.batch_tokens // self.machine.world_size

    @property
    def micro_batch_tokens(self) -> int:
        """Tokens that one rank takes through the model at once."""
        return min(self.machine.micro_batch_tokens or self.rank_tokens, self.rank_tokens)

    @property
    def accumulation(self) -> int:
        """Micro-batches per rank and step."""
        return self.rank_tokens // self.micro_batch_tokens

    @property
    def batch_sequences(self) -> int:
        """Sequences of the global batch."""
        return self.data.batch_tokens // self.data.sequence_length

    @property
    def micro_sequences(self) -> int:
        """Sequences of one micro-batch."""
        return self.micro_batch_tokens // self.data.sequence_length


@cache
def outline(text: "ValidationText") -> "Outline":
    """Where the documents of a validation text open. Its files are taken at their word: preparing them proves them. UserError."""
    import numpy as np

    from pgolf.data.bytes import byte_table
    from pgolf.data.shards import open_shard
    from pgolf.eval.outline import Outline

    return Outline.of(np.concatenate([open_shard(path) for path in text.paths]), byte_table(text.tokenizer))
