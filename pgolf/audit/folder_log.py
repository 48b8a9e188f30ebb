"""The logs of a folder: any file that reads like one, taken apart into the runs it holds.

A run begins where a log speaks of its seed, its model or its first step after it has stated an end result. Nothing is held of a
log but figures and its beginning, in which it may carry its source.
"""

import re
from collections import deque
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from pgolf.audit import log_grammar as grammar
from pgolf.audit.bounded import Listing, Text, text_of
from pgolf.audit.log_run import Log, Result

LINE_LIMIT = 1 << 12  # characters of a line that are looked at
HEAD_LIMIT = 1 << 21  # characters of a log's beginning that are kept, to look for source in
WINDOW = 32  # lines within which copies of a line are counted
LOGS = 200  # files of a folder that are read as logs
NOT_LOGS = {
    ".py", ".md", ".json", ".ipynb", ".yaml", ".yml", ".toml", ".csv", ".tsv", ".html", ".sh", ".diff", ".patch", ".c",
    ".cu", ".pt", ".ptz", ".bin", ".npz", ".npy", ".png", ".jpg", ".jpeg", ".pdf", ".zip", ".gz", ".xz", ".zst", ".br",
    ".model", ".pgolf", ".safetensors", ".tar", ".svg", ".rst", ".cfg", ".ini", ".pkl", ".so", ".cpp", ".vocab",
}  # fmt: skip
TRAINS = re.compile(  # a step with its loss, or an end score with both figures
    r"(?i)^\W*(?:step|iter)?\W{0,3}\d+ ?/ ?\d+\b.*loss|^\W*step\W{0,2}\d+\b.*loss|^warmup_step"
    r"|val_loss\W{1,4}\d.*val_bpb\W{1,4}\d"
)
BEGINS = re.compile(
    r"(?i)^(?:hyperparameters:|running (?:python|pytorch)|model_params|begin pgolf|logs/\S+\.txt$|(?:step[: ]*)?[01]/\d+\s)"
)
NOISE = re.compile(
    r"(?i)^\W*$|^\s*\[?(rank\d+\]:\s*\[?)?W\d{3,}|warning|NCCL|OMP_NUM_THREADS|^[|+].*[|+]$|^\s*\d*\s*N/A|%\s*default"
)
PYTHON = re.compile(r"^(import \w|from \w+[\w.]* import |def \w+\(|class \w+)")
RULER = re.compile(r"^[=-]{20,}$")
PREAMBLE = 12  # lines of a log before the source that it is said to hold
SOURCE = 8  # lines of Python that make a log's beginning look as if it held the source
SIZES = re.compile(r"\b(artifact|code|total)_bytes=(\d+)")


def read_logs(listing: Listing) -> list[Log]:
    """Every run in every file that reads like a log."""
    found: list[Log] = []
    for path in [p for p in listing.files if p.suffix.lower() not in NOT_LOGS][:LOGS]:
        text = text_of(path)
        if _reads_like_a_log(path, listing.folder, text):
            found += read_log(path, path.relative_to(listing.folder).as_posix(), text)
    return found


def _reads_like_a_log(path: Path, folder: Path, text: Text) -> bool:
    """By what it says; a name that ends in .log is enough beside submission.json."""
    if path.suffix.lower() == ".log" and path.parent == folder:
        return True
    return any(TRAINS.search(grammar.bare(line[:LINE_LIMIT])) for line in text.lines)


def read_log(path: Path, name: str | None = None, text: Text | None = None) -> list[Log]:
    """The runs of one log."""
    text = text or text_of(path)
    source = _source(text.lines)
    runs = [Log(path, name or path.name)]
    recent: deque[str] = deque(maxlen=WINDOW)
    counted: set[str] = set()
    for at, line in enumerate(text.lines, 1):
        content = grammar.bare(line[:LINE_LIMIT])
        if not content or at - 1 in source:
            continue
        if runs[-1].results and _begins(runs[-1], content):
            runs.append(Log(path, name or path.name))
        notice(runs[-1], at, content)
        copies(runs[-1], at, line[:LINE_LIMIT], recent, counted)
    nonblank = [line for line in text.lines if line.strip()]
    head = "\n".join(text.lines[: source.stop])[:HEAD_LIMIT] + "\n" if source.start < PREAMBLE else ""
    for log in runs:
        log.lines, log.encoding = len(text.lines), text.encoding
        log.undecodable, log.skipped = text.undecodable, text.skipped
        log.head, log.alone = head, len(runs) == 1
        log.first, log.last = (nonblank[0], nonblank[-1]) if nonblank else ("", "")
        log.prequant = _before_scoring(log)
        log.world, log.gpu = log.world or runs[0].world, log.gpu or runs[0].gpu
        log.tokens, log.stream = log.tokens or runs[0].tokens, log.stream or runs[0].stream
        log.environment |= runs[0].environment
    return runs


def _source(lines: tuple[str, ...]) -> range:
    """The lines in which a log carries its source: from the first that only Python has to a ruler, or to the end of the last."""
    python = [i for i, line in enumerate(lines[: 1 << 14]) if PYTHON.match(line)]
    if len(python) < SOURCE:
        return range(0)
    after = range(python[-1] + 1, len(lines))
    ruler = next(
        (i for i in after if RULER.match(lines[i]) or (grammar.STEP.match(lines[i]) and "loss" in lines[i])), None
    )
    if ruler is not None and RULER.match(lines[ruler]):
        return range(python[0], ruler + 1)
    outside = (
        i
        for i in after
        if lines[i].strip() and lines[i][0] not in " \t)]}" and not lines[i].startswith(("if __name__", "main("))
    )
    return range(python[0], next(outside, len(lines)))


def _begins(log: Log, content: str) -> bool:
    seed = grammar.INTEGERS["seed"].search(content)
    return bool(BEGINS.match(content)) or bool(seed and (log.seed is None or log.seed[1] != int(seed[1])))


def notice(log: Log, at: int, content: str) -> None:
    """Take from a line what it says."""
    for name, pattern in grammar.INTEGERS.items():
        if getattr(log, name) is None and (found := pattern.search(content)):
            setattr(log, name, (at, int(grammar.number(next(g for g in found.groups() if g is not None)))))
    _clocks(log, at, content)
    _sizes(log, at, content)
    _scores(log, at, content)
    _marks(log, at, content)


def _clocks(log: Log, at: int, content: str) -> None:
    if found := grammar.TRAINED.search(content):
        log.trained = (at, grammar.seconds(found))
    if found := grammar.EVALUATED.search(content):
        log.evaluated = (at, grammar.seconds(found))
    elif log.trained and grammar.CALIBRATES.search(content) and not grammar.KEYED.search(content):
        took = grammar.duration(content, r"(?i)elapsed|took|^in$|time")
        if took is not None and not re.search(r"(?i)reserv|budget", content):
            log.calibrated.append((at, took))
    if grammar.ADAPTS.search(content) and grammar.ADAPTED.search(content) and not grammar.KEYED.search(content):
        took = None if grammar.UNTIMED.search(content) else grammar.duration(content)
        log.adapted += [(at, took)] if took is not None else []


def _sizes(log: Log, at: int, content: str) -> None:
    pairs = SIZES.findall(content)
    for kind, n in pairs:
        {"code": log.codes, "artifact": log.models, "total": log.totals}[kind].append(
            (at, int(n), "") if kind == "code" else (at, int(n))
        )
    if grammar.CODE_CHAIN.match(content):
        log.codes += [(at, int(grammar.number(n)), "packed") for n in re.findall(r"\d[\d,]+", content)]
    elif not pairs and (found := grammar.size(content)):
        kind, how, n = found
        if kind == "code":
            log.codes.append((at, n, how))
        elif kind != "raw":
            (log.models if kind == "model" else log.totals).append((at, n))


def _scores(log: Log, at: int, content: str) -> None:
    step = grammar.STEP.match(content)
    if step:
        log.step = (at, int(step[1] or step[2]))
    way = grammar.RUNNING.search(content)
    if way and re.search(r"(?i)chunk|\bttp\w?:", content) and re.search(r"(?i)bpb|\brb:|\bbb:", content):
        log.chunks = log.chunks or at
    if (found := grammar.epoch(content)) and not re.search(r"(?i)chunk\W{0,3}\d+/", content):
        log.epochs.append((at, *found))
    if (way and not step) or log.traceback == at:
        return
    for s in grammar.scores(content):
        result = Result(s.label, s.loss, s.bpb, s.decimals, at, s.seconds, s.loss_decimals, s.tokens, s.bytes)
        if step:
            log.flat = replace(result, label="the last step", seconds=None, tokens=None, bytes=None)
        else:
            log.results.append(result)


def _marks(log: Log, at: int, content: str) -> None:
    marks = {
        "traceback": grammar.TRACEBACK.search(content),
        "odd_text": grammar.ODD_TEXT.search(content),
        "passes": grammar.TWO_PASS.search(content)
        and grammar.SCORES.search(content)
        and not grammar.OTHER_PASS.search(content),
        "chosen": grammar.CHOSEN.search(content),
        "validation_calibration": grammar.CALIBRATES_ON_VALIDATION.search(content)
        and not grammar.NEGATED.search(content),
    }
    for name, seen in marks.items():
        if seen and getattr(log, name) is None:
            setattr(log, name, at)
    if log.subset is None and (found := grammar.SUBSET.search(content)) and not re.search(r"(?i)train", content):
        log.subset = (at, int(grammar.number(next(g for g in found.groups() if g))))
    if "val" in content and log.stream is None:
        log.stream = grammar.stream(content)
    if log.gpu is None and (found := grammar.GPU.search(content)):
        log.gpu = found[1].upper()
    log.generated |= bool(grammar.CALIBRATES.search(content) and grammar.READS_NOTHING.search(content))
    log.environment |= bool(grammar.VERSION.search(content))


def _before_scoring(log: Log) -> tuple[int, int] | None:
    """(line, epochs) of training on the text to be scored: epochs that count up once, after the last step of training, before
    any chunk's score and before an end result. Score-first adaptation begins its epochs again with every chunk."""
    first = log.step[0] if log.step else 0
    last = min(max((r.line for r in log.results), default=0), log.chunks or 1 << 60)
    early = [e for e in log.epochs if first < e[0] < last]
    climbs = all(b[1] >= a[1] for a, b in pairwise(early))
    return (early[0][0], max(e[1] for e in early)) if early and climbs else None


def copies(log: Log, at: int, text: str, recent: deque[str], counted: set[str]) -> None:
    """Note a line that stands once for every rank."""
    recent.append(text)
    least = max(4, log.world[1] if log.world else 8)
    if text not in counted and not NOISE.search(text) and recent.count(text) >= least:
        counted.add(text)
        log.repeated.append((at, text))
