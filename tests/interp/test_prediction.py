"""x0hat of every prediction type and scheduler: constructed from a known clean latent, and against the scheduler's own."""

from __future__ import annotations

import diffusers
import pytest
import torch

from cos_interp.interp.errors import InterpError
from cos_interp.interp.run.prediction import check_scheduler, clean_at

VP = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
COG = VP | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "clip_sample": False}
CASES = [
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, "flow"),
    ("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}, "inverted flow"),
    ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 5.0}, "flow"),
    ("DPMSolverMultistepScheduler", {"prediction_type": "flow_prediction", "use_flow_sigmas": True}, "flow"),
    ("DPMSolverMultistepScheduler", VP | {"prediction_type": "epsilon"}, "epsilon"),
    ("DPMSolverMultistepScheduler", VP | {"prediction_type": "v_prediction"}, "v"),
    ("UniPCMultistepScheduler", VP | {"prediction_type": "v_prediction"}, "v"),
    ("DDIMScheduler", VP | {"clip_sample": False}, "epsilon"),
    ("DDIMScheduler", VP | {"clip_sample": False, "prediction_type": "v_prediction"}, "v"),
    ("DDIMScheduler", VP | {"clip_sample": False, "prediction_type": "sample"}, "sample"),
    ("CogVideoXDDIMScheduler", COG | {"prediction_type": "v_prediction"}, "v"),
    ("CogVideoXDPMScheduler", COG | {"prediction_type": "v_prediction"}, "v"),
    ("EulerAncestralDiscreteScheduler", VP, "epsilon"),
    ("EulerAncestralDiscreteScheduler", VP | {"prediction_type": "v_prediction"}, "exploding v"),
    ("EulerDiscreteScheduler", VP, "epsilon"),
    ("EDMEulerScheduler", {"sigma_data": 0.5, "sigma_max": 80.0}, "edm"),
    ("EDMEulerScheduler", {"sigma_data": 0.5, "prediction_type": "v_prediction"}, "edm v"),
]


def made(name, settings):
    scheduler = getattr(diffusers, name)(**settings)
    scheduler.set_timesteps(5)
    return scheduler


def levels(scheduler, name, kind, step):
    """alpha and sigma of x_t = alpha x0 + sigma noise, written down again by hand."""
    if "flow" in kind:
        sigma = float(scheduler.sigmas[step])
        sigma = 1 - sigma if kind == "inverted flow" else sigma
        return 1 - sigma, sigma
    if "Euler" in name:
        return 1.0, float(scheduler.sigmas[step])
    kept = float(scheduler.alphas_cumprod[int(scheduler.timesteps[step])]) if "Multistep" not in name else None
    if kept is None:
        ratio = float(scheduler.sigmas[step])
        return 1 / (1 + ratio**2) ** 0.5, ratio / (1 + ratio**2) ** 0.5
    return kept**0.5, (1 - kept) ** 0.5


def target(kind, x0, noise, alpha, sigma):
    """What a perfect network predicts."""
    data = 0.5
    norm = (sigma**2 + data**2) ** 0.5
    edm = (x0 - data**2 / norm**2 * (alpha * x0 + sigma * noise)) / (sigma * data / norm)
    return {
        "flow": noise - x0,
        "inverted flow": x0 - noise,
        "epsilon": noise,
        "sample": x0,
        "v": alpha * noise - sigma * x0,
        "exploding v": (noise - sigma * x0) / (sigma**2 + 1) ** 0.5,
        "edm": edm,
        "edm v": -edm,
    }[kind]


@pytest.mark.parametrize(("name", "settings", "kind"), CASES)
def test_x0hat_of_a_perfect_prediction_is_x0(name, settings, kind):
    draw = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(1, 4, 3, 4, 4, generator=draw, dtype=torch.float64) for _ in range(2))
    for step in range(1, 5):  # the first step may have no signal at all
        scheduler = made(name, settings)
        alpha, sigma = levels(scheduler, name, kind, step)
        clean = clean_at(scheduler, step)
        x_t, prediction = alpha * x0 + sigma * noise, target(kind, x0, noise, alpha, sigma)
        assert clean.sigma == pytest.approx(sigma, rel=1e-5)
        torch.testing.assert_close(clean.estimate(x_t, prediction), x0, atol=1e-4, rtol=1e-4)
        if clean.b:
            torch.testing.assert_close(clean.prediction(x_t, x0), prediction, atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize(("name", "settings", "kind"), [c for c in CASES if c[0] in ("DDIMScheduler", "CogVideoXDDIMScheduler")])
def test_x0hat_is_the_schedulers_own(name, settings, kind):
    draw = torch.Generator().manual_seed(1)
    x_t, prediction = (torch.randn(1, 4, 3, 4, 4, generator=draw) for _ in range(2))
    scheduler = made(name, settings)
    own = scheduler.step(prediction, scheduler.timesteps[2], x_t).pred_original_sample
    torch.testing.assert_close(clean_at(scheduler, 2).estimate(x_t, prediction), own)


@pytest.mark.parametrize(("name", "settings"), [(n, s) for n, s, _ in CASES if "Euler" in n and "Flow" not in n])
def test_x0hat_is_the_schedulers_own_with_sigmas(name, settings):
    draw = torch.Generator().manual_seed(1)
    x_t, prediction = (torch.randn(1, 4, 3, 4, 4, generator=draw) for _ in range(2))
    scheduler = made(name, settings)
    scheduler.scale_model_input(x_t, scheduler.timesteps[0])
    own = scheduler.step(prediction, scheduler.timesteps[0], x_t).pred_original_sample
    torch.testing.assert_close(clean_at(scheduler, 0).estimate(x_t, prediction), own, rtol=1e-4, atol=1e-4)


def test_schedulers_with_several_calls_a_step_are_refused():
    with pytest.raises(InterpError, match="FlowMatchHeun"):
        check_scheduler(diffusers.FlowMatchHeunDiscreteScheduler())
    with pytest.raises(InterpError, match="LMSDiscrete"):
        check_scheduler(diffusers.LMSDiscreteScheduler())
