"""GPTQ."""

import pytest
import torch

from pgolf.quant import StdScale, gptq, rows
from tests.goldens import Golden, Part, has


def check_gptq(golden: Golden) -> None:
    W, H = torch.from_numpy(golden["W"]), torch.from_numpy(golden["H"])
    for c in (int(key.split("_")[1]) for key in golden if key.startswith("sdclip_") and key.endswith("_q")):
        scale, reference = (torch.from_numpy(golden[f"sdclip_{c}_{what}"]) for what in ("scale", "q"))
        assert torch.equal(StdScale(k=4.0).steps(W, c), scale)
        q = gptq.gptq(W, H, scale, c)
        assert (q == reference).float().mean() >= 0.999
        assert error(W, H, q, scale) == pytest.approx(error(W, H, reference, scale), rel=1e-3)
        power = rows.objective(W[None], [H]).sum().item()
        assert error(W, H, q, scale) / power == pytest.approx(golden[f"rel_err_{c}"][0], rel=1e-3)


def error(W: torch.Tensor, H: torch.Tensor, q: torch.Tensor, scale: torch.Tensor) -> float:
    """tr(E H Eᵀ) in float64."""
    return rows.objective((W - q * scale.float()[:, None])[None].double(), [H.double()]).sum().item()


PARTS = (Part("gptq", has("W", "H", "sdclip_*", "rel_err_*"), check_gptq),)
