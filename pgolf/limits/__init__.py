"""What a run may spend: seconds of training, seconds of evaluation, bytes of artifact."""

from dataclasses import dataclass

from pgolf.errors import need


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Both clocks in seconds and the size of artifact + code in bytes.

    `train_steps` replaces the training clock by a number of steps (null: the clock decides), so that a run does not
    depend on the machine's speed. `reserve_seconds` is kept back for quantising and packing (null: measured). `study`
    allows options that break the rules on purpose.
    """

    train_seconds: float
    eval_seconds: float
    artifact_bytes: int
    train_steps: int | None
    reserve_seconds: float | None
    study: bool

    def __post_init__(self) -> None:
        need(self.train_seconds > 0, "limits.train_seconds", self.train_seconds, "more than 0")
        need(self.eval_seconds > 0, "limits.eval_seconds", self.eval_seconds, "more than 0")
        need(self.artifact_bytes >= 1, "limits.artifact_bytes", self.artifact_bytes, "at least 1")
        need(
            self.train_steps is None or self.train_steps >= 1,
            "limits.train_steps",
            self.train_steps,
            "at least 1, or null",
        )
        reserve = self.reserve_seconds
        need(
            reserve is None or 0 <= reserve < self.train_seconds,
            "limits.reserve_seconds",
            reserve,
            f"from 0 to below limits.train_seconds={self.train_seconds}, or null",
        )
