"""The validation text as the ledger hands it out: whole windows to score and, to adapt to, only what has been scored."""

import numpy as np
import torch

from pgolf.data.bytes import ByteCounts, token_bytes
from pgolf.errors import UserError
from pgolf.eval.outline import Outline
from pgolf.eval.windows import Span


class LedgerError(RuntimeError):
    """An evaluation that cannot be believed: `rule` is the one it breaks."""

    def __init__(self, rule: str, message: str):
        super().__init__(f"{message} ({rule})")
        self.rule = rule


class Text:
    """The split on `device` as uint16, padded by one context so that every window is a plain strided view.

    `bytes` are those of each target, (targets,) int16: the first token is nobody's target, so its bytes do not count."""

    def __init__(self, ids: np.ndarray, table: ByteCounts, context: int, device: torch.device):
        if len(ids) < 2:
            raise UserError(f"a validation text of {len(ids)} tokens has nothing to score; it needs at least 2")
        self.bytes = token_bytes(ids, table)[1:]
        self.targets = len(ids) - 1
        self.outline = Outline.of(ids, table)
        padded = np.zeros(len(ids) + context, np.uint16)
        padded[: len(ids)] = ids
        self.tokens = torch.from_numpy(padded).to(device)

    def bytes_in(self, spans: list[Span]) -> int:
        """Bytes of the targets in `spans`."""
        return sum(int(self.bytes[first:end].sum(dtype=np.int64)) for first, end in spans)


class CommittedText:
    """The part of the text whose scores are committed: all that a learner may ever learn from. What is not committed is not
    in it; the ledger adds it."""

    def __init__(self, text: Text):
        self._tokens = torch.zeros_like(text.tokens)
        self._bytes = np.zeros_like(text.bytes)
        self._known = np.zeros(text.targets, bool)

    def admit(self, text: Text, spans: list[Span]) -> None:
        """The targets of `spans`, and the tokens that they were predicted from last."""
        for first, end in spans:
            self._tokens[first : end + 1] = text.tokens[first : end + 1]
            self._bytes[first:end] = text.bytes[first:end]
            self._known[first:end] = True

    def sequences(self, first: int, count: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`count` training sequences (inputs, targets) of `length`, one after another from target `first`."""
        self._allow(first, first + count * length)
        flat = self._tokens[first : first + count * length + 1].long()
        return flat[:-1].view(count, length), flat[1:].view(count, length)

    def rows(self, starts: np.ndarray, ends: np.ndarray, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets (B, length): row i from token `starts[i]`, repeating its last known token after `ends[i]`."""
        for first, end in zip(starts, ends, strict=True):
            self._allow(int(first), int(end))
        both = gather_rows(self._tokens, starts, ends, length)
        return both[:, :-1], both[:, 1:]

    def span_tokens(self, spans: list[Span], seen_from: list[int], before: int) -> np.ndarray:
        """Tokens by span of targets, (spans, before + longest + 1) int64: `before` of them, that of the first target's
        context, and the targets; −1 for tokens before `seen_from` or after the span."""
        firsts, ends = np.array(spans).T[:, :, None]
        at = firsts - before + np.arange(before + int((ends - firsts).max()) + 1)
        if not self._known[np.where((at >= firsts) & (at < ends), at, firsts)].all():
            raise LedgerError(
                "C3", f"targets of {len(spans)} spans from {firsts.min()} asked for, and some not committed"
            )
        inside = (at >= np.array(seen_from)[:, None]) & (at <= ends)
        places = torch.from_numpy(np.where(inside, at, 0)).to(self._tokens.device)
        tokens = self._tokens.view(torch.int16)[places].cpu().numpy().astype(np.int64) & 0xFFFF
        return np.where(inside, tokens, -1)

    def bytes(self, first: int, end: int) -> np.ndarray:
        """Bytes of each of the targets [first, end)."""
        self._allow(first, end)
        return self._bytes[first:end]

    def _allow(self, first: int, end: int) -> None:
        known = self._known[max(first, 0) : end]
        if first < 0 or len(known) < end - first or not known.all():
            unknown = max(first, 0) + int(np.argmin(known)) if len(known) and not known.all() else len(self._known)
            raise LedgerError("C3", f"targets [{first}, {end}) asked for, but target {unknown} is not committed")


def gather_rows(tokens: torch.Tensor, starts: np.ndarray, ends: np.ndarray, length: int) -> torch.Tensor:
    """(B, length + 1) int64: row i is the tokens from `starts[i]`, none later than `ends[i]`, which fills the row.

    Tokens 5 6 7 8, start 1, end 2, length 3: 6 7 7 7."""
    first, last = (torch.from_numpy(np.asarray(a, np.int64)).to(tokens.device)[:, None] for a in (starts, ends))
    at = torch.minimum(first + torch.arange(length + 1, device=tokens.device), last)
    return tokens.view(torch.int16)[at].long() & 0xFFFF  # CUDA has no kernel that gathers uint16
