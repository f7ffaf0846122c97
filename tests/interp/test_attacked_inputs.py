"""Inputs of the kinds that an attack found taken wrongly or met with raw errors: right values, or refusals in words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cos_interp.interp import Address, EnsembleSampler, HookedVideoPipeline, InterpError, Steer, choose_seed, steer, tiny
from cos_interp.interp.batch import check_latents, generators, single_pictures
from cos_interp.interp.call import unfit
from cos_interp.interp.encoding import encode
from cos_interp.interp.pictures import as_picture
from cos_interp.interp.selecting import numbers, token_mask

WHERE = "blocks.0.hook_resid_post"
CALL = {"prompt": "a cat", "seed": 0, "num_inference_steps": 3, "guidance_scale": 1.0}
GRID = (3, 2, 2)
PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
FLOATS = (PIXELS / 255).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> HookedVideoPipeline:
    return HookedVideoPipeline.from_pretrained("tiny:wan2.1")


@pytest.fixture(scope="module")
def base(model) -> torch.Tensor:
    return model.run(**CALL).latents


@pytest.fixture(scope="module")
def grid(model, base) -> tuple[int, int, int]:
    return model.token_grid(base).shape


@pytest.fixture(scope="module")
def vector(model) -> torch.Tensor:
    config = model.pipe.transformer.config
    return torch.randn(config.num_attention_heads * config.attention_head_dim, generator=torch.Generator().manual_seed(0))


# --- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["wan2.1-i2v", "ltx-i2v"])
def test_a_picture_is_the_same_in_every_form_alone_and_in_every_place_of_a_list(family):
    own = HookedVideoPipeline.from_pretrained(f"tiny:{family}")
    call = {k: v for k, v in tiny.call(family, steps=2).items() if k not in ("prompt", "image")}
    photo, other = Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1].copy())
    rows = own.run(prompt=["a", "b"], image=[other, photo], seed=[0, 1], **call).latents
    for form in (PIXELS, FLOATS, torch.from_numpy(PIXELS).permute(2, 0, 1)):
        assert torch.equal(own.run(prompt=["a", "b"], image=[other, form], seed=[0, 1], **call).latents, rows)
    right = own.pipe(prompt="b", image=photo, generator=torch.Generator().manual_seed(1), output_type="latent", **call).frames
    assert torch.equal(
        own.run(prompt="b", image=photo, seed=1, **call).latents, own.run(prompt="b", image=PIXELS, seed=1, **call).latents
    )
    if family.startswith("wan"):  # the other packs its latents, and takes tensors of four axes
        floats = torch.from_numpy(FLOATS).permute(2, 0, 1)  # which pipelines take, and read in their own way
        alone = own.run(prompt="b", image=floats, seed=1, **call).latents
        listed = own.run(prompt=["a", "b"], image=[other, floats], seed=[0, 1], **call).latents
        torch.testing.assert_close(listed[1:], alone, rtol=1e-3, atol=1e-4)
        assert torch.equal(own.run(prompt="b", image=PIXELS, seed=1, **call).latents, right)
    with pytest.raises(InterpError, match=r"^image\[1\]: floats beyond \[0, 1\]"):
        own.run(prompt=["a", "b"], image=[other, 255 * FLOATS], seed=[0, 1], **call)


GREY = PIXELS[..., 0]
ALPHA = np.concatenate([PIXELS, np.broadcast_to(np.uint8([[[0], [255]]]), (32, 2, 1)).repeat(16, 1)], 2)
DEEP = (np.random.default_rng(1).integers(0, 2**16, (32, 32))).astype(np.uint16)


def three(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, 2)


OVER_WHITE = np.where(ALPHA[..., 3:] == 255, PIXELS, 255)


@pytest.mark.parametrize(
    ("given", "right"),
    [(Image.fromarray(GREY), three(GREY)), (Image.fromarray(ALPHA), OVER_WHITE), (ALPHA, OVER_WHITE),
     (Image.fromarray(DEEP), three(np.round(DEEP / 257).astype(np.uint8))),
     (Image.fromarray(GREY > 127), three(np.where(GREY > 127, 255, 0))),
     (Image.fromarray(255 - np.concatenate([PIXELS, np.full((32, 32, 1), 255, np.uint8)], 2), "CMYK"), PIXELS),
     (Image.fromarray(PIXELS).quantize(9), np.asarray(Image.fromarray(PIXELS).quantize(9).convert("RGB"))),
     (Image.fromarray(np.stack([GREY, ALPHA[..., 3]], 2), "LA"), np.where(ALPHA[..., 3:] == 255, three(GREY), 255)),
     (GREY, three(GREY)), (GREY[..., None], three(GREY)), (PIXELS[None], PIXELS), (PIXELS[:, ::-1], PIXELS[:, ::-1]),
     (FLOATS, PIXELS), (FLOATS.astype(np.float64)[None], PIXELS), (torch.from_numpy(PIXELS).permute(2, 0, 1), PIXELS)]
)  # fmt: skip
def test_every_mode_and_array_is_the_rgb_that_numpy_says(given, right):
    found = as_picture(given, "image")
    assert found.mode == "RGB" and np.array_equal(np.asarray(found), right)


CHANNELS_FIRST = torch.from_numpy(FLOATS).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("given", "says"),
    [(Image.fromarray(FLOATS[..., 0]), "mode F .* no scale"), (Image.fromarray(GREY.astype(np.int32)), "mode I .* no scale"),
     (FLOATS * 0.999, "between the 256 steps"), (CHANNELS_FIRST.to("meta"), "meta or sparse"),
     (CHANNELS_FIRST.to_sparse(), "meta or sparse"), (FLOATS * 2 - 1, "beyond"), (FLOATS * np.nan, "beyond"),
     (PIXELS.astype(np.int64), "numbers of int64"), (np.zeros((2, 32, 32, 3), np.uint8), "none of a picture"),
     (np.zeros((0, 32, 3), np.uint8), "none of a picture"), (np.zeros((3, 32, 32), np.uint8), "none of a picture"),
     ((Image.fromarray(PIXELS),), "a tuple: .*several are a list"), ("a.png", "the text 'a.png'"), (3, "a int"), ({}, "a dict")],
)  # fmt: skip
def test_what_is_no_picture_is_refused_by_its_place(given, says):
    with pytest.raises(InterpError, match=says):
        as_picture(given, "image")
    with pytest.raises(InterpError, match=rf"^last_image\[1\].*{says}"):
        photo = Image.fromarray(PIXELS)
        single_pictures({"prompt": ["a", "b"], "image": [photo, photo], "last_image": [photo, given]})


def test_a_picture_that_is_rgb_stays_the_object_that_it_is():
    photo = Image.fromarray(PIXELS)
    assert single_pictures({"prompt": "a", "image": photo})["image"] is photo
    assert single_pictures({"prompt": ["a"], "image": [photo]})["image"] is photo
    assert single_pictures({"prompt": "a", "image": CHANNELS_FIRST})["image"] is CHANNELS_FIRST  # as pipelines take it


# --- steering --------------------------------------------------------------------------------------------------------


def by_hand(model, vector, steps, weights):
    """Latents with the vector added by a plain forward hook of the block."""
    count = [0]

    def hook(module, args, output):
        count[0] += 1
        return output + weights.float().flatten()[None, :, None] * vector if count[0] - 1 in steps else None

    handle = model.pipe.transformer.blocks[0].register_forward_hook(hook)
    call = {k: v for k, v in (model.defaults | CALL).items() if k != "seed"}
    try:
        return model.pipe(generator=torch.Generator().manual_seed(0), output_type="latent", **call).frames
    finally:
        handle.remove()


def test_steps_and_tokens_of_every_form_steer_the_same(model, vector, grid, tmp_path):
    mask = torch.zeros(grid)
    mask[1, 0, :] = 1
    right = by_hand(model, vector, (0, 1), mask)
    cells = [(1, 0, col) for col in range(grid[2])]
    forms = [mask, mask.bool(), mask.numpy(), mask.tolist(), cells, set(cells), np.array(cells), {"frame": 1, "row": slice(0, 1)}]
    spans = [(0, 1), "0:2", slice(0, 2), range(2), [0, 1], torch.tensor([0, 1]), np.array([0, 1]), "0,1"]
    for tokens, span in zip(forms, spans, strict=True):
        one = Steer(vector, WHERE, span=span, tokens=tokens)
        assert torch.equal(model.run_with_hooks(fwd_hooks=one.hooks(), **CALL).latents, right)
        one.save(tmp_path / "one")
        again = Steer.load(tmp_path / "one")
        assert again.hooks()[0][0] == one.hooks()[0][0]
        assert torch.equal(model.run_with_hooks(fwd_hooks=again.hooks(), **CALL).latents, right)
    for span in (1, "1", np.int64(1), torch.tensor(1), torch.tensor([1]), [1], -2, slice(1, -1)):
        assert numbers(Steer(vector, WHERE, span=span).span, 3, "step") == (1,)
    assert Steer(vector, WHERE, span="all", tokens="all").hooks()[0][0] == WHERE


@pytest.mark.parametrize(
    ("given", "says"),
    [({"tokens": torch.zeros(GRID, dtype=torch.bool)}, "steers nothing"), ({"tokens": np.zeros(GRID)}, "steers nothing"),
     ({"tokens": torch.full(GRID, torch.nan)}, "finite"), ({"tokens": []}, "names no token"),
     ({"tokens": torch.ones(GRID, device="meta")}, "a meta tensor"),
     ({"tokens": torch.ones(GRID).to_sparse()}, "a sparse tensor"),
     ({"tokens": "some"}, "give a bool mask"), ({"tokens": 3}, "weights"), ({"tokens": {"frame": 1.5}}, "frame=1.5"),
     ({"where": "blocks.*.hook_resid_post"}, "one whole hook name"), ({"where": f"{WHERE} @ step=1"}, "one whole hook name"),
     ({"where": None}, "one whole hook name"), ({"where": "hook_x_t"}, "holds latents"), ({"span": 1.5}, "span=1.5"),
     ({"span": "x"}, "span='x'"), ({"span": {0: 1}}, "span="), ({"dose": "1"}, "dose='1': give a finite"),
     ({"dose": None}, "dose=None"), ({"dose": [1.0]}, "dose="), ({"dose": float("inf")}, "dose=inf"),
     ({"dose": True}, "dose=True"),
     ({"card": None}, "card=None: give a dictionary"), ({"branch": ["cond", "uncond"]}, "cond or uncond, or leave it out"),
     ({"vector": torch.ones(4, device="meta")}, "a meta tensor"), ({"vector": torch.ones(4).to_sparse()}, "a sparse tensor")],
)  # fmt: skip
def test_a_steering_that_is_none_or_steers_nothing_is_refused(given, says):
    with pytest.raises(InterpError, match=says):
        Steer(**{"vector": torch.ones(4), "where": WHERE, **given})


def test_what_only_a_run_can_refuse_is_refused_in_it(model, vector, tmp_path):
    for tokens, says in (({"frames": 1}, "no axis 'frames'"), ({}, "names no axis"), ([(99, 0, 0)], "no cell")):
        with pytest.raises(InterpError, match=says):
            model.run_with_hooks(fwd_hooks=Steer(vector, WHERE, tokens=tokens).hooks(), **CALL)
    with pytest.raises(InterpError, match="the card cannot be written"):
        Steer(vector, WHERE, card={"a": torch.ones(1)}).save(tmp_path / "one")
    with pytest.raises(InterpError, match="multiplied by a finite number"):
        Steer(vector, WHERE) * "2"


def test_blocks_in_each_other_add_up_and_another_model_of_the_pipeline_is_refused(vector, grid):
    model = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    pipe, kind = model.pipe, type(model.pipe)
    call = {k: v for k, v in (model.defaults | CALL).items() if k != "seed"} | {"output_type": "latent"}
    ask = lambda: pipe(generator=torch.Generator().manual_seed(0), **call).frames
    plain, first, second = ask(), Steer(vector, WHERE, span=0), Steer(vector, WHERE, span=1)
    with steer(pipe, first, second):
        both = ask()
    assert torch.equal(both, by_hand(model, vector, (0, 1), torch.ones(grid)))
    with steer(pipe, first):
        with steer(pipe, second) as inner:
            assert inner is pipe and torch.equal(ask(), both)
        assert torch.equal(ask(), by_hand_of_first(vector, grid))
        with pytest.raises(InterpError, match=r"another hooked model runs this pipeline.*steer\(model"):
            model.run(**CALL)
    assert type(pipe) is kind and torch.equal(ask(), plain) and torch.equal(model.run(**CALL).latents, plain)


def by_hand_of_first(vector, grid):
    return by_hand(HookedVideoPipeline.from_pretrained("tiny:wan2.1"), vector, (0,), torch.ones(grid))


# --- seeds -----------------------------------------------------------------------------------------------------------


def noise(seed: int) -> list[float]:
    return torch.randn(8, generator=torch.Generator().manual_seed(seed)).tolist()


def test_a_seed_of_64_bits_is_the_generators_own():
    for seed, same in ((2**32, 0), (2**40 + 1, 1), (2**64 - 1, 2**32 - 1), (-1, 2**32 - 1), (-(2**63), 0)):
        assert noise(seed) == noise(same)  # which is why two of these are no two noises
        assert generators(seed, 1, listed=False).initial_seed() % 2**64 == seed % 2**64
    for wrong in (2**64, -(2**63) - 1, 1.0, "1", True):
        with pytest.raises(InterpError, match="whole number of 64 bits"):
            generators(wrong, 1, listed=False)


def test_two_seeds_of_one_noise_are_refused_in_a_list():
    digest = 2**48 + 7  # as experiments make them
    assert noise(digest) == noise(7)
    with pytest.raises(InterpError, match="two of these draw one noise"):
        generators([digest, 7], 2, listed=True)
    assert [g.initial_seed() for g in generators([digest, 8, 8], 3, listed=True)] == [digest, 8, 8]


@pytest.mark.parametrize("seeds", [[0, 2**32], [-1, 2**32 - 1], [2**48, 0]])
def test_an_ensemble_of_one_noise_is_refused(model, seeds):
    with pytest.raises(InterpError, match="seeds="):
        EnsembleSampler(model, seeds=seeds)


@pytest.mark.parametrize("generator", [[torch.Generator()], 3, "cpu"])
def test_an_ensemble_takes_one_generator(model, generator):
    with pytest.raises(InterpError, match=r"one torch\.Generator"):
        EnsembleSampler(model, seeds=2)(prompt="a", generator=generator)


# --- addresses and masks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [1, np.int64(1), torch.tensor(1), torch.tensor([1]), np.array([1]), [1], {1}, range(1, 2), "1"])
def test_an_address_takes_what_the_resolver_takes(model, asked):
    right = Address.parse("blocks.0.attn.hook_z @ step=1, head=1")
    assert Address("blocks.0.attn.hook_z", step=asked, head=asked) == right
    assert Address(WHERE, step="all") == Address(WHERE) and Address(WHERE, step=slice(np.int64(1), None)).step == slice(1, None)
    seen: list[int] = []
    model.run_with_hooks(fwd_hooks=[(Address(WHERE, step=asked), lambda act, hook: seen.append(hook.step))], **CALL)
    assert seen == [1]


@pytest.mark.parametrize(
    ("given", "says"),
    [({"step": []}, "names nothing"), ({"step": 1.5}, "step=1.5: give"), ({"step": torch.tensor([1], device="meta")}, "step="),
     ({"step": torch.ones(2, 2)}, "step="), ({"step": True}, "step=True"), ({"step": {0: 1}}, "step="),
     ({"head": "x"}, "head='x'"),
     ({"step": slice(0, 2, 0)}, "step=0:2:0"), ({"step": slice(np.arange(2), None)}, "step="), ({"name": None}, "no hook name"),
     ({"branch": ["cond", "uncond"]}, "leave it out for all"), ({"branch": "both"}, "cond or uncond"),
     ({"expert": 2}, "expert=2"),
     ({"name": f"{WHERE} @ step=1"}, r"Address\.parse")],
)  # fmt: skip
def test_an_address_of_nothing_is_refused_in_words(given, says):
    with pytest.raises(InterpError, match=says):
        Address(**{"name": WHERE, **given})


@pytest.mark.parametrize("text", [None, 3, b"hook_x_t"])
def test_what_is_no_text_is_no_address(text):
    with pytest.raises(InterpError, match="is no address"):
        Address.parse(text)


@pytest.mark.parametrize(
    ("asked", "says"),
    [(torch.ones(GRID, dtype=torch.bool, device="meta"), "a meta tensor"),
     (torch.ones(GRID).bool().to_sparse(), "a sparse tensor"),
     ([], "names no token"), ((), "names no token"), (np.ones((0, 3), int), "names no token"), ({}, "names no axis"),
     (torch.ones(GRID, dtype=torch.bfloat16), "give a bool mask"), ({(0, 0, 0), "a"}, "give a bool mask")],
)  # fmt: skip
def test_masks_without_numbers_or_tokens_are_refused_in_words(asked, says):
    with pytest.raises(InterpError, match=says):
        token_mask(asked, GRID)


# --- chosen noises, latents, guidance --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"),
    [({"to": value}, "to=.*finite number") for value in (float("nan"), float("inf"), "2", None, True)]
    + [({"toward": torch.full((1, 4, 3, 4, 4), torch.nan)}, "toward: .*NaN"), ({"call": None}, "call=None: give the keywords"),
       ({"toward": torch.ones(1, 4, 3, 4, 4, device="meta")}, "toward: a meta tensor"),
       ({"away": torch.ones(1, 4, 3, 4, 4).to_sparse()}, "away: a sparse tensor")],
)  # fmt: skip
def test_a_noise_that_cannot_be_chosen_is_refused_for_what_is_wrong(model, given, says):
    before = model.block_calls
    with pytest.raises(InterpError, match=says):
        choose_seed(model, **{"call": CALL, "toward": torch.ones(1, 4, 3, 4, 4), **given})
    assert model.block_calls == before


def test_mirrored_frames_are_encoded_as_their_copy(model):
    clips = np.random.default_rng(2).integers(0, 256, (1, 9, 32, 32, 3), np.uint8)
    for view in (clips[:, ::-1], clips[:, :, :, ::-1]):
        assert torch.equal(encode(model, view), encode(model, view.copy()))


@pytest.mark.parametrize("latents", [torch.ones(1, 4, 3, 4, 4, device="meta"), torch.ones(1, 4, 3, 4, 4).to_sparse()])
def test_latents_without_numbers_are_refused(latents):
    with pytest.raises(InterpError, match=r"latents: a (meta|sparse) tensor"):
        check_latents({"prompt": "a", "latents": latents})


def test_no_guidance_is_said_and_an_optional_one_stays_optional(model):
    assert unfit(model.pipe, {"prompt": "a", "guidance_scale": None}) == (
        "guidance_scale=None: give a finite number, or leave it out"
    )
    assert unfit(model.pipe, {"prompt": "a", "guidance_scale_2": None, "guidance_scale": np.float32(2)}) is None
