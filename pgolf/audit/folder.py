"""The audit of a submission folder, ours or anybody's: its files held against each other and against the rules.

Nothing in the folder is executed, imported or unpickled. What is missing, malformed or huge is a finding, never an error.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pgolf.audit.bounded import Listing, listed, read, text_of
from pgolf.audit.finding import Finding, once, ranked
from pgolf.audit.folder_claim import check_claim
from pgolf.audit.folder_clocks import check_clocks
from pgolf.audit.folder_code import CODE, Code, read_code, scan
from pgolf.audit.folder_json import NAME, Submission, check_submission, read_submission
from pgolf.audit.folder_legal import check_legal, check_plausible
from pgolf.audit.folder_log import read_logs
from pgolf.audit.folder_readme import README, check_hardware, check_readme
from pgolf.audit.folder_runs import check_log, check_proofs, check_seeds
from pgolf.audit.folder_scores import check_scores
from pgolf.audit.folder_sizes import check_sizes
from pgolf.audit.headline import Headline, headline
from pgolf.audit.log_run import Log

MODELS = (".pgolf", ".ptz", ".xz", ".zst", ".br", ".lzma")
SIBLING = 1 << 22  # bytes of the code that is read


@dataclass(frozen=True)
class Folder:
    """A submission folder as read: what each of its files says, and which of the logs' scores is the claimed one."""

    listing: Listing
    submission: Submission
    logs: Sequence[Log]
    code: Code | None
    readme: Sequence[str] | None
    head: Headline


def read_folder(path: Path) -> Folder:
    """Read every file that matters, within bounds."""
    listing = listed(path)
    submission = read_submission(listing.get(NAME), path)
    logs = read_logs(listing)
    script, readme = listing.get(CODE), listing.get(README)
    code = read_code(read(script)[0][:SIBLING]) if script else None
    lines = text_of(readme).lines if readme else None
    return Folder(listing, submission, logs, code, lines, headline(submission, logs))


def audit_folder(path: Path) -> list[Finding]:
    """Every finding, the gravest first, one cause once; none for a folder that agrees with itself and the rules it can show."""
    return ranked(once(dict.fromkeys(findings(read_folder(path)))))


def findings(folder: Folder) -> Iterator[Finding]:
    """What each check finds, in the order of the checks."""
    submission, code, head = folder.submission, folder.code, folder.head
    logs = claimed(folder)
    yield from _missing(folder)
    yield from check_submission(submission)
    yield from check_scores(submission, logs, head)
    yield from check_readme(folder.readme, submission, logs, head)
    yield from check_sizes(submission, logs, code, _artifacts(folder.listing))
    yield from check_clocks(submission, logs, head)
    yield from check_seeds(submission, folder.logs, head)
    yield from check_hardware(submission, logs, folder.readme)
    yield from check_legal(submission, logs, head)
    yield from check_plausible(submission, logs, head)
    yield from check_claim(submission)
    for log in logs:
        yield from check_log(log, code, head)
    yield from check_proofs(submission, logs, code)
    if code:
        yield from code.findings
        yield from scan(code, _beside(folder.listing), _code_files(folder.listing))


def claimed(folder: Folder) -> list[Log]:
    """The runs that the claim rests on: those that state it, and those of a reported seed that state no score under its label.
    Other runs (ablations, attempts, replaced ones) may have failed in any way. Without a claimed score: all runs."""
    head, seeds = folder.head, {*folder.submission.seeds, *(log.seed_value for log in folder.head.results)} - {None}
    if head.label is None:
        return list(folder.logs)
    return [
        log
        for log in folder.logs
        if log in head.results or (log.seed_value in seeds and head.label not in log.by_label())
    ]


def _missing(folder: Folder) -> Iterator[Finding]:
    for name in (README, NAME, CODE):
        if folder.listing.get(name) is None:
            yield Finding("folder", "fail", name, f"{name} is missing", "every record folder holds one")
    if not folder.logs:
        yield Finding("mistake 27", "fail", "train*.log", "there is no log", "ship one whole log per seed")
    for name in folder.listing.refused:
        yield Finding(
            "folder", "note", name, "is a link, a device, a pipe, or too deep or too much; not read", "ship plain files"
        )


def _artifacts(listing: Listing) -> list[int]:
    """Sizes of the compressed models at the folder's top."""
    return [p.stat().st_size for p in listing.files if p.parent == listing.folder and p.suffix in MODELS]


def _code_files(listing: Listing) -> frozenset[str]:
    """Names of files of code in other languages."""
    return frozenset(p.name for p in listing.files if p.suffix in (".c", ".cpp", ".cu", ".cuh", ".so", ".rs"))


def _beside(listing: Listing) -> set[str]:
    """Modules that a script in this folder could import from it."""
    top = [p.relative_to(listing.folder) for p in listing.files if p.suffix == ".py"]
    return {p.parts[0].removesuffix(".py") for p in top if len(p.parts) <= 2} - {Path(CODE).stem}
