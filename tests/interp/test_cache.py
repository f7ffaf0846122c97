"""The cache as a mapping, over steps, as a table and as a file; what the objects of the face say of themselves."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
import torch
from support import build_tiny, tiny_call

from cos_interp.interp import ActivationCache, HookedVideoPipeline, InterpError, Patch, record
from cos_interp.interp.cache_plan import CachePlan
from cos_interp.interp.errors import BudgetExceeded
from cos_interp.interp.families import tiny
from cos_interp.interp.families.tiny.wan import transformer
from cos_interp.interp.hooking import activation_bytes
from cos_interp.tasks import get_task

NAMES = ["blocks.*.hook_resid_post", "hook_x_t"]


@pytest.fixture(scope="module")
def kept():
    model = HookedVideoPipeline.from_pipeline(build_tiny("wan21-t2v"))
    return model.run_with_cache(names=NAMES, steps=[0, 1, 3], seed=0, **tiny_call("wan21-t2v", steps=4))


def test_the_cache_is_a_mapping(kept):
    _, cache = kept
    assert len(cache) == len(list(cache)) == len(cache.keys()) == 3 * (3 * 2 + 1)  # steps x (layers x branches + the latent)
    assert ("blocks.1.hook_resid_post", 3, "uncond") in cache and ("blocks.1.hook_resid_post", 2) not in cache
    assert ("hook_x_t", 3, None) in cache.keys()  # noqa: SIM118
    for key, value in cache.items():
        assert cache[key] is value
    assert sum(value.numel() for value in cache.values()) * 4 == cache.nbytes


def test_steps_are_stacked_with_their_axes(kept):
    run, cache = kept
    name = "blocks.1.hook_resid_post"
    values, axes, steps = cache.stack(name, branch="uncond")
    assert steps == (0, 1, 3) and axes == ("step", "batch", "frame", "row", "col", "d_model")
    assert all(torch.equal(values[i], cache[name, k, "uncond"]) for i, k in enumerate(steps))
    assert cache[name, 1:].steps == (1, 3) and torch.equal(cache[name, 1:].values[1], cache[name, 3])
    assert cache[name, 0:4:2, "uncond"].steps == (0,)
    assert torch.equal(cache.stack("hook_x_t").values, torch.stack([run.x_t[k] for k in (0, 1, 3)]))


def test_what_was_not_kept_is_named(kept):
    _, cache = kept
    one = ActivationCache({k: v for k, v in cache.items() if k[2] != "cond"}, cache.axes)
    with pytest.raises(KeyError, match=r"branch 'cond' was not kept.*branches \['uncond'\]"):
        one.stack("blocks.1.hook_resid_post")
    with pytest.raises(KeyError, match=r"steps 4:9; .*steps \[0, 1, 3\]"):
        cache.stack("blocks.1.hook_resid_post", slice(4, 9))
    with pytest.raises(KeyError, match="the cache holds the names"):
        cache["blocks.9.hook_resid_post", :]
    with pytest.raises(InterpError, match="counts steps from the start"):
        cache["blocks.1.hook_resid_post", -2:]


@pytest.mark.parametrize(
    ("key", "message"),
    [("blocks.1.hook_resid_post", r"alone: write cache\['blocks.1.hook_resid_post', step\]"),
     (("blocks.1.hook_resid_post", -1), "counts steps from the start"), ((1, "hook_x_t"), r"write cache\[name, step\]"),
     (0, "write cache"), ((), "write cache"), (("hook_x_t", 0, None, 1), "write cache"), (("hook_x_t", None), "write cache"),
     (("hook_x_t", True), "write cache"), (("hook_x_t", 0, 1), "write cache"),
     (("hook_x_t", slice(0.5, 2)), "whole numbers: write a range"), (("hook_x_t", slice(0, 2.0)), "whole numbers"),
     (("hook_x_t", slice(None, None, "2")), "whole numbers")],
)  # fmt: skip
def test_a_partial_or_turned_key_says_what_to_write(kept, key, message):
    with pytest.raises(KeyError, match=message):
        kept[1][key]
    assert key not in kept[1]


def test_the_number_of_a_step_may_be_of_any_library(kept):
    run, cache = kept
    for step in (np.int64(1), torch.tensor(1), np.array(1)):
        assert torch.equal(cache["hook_x_t", step], run.x_t[1]) and ("hook_x_t", step) in cache


def test_several_steps_by_any_form(kept):
    run, cache = kept
    right = torch.stack([run.x_t[0], run.x_t[3]])
    for steps in ([0, 3], (0, 3), np.array([0, 3]), torch.tensor([0, 3]), "0,3"):
        found = cache["hook_x_t", steps]
        assert torch.equal(found.values, right) and found.steps == (0, 3)
    assert cache["hook_x_t", "0:2"].steps == cache["hook_x_t", range(2)].steps == (0, 1)
    assert torch.equal(cache.get(("hook_x_t", 1)), run.x_t[1]) and cache.get(("hook_x_t", 2)) is None
    with pytest.raises(KeyError, match=r"not kept at steps \[0, 2\]; .*steps \[0, 1, 3\]"):
        cache["hook_x_t", [0, 2]]
    with pytest.raises(InterpError, match="branch= is the third"):
        cache.stack("hook_x_t", "uncond")
    with pytest.raises(InterpError, match="counts steps from the start"):
        cache["hook_x_t", ::-1]


def test_a_saved_cache_keeps_its_order(kept, tmp_path):
    _, cache = kept
    cache.save(tmp_path / "c.safetensors")
    again = ActivationCache.load(tmp_path / "c.safetensors")
    assert list(again) == list(cache) and again.to_dataframe().equals(cache.to_dataframe())


def test_the_table_has_a_row_an_activation(kept):
    _, cache = kept
    table = cache.to_dataframe()
    assert len(table) == len(cache)
    row = table[(table.name == "blocks.2.hook_resid_post") & (table.step == 3) & (table.branch == "uncond")].iloc[0]
    act = cache["blocks.2.hook_resid_post", 3, "uncond"].double()
    assert (
        row.layer == 2 and math.isclose(row.norm, float(act.pow(2).sum()) ** 0.5) and math.isclose(row["mean"], float(act.mean()))
    )
    assert math.isclose(row["std"], float(((act - act.mean()) ** 2).mean()) ** 0.5) and row["max"] == float(act.abs().max())
    assert table[table.name == "hook_x_t"].layer.isna().all()
    assert list(ActivationCache().to_dataframe().columns) == list(table.columns)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_cache_comes_back_bit_for_bit(kept, tmp_path, dtype):
    _, cache = kept
    cache = ActivationCache({key: act.to(dtype) for key, act in cache.items()}, cache.axes)
    cache.save(tmp_path / "cache.safetensors")
    found = ActivationCache.load(tmp_path / "cache.safetensors")
    assert found.axes == cache.axes and set(found) == set(cache)
    assert all(found[key].dtype == dtype and torch.equal(found[key], cache[key]) for key in cache)
    assert [p.name for p in tmp_path.iterdir()] == ["cache.safetensors"]


def test_what_is_kept_is_a_copy():
    plan, act = CachePlan(("hook_x_t",), frozenset({0}), None, None, None, 384), torch.ones(1, 2, 3, 4, 4)
    cache = ActivationCache()
    cache.keep("hook_x_t", "latent", 0, None, act, plan)
    act.zero_()
    assert torch.equal(cache["hook_x_t", 0], torch.ones(1, 2, 3, 4, 4))


def test_a_view_is_saved_as_what_it_shows(tmp_path):
    act = torch.arange(24.0).view(2, 3, 4).movedim(0, 2)[:, ::2]
    ActivationCache({("a", 0, "cond"): act}, {"a": ("x", "y", "z")}).save(tmp_path / "c")
    assert torch.equal(ActivationCache.load(tmp_path / "c")["a", 0], act)


def test_a_damaged_file_is_refused(kept, tmp_path):
    path = tmp_path / "cache.safetensors"
    kept[1].save(path)
    good = path.read_bytes()
    header = int.from_bytes(good[:8], "little")
    names = good[8 : 8 + header]
    damaged = {
        "a flipped bit": good[:-5] + bytes([good[-5] ^ 1]) + good[-4:],
        "cut short": good[: len(good) // 2],
        "another axis": good[:8] + names.replace(b"frame", b"phase", 1) + good[8 + header :],
        "another step": good[:8] + names.replace(b", 3, ", b", 2, ", 1) + good[8 + header :],
        "another name of a tensor": good[:8] + b", 4, ".join(names.rsplit(b", 3, ", 1)) + good[8 + header :],
    }
    for what, data in damaged.items():
        assert data != good
        path.write_bytes(data)
        with pytest.raises(InterpError, match="is damaged"):
            ActivationCache.load(path)
            pytest.fail(what)
    from safetensors.torch import save

    path.write_bytes(save({"a": torch.ones(2)}))
    with pytest.raises(InterpError, match="holds no activation cache"):
        ActivationCache.load(path)
    assert json.loads(names)["__metadata__"]["format"].startswith("cos-interp")


def test_a_cache_moves_in_place(kept):
    cache = ActivationCache(dict(kept[1].items()), kept[1].axes)
    assert cache.to("meta") is cache and {act.device.type for act in cache.values()} == {"meta"}


def test_what_the_organism_says_of_itself_is_short_and_true(organism):
    item = get_task("maze").sample(seed=8, difficulty=5, unique=False, split="test")
    from PIL import Image

    recording = record(organism, prompt=item.prompt, image=Image.fromarray(item.first_frame), seed=0, num_inference_steps=2)
    patch = Patch("blocks.3.hook_resid_post", tuple(range(7)), lambda s, b: None, tokens=torch.eye(9).bool().view(9, 3, 3))
    for value, said in (
        (organism, ["HookedVideoPipeline(organism: Wan", f"{organism.layers} layers"]),
        (recording.run, ["Run(2 steps, sigma ", "branches cond", f"latents {list(recording.run.latents.shape)}"]),
        (recording.cache, ["2 steps (0 to 1)", "blocks.0.hook_resid_post, .., blocks.", " MB)"]),
        (patch, ["Patch(blocks.3.hook_resid_post @ step=0/../6, branch=cond, 9 of 81 tokens)"]),
        (recording, ["Recording(Run(2 steps", "ActivationCache("]),
        (ActivationCache(), ["ActivationCache(0 names"]),
    ):
        assert len(repr(value)) < 300 and all(part in repr(value) for part in said), repr(value)


def test_paths_that_are_no_file_of_a_cache_are_named(tmp_path):
    from safetensors.torch import save_file

    from cos_interp.interp.cache_file import FORMAT

    cache = ActivationCache()
    save_file({"x": torch.zeros(1)}, tmp_path / "other", {"format": FORMAT})
    for act, message in (
        (lambda: ActivationCache.load(tmp_path), "cannot be read"),
        (lambda: ActivationCache.load(tmp_path / "none"), "cannot be read"),
        (lambda: ActivationCache.load(tmp_path / "other"), "holds no activation cache"),
        (lambda: cache.save(tmp_path), "cannot be written"),
        (lambda: cache.save(tmp_path / "missing" / "cache"), "cannot be written"),
    ):
        with pytest.raises(InterpError, match=message):
            act()


def test_naming_every_site_takes_time_that_grows_with_their_number():
    """Twice the layers, twice the calls of Python, where every name stands in a list."""

    def counted(function):
        calls = []
        sys.setprofile(lambda frame, event, arg: calls.append(event) if "call" in event else None)
        try:
            function()
        finally:
            sys.setprofile(None)
        return len(calls)

    def counts(layers):
        pipe = tiny.build("wan2.1")
        pipe.transformer = transformer("WanTransformer3DModel", num_layers=layers)
        model = HookedVideoPipeline.from_pipeline(pipe)
        names = [name for name in model.hook_names if name.startswith("blocks.")]
        grid, engine = model.token_grid(torch.zeros(1, 4, 3, 4, 4)), model.engines["transformer"]
        assert model.matching(names) == model.matching("blocks.*") == names
        sizes = lambda: activation_bytes(engine, dict.fromkeys(names, "tokens"), grid, 1)
        return counted(lambda: model.matching(names)), counted(sizes)

    assert all(more < 2.2 * few for few, more in zip(counts(8), counts(16), strict=True))


def test_a_function_that_keeps_everything_does_not_void_the_budget():
    model, call = HookedVideoPipeline.from_pipeline(tiny.build("wan2.1")), tiny.call("wan2.1", steps=2)
    _, cache = model.run_with_cache(names="blocks.0.hook_resid_post", reduce=lambda act: act, seed=0, **call)
    ask = {"names": "blocks.0.hook_resid_post", "reduce": lambda act: act, "seed": 0, **call}
    with pytest.raises(BudgetExceeded, match=r"at blocks\.0\.hook_resid_post, step 1, the budget is"):
        model.run_with_cache(max_bytes=cache.nbytes - 1, **ask)
    assert model.run_with_cache(max_bytes=cache.nbytes, **ask)[1].nbytes == cache.nbytes
