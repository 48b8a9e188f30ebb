"""Which part of a piece of work is a rank's."""


def share(lo: int, hi: int, rank: int, size: int) -> tuple[int, int]:
    """Rank's contiguous part of [lo, hi), the parts differing by at most one."""
    n = hi - lo
    return lo + n * rank // size, lo + n * (rank + 1) // size
