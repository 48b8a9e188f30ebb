"""What may be known of a text before it is scored: how long it is, and where its documents open."""

from dataclasses import dataclass

import numpy as np

from pgolf.data.bytes import ByteCounts


@dataclass(frozen=True)
class Outline:
    """What a plan may know of a text: how many targets it has, and at which tokens its documents open (0 is one)."""

    targets: int
    document_starts: np.ndarray

    @classmethod
    def of(cls, ids: np.ndarray, table: ByteCounts) -> "Outline":
        """Boundary pieces open documents."""
        starts = np.flatnonzero(table.boundary[ids[:-1]])
        return cls(len(ids) - 1, starts if len(starts) and starts[0] == 0 else np.concatenate([[0], starts]))

    @property
    def targets_in(self) -> np.ndarray:
        """Targets of each document, from its first token to the token that opens the next.

        >>> Outline(9, np.array([0, 5, 6])).targets_in
        array([5, 1, 3])
        """
        return np.diff([*self.document_starts, self.targets])
