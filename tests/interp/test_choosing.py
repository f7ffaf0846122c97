"""Noises moved to a wanted video: positions by hand, plain diffusers calls bit for bit, families, refusals; encoding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import hooked_tiny, plain

from cos_interp.interp import HookedVideoPipeline, InterpError, choose_seed, restart, tiny
from cos_interp.interp.choosing import alike, along, direction, moved
from cos_interp.interp.encoding import encode
from cos_interp.interp.run.latents import canonical
from cos_interp.interp.run.prediction import signal


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape or (1, 4, 3, 4, 4), generator=torch.Generator().manual_seed(seed))


def hooked(name: str) -> tuple[HookedVideoPipeline, dict]:
    return HookedVideoPipeline.from_pipeline(tiny.build(name)), tiny.call(name, steps=2) | {"seed": 0}


@pytest.mark.parametrize(("sigma", "alpha"), [(1.0, 0.0), (0.6, 0.4), (0.6, 0.8), (14.0, 1.0)])
def test_a_position_is_half_the_difference_of_log_likelihoods(sigma, alpha):
    """log p(x | other) - log p(x | own) = alpha |other - own| / sigma times the position, for any Gaussian noise."""
    own, other = drawn(1).double(), drawn(2).double()
    x_t = alpha * own + sigma * drawn(3).double()
    log = lambda clean: -0.5 * float(((x_t - alpha * clean) / sigma).square().sum())
    place = along(x_t, own, other, sigma, alpha)
    assert log(other) - log(own) == pytest.approx(place * alpha * float((other - own).norm()) / sigma, abs=1e-8)
    for to in (-2.0, 0.0, 1.5):
        there = moved(x_t, direction(own, other), to - place, sigma)
        assert along(there, own, other, sigma, alpha) == pytest.approx(to)
        rest = (there - x_t) - direction(own, other) * (there - x_t).flatten().dot(direction(own, other).flatten())
        assert float(rest.norm()) < 1e-9  # nothing moves across the direction
    assert along(x_t, other, own, sigma, alpha) == pytest.approx(-place)


def test_latents_that_coincide_have_no_direction():
    own = drawn(1)
    assert alike(own, own + 1e-5) and not alike(own, 1.1 * own)
    with pytest.raises(InterpError, match="coincide"):
        direction(own, own.clone())


@pytest.mark.parametrize("name", ["wan2.1", "cogvideox", "ltx", "mochi", "allegro", "sana-video"])
def test_the_signal_of_a_state_is_the_schedulers(name):
    """Noise added by hand and taken off by the clean estimate of a perfect prediction gives the clean video back."""
    model, call = hooked(name)
    run = model.run(**call)
    alphas, x0, noise = signal(model.pipe.scheduler, run.sigmas), drawn(1), drawn(2)
    for step, (alpha, sigma) in enumerate(zip(alphas, run.sigmas, strict=True)):
        x_t, clean = alpha * x0 + sigma * noise, run.clean[step]
        prediction = clean.prediction(x_t, x0)
        assert torch.allclose(clean.estimate(x_t, prediction), x0, atol=1e-4)
        if type(model.pipe.scheduler).__name__.startswith("FlowMatchEuler"):
            assert torch.allclose(prediction, (noise - x0) * (1 if clean.b < 0 else -1), atol=1e-4)


@pytest.mark.parametrize("name", ["wan2.1", "wan2.1-i2v", "cogvideox", "ltx", "hunyuan", "allegro"])
def test_the_chosen_latents_in_a_plain_pipeline_give_the_same_bits(name):
    model, call = hooked(name)
    other = model.run(**{**call, "seed": 1}).latents
    chosen = choose_seed(model.pipe, call, toward=other)
    pipe, alone = tiny.build(name), {k: v for k, v in call.items() if k != "seed"}
    found = plain(pipe, {**alone, "latents": chosen.latents.clone()})
    again = plain(model.pipe, {**alone, "latents": chosen.latents.clone()})
    assert torch.equal(found, again)
    assert torch.equal(canonical(found, model.adapter.layout, chosen.run.dims), chosen.run.latents)
    if "Ancestral" not in type(pipe.scheduler).__name__:  # whose own noise comes after the first state's in one generator
        assert torch.equal(restart(model, chosen.sampled_run, 0, chosen.noise).latents, chosen.run.latents)
    assert torch.equal(chosen.sampled, model.run(**call).x_t[0]) and torch.equal(chosen.noise, chosen.run.x_t[0])
    sigma, alpha = chosen.run.sigmas[0], signal(model.pipe.scheduler, chosen.run.sigmas)[0]
    assert along(chosen.noise, chosen.sampled_run.latents, other, sigma, alpha) == pytest.approx(2, abs=0.02)
    assert chosen.distance == pytest.approx(float((chosen.noise - chosen.sampled).norm()) / sigma)
    assert chosen.distance == pytest.approx(2 - chosen.before, abs=0.03)


def test_a_state_moved_by_hand_in_a_callback_gives_the_bits_of_a_restart():
    """The reflection of the experiment, written with nothing but diffusers."""
    model, call = hooked("wan2.1")
    call["num_inference_steps"] = 4
    run, other = model.run(**call), model.run(**{**call, "seed": 1}).latents
    place = along(run.x_t[2], run.latents, other, run.sigmas[2], 1 - run.sigmas[2])
    state = moved(run.x_t[2], direction(run.latents, other), -2 * place, run.sigmas[2])

    def put(pipe, step, timestep, tensors):
        away = (other - run.latents).double()
        half = float((1 - run.sigmas[2]) / 2 * (other.double().square().sum() - run.latents.double().square().sum()))
        seen = tensors["latents"].double()
        across = float((seen * (away / away.norm())).sum()) - half / float(away.norm())
        return {"latents": (seen - 2 * across * (away / away.norm())).float()} if step == 1 else {}

    found = plain(tiny.build("wan2.1"), {k: v for k, v in call.items() if k != "seed"} | {"callback_on_step_end": put})
    assert torch.allclose(found, restart(model, run, 2, state).latents, atol=1e-5)
    exact = lambda pipe, step, timestep, tensors: {"latents": state} if step == 1 else {}
    found = plain(tiny.build("wan2.1"), {k: v for k, v in call.items() if k != "seed"} | {"callback_on_step_end": exact})
    assert torch.equal(found, restart(model, run, 2, state).latents)


def test_an_organisms_noise_leads_to_the_other_answer(organism):
    from PIL import Image

    from cos_interp.tasks import get_task, grid

    task, changed = get_task("place"), 0
    for number in range(4):
        item = task.sample(5_000 + number, unique=False, split="test")
        call = {"prompt": item.prompt, "image": Image.fromarray(item.first_frame), "seed": 9, "num_inference_steps": 8}
        own = task.verify(item, organism.run(**call).decode()[0]).answer
        if own not in item.answers:
            continue
        other = next(answer for answer in item.answers if answer != own)
        clips = {answer: grid.render(task.show(item, answer)) for answer in (own, other)}
        chosen = choose_seed(organism, call, toward=clips[other], away=clips[own])
        changed += task.verify(item, chosen.run.decode()[0]).answer == other
        assert chosen.share < 0.15 and task.verify(item, chosen.sampled_run.decode()[0]).answer == own
    assert changed >= 2


@pytest.mark.parametrize(
    ("changes", "toward", "says"),
    [({"seed": None}, None, "no seed"), ({"prompt": ["a", "b"], "seed": [0, 1]}, None, "2 videos"),
     ({}, torch.zeros(1, 4, 2, 4, 4), "the shape"), ({}, np.zeros((5, 32, 32, 3), np.uint8), "the shape"),
     ({}, np.zeros((9, 32, 32, 3)), "videos are uint8"), ({}, "a path", "as latents"),
     ({"latents": drawn(1)}, None, "latents of its own")],
)  # fmt: skip
def test_what_no_noise_can_be_chosen_for_is_refused(changes, toward, says):
    model, call = hooked("wan2.1")
    with pytest.raises(InterpError, match=says):
        choose_seed(model, {**call, **changes}, drawn(3) if toward is None else toward)


def test_its_own_video_and_a_pipeline_without_latents_are_refused():
    model, call = hooked("wan2.1")
    with pytest.raises(InterpError, match="coincide"):
        choose_seed(model, call, model.run(**call).latents)
    model, call = hooked("framepack")
    other = model.run(**{**call, "seed": 1}).latents
    with pytest.raises(InterpError, match=r"does not start from latents.*restart"):
        choose_seed(model, call, other)


@pytest.mark.parametrize("name", ["wan2.1", "cogvideox", "ltx", "mochi", "cosmos1", "hunyuan", "easyanimate"])
def test_a_video_is_encoded_to_what_its_family_decodes(name):
    """The autoencoder gets back, through the family's own decoding, what it had made of the video."""
    model, call = hooked(name)
    video = np.random.default_rng(0).integers(0, 256, (1, *model.run(**call).decode()[0].shape), dtype=np.uint8)
    found, seen = encode(model, video), []
    pixels = torch.from_numpy(video).permute(0, 4, 1, 2, 3) / 127.5 - 1
    with torch.no_grad():
        made = model.pipe.vae.encode(pixels)
        raw = made.latent_dist.mode() if hasattr(made, "latent_dist") else made.latent
    own = model.pipe.vae.decode
    model.pipe.vae.decode = lambda given, *a, **k: (seen.append(given), own(given, *a, **k))[1]
    model.decode(found)
    torch.testing.assert_close(seen[0], raw, rtol=1e-4, atol=1e-5)


def test_an_autoencoder_is_as_it_was_after_encoding():
    model = hooked_tiny()
    before = dict(vars(model.pipe.vae))
    encode(model, np.zeros((1, 9, 32, 32, 3), np.uint8))
    assert "decode" not in before and "decode" not in vars(model.pipe.vae)
    with pytest.raises(InterpError, match="uint8"):
        encode(model, np.zeros((9, 32, 32, 3), np.uint8))
    latte, _ = hooked("latte")
    with pytest.raises(InterpError, match="give final latents"):
        encode(latte, np.zeros((1, 9, 32, 32, 3), np.uint8))
