"""Whether there is a key for Weights & Biases, found without its client, which would ask a person or the network."""

import netrc
import os
from pathlib import Path
from urllib.parse import urlparse


def has_key() -> bool:
    """In the environment, or in the file where `wandb login` puts it."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    home = Path(os.path.expanduser("~"))  # "~" itself where there is none
    places = [Path(os.environ["NETRC"])] if "NETRC" in os.environ else [home / ".netrc", home / "_netrc"]
    return any(_names(place, host) for place in places)


def _names(place: Path, host: str | None) -> bool:
    try:
        return host in netrc.netrc(place).hosts
    except (OSError, netrc.NetrcParseError):
        return False
