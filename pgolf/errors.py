"""What a person sees when they, not we, are wrong: one message that says which key, which value, and what is allowed."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A mistake in configuration, data or files. Shown as one message without a traceback."""


class ConfigError(UserError):
    """A configuration value that cannot be used: `key` is dotted, `allowed` says what would be."""

    def __init__(self, key: str, value: object, allowed: str):
        super().__init__(f"{key}={value!r}: {allowed}")
        self.key = key


class ArtifactError(UserError):
    """A file that cannot be trusted or read. The message begins with the field that is wrong."""


class RefusedError(RuntimeError):
    """What shows on the ranks only, but before a clock starts: the run is refused as for a wrong word."""


class RankError(RuntimeError):
    """A rank died; the message names it and holds its traceback."""


def need(ok: bool, key: str, value: object, allowed: str) -> None:
    """Raise ConfigError for `key` unless `ok`. `allowed` completes "must be ..."."""
    if not ok:
        raise ConfigError(key, value, f"must be {allowed}")


def nearest(word: str, known: Iterable[str]) -> str:
    """' Did you mean ...?' for the closest of `known`, or the empty string."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""
