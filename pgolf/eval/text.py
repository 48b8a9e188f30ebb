"""The validation text as a referee hands it out: whole windows to be graded, and, for learning, only what has been graded."""

import numpy as np
import torch

from pgolf.errors import UserError
from pgolf.eval.bytes import ByteTable, prefix_sums, token_bytes
from pgolf.eval.windows import Span


class LedgerError(RuntimeError):
    """An evaluation that cannot be believed: `rule` is the one it breaks."""

    def __init__(self, rule: str, message: str):
        super().__init__(f"{message} ({rule})")
        self.rule = rule


class Text:
    """The split on `device` as uint16, padded by one context so that every window is a plain strided view."""

    def __init__(self, ids: np.ndarray, table: ByteTable, context: int, device: torch.device):
        if len(ids) < 2:
            raise UserError(f"a validation text of {len(ids)} tokens has nothing to score; it needs at least 2")
        # The first token is nobody's target, so its bytes are not counted either.
        self.bytes_before = prefix_sums(token_bytes(ids, table)[1:])
        self.targets = len(ids) - 1
        padded = np.zeros(len(ids) + context, np.uint16)
        padded[: len(ids)] = ids
        self.tokens = torch.from_numpy(padded).to(device)
        self._ids, self._table = ids, table

    def document_starts(self) -> np.ndarray:
        """Positions of the tokens that open a document (boundary pieces), and 0."""
        starts = np.flatnonzero(self._table.boundary[self._ids[:-1]])
        return starts if len(starts) and starts[0] == 0 else np.concatenate([[0], starts])

    def bytes_in(self, spans: list[Span]) -> int:
        return sum(int(self.bytes_before[end] - self.bytes_before[first]) for first, end in spans)


class CommittedText:
    """The part of the text whose scores are committed: all that a learner may ever learn from. The ledger owns `_known`."""

    def __init__(self, text: Text):
        self._text = text
        self._known = np.zeros(text.targets, bool)

    def sequences(self, first: int, count: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`count` training sequences (inputs, targets) of `length`, one after another from target `first`."""
        self._allow(first, first + count * length)
        flat = self._text.tokens[first : first + count * length + 1].long()
        return flat[:-1].view(count, length), flat[1:].view(count, length)

    def rows(self, starts: np.ndarray, ends: np.ndarray, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets (B, length): row i from token `starts[i]`, repeating its last known token after `ends[i]`."""
        for first, end in zip(starts, ends, strict=True):
            self._allow(int(first), int(end))
        both = gather_rows(self._text.tokens, starts, ends, length)
        return both[:, :-1], both[:, 1:]

    def bytes(self, first: int, end: int) -> np.ndarray:
        """Bytes of each of the targets [first, end)."""
        self._allow(first, end)
        return np.diff(self._text.bytes_before[first : end + 1])

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
    return tokens[at].long()
