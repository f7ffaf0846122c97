"""Scripts of model cards with one line replaced: the instrument in the place of the pipeline."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
from diffusers.utils import export_to_video

from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.families import tiny

CARDS = ("wan2.2-i2v", "cogvideox", "ltx")


def script(load, folder, name, at):
    """The body of a model card's script; ``load`` is the line that is replaced."""
    pipe = load(folder, torch_dtype=torch.float32)
    pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config) if name == "ltx" else pipe.scheduler
    pipe = pipe.to("cpu")
    pipe.vae.enable_tiling()
    asked = tiny.call(name, steps=2)
    given = [asked.pop(key) for key in ("image", "prompt") if key in asked]  # by place, as cards do
    output = pipe(*given, **asked, generator=torch.Generator("cpu").manual_seed(0))[0][0]
    export_to_video(list(output), str(at), fps=8)
    return output


@pytest.mark.parametrize("name", CARDS)
def test_a_script_of_a_model_card_runs_with_one_line_replaced(name, tmp_path):
    pipe = tiny.build(name)
    pipe.save_pretrained(tmp_path / "model")
    theirs = script(type(pipe).from_pretrained, tmp_path / "model", name, tmp_path / "theirs.mp4")
    ours = script(HookedVideoPipeline.from_pretrained, tmp_path / "model", name, tmp_path / "ours.mp4")
    assert np.array_equal(np.stack(ours), np.stack(theirs))  # arrays, or a list of pictures: as the family has it
    assert (tmp_path / "ours.mp4").read_bytes() == (tmp_path / "theirs.mp4").read_bytes()


def test_what_the_pipeline_has_is_reached_and_what_it_lacks_is_named():
    model = HookedVideoPipeline.from_pipeline(tiny.build("wan2.1"))
    assert model.vae is model.pipe.vae and isinstance(model.vae, AutoencoderKLWan)
    model.scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    assert model.pipe.scheduler.config.shift == 1.0
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = model.nothing_of_this_name
    assert model(**tiny.call("wan2.1", steps=1), seed=0, output_type="latent").run.steps == 1
