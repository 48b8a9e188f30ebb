"""experiments/<name>/overlay.yaml as the options of the group `experiment`, from whatever directory pgolf is run.

A config source of Hydra's, so that an overlay is read only when somebody asks for it.
"""

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from pgolf.config.places import overlays

GROUP, SCHEME = "experiment", "experiments"


class Overlays(ConfigSource):
    """`experiment/<name>`, composed over the whole config."""

    @staticmethod
    def scheme() -> str:
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        file = self._file(config_path)
        if file is None:
            raise ConfigLoadError(f"Config not found: {config_path}")
        return ConfigResult("pgolf", f"{SCHEME}://", OmegaConf.load(file), {"package": "_global_"})

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path.strip("/") in ("", GROUP)

    def is_config(self, config_path: str) -> bool:
        return self._file(config_path) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        names = sorted(overlays()) if config_path.strip("/") == GROUP else []
        return names if results_filter in (None, ObjectType.CONFIG) else []

    @staticmethod
    def _file(config_path: str) -> Path | None:
        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        return overlays().get(name) if group == GROUP else None


class OverlaysOnThePath(SearchPathPlugin):
    """Last, so that a person's own `experiment` folder in --config-dir comes first."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("pgolf", f"{SCHEME}://")
