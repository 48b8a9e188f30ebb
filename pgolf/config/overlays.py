"""experiments/<name>/overlay.yaml as the options of the group `experiment`: pgolf's from whatever directory it is run, and those
of the working folder.

A config source of Hydra's, so that an overlay is read only when somebody asks for it.
"""

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin

from pgolf.config.folders import FOLDERS, GROUP, OVERLAY, Own, files_named, own_options, refusal, result
from pgolf.config.places import overlays

SCHEME = "experiments"


class Overlays(ConfigSource):
    """`experiment/<name>`, composed over the whole config."""

    @staticmethod
    def scheme() -> str:
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        file = self._file(config_path)
        if file is None:
            raise ConfigLoadError(f"Config not found: {config_path}")
        return result(file, "pgolf", f"{SCHEME}://", package="_global_")

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path.strip("/") in ("", GROUP)

    def is_config(self, config_path: str) -> bool:
        return self._file(config_path) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        names = [*overlays(), *(option.name for option in own_options() if option.path.name == OVERLAY)]
        return sorted(names) if config_path.strip("/") == GROUP and results_filter in (None, ObjectType.CONFIG) else []

    @staticmethod
    def _file(config_path: str) -> Path | None:
        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        if group != GROUP or name in overlays():
            return overlays()[name] if group == GROUP else None
        return next((p for p in files_named(group, name) if p.name == OVERLAY and not refusal(p, group)), None)


class OptionsOnThePath(SearchPathPlugin):
    """After pgolf's own folder, so that nothing replaces it; the same for the check before a run and for the run."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("pgolf", f"{SCHEME}://")
        for folder in FOLDERS:
            search_path.append("yours", f"{Own.scheme()}://{folder}")
