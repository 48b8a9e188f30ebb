"""The entry of a file that judges the artifact of an earlier run (`trained=RUN`), which an older version may have sealed."""

from pgolf.export import standalone
from pgolf.files.frozen import older
from pgolf.model import Model


def main(frozen: dict, script: str) -> None:
    """As `standalone.main`, for artifacts whose description of the model lacks fields of this version."""
    standalone.main(frozen, script, lambda stated: older(stated, Model))
