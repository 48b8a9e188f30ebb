"""Evaluators that cheat, each in one way, as TTT options that a config could name. Only the audit's tests use them."""

import copy
import math
from dataclasses import dataclass

import torch

from pgolf.eval.learner import Fixed
from pgolf.eval.windows import SlidingBatch, SlidingPlan
from pgolf.ttt import LoraScoreFirst, NoTTT
from pgolf.ttt.lora import LoraLearner


@dataclass(frozen=True, kw_only=True)
class Cheat(NoTTT):
    """Builds the learner named like itself, with 'Learner' behind; one that cheats in its plan needs none of its own."""

    def build(self, model, world, plan):
        return globals().get(f"{type(self).__name__}Learner", Fixed)(model)


@dataclass(frozen=True, kw_only=True)
class PeekInTheGate(Cheat):
    """A gate that opens by how the batch will turn out: it looks at the windows beside, which hold the answers."""


class PeekInTheGateLearner(Fixed):
    def log_p(self, x_BT, last):
        gate = 1.0 + 0.1 * torch.sin(x_BT.double().mean()).float()
        return (self.model.logits(x_BT, last=last) * gate).log_softmax(-1)


@dataclass(frozen=True, kw_only=True)
class AdaptThenScore(Cheat):
    """Trains a copy on the chunk it is about to score, and scores with the copy."""


class AdaptThenScoreLearner(Fixed):
    def score(self, scorer):
        true, self.model = self.model, copy.deepcopy(self.model)
        optimizer = torch.optim.SGD(self.model.parameters(), 0.01)
        for _, x, y in list(scorer.batches())[:2]:
            optimizer.zero_grad()
            self.model.nll(x, y).mean().backward()
            optimizer.step()
        super().score(scorer)
        self.model = true


@dataclass(frozen=True, kw_only=True)
class AdaptInTheOpen(Cheat):
    """Changes its parameters between two batches of one chunk."""


class AdaptInTheOpenLearner(Fixed):
    def score(self, scorer):
        super().score(scorer)
        with torch.no_grad():
            self.model.embedding.weight.mul_(0.999)


@dataclass(frozen=True, kw_only=True)
class Rescoring(Cheat):
    """Scores, learns, and scores again."""


class RescoringLearner(Fixed):
    def score(self, scorer):
        super().score(scorer)
        super().score(scorer)


@dataclass(frozen=True, kw_only=True)
class BestOfTwo(Cheat):
    """Takes the better of two passes, target by target."""


class BestOfTwoLearner(Fixed):
    def nll(self, x_BT, y_BT, last):
        once = super().nll(x_BT, y_BT, last)
        sharper = (2 * self.log_p(x_BT, last)).log_softmax(-1)
        return torch.minimum(once, -sharper.gather(-1, y_BT[:, -last:, None]).squeeze(-1))


@dataclass(frozen=True, kw_only=True)
class HashedNgram(Cheat):
    """Adds hashed pair counts to the token that came, and to no other."""


class HashedNgramLearner(Fixed):
    def nll(self, x_BT, y_BT, last):
        p = (-super().nll(x_BT, y_BT, last)).exp()
        slot = (x_BT[:, -last:] * 31 + y_BT[:, -last:]) % 64
        return -(0.8 * p + 0.2 * (slot % 2)).clamp(min=1e-9).log()


@dataclass(frozen=True, kw_only=True)
class Unnormalised(Cheat):
    """Declares more than one: a bonus for frequent tokens without taking it from the others."""


class UnnormalisedLearner(Fixed):
    def log_p(self, x_BT, last):
        log_p = super().log_p(x_BT, last)
        log_p[..., :10] += 0.05
        return log_p


@dataclass(frozen=True, kw_only=True)
class ValidationCalibration(Cheat):
    """Fits a bias on all of the validation text before it begins."""


class ValidationCalibrationLearner(Fixed):
    bias = None

    def score(self, scorer):
        if self.bias is None:
            text = scorer._ledger.text
            counts = torch.bincount(text.tokens.long(), minlength=self.model.spec.vocab_size).float()
            self.bias = 0.1 * (counts + 1).log()
        super().score(scorer)

    def log_p(self, x_BT, last):
        log_p = super().log_p(x_BT, last)
        return log_p if self.bias is None else (log_p + self.bias).log_softmax(-1)


@dataclass(frozen=True, kw_only=True)
class PartialSplit(Cheat):
    """Plans for half of the text."""

    def plan(self, evaluation, text):
        return evaluation.plan(text.targets // 2, self.chunk_tokens)


@dataclass(frozen=True, kw_only=True)
class SkippedTail(Cheat):
    """Leaves out the hard end of every chunk, and says so to nobody."""

    def plan(self, evaluation, text):
        return Shy(**vars(evaluation.plan(text.targets, self.chunk_tokens)))


class Shy(SlidingPlan):
    def batches(self, *where):
        yield from list(super().batches(*where))[:-1] or super().batches(*where)


@dataclass(frozen=True, kw_only=True)
class TargetTemperature(Cheat):
    """Divides by the temperature that suits the token that came."""


class TargetTemperatureLearner(Fixed):
    def nll(self, x_BT, y_BT, last):
        logits = self.model.logits(x_BT, last=last)
        y = y_BT[:, -last:, None]
        right = logits.argmax(-1, keepdim=True) == y
        return -(logits / torch.where(right, 0.8, 1.2)).log_softmax(-1).gather(-1, y).squeeze(-1)


@dataclass(frozen=True, kw_only=True)
class ClaimsIsolation(Cheat):
    """Says that documents are kept apart, with windows that run over their edges."""

    isolated = True


@dataclass(frozen=True, kw_only=True)
class ReadsAhead(Cheat):
    """Learns from the chunk after the one that was committed."""


class KeepsTheText(Fixed):
    def score(self, scorer):
        self.text = scorer._ledger.text
        super().score(scorer)


class ReadsAheadLearner(KeepsTheText):
    def adapt(self, text, chunk):
        with torch.no_grad():
            tokens = self.text.tokens.double()
            self.model.embedding.weight.mul_(1 - 0.01 * math.sin(tokens.mean().item()) ** 2)
        return 1.0


@dataclass(frozen=True, kw_only=True)
class ScaledSum(Cheat):
    """Scores honestly, then takes a tenth off the chunk's sum."""


class ScaledSumLearner(Fixed):
    def score(self, scorer):
        super().score(scorer)
        scorer.nats.mul_(0.9)


@dataclass(frozen=True, kw_only=True)
class MoreBytes(Cheat):
    """Spreads the same nats over more bytes."""


class MoreBytesLearner(Fixed):
    def score(self, scorer):
        super().score(scorer)
        if scorer.chunk == 0:
            scorer._ledger.bytes += 400


@dataclass(frozen=True, kw_only=True)
class OverwritesText(Cheat):
    """Once it has learnt, what is left to score is one easy token."""


class OverwritesTextLearner(KeepsTheText):
    def adapt(self, text, chunk):
        known = int(text._known.sum())
        self.text.tokens[known + 1 :] = int(self.text.tokens[known])
        return 0.0


@dataclass(frozen=True, kw_only=True)
class PlansAnotherText(Cheat):
    """Plans windows that overwrite the text they are cut from."""

    def plan(self, evaluation, text):
        return Overwriting(**vars(evaluation.plan(text.targets, self.chunk_tokens)))


class Overwriting(SlidingPlan):
    def windows(self, tokens, batch):
        tokens[:] = 65
        return super().windows(tokens, batch)


@dataclass(frozen=True, kw_only=True)
class EasyWindows(Cheat):
    """Plans windows of other tokens than the text's."""

    def plan(self, evaluation, text):
        return Easy(**vars(evaluation.plan(text.targets, self.chunk_tokens)))


class Easy(SlidingPlan):
    def windows(self, tokens, batch):
        return super().windows(tokens, batch) * 0 + 65


@dataclass(frozen=True, kw_only=True)
class ScalingBatch(Cheat):
    """Plans batches that take a tenth off dear scores as they hand them on."""

    def plan(self, evaluation, text):
        return Scaling(**vars(evaluation.plan(text.targets, self.chunk_tokens)))


class Scaling(SlidingPlan):
    def _batch(self, lo, hi, last):
        return Scaled(lo, hi, last, self.first(lo), self.first(hi), self.context)


class Scaled(SlidingBatch):
    def scored(self, nll_BS):
        scores = super().scored(nll_BS)
        return torch.where(scores > 1.5, scores * 0.9, scores) if scores.is_floating_point() else scores


@dataclass(frozen=True, kw_only=True)
class EasyPlaces(Cheat):
    """Plans batches that hand on the first target's score for every other."""

    def plan(self, evaluation, text):
        return Repeating(**vars(evaluation.plan(text.targets, self.chunk_tokens)))


class Repeating(SlidingPlan):
    def _batch(self, lo, hi, last):
        return Repeated(lo, hi, last, self.first(lo), self.first(hi), self.context)


class Repeated(SlidingBatch):
    def scored(self, nll_BS):
        return super().scored(nll_BS)[:1].expand(self.end - self.first)


@dataclass(frozen=True, kw_only=True)
class FeelsWatched(Cheat):
    """Is honest only where its distributions were asked for beside the scoring."""


class FeelsWatchedLearner(Fixed):
    asked = inside = False

    def log_p(self, x_BT, last):
        self.asked |= not self.inside
        return super().log_p(x_BT, last)

    def nll(self, x_BT, y_BT, last):
        return super().nll(x_BT, y_BT, last) * (1.0 if self.asked else 0.9)

    def score(self, scorer):
        self.inside = True
        super().score(scorer)
        self.inside = self.asked = False


@dataclass(frozen=True, kw_only=True)
class ALittleOff(Cheat):
    """Takes so little off every score that it looks like rounding."""


class ALittleOffLearner(Fixed):
    def nll(self, x_BT, y_BT, last):
        return super().nll(x_BT, y_BT, last) - 9e-5


@dataclass(frozen=True, kw_only=True)
class NeverReset(LoraScoreFirst):
    """Says that documents are kept apart, and gives the adapters of one group of them to the next."""

    def build(self, model, world, plan):
        return NeverResetLearner(self, model, world, plan)


class NeverResetLearner(LoraLearner):
    def end_group(self, text, chunk):
        pass


@dataclass(frozen=True, kw_only=True)
class SeesItsNeighbours(LoraScoreFirst):
    """Gives each document of a chunk a little of what the others beside it read."""

    isolated = False

    def build(self, model, world, plan):
        return SeesItsNeighboursLearner(self, model, world, plan)


class SeesItsNeighboursLearner(LoraLearner):
    def network(self, x_BT, last):
        logits = self.model.logits(x_BT, last=last)
        return (logits + 0.1 * logits.mean(0, keepdim=True)).log_softmax(-1)
