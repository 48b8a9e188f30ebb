"""Why ranks failed: what they wrote down before they ended, and which of them was the first."""

import fnmatch
import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from pgolf.errors import RankError, RefusedError, UserError
from pgolf.machine.nodes import Nodes

NODE = "node"  # and its number: the folder, in that of LOGS, of the ranks of another node than 0
# What a rank's last words may begin with: mistakes that a person can mend.
FAULTS = {fault.__name__: fault for fault in (UserError, RefusedError)}
# What a rank says when another has gone: never the cause.
_LOST = re.compile(r"Connection (closed|reset) by peer|Broken pipe|NCCL.*remote process|Timed out waiting", re.DOTALL)
_FILE = re.compile(r"\w+: \[Errno \d+\] ([^:]+)(?:: '(.+)')?")  # what Python says of a file that cannot be used
_HUNG = re.compile(r"collective operation timeout: WorkNCCL\([^)]*OpType=(\w+)[^)]*Timeout\(ms\)=(\d+)")


def _files(logs: Path, name: str) -> list[Path]:
    """Those below a folder of which another node may just remove a part."""
    return [Path(place, file) for place, _, files in os.walk(logs) for file in fnmatch.filter(files, name)]


def explained(failed: ChildFailedError, logs: Path, nodes: Nodes) -> Exception:
    """The first failure that is not of another rank's leaving: a UserError, or a RankError with its traceback."""
    rank, failure = failed.get_first_failure()
    died, words, stack = f"rank {rank} (process {failure.pid}) died with exit code {failure.exitcode}", "", ""
    files = sorted(_files(logs, "error.json"), key=lambda file: file.stat().st_mtime_ns)
    for message in filter(None, (_message(file, logs) for file in files)):
        if not _LOST.search(message["extraInfo"]["py_callstack"]):
            rank, words, stack = message["rank"], message["message"], message["extraInfo"]["py_callstack"]
            died = f"rank {rank} failed"
            break
    if failure.exitcode > 0 and not stack and (elsewhere := nodes.fault()):
        return RankError(elsewhere)
    kind, _, said = words.partition(": ")
    if kind in FAULTS:
        return FAULTS[kind](said.strip())
    if file := _FILE.fullmatch(words):
        return UserError(f"{file[2] or 'a file'}: {file[1]}")  # none is named where a disk is full
    output = [path for path in _files(logs, "std*.log") if path.stat().st_size]
    where = f"\nIts output is under {logs}." if output else ""
    return RankError(f"{died}{_hung(output)}.{where}\n{stack}".rstrip())


def _hung(output: list[Path]) -> str:
    """Which collective NCCL's watchdog gave up waiting for, if that is why ranks were ended."""
    for path in output:
        if found := _HUNG.search(path.read_text(errors="replace")):
            return f", because a rank did not come to {found[1].lower()} within {int(found[2]) // 1000} s: another one hangs"
    return ""


def _message(error_file: Path, logs: Path) -> dict[str, Any] | None:
    """What a rank wrote down before it failed, and which rank of its node; None where it was ended while writing."""
    first = error_file.relative_to(logs).parts[0]
    where = f" of node {first.removeprefix(NODE)}" if first.startswith(NODE) else ""
    with suppress(ValueError, LookupError, TypeError):
        return json.loads(error_file.read_text())["message"] | {"rank": f"{int(error_file.parent.name)}{where}"}
    return None
