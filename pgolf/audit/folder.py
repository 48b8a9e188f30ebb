"""The audit of a submission folder, ours or anybody's: its files held against each other and against the rules.

Nothing in the folder is executed. What is missing, malformed or huge is a finding or is streamed, never an error.
"""

from collections.abc import Iterator
from pathlib import Path

from pgolf.audit.finding import Finding
from pgolf.audit.folder_checks import (
    check_claim,
    check_clocks,
    check_hardware,
    check_log,
    check_proofs,
    check_seeds,
    check_sizes,
)
from pgolf.audit.folder_code import CODE, read_code, scan
from pgolf.audit.folder_json import NAME, check_submission, read_submission
from pgolf.audit.folder_log import read_log
from pgolf.audit.folder_scores import README, check_scores, headline, read_text

MODELS = (".pgolf", ".ptz", ".pt", ".bin", ".xz", ".zst", ".br")
ORDER = ("fail", "needs argument", "note")


def audit_folder(path: Path) -> list[Finding]:
    """Every finding, the worst first, each once; none for a folder that agrees with itself and the rules it can show."""
    found = dict.fromkeys(_findings(path))
    return sorted(found, key=lambda f: ORDER.index(f.verdict))


def _findings(path: Path) -> Iterator[Finding]:
    submission = read_submission(path / NAME)
    logs = [read_log(p) for p in log_files(path)]
    data = (path / CODE).read_bytes() if (path / CODE).is_file() else None
    code = read_code(data) if data is not None else None
    readme = read_text(path / README)
    yield from _missing(path, bool(logs))
    yield from check_submission(submission)
    yield from check_scores(submission, logs, readme)
    models = [p.stat().st_size for p in path.iterdir() if p.is_file() and p.suffix in MODELS]
    yield from check_sizes(submission, logs, code, models)
    yield from check_clocks(submission, logs, headline(submission, [log for log in logs if log.results]))
    yield from check_seeds(submission, logs)
    yield from check_hardware(submission, logs, readme)
    yield from check_claim(submission)
    for log in logs:
        yield from check_log(log, code)
    yield from check_proofs(submission, logs, code)
    if code:
        yield from code.findings
        yield from scan(code, {p.stem for p in path.glob("*.py")} - {Path(CODE).stem})


def log_files(path: Path) -> list[Path]:
    """Logs of training: train*.log, or whatever else ends so."""
    named = sorted(p for p in path.glob("train*.log") if p.is_file())
    return named or sorted(p for p in path.glob("*.log") if p.is_file())


def _missing(path: Path, logs: bool) -> Iterator[Finding]:
    for name in (README, NAME, CODE):
        if not (path / name).is_file():
            yield Finding("folder", "fail", name, "is missing", "every record folder holds one")
    if not logs:
        yield Finding("folder", "fail", "train*.log", "there is no log", "ship one whole log per seed")
