"""What other programs of this machine say, where they are installed."""

import subprocess
from functools import cache


def printed_by(*command: str) -> list[str]:
    """The lines that a program prints, without blank ones; none if it is absent, fails or takes more than 10 s."""
    try:
        out = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in out.splitlines() if line.strip()]


@cache
def gpu_names() -> tuple[str, ...]:
    """Name and driver version of each NVIDIA GPU, in the order of its index; none where nvidia-smi is not there."""
    return tuple(printed_by("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"))
