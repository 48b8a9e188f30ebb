"""Bytes of code and model: counted again where the files are in the folder, and held against the cap for every seed."""

import re
from collections.abc import Iterator, Sequence

from pgolf.audit.finding import Finding
from pgolf.audit.folder_code import CODE, Code
from pgolf.audit.folder_json import Submission
from pgolf.audit.log_run import Log
from pgolf.audit.published import CAP
from pgolf.results.seedtable import is_code, sizes

COUNT = "count the file on disk, after the last change"
SMALLER = "make the model smaller; every seed must fit"
PACKED = re.compile(r"compress|minif|pack|wrapper|lzma|brotli|zlib")
PACKED_FIX = "ship the file that was counted; what is counted is what ships"
LEAST = 1000  # bytes under which a total that differs from its parts is rounding


def check_sizes(
    submission: Submission, logs: Sequence[Log], code: Code | None, artifacts: Sequence[int]
) -> Iterator[Finding]:
    """Code, totals and the cap. `artifacts` are sizes of models that lie in the folder."""
    shipped = len(code.data) if code else None
    for log in logs:
        yield from _code(log, code)
        yield from _sum(log)
        yield from _cap(log, shipped)
    yield from _stated_code(submission, logs, code)
    yield from _stated_sizes(submission, logs, code)
    for artifact in artifacts:
        if shipped is not None and artifact + shipped > CAP:
            yield _over(CODE, artifact + shipped, f", {artifact:,} of model and {shipped:,} of code")


def _over(where: str, size: int, parts: str = "", cap: int = CAP) -> Finding:
    return Finding("mistake 20", "fail", where, f"{size:,} bytes, {size - cap:,} over {cap:,}{parts}", SMALLER)


def _packed(log: Log) -> bool:
    """Whether the log counts its code in a form that it packed for counting."""
    return any(PACKED.search(how) and "uncompressed" not in how for _, _, how in log.codes)


def _code(log: Log, code: Code | None) -> Iterator[Finding]:
    """The code that a run counted against the file that ships."""
    if code is None or not log.codes:
        return
    counts, shipped = {n for _, n, _ in log.codes}, len(code.data)
    stated = [(at, n) for at, n, how in log.codes if "uncompressed" not in how] or [log.codes[-1][:2]]
    line, counted = stated[-1]
    if not counts & code.counts:
        what = f"the run counted {counted:,} bytes of code, {CODE} has {shipped:,}"
        yield Finding("mistake 21", "fail", log.at(line), what, COUNT)
    elif _packed(log) and counted not in code.counts:
        what = f"counts {counted:,} bytes of code, packed, but {CODE} ships with {shipped:,}"
        yield Finding("mistake 21", "needs argument", log.at(line), what, PACKED_FIX)


def _sum(log: Log) -> Iterator[Finding]:
    """Model + code = total, as the log states them."""
    if not (log.total and log.models and log.codes):
        return
    (at, total), sums = log.total, [m + c for _, m in log.models for _, c, _ in log.codes]
    if total in {m for _, m in log.models} or any(abs(total - s) <= LEAST for s in sums):
        return
    model, code = log.models[-1][1], log.codes[-1][1]
    what = f"{model:,} bytes of model and {code:,} of code are not the total of {total:,}"
    yield Finding("mistake 21", "fail", log.at(at), what, COUNT)


def _cap(log: Log, shipped: int | None) -> Iterator[Finding]:
    """The size of a run: its model with the file that ships where both are known, else the total that it states."""
    cap = min(CAP, log.cap[1] if log.cap else CAP)
    total = log.total or (log.models[-1] if log.models else None)
    model = log.models[-1] if log.models else None
    if model and shipped is not None:
        size = model[1] + shipped
        if size > cap and total[1] <= cap and _packed(log):
            over = f"{model[1]:,} bytes of model and the {shipped:,} of {CODE} are {size - cap:,} over {cap:,}"
            what = f"{over}; only code packed for counting fits"
            yield Finding("mistake 20", "needs argument", log.at(model[0]), what, PACKED_FIX)
        elif size > cap:
            yield _over(log.at(model[0]), size, f", {model[1]:,} of model and {shipped:,} of {CODE}", cap)
    elif total and total[1] > cap:
        yield _over(log.at(total[0]), total[1], cap=cap)


def _stated_code(submission: Submission, logs: Sequence[Log], code: Code | None) -> Iterator[Finding]:
    """Code sizes of submission.json against the file, or else against what the runs counted."""
    counted = {n for log in logs for _, n, _ in log.codes}
    for key, stated in submission.value.items():
        if not (is_code(key) and re.search(r"(?i)bytes|size", key) and type(stated) is int):
            continue
        if code and stated not in code.counts:
            what = f"{key} is {stated:,}, {CODE} has {len(code.data):,} bytes"
            arguable = stated in counted and any(_packed(log) for log in logs)
            yield Finding(
                "mistake 21",
                "needs argument" if arguable else "fail",
                submission.where(key),
                what,
                PACKED_FIX if arguable else COUNT,
            )
        elif code is None and counted and stated not in counted:
            yield Finding(
                "mistake 21",
                "fail",
                submission.where(key),
                f"{key} is {stated:,}, the runs counted {max(counted):,}",
                COUNT,
            )


def _stated_sizes(submission: Submission, logs: Sequence[Log], code: Code | None) -> Iterator[Finding]:
    """Sizes of submission.json: under the cap, and those of a run: its model alone, or with any count of the code."""
    known = {log: _possible(log, code) for log in logs}
    by_seed = {
        seed: set().union(*(known[log] for log in logs if log.seed_value == seed)) for seed in submission.table.rows
    }
    everywhere = set().union(*known.values())
    rows = [(None, submission.value), *submission.table.rows.items()]
    for seed, row in rows:
        for key, value in sizes(row).items():
            who = "" if seed is None else f"seed {seed}: "
            allowed = by_seed.get(seed) or everywhere
            if value > CAP:
                yield _over(submission.where(key), value, f" ({who}{key})")
            elif allowed and value not in allowed and not re.search(r"(?i)mean|avg|total_all", key):
                near = min(allowed, key=lambda n: abs(n - value))
                what = f"{who}{key} is {value:,}, the logs give {near:,}"
                rounded = value % 1000 == 0 and abs(value / near - 1) < 0.005
                yield Finding("mistake 25", "note" if rounded else "fail", submission.where(key), what, COUNT)


def _possible(log: Log, code: Code | None) -> set[int]:
    codes = {n for _, n, _ in log.codes} | (code.counts if code else set())
    models = {n for _, n in log.models}
    return models | {n for _, n in log.totals} | {m + c for m in models for c in codes}
