"""Documents that training and validation have in common, found in the tokens themselves: whoever made the shards."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np


def shared_documents(
    training: Sequence[np.ndarray], validation: Sequence[np.ndarray], bos: int, progress: Callable[[float], None]
) -> int:
    """How many training documents have exactly the tokens of a validation document. Memory holds the validation split."""
    known, shared, seen = set(documents(validation, bos)), 0, 0
    total = sum(map(len, training))
    for i, document in enumerate(documents(training, bos)):
        shared += document in known
        seen += len(document) // 2
        if i % 100_000 == 0:
            progress(seen / total)
    return shared


def documents(shards: Sequence[np.ndarray], bos: int) -> Iterator[bytes]:
    """The tokens of each document as bytes; one may run over from a shard to the next."""
    rest = b""
    for shard in shards:
        starts = np.flatnonzero(shard == bos)
        first = int(starts[0]) if len(starts) else len(shard)
        rest += shard[:first].tobytes()
        for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            if rest:
                yield rest
                rest = b""
            yield shard[start:end].tobytes()
        if len(starts):
            if rest:
                yield rest
            rest = shard[starts[-1] :].tobytes()
    if rest:
        yield rest
