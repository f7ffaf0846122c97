"""Files that a user gives: read rightly, or refused with file, line and key."""

from __future__ import annotations

import json
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cos_interp import analyses
from cos_interp.analyses.chain_of_steps import ChainOfStepsConfig
from cos_interp.analyses.driver import experiment, inputs
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.settings import SuiteConfig
from cos_interp.analyses.kit.problems import problems
from cos_interp.interp import HookedVideoPipeline, InterpError
from cos_interp.interp.families import tiny

SUITES = sorted(name for name, e in analyses.EXPERIMENTS.items() if issubclass(e.config, SuiteConfig) and name != "all")


def read(path):
    return problems(ChainOfStepsConfig(prompts=str(path)))


@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4),
    blanks=st.integers(0, 2), mark=st.booleans(), escaped=st.booleans(), end=st.sampled_from(["\n", "\r\n"]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_every_prompt_comes_back_as_it_was_written(tmp_path_factory, texts, blanks, mark, escaped, end):
    path = tmp_path_factory.mktemp("own") / "own.jsonl"
    lines = [end * blanks + json.dumps({"prompt": text}, ensure_ascii=escaped) for text in texts]
    path.write_bytes(b"\xef\xbb\xbf" * mark + end.join(lines).encode() + end.encode())
    assert [p.call["prompt"] for p in read(path)] == texts
    assert [int(p.source.rpartition(" ")[2]) for p in read(path)] == [1 + blanks + (blanks + 1) * i for i in range(len(texts))]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": 3}', "'prompt' is a number, not a text"), ('{"prompt": null}', "'prompt' is null"),
        ("# a comment", "not a line of JSON but a comment"), ("  // b", "not a line of JSON but a comment"),
        ('{"prompt": "a"} // b', "not a line of JSON"), ("[1]", "must be an object"),
        ('{"prompt": "a", "prompt": "b"}', "stands there twice"), ('{"prompt": "a", "x": NaN}', "no finite number"),
        ('{"prompt": "a", "x": 1e999}', "no finite number"), ('{"prompt": "\\ud800"}', "surrogate"),
        ("[" * 100_000, "brackets"), ('{"prompt": "a", "seed": -1}', "seed -1 must be"),
        ('{"prompt": "a", "seed": 1.0}', "seed 1.0 must be"), ('{"prompt": "a", "height": 0}', "height 0 must be"),
        ('{"prompt": "a", "negative_prompt": ["b"]}', "negative_prompt"), ('{"prompt": "a", "image": null}', "is null"),
        ('{"prompt": "a", "image": ["b"]}', "is a list"), ('{"prompt": "a", "image": "a\\u0000b"}', "NUL"),
        ('{"prompt": "a", "image": "."}', "is a folder"), ('{"prompt": "a", "image": "pipe"}', "is a pipe"),
        ('{"prompt": "a", "image": "/dev/zero"}', "is a device"), ('{"prompt": "a", "image": "own.jsonl"}', "cannot be read"),
        ('{"prompt": "a", "num_inference_steps": 4}', "--num-steps is 20"),
        ('{"prompt": "a", "guidance_scale": 5}', "--guidance is 1.0"),
        ('{"prompt": "a", "guidance_scale": true}', "guidance_scale true is true or false, not a number"),
        ('{"prompt": "a", "num_inference_steps": 20.0}', "num_inference_steps 20.0 must be"),
        ('{"prompt": "a", "self": 1}', "self cannot stand"), ('{"prompt": "a", "latents": [[1]]}', "latents cannot stand"),
        ('{"prompt": "a", "callback_on_step_end": "f"}', "callback_on_step_end cannot stand"),
        ('{"prompt": "a", "prompt_embeds": [1]}', "cannot stand"),
        ('{"prompt": "a", "num_videos_per_prompt": 2}', "cannot stand"),
        ('{"prompt": "a", "attention_kwargs": 1}', "is a number, not an object"),
    ],
)  # fmt: skip
def test_a_line_that_does_not_fit_is_named(line, message, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "own.jsonl").write_text('{"prompt": "fine"}\n\n\n' + line)
    with pytest.raises(InterpError, match=message) as error:
        read(tmp_path / "own.jsonl")
    assert "own.jsonl, line 4" in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_other_encodings_are_named(encoding, tmp_path):
    (tmp_path / "own.jsonl").write_bytes('{"prompt": "ball"}\n{"prompt": "größer"}'.encode(encoding))
    with pytest.raises(InterpError, match=rf"line {1 if encoding == 'utf-16' else 2}: byte 0x.. is not UTF-8"):
        read(tmp_path / "own.jsonl")


def test_a_seed_in_a_line_is_the_seed(tmp_path):
    (tmp_path / "own.jsonl").write_text('{"prompt": "a", "seed": 7, "num_inference_steps": 20}\n{"prompt": "b"}')
    first, second = read(tmp_path / "own.jsonl")
    assert first.seed == 7 and second.seed != 7 and first.call == {"prompt": "a"}


@pytest.mark.parametrize("name", SUITES)
def test_every_experiment_refuses_a_key_before_it_computes(name, tmp_path):
    model = HookedVideoPipeline.from_pipeline(tiny.build("wan2.1"))
    (tmp_path / "own.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "fps": 3}')
    config = analyses.EXPERIMENTS[name].config(prompts=str(tmp_path / "own.jsonl"), num_inference_steps=4)
    with pytest.raises(InterpError, match=r"own.jsonl, line 2: WanPipeline takes no 'fps'"):
        experiment.run(load(name), config, tmp_path / "run", model=model, workers=1)
    assert not (tmp_path / "run").exists() and model.block_calls == 0


def test_a_picture_that_is_missing_and_a_size_that_no_machine_holds(tmp_path):
    model = HookedVideoPipeline.from_pipeline(tiny.build("wan2.1-i2v"))
    for line, message in (
        ({}, "needs 'image'"),
        ({"image": "a.png", "height": 8_000_000, "width": 8000, "num_frames": 81}, "GiB"),
        ({"image": "a.png", "max_sequence_length": 10**9}, "GiB for each head"),
    ):
        Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
        (tmp_path / "own.jsonl").write_text(json.dumps({"prompt": "a", **line}))
        config = ChainOfStepsConfig(prompts=str(tmp_path / "own.jsonl"), num_inference_steps=2)
        with pytest.raises(InterpError, match=message):
            experiment.run(load("chain-of-steps"), config, tmp_path / "run", model=model, workers=1)


@pytest.mark.parametrize("name", SUITES)
def test_settings_of_the_tasks_items_are_refused_beside_prompts(name):
    settings = analyses.EXPERIMENTS[name].config
    with pytest.raises(ValueError, match="leave out tasks, or prompts"):
        settings(prompts="own.jsonl", tasks=("bounce",))
    assert settings(prompts="own.jsonl", confirm=True).about[-1] == "confirm"  # noises that no rule has seen


# --- pictures: against numpy ------------------------------------------------------------------------------------------

RANDOM = np.random.default_rng(0).integers(0, 256, (6, 4, 4), np.uint8)


def opened(tmp_path, image: Image.Image, name: str = "a.png", **options) -> np.ndarray:
    image.save(tmp_path / name, **options)
    return np.asarray(inputs.picture("here", tmp_path, name)).astype(int)


def test_colours_are_kept_and_transparent_parts_lie_over_white(tmp_path):
    assert np.array_equal(opened(tmp_path, Image.fromarray(RANDOM[..., :3])), RANDOM[..., :3])
    alpha = RANDOM[..., 3:].astype(float) / 255
    over = RANDOM[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(opened(tmp_path, Image.fromarray(RANDOM)) - over).max() <= 1
    grey = np.stack([RANDOM[..., 0], RANDOM[..., 3]], -1)
    over = grey[..., :1] * alpha + 255 * (1 - alpha)
    assert np.abs(opened(tmp_path, Image.fromarray(grey, "LA")) - over).max() <= 1


def test_a_palette_with_a_transparent_colour(tmp_path):
    image = Image.fromarray(RANDOM[..., 0] % 3, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]])
    assert np.array_equal(opened(tmp_path, image), colours[RANDOM[..., 0] % 3])
    colours[1] = 255
    assert np.array_equal(opened(tmp_path, image, transparency=1), colours[RANDOM[..., 0] % 3])


def test_sixteen_bits_are_scaled_and_cmyk_is_mixed(tmp_path):
    deep = np.random.default_rng(1).integers(0, 65536, (6, 4), np.uint16)
    for name in ("a.png", "a.tiff"):
        found = opened(tmp_path, Image.fromarray(deep), name)
        assert np.abs(found - deep[..., None] / 65535 * 255).max() <= 0.5
    c, m, y, k = (RANDOM[..., i].astype(float) for i in range(4))
    mixed = np.stack([(255 - ink) * (255 - k) / 255 for ink in (c, m, y)], -1)
    assert np.abs(opened(tmp_path, Image.fromarray(RANDOM, "CMYK"), "a.tiff") - mixed).max() <= 2


def png(rows: int, of: int = 4, width: int = 4) -> bytes:
    """A picture of ``of`` rows whose data hold only the first ones, whole and with every checksum right."""
    chunk = lambda kind, held: struct.pack(">I", len(held)) + kind + held + struct.pack(">I", zlib.crc32(kind + held))
    head = struct.pack(">IIBBBBB", width, of, 8, 2, 0, 0, 0)
    data = zlib.compress((b"\0" + b"\xc8" * 3 * width) * rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_what_a_picture_does_not_hold_is_not_made_up(tmp_path):
    (tmp_path / "whole.png").write_bytes(png(4))
    assert (np.asarray(inputs.picture("here", tmp_path, "whole.png")) == 0xC8).all()
    (tmp_path / "cut.png").write_bytes(png(2))
    grey = Image.fromarray(np.arange(16, dtype=np.int32).reshape(4, 4))  # 32 bits: white may be 15, 4095 or anything
    grey.save(tmp_path / "grey.tiff")
    Image.new("RGB", (64, 64)).save(tmp_path / "two.ico", sizes=[(16, 16), (32, 32)])
    Image.fromarray(RANDOM[..., :3]).save(tmp_path / "one.png", optimize=True, compress_level=9)
    inputs.picture("here", tmp_path, "one.png")
    for name, message in (("cut.png", "end 2 rows before"), ("grey.tiff", "has no scale"), ("two.ico", "holds 2 pictures")):
        with pytest.raises(InterpError, match=message):
            inputs.picture("here", tmp_path, name)


# how a camera or a program may have coded its picture
JPEGS = [{}, {"subsampling": 0}, {"subsampling": 1}, {"optimize": True}, {"restart_marker_blocks": 4}, {"quality": 100},
         {"progressive": True}]  # fmt: skip


def jpeg_file(path, options, width=50, height=37, mode="RGB") -> bytearray:
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path, "JPEG", **options)
    return bytearray(path.read_bytes())


@pytest.mark.parametrize(("mode", "options"), [*(("RGB", options) for options in JPEGS), ("L", {}), ("CMYK", {})], ids=str)
def test_a_photo_of_damaged_data_is_refused_though_pillow_draws_it(mode, options, tmp_path):
    path = tmp_path / "a.jpg"
    whole = jpeg_file(path, options, mode=mode)
    assert inputs.picture("here", tmp_path, "a.jpg").size == (50, 37)
    for damaged in (whole[: len(whole) * 2 // 3] + b"\xff\xd9", whole[: len(whole) // 2] + b"\xff\xd9"):
        path.write_bytes(damaged)
        with Image.open(path) as image:
            image.convert("RGB")  # without a word
        with pytest.raises(InterpError, match=r"^here \"a.jpg\" is damaged: its data .*: save it again from its source$"):
            inputs.picture('here "a.jpg"', tmp_path, "a.jpg")


def test_whole_photos_of_every_size_are_taken(tmp_path):
    for options in JPEGS:
        for width, height in ((1, 1), (7, 9), (8, 8), (15, 17), (16, 33), (64, 1)):
            jpeg_file(tmp_path / "a.jpg", options, width, height)
            assert inputs.picture("here", tmp_path, "a.jpg").size == (width, height)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_camera_says(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = RANDOM[..., :3]
    # what the camera stored, so that its orientation brings it upright (EXIF 2.3, 4.6.4)
    stored = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
              6: np.rot90(upright, 1), 7: upright[::-1, ::-1].transpose(1, 0, 2),
              8: np.rot90(upright, -1)}[orientation]  # fmt: skip
    found = opened(tmp_path, Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    assert np.array_equal(found, upright)


def test_pictures_that_are_refused(tmp_path):
    floats = Image.fromarray(np.ones((2, 2), np.float32))
    floats.save(tmp_path / "f.tiff")
    Image.fromarray(np.full((2, 2), 70_000, np.int32)).save(tmp_path / "i.tiff")
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    Image.new("1", (13_000, 13_000)).save(tmp_path / "big.png")
    whole = Image.fromarray(RANDOM[..., :3])
    whole.save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:60])
    for name, message in (("f.tiff", "no scale"), ("i.tiff", "no scale"), ("two.gif", "2 pictures"), ("big.png", "pixels, more"),
                          ("cut.png", "is damaged")):  # fmt: skip
        with pytest.raises(InterpError, match=message):
            inputs.picture("here", tmp_path, name)


@pytest.mark.parametrize(("name", "asked"), [("chain-of-steps", "--prompts"), ("patching", "--pair-file"), ("swap", "--prompts")])
def test_a_model_of_another_size_than_the_tasks_is_named_before_anything_is_made(name, asked, tmp_path):
    model = HookedVideoPipeline.from_pretrained("tiny:wan2.1-i2v")
    with pytest.raises(InterpError, match=rf"makes 32x32 pixels, and the tasks are drawn on 40x40.*{asked}"):
        analyses.run(name, model=model, out=tmp_path / "run", num_inference_steps=2, workers=1)
    assert model.block_calls == 0 and not (tmp_path / "run").exists()
