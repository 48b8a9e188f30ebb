"""A training log as it was found: streamed line by line, in whatever grammar, down to the figures an audit can compare.

Public logs spell the same things in several ways; what is not recognised is left alone. Nothing is held but figures and
the log's beginning, so a log may be of any size.
"""

import codecs
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

LINE_LIMIT = 1 << 16  # characters of a line that are looked at at once
HEAD_LIMIT = 1 << 21  # characters of a log's beginning that are kept, to look for source in
WINDOW = 32  # lines within which copies of a line are counted
BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
NOISE = re.compile(r"^\W*$|^\s*\[?(rank\d+\]:\s*\[?)?W\d{3,}|[Ww]arning|NCCL|OMP_NUM_THREADS")
PROGRESS = re.compile(r"^\s*(step\b|\d+/\d+\s*$|ttt_chunk|ttp:)")


@dataclass(frozen=True)
class Result:
    """A score the log states: nats per token where they are there, bits per byte, seconds it took where they are there."""

    label: str
    loss: float | None
    bpb: float
    decimals: int
    line: int
    seconds: float | None


@dataclass(eq=False)
class Log:
    """What one log says. Pairs are (line, figure)."""

    path: Path
    lines: int = 0
    first: str = ""
    last: str = ""
    head: str = ""
    encoding: str = "utf-8"
    undecodable: int | None = None
    seed: tuple[int, int] | None = None
    world: tuple[int, int] | None = None
    tokens: tuple[int, int] | None = None
    bytes: tuple[int, int] | None = None
    trained: tuple[int, float] | None = None
    evaluated: tuple[int, float] | None = None
    cap: int | None = None
    traceback: int | None = None
    stream: str | None = None
    environment: bool = False
    prequant: int | None = None
    chosen: int | None = None
    generated: bool = False
    results: list[Result] = field(default_factory=list)
    codes: list[tuple[int, int]] = field(default_factory=list)
    models: list[tuple[int, int]] = field(default_factory=list)
    totals: list[tuple[int, int]] = field(default_factory=list)
    calibrated: list[tuple[int, float]] = field(default_factory=list)
    repeated: list[tuple[int, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def seed_value(self) -> int | None:
        """From the file's name, or else from what it says."""
        named = re.search(r"seed[_-]?(\d+)", self.name)
        return int(named[1]) if named else self.seed and self.seed[1]

    @property
    def total(self) -> tuple[int, int] | None:
        """The compressed size with the code; a log may state the uncompressed one first."""
        return self.totals[-1] if self.totals else None

    def by_label(self) -> dict[str, Result]:
        """The last statement of every label, with the most digits."""
        found: dict[str, Result] = {}
        for result in self.results:
            before = found.get(result.label)
            if before is None or result.decimals >= before.decimals:
                kept = before.seconds if before and result.seconds is None else result.seconds
                found[result.label] = replace(result, seconds=kept)
        return found


RESULT = re.compile(
    r"^(?P<label>.*?)\b(?:val_loss[:=] ?(?P<loss>\d+\.\d+) +)?val_bpb[:=] ?(?P<bpb>\d+\.\d+)"
    r"(?:.*?eval_time[:=]\s*(?P<ms>[\d.]+) ?ms)?"
)
FIGURES: dict[str, re.Pattern] = {
    "codes": re.compile(r"^Code size(?: \(compressed\))?: (\d+) bytes|\bcode_bytes=(\d+)"),
    "models": re.compile(r"^Serialized model \S+: (\d+) bytes|\bartifact_bytes=(\d+)"),
    "totals": re.compile(r"^Total submission size \S+: (\d+) bytes|\btotal_bytes=(\d+)"),
    "calibrated": re.compile(r"(?i)gptq: ?(?:calibrated|collected)\b.*? in ([\d.]+) ?s"),
}
LAST: dict[str, re.Pattern] = {
    "trained": re.compile(r"^trained .* in ([\d.]+) s\b|\btrain_time: ?(\d+)ms"),
    "evaluated": re.compile(r"^evaluated .* in ([\d.]+) s\b|^total_eval_time: ?([\d.]+)s"),
}
FIRST: dict[str, re.Pattern] = {
    "seed": re.compile(r"(?:^|\s)seed[:= ]\s*(\d+)\b"),
    "world": re.compile(r"\bworld_size: ?(\d+)|\bws:(\d+)|, (\d+) rank\(s\)"),
    "tokens": re.compile(r"^val_tokens: ?(\d+)|^val_loader:.*tokens:(\d+)|^evaluated ([\d,]+) tokens"),
    "bytes": re.compile(r"^evaluated [\d,]+ tokens, ([\d,]+) bytes"),
}
TELLING = re.compile(
    r"_bpb|bytes|(?i:gptq)|_time|trained|seed|world_size|ws:|rank|tokens|Trace|epoch|fineweb|cap=|(?i:torch)"
)
TRACEBACK = re.compile(r"^(\[rank\d+\]:\s*)?Traceback \(most recent call last\)")
PREQUANT = re.compile(r"(?i)\bpre_?-?quant\w*[_ -]?ttt\b.*\bepoch\b|\bepoch\b.*\bpre_?-?quant\w*[_ -]?ttt\b")
CHOSEN = re.compile(r"^best_averaging:\s*\w+ val_bpb")
STREAM = re.compile(r"(?i)sp(1024|4096|8192)\w*?(caseops)?\b")
ENVIRONMENT = re.compile(r"(?i)\b(py)?torch(\.__version__)?[ =:v]+\d+\.\d+")


def read_log(path: Path) -> Log:
    """Read one log from beginning to end."""
    log = Log(path)
    recent: deque[str] = deque(maxlen=WINDOW)
    counted: set[str] = set()
    head, held = [], 0
    for text in lines(log):
        if held < HEAD_LIMIT:
            head.append(text)
            held += len(text) + 1
        if text.strip():
            log.first, log.last = log.first or text, text
            if TELLING.search(text):
                notice(log, text)
            copies(log, text, recent, counted)
    log.head = "\n".join([*head, ""])
    return log


def lines(log: Log) -> Iterator[str]:
    """The beginning of every line, counted."""
    with open(log.path, "rb") as file:
        start = file.read(4)
    log.encoding = next((name for bom, name in BOMS.items() if start.startswith(bom)), "utf-8")
    whole = True
    with open(log.path, encoding=log.encoding, errors="replace") as file:
        while part := file.readline(LINE_LIMIT):
            log.lines += whole
            if "\ufffd" in part and log.undecodable is None:
                log.undecodable = log.lines
            if whole:
                yield part.rstrip("\n")
            whole = part.endswith("\n")


def notice(log: Log, text: str) -> None:
    """Take from a line what it says."""
    for name, pattern in FIGURES.items():
        if found := pattern.search(text):
            getattr(log, name).append((log.lines, number(found)))
    for name, pattern in LAST.items():
        if found := pattern.search(text):
            setattr(log, name, (log.lines, number(found) / (1000 if found[0].endswith("ms") else 1)))
    for name, pattern in FIRST.items():
        if getattr(log, name) is None and (found := pattern.search(text)):
            setattr(log, name, (log.lines, int(number(found))))
    _result(log, text)
    _marks(log, text)


def number(found: re.Match) -> float:
    """The one group that matched."""
    said = next(group for group in found.groups() if group is not None).replace(",", "")
    return float(said) if "." in said else int(said)


def _result(log: Log, text: str) -> None:
    found = RESULT.match(text)
    if found is None or PROGRESS.match(text) or re.match(r"\d+/\d+ ", text) or log.traceback == log.lines:
        return
    label = found["label"].strip(" :,-").removesuffix("_exact").removesuffix(":done") or "val_bpb"
    loss, ms = (found[k] and float(found[k]) for k in ("loss", "ms"))
    decimals = len(found["bpb"].partition(".")[2])
    log.results.append(Result(label, loss, float(found["bpb"]), decimals, log.lines, ms and ms / 1000))


def _marks(log: Log, text: str) -> None:
    for name, pattern in (("traceback", TRACEBACK), ("prequant", PREQUANT), ("chosen", CHOSEN)):
        if getattr(log, name) is None and pattern.search(text):
            setattr(log, name, log.lines)
    if log.stream is None and "fineweb" in text and (found := STREAM.search(text)):
        log.stream = f"SP{found[1]}" + (" CaseOps" if "caseops" in text.lower() else "")
    if cap := re.search(r"\bcap=(\d+)", text):
        log.cap = int(cap[1])
    log.generated |= "calibrating with self-generated" in text
    log.environment |= bool(ENVIRONMENT.search(text))


def copies(log: Log, text: str, recent: deque[str], counted: set[str]) -> None:
    """Note a line that stands once for every rank."""
    recent.append(text)
    least = max(4, log.world[1] if log.world else 8)
    if text not in counted and recent.count(text) >= least and not NOISE.search(text):
        counted.add(text)
        log.repeated.append((log.lines, text))
