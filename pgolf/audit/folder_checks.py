"""What a folder says of sizes, clocks, seeds and its logs, counted again or held against each other."""

import hashlib
import re
from collections.abc import Iterator, Sequence

from pgolf import stats
from pgolf.audit.finding import Finding
from pgolf.audit.folder_code import CODE, Code, Source
from pgolf.audit.folder_json import Submission
from pgolf.audit.folder_log import Log

CAP = 16_000_000
CLOCK = 600.0
STEP = 1.0  # seconds by which the step that crosses the clock may pass it
COUNT = "count the file on disk, after the last change"
GPUS = re.compile(r"\b(\d{1,3})\s?[x×]\s?(?:NVIDIA\s)?(?:H100|H200|A100|B200|L40)")
SHA = re.compile(r"\b[0-9a-f]{64}\b")
PYTHON = re.compile(r"^(import \w|from \w+[\w.]* import |def \w+\(|class \w+)", re.MULTILINE)
EMBEDDED = 8  # lines of Python that make a log look as if it held the source


def check_sizes(
    submission: Submission, logs: Sequence[Log], code: Code | None, ours: Sequence[int]
) -> Iterator[Finding]:
    """Code and totals, recounted; the cap for every seed. `ours` are artifacts that lie in the folder."""
    size = len(code.data) if code else None
    stated = submission.value.get("bytes_code")
    if size is not None and isinstance(stated, int) and stated != size:
        what = f"bytes_code is {stated:,}, {CODE} has {size:,} bytes"
        yield Finding("mistake 21", "fail", submission.where("bytes_code"), what, COUNT)
    for log in logs:
        yield from _log_sizes(submission, log, size)
    yield from _stated_sizes(submission, logs)
    for artifact in ours:
        if size is not None and artifact + size > CAP:
            what = f"an artifact of {artifact:,} bytes and {size:,} of code are over {CAP:,}"
            yield Finding("mistake 20", "fail", CODE, what, "make the model smaller")


def _log_sizes(submission: Submission, log: Log, size: int | None) -> Iterator[Finding]:
    codes = [count for _, count in log.codes]
    stated = submission.value.get("bytes_code")
    if codes and size is not None and size not in codes:
        what = f"the run counted {codes[-1]:,} bytes of code, {CODE} has {size:,}"
        yield Finding("mistake 21", "fail", f"{log.name}:{log.codes[-1][0]}", what, COUNT)
    elif codes and size is None and isinstance(stated, int) and stated not in codes:
        what = f"bytes_code is {stated:,}, the run counted {codes[-1]:,} ({log.name}:{log.codes[-1][0]})"
        yield Finding("mistake 21", "fail", submission.where("bytes_code"), what, COUNT)
    if log.total is None:
        return
    at, total = log.total
    if log.models and codes and not any(log.models[-1][1] + c == total for c in codes):
        what = f"{log.models[-1][1]:,} bytes of model and {codes[-1]:,} of code are not the total of {total:,}"
        yield Finding("mistake 21", "fail", f"{log.name}:{at}", what, COUNT)
    if total > (cap := min(CAP, log.cap or CAP)):
        what = f"{total:,} bytes are {total - cap:,} over {cap:,}"
        yield Finding("mistake 20", "fail", f"{log.name}:{at}", what, "make the model smaller; every seed must fit")


def _stated_sizes(submission: Submission, logs: Sequence[Log]) -> Iterator[Finding]:
    """bytes by seed and in all: under the cap, and what the logs say."""
    totals = {log.seed_value: {log.total[1], *(n for _, n in log.models)} for log in logs if log.total}
    largest = [log.total[1] for log in logs if log.total]
    rows = [(None, "bytes_total", submission.value)]
    rows += [(seed, k, row) for seed, row in submission.rows() for k in ("artifact_bytes", "bytes_total", "bytes")]
    rows += [(int(k[10:]), k, submission.value) for k in submission.value if re.fullmatch(r"bytes_seed\d+", k)]
    for seed, key, row in rows:
        value = row.get(key)
        if not isinstance(value, int):
            continue
        who, allowed = (f"seed {seed}: " if seed is not None else ""), totals.get(seed, {value})
        if value > CAP:
            what = f"{who}{key} is {value:,}, {value - CAP:,} over {CAP:,}"
            yield Finding(
                "mistake 20", "fail", submission.where(key), what, "make the model smaller; every seed must fit"
            )
        elif value not in allowed or (seed is None and largest and value != max(largest)):
            told = (
                f"{max(largest):,} for the largest seed"
                if seed is None
                else " or ".join(f"{n:,}" for n in sorted(allowed))
            )
            yield Finding(
                "mistake 25", "fail", submission.where(key), f"{who}{key} is {value:,}, the logs say {told}", COUNT
            )


def check_clocks(submission: Submission, logs: Sequence[Log], label: str | None) -> Iterator[Finding]:
    """Both clocks, calibration included, from logs and from submission.json; not where another track's limits were set."""
    if submission.ours and submission.track is None:
        return
    for log in logs:
        if log.trained:
            yield from _training(log, *log.trained)
        result = log.by_label().get(label or "")
        at, spent = log.evaluated or ((result.line, result.seconds or 0.0) if result else (0, 0.0))
        if spent > CLOCK:
            yield Finding(
                "mistake 19", "fail", f"{log.name}:{at}", f"evaluation took {spent:.1f} s of {CLOCK:g}", "score faster"
            )
    for seed, row in [(None, submission.value), *submission.rows()]:
        for key, rule in (
            ("train_time_s", "mistake 18"),
            ("training_time_seconds", "mistake 18"),
            ("eval_time_s", "mistake 19"),
        ):
            if isinstance(row.get(key), int | float) and row[key] > CLOCK + STEP:
                what = f"{'' if seed is None else f'seed {seed}: '}{key} is {row[key]:g}, over {CLOCK:g}"
                yield Finding(rule, "fail", submission.where(key), what, "stay inside the clock")


def _training(log: Log, at: int, spent: float) -> Iterator[Finding]:
    where, over = f"{log.name}:{at}", spent - CLOCK
    if over > 0:
        what = f"training took {spent:.3f} s of {CLOCK:g}"
        verdict = "note" if over <= STEP else "fail"
        yield Finding("mistake 18", verdict, where, what, "stop before the step that would cross the clock")
    after = [(line, seconds) for line, seconds in log.calibrated if line > at]
    extra = sum(seconds for _, seconds in after)
    if after and max(over, 0) + extra > 0 and spent + extra > CLOCK:
        what = f"calibration took {extra:.1f} s after {spent:.1f} s of training: {spent + extra:.1f} s of {CLOCK:g}"
        if log.generated:
            yield Finding(
                "mistake 18", "needs argument", f"{log.name}:{after[0][0]}", f"{what}; it says it read no data", ""
            )
        else:
            fix = "keep a reserve: what reads data to change the model is training time"
            yield Finding("mistake 18", "fail", f"{log.name}:{after[0][0]}", what, fix)


def check_seeds(submission: Submission, logs: Sequence[Log]) -> Iterator[Finding]:
    """One log for every seed, and no others; enough of them to claim anything."""
    seeds, logged = submission.seeds, [log.seed_value for log in logs]
    for seed in seeds:
        if logged.count(seed) != 1 and not (len(seeds) == len(logged) == 1):
            what = f"seed {seed} has {logged.count(seed) or 'no'} log{'s' * (logged.count(seed) > 1)}"
            yield Finding("mistake 27", "fail", submission.where("seeds"), what, "ship one whole log per seed")
    for log in logs:
        if seeds and log.seed_value is not None and log.seed_value not in seeds:
            what = f"a log of seed {log.seed_value}, which is not among the seeds that are reported ({seeds})"
            yield Finding(
                "mistake 32",
                "needs argument",
                log.name,
                what,
                "report every seed that was run, and why one is left out",
            )
        if log.seed and log.seed_value != log.seed[1]:
            what = f"the file is named after seed {log.seed_value}, the run says {log.seed[1]}"
            yield Finding("mistake 28", "fail", f"{log.name}:{log.seed[0]}", what, "name each log after its own seed")
    if 0 < max(len(seeds), len(logs)) < 3:
        what = f"{max(len(seeds), len(logs))} seed(s): a record is claimed over 3, fixed beforehand"
        yield Finding("mistake 31", "note", submission.where("seeds"), what, "run three seeds")


def check_hardware(submission: Submission, logs: Sequence[Log], readme: str | None) -> Iterator[Finding]:
    """The number of GPUs in prose and in the runs."""
    worlds = {log.world[1]: log for log in logs if log.world}
    hardware = submission.value.get("hardware")
    said = [(submission.where("hardware"), hardware)] if isinstance(hardware, str) else []
    for where, text in [*said, ("README.md", readme or "")]:
        counts = {int(n) for n in GPUS.findall(text)}
        if counts and worlds and not counts & worlds.keys():
            ranks, log = next(iter(worlds.items()))
            what = (
                f"speaks of {', '.join(map(str, sorted(counts)))} GPU(s), {log.name}:{log.world[0]} of {ranks} rank(s)"
            )
            yield Finding("mistake 25", "needs argument", where, what, "say what the runs ran on")


def check_claim(submission: Submission) -> Iterator[Finding]:
    """The unit of a stated gain, and a stated p against the one that its own seeds give."""
    value, scores = submission.value, submission.scores
    bpb, nats = (value.get(f"delta_vs_leaderboard_{unit}") for unit in ("bpb", "nats"))
    ratio = scores.nats_per_bpb if scores else None
    if ratio and isinstance(bpb, float) and isinstance(nats, float) and bpb and abs(nats / bpb / ratio - 1) > 0.02:
        what = f"a gain of {bpb} bpb is {bpb * ratio:.5f} nats per token on this stream, not {nats}"
        yield Finding(
            "mistake 31", "fail", submission.where("delta_vs_leaderboard_nats"), what, "convert by val_loss / val_bpb"
        )
    p, baseline = value.get("p_value"), value.get("comparison_baseline_bpb")
    if ratio and isinstance(p, float) and isinstance(baseline, float) and scores.sample.spread:
        again = stats.claim(scores.sample, stats.Sample(1, baseline, None), ratio).readings[0].one_sample_p
        if again is not None and p < stats.BAR_P <= again:
            what = f"p_value is {p}, but against {baseline} less 0.005 nats per token it is {again:.3g}"
            yield Finding(
                "mistake 31", "fail", submission.where("p_value"), what, "test against the bar, per token in nats"
            )


def check_log(log: Log, code: Code | None) -> Iterator[Finding]:
    """Whole, readable, of this script, printed once, by a run that did nothing before its time."""
    if log.undecodable:
        yield Finding(
            "mistake 27", "note", f"{log.name}:{log.undecodable}", f"is not {log.encoding} text", "write UTF-8"
        )
    if log.lines == 0:
        yield Finding("mistake 27", "fail", log.name, "is empty", "ship the whole log")
    elif not log.results:
        yield Finding(
            "mistake 27", "fail", f"{log.name}:{log.lines}", "ends without any score: cut short", "ship the whole log"
        )
    if log.traceback:
        yield Finding(
            "mistake 27",
            "fail",
            f"{log.name}:{log.traceback}",
            "holds a traceback: the run failed",
            "ship a run that ended",
        )
    yield from _ends(log, code)
    if code:
        yield from _source(log, code)
    for at, text in log.repeated:
        yield Finding(
            "mistake 29",
            "note",
            f"{log.name}:{at}",
            f"printed by every rank: {text.strip()[:70]}",
            "print on rank 0 only",
        )
    if log.prequant:
        what = "trains on validation text for epochs before that text is scored"
        yield Finding("C3", "fail", f"{log.name}:{log.prequant}", what, "score each chunk first, then train on it")
    if log.chosen:
        what = "chooses between averages by their score on validation text"
        yield Finding(
            "mistake 11",
            "needs argument",
            f"{log.name}:{log.chosen}",
            what,
            "choose on held-out training text, or by config",
        )
    if log.lines and not log.environment:
        yield Finding(
            "mistake 34", "note", log.name, "does not name the PyTorch version", "print versions, GPUs and driver"
        )


def _ends(log: Log, code: Code | None) -> Iterator[Finding]:
    """pgolf's own logs name the code's sha256 at both ends, and count their lines."""
    first, last = SHA.search(log.first), SHA.search(log.last)
    if not log.first.startswith(("begin pgolf=", "code ")) or not first:
        return
    if not last or last[0] != first[0]:
        what = "its first line names the code, its last does not: cut short, or two logs in one"
        yield Finding("mistake 27", "fail", f"{log.name}:{log.lines}", what, "ship the whole log")
    if code and first[0] != hashlib.sha256(code.data).hexdigest():
        what = f"is the log of another script: it names {first[0][:12]}…, {CODE} is {hashlib.sha256(code.data).hexdigest()[:12]}…"
        yield Finding("mistake 28", "fail", f"{log.name}:1", what, "ship the script that ran")
    if (count := re.search(r"\blines=(\d+)", log.last)) and int(count[1]) != log.lines:
        what = f"has {log.lines} lines, its end marker says {count[1]}"
        yield Finding("mistake 27", "fail", f"{log.name}:{log.lines}", what, "ship the whole log")
    if (status := re.search(r"\bstatus=(\w+)", log.last)) and status[1] != "complete":
        yield Finding(
            "mistake 27", "fail", f"{log.name}:{log.lines}", f"the run is {status[1]}", "ship a run that ended"
        )


def _source(log: Log, code: Code) -> Iterator[Finding]:
    """A log that holds source must hold the shipped one."""
    if len(PYTHON.findall(log.head)) < EMBEDDED:
        return
    texts = [source for source in code.sources if _normal(source) in log.head.replace("\r\n", "\n")]
    if not texts:
        what = f"holds the source of another script than {CODE}"
        yield Finding("mistake 28", "fail", f"{log.name}:1", what, "ship the script that ran")


def _normal(source: Source) -> str:
    return source.text.replace("\r\n", "\n").strip()


def check_proofs(submission: Submission, logs: Sequence[Log], code: Code | None) -> Iterator[Finding]:
    """pgolf's own section: hashes of code and logs, receipts, verdicts, and what compliance admits."""
    proofs = submission.value.get("pgolf") if submission.ours else None
    if proofs is None:
        return
    if code and proofs.get("code_sha256") != hashlib.sha256(code.data).hexdigest():
        yield Finding(
            "mistake 28", "fail", submission.where("code_sha256"), f"{CODE} is another file", "ship the script that ran"
        )
    for log in logs:
        stated = (proofs.get("log_sha256") or {}).get(str(log.seed_value))
        if stated and stated != hashlib.sha256(log.path.read_bytes()).hexdigest():
            yield Finding(
                "mistake 27", "fail", log.name, "is not the log whose sha256 was written down", "ship the whole log"
            )
    for seed, receipts in (proofs.get("receipts") or {}).items():
        for r in receipts:
            if r.get("alive") is False:
                what = f"seed {seed}: {r.get('part')} was on and did nothing ({r.get('what')} = {r.get('value')})"
                yield Finding("mistake 33", "fail", submission.where("receipts"), what, "switch it off, or make it act")
    for seed, said in (proofs.get("verdict") or {}).items():
        if found := re.fullmatch(r"(fail|needs argument) \((.*)\)", str(said)):
            yield Finding(
                found[2], found[1], submission.where("verdict"), f"seed {seed}: the run's own verdict is {said}", ""
            )
