"""What a transformer predicts and what that says about the clean video, for the schedulers of diffusers.

Every scheduler puts ``x_t = alpha x0 + sigma noise``. The clean estimate is linear in the latent and the prediction,
``x0hat = a x_t + b prediction``; ``a`` and ``b`` follow from the prediction type:

flow ``noise - x0`` (Lipman et al. 2210.02747), epsilon ``noise`` (Ho et al. 2006.11239), v ``alpha noise - sigma x0``
(Salimans and Ho 2202.00512), sample ``x0``, and EDM's preconditioned network (Karras et al. 2206.00364, table 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cos_interp.interp.errors import InterpError

FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler")
MULTISTEP = ("UniPCMultistepScheduler", "DPMSolverMultistepScheduler")
VARIANCE_PRESERVING = ("DDIMScheduler", "DDPMScheduler", "CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")
VARIANCE_EXPLODING = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
EDM = ("EDMEulerScheduler",)
SUPPORTED = (*FLOW, *MULTISTEP, *VARIANCE_PRESERVING, *VARIANCE_EXPLODING, *EDM)


@dataclass(frozen=True)
class Clean:
    """``x0hat = a x_t + b prediction`` at a noise level ``sigma``, the coefficient of the noise in x_t."""

    a: float
    b: float
    sigma: float

    def estimate(self, x_t: Tensor, prediction: Tensor) -> Tensor:
        """The clean estimate (CoS section 3.1, eq. 2 for flow)."""
        return (x_t if self.a == 1 else self.a * x_t) + self.b * prediction

    def prediction(self, x_t: Tensor, x0hat: Tensor) -> Tensor:
        """The prediction that leads to a clean estimate; InterpError where none does."""
        if self.b == 0:
            raise InterpError(f"sigma is {self.sigma:g} there, so no model output leads to another x0hat")
        return ((x_t if self.a == 1 else self.a * x_t) - x0hat) / -self.b


def check_scheduler(scheduler: Any) -> None:
    """InterpError for a scheduler whose steps cannot be followed."""
    name = type(scheduler).__name__
    if name not in SUPPORTED or getattr(scheduler, "order", 1) != 1:
        raise InterpError(
            f"{name} is not supported (several model calls a step, or a noise level this tool does not know); load one of "
            f"{', '.join(SUPPORTED)}"
        )


def is_flow(scheduler: Any) -> bool:
    """Whether the states are ``x_t = (1 - sigma) x0 + sigma noise``."""
    return type(scheduler).__name__ in FLOW or scheduler.config.get("prediction_type") == "flow_prediction"


def signal(scheduler: Any, sigmas: Sequence[float]) -> list[float]:
    """``alpha`` of ``x_t = alpha x0 + sigma noise`` at the noise levels of a run."""
    exploding = type(scheduler).__name__ in (*VARIANCE_EXPLODING, *EDM) or max(sigmas) > 1  # Cosmos 2 scales flow's levels so
    if exploding:
        return [1.0] * len(sigmas)
    return [1 - sigma if is_flow(scheduler) else max(0.0, 1 - sigma**2) ** 0.5 for sigma in sigmas]


def clean_at(scheduler: Any, step: int, given: bool = False) -> Clean:
    """How to read the prediction of a step. ``given``: the pipeline hands the scheduler the clean estimate itself."""
    name, config = type(scheduler).__name__, scheduler.config
    kind = config.get("prediction_type", "flow_prediction")
    if name in FLOW:
        inverted = bool(config.get("invert_sigmas", False))  # Mochi: from sigma 0 to 1, prediction x0 - noise
        sigma = 1 - float(scheduler.sigmas[step]) if inverted else float(scheduler.sigmas[step])
        return Clean(1.0, sigma if inverted else -sigma, sigma)
    if name in EDM:
        sigma, data = float(scheduler.sigmas[step]), float(config["sigma_data"])
        sign = 1.0 if kind == "epsilon" else -1.0
        whole = sigma**2 + data**2
        return Clean(0.0, 1.0, sigma) if given else Clean(data**2 / whole, sign * sigma * data / whole**0.5, sigma)
    if name in VARIANCE_EXPLODING:
        sigma = float(scheduler.sigmas[step])
        scaled = (sigma**2 + 1) ** 0.5
        return {
            "epsilon": Clean(1.0, -sigma, sigma),
            "v_prediction": Clean(1 / scaled**2, -sigma / scaled, sigma),
            "sample": Clean(0.0, 1.0, sigma),
        }[kind]
    return _mixed(kind, *_levels(scheduler, step))


def _levels(scheduler: Any, step: int) -> tuple[float, float]:
    """alpha and sigma of ``x_t = alpha x0 + sigma noise`` before a step."""
    if type(scheduler).__name__ in VARIANCE_PRESERVING:
        kept = float(scheduler.alphas_cumprod[int(scheduler.timesteps[step])])
        return kept**0.5, (1 - kept) ** 0.5
    alpha, sigma = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[step])
    return float(alpha), float(sigma)


def _mixed(kind: str, alpha: float, sigma: float) -> Clean:
    if kind == "flow_prediction":
        return Clean(1.0, -sigma, sigma)
    if kind == "v_prediction":
        return Clean(alpha, -sigma, sigma)
    return Clean(0.0, 1.0, sigma) if kind == "sample" else Clean(1 / alpha, -sigma / alpha, sigma)
