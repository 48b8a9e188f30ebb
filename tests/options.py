"""Components as the files in conf/ state them, composed by Hydra, with some fields changed."""

from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from pgolf.config.schema import build
from pgolf.recipe import Recipe

CONF = Path(__file__).parent.parent / "conf"


def option(path: str, **changed: Any) -> Any:
    """`option("model/tiny", vocab_size=96)`: what `model=tiny` composes to, built, with another vocabulary."""
    group, _, name = path.partition("/")
    return build(stated(group, name) | changed, get_type_hints(Recipe)[group], group)


@cache
def stated(group: str, name: str) -> dict:
    """The group's node as plain values, among the defaults of all other groups."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose("config", overrides=[f"{group}={name}"])[group], resolve=True)
