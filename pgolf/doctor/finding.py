"""A line of the doctor's."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, whether a run can do with it, and what to do where it is not well."""

    what: str
    found: str
    ok: bool = True
    do: str = ""

    def __str__(self) -> str:
        line = f"{'ok ' if self.ok else 'BAD'}  {self.what:<12} {self.found}"
        return line if not self.do else f"{line}\n{' ' * 18}→ {self.do}"
