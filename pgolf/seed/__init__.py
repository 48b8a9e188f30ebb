"""Which randomness a run uses. One number names it; the model's and the loader's seeds follow unless set apart."""

from dataclasses import dataclass

from pgolf.errors import need


@dataclass(frozen=True, kw_only=True)
class Seed:
    """`value` names the run; `model` seeds initial weights, `loader` the order of the training windows."""

    value: int
    model: int
    loader: int

    def __post_init__(self) -> None:
        for name, number in self.__dict__.items():
            need(0 <= number < 2**31, f"seed.{name}", number, "from 0 to 2147483647")
