"""LoRA, quantised, half-precision and offloaded pipelines: exact under the instrument, or refused with the remedy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import accelerate
import diffusers
import numpy as np
import pytest
import torch
from diffusers.hooks import LayerSkipConfig, apply_first_block_cache, apply_layer_skip
from diffusers.hooks.context_parallel import apply_context_parallel
from safetensors.torch import load_file, save_file

from cos_interp.interp import HookedVideoPipeline, InterpError, placing
from cos_interp.interp.check.proof import check_adapter
from cos_interp.interp.families import tiny
from cos_interp.interp.placing import Placing

CPU = torch.device("cpu")
LORA = {"wan2.1": "ffn.net.0.proj", "ltx": "proj_in", "cogvideox": "ff.net.0.proj", "mochi": "ff.net.0.proj"}


def proven(pipe, name, **changed):
    report = check_adapter(pipe, **tiny.call(name, steps=2) | changed)
    assert report.passed, str(report)


def everything(model, name):
    """Final latents, and all activations."""
    run, cache = model.run_with_cache(names="*", seed=0, **tiny.call(name, steps=2))
    return run.latents, {key: cache[key] for key in cache}


def same(found, expected):
    return torch.equal(found[0], expected[0]) and all(torch.equal(found[1][key], value) for key, value in expected[1].items())


# --- LoRA ----------------------------------------------------------------------------------------------------------


def saved_lora(name, folder, seed=5) -> Path:
    """A LoRA file with random A and B, in the format of the diffusers trainers."""
    peft = pytest.importorskip("peft")
    pipe, noise = tiny.build(name), torch.Generator().manual_seed(seed)
    targets = ["to_q", "to_k", "to_v", "to_out.0", LORA[name]]
    pipe.transformer.add_adapter(peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets))
    layers = {k: torch.randn(v.shape, generator=noise) * 0.3 for k, v in peft.get_peft_model_state_dict(pipe.transformer).items()}
    pipe.save_lora_weights(folder, transformer_lora_layers=layers)
    return folder


@pytest.mark.parametrize("name", LORA)
def test_lora_is_exact_unfused_and_fused(name, tmp_path):
    model, call = HookedVideoPipeline.from_pipeline(tiny.build(name)), tiny.call(name, steps=2)
    base = model.run(seed=0, **call).latents
    model.pipe.load_lora_weights(saved_lora(name, tmp_path), adapter_name="style")  # modules change under the instrument
    proven(model, name)
    unfused = model.run(seed=0, **call).latents
    assert (unfused - base).abs().max() > 0.1
    model.pipe.fuse_lora(components=["transformer"])
    proven(model, name)
    torch.testing.assert_close(model.run(seed=0, **call).latents, unfused, atol=1e-3, rtol=1e-3)


def test_lora_can_be_scaled_switched_and_removed(tmp_path):
    model, call = HookedVideoPipeline.from_pipeline(tiny.build("wan2.1")), tiny.call("wan2.1", steps=2)
    pipe, base = model.pipe, everything(model, "wan2.1")
    pipe.load_lora_weights(saved_lora("wan2.1", tmp_path), adapter_name="style")
    full = model.run(seed=0, **call).latents
    proven(model, "wan2.1", attention_kwargs={"scale": 0.5})
    half = model.run(seed=0, attention_kwargs={"scale": 0.5}, **call).latents
    pipe.set_adapters("style", 0.5)
    assert torch.equal(model.run(seed=0, **call).latents, half) and not torch.equal(half, full)
    pipe.disable_lora()
    assert same(everything(model, "wan2.1"), base)
    pipe.enable_lora()
    pipe.set_adapters("style", 1.0)
    assert torch.equal(model.run(seed=0, **call).latents, full)
    pipe.unload_lora_weights()
    assert same(everything(model, "wan2.1"), base)


# --- offloading and device maps ------------------------------------------------------------------------------------


def align(pipe):
    """What enable_sequential_cpu_offload does to each module: weights on meta, brought back around each forward."""
    accelerate.cpu_offload(pipe.transformer, CPU)
    accelerate.cpu_offload(pipe.vae, CPU)


def group(pipe, kind="block_level"):
    pipe.transformer.enable_group_offload(onload_device=CPU, offload_device=CPU, offload_type=kind, num_blocks_per_group=1)


OFFLOADS = {
    "sequential": align,
    "model": lambda pipe: pipe.enable_model_cpu_offload(device="cpu"),
    "group": group,
    "leaf": lambda pipe: group(pipe, "leaf_level"),
}


@pytest.mark.parametrize("offload", OFFLOADS)
@pytest.mark.parametrize("name", ["wan2.2", "ltx"])
def test_offloaded_weights_change_no_bit(offload, name):
    expected = everything(HookedVideoPipeline.from_pipeline(tiny.build(name)), name)
    pipe = tiny.build(name)
    OFFLOADS[offload](pipe)
    model = HookedVideoPipeline.from_pipeline(pipe)
    assert same(everything(model, name), expected)
    pipe(**tiny.call(name, steps=2), output_type="latent")  # model offload takes its hooks off and puts them on again
    assert same(everything(model, name), expected)
    if offload != "sequential":
        return
    frames = HookedVideoPipeline.from_pipeline(tiny.build(name)).decode(expected[0])
    assert np.array_equal(model.decode(expected[0]), frames)


@pytest.mark.parametrize("offload", OFFLOADS)
def test_offloading_may_be_switched_on_later(offload):
    model = HookedVideoPipeline.from_pipeline(tiny.build("wan2.1"))
    expected = everything(model, "wan2.1")
    OFFLOADS[offload](model.pipe)
    assert same(everything(model, "wan2.1"), expected) and same(everything(model, "wan2.1"), expected)
    model.pipe.remove_all_hooks()
    assert same(everything(model, "wan2.1"), expected)


def test_offloaded_pipelines_are_proven_and_keep_their_device():
    pipe, seen = tiny.build("wan2.1"), []
    first = torch.device("cpu", 0)
    pipe.transformer.enable_group_offload(onload_device=first, offload_device=CPU, offload_type="leaf_level")
    proven(pipe, "wan2.1")
    look = ("hook_x_t @ step=0", lambda act, hook: seen.append(pipe._execution_device))
    HookedVideoPipeline.from_pipeline(pipe).run_with_hooks(fwd_hooks=[look], seed=0, **tiny.call("wan2.1", steps=2))
    assert seen == [first]


def test_model_offload_ends_a_run_with_the_experts_offloaded():
    pipe = tiny.build("wan2.1")
    pipe.enable_model_cpu_offload(device="cpu")
    model = HookedVideoPipeline.from_pipeline(pipe)
    run = model.run(seed=0, **tiny.call("wan2.1", steps=2))
    offloaded = lambda: {module for hook in pipe._all_hooks for module in [hook.model]}
    assert pipe.transformer in offloaded() and "maybe_free_model_hooks" not in pipe.__dict__
    run.decode()
    assert pipe.transformer in offloaded() and pipe.vae in offloaded()
    proven(model, "wan2.1")


def test_lora_on_an_offloaded_pipeline(tmp_path):
    pipe = tiny.build("ltx")
    group(pipe)
    model = HookedVideoPipeline.from_pipeline(pipe)
    model.run(seed=0, **tiny.call("ltx", steps=2))
    pipe.load_lora_weights(saved_lora("ltx", tmp_path))
    proven(model, "ltx")


# --- precision and quantisation ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("wan")
    tiny.build("wan2.1").save_pretrained(path)
    return path


def test_dtype_and_device_map_are_passed_on(folder):
    model = HookedVideoPipeline.from_pretrained(folder, dtype=torch.bfloat16, device_map="cpu")
    transformer = model.pipe.transformer
    assert transformer.dtype == torch.bfloat16 and transformer.blocks[0].scale_shift_table.dtype == torch.float32
    assert model.pipe.hf_device_map == "cpu"
    proven(model, "wan2.1")
    with pytest.raises(InterpError, match="device_map"):
        HookedVideoPipeline.from_pretrained(folder, device_map={"transformer": "cpu"})


def test_float8_storage_is_exact():
    pipe = tiny.build("mochi")
    pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    proven(pipe, "mochi")


def test_torchao_is_exact(folder):
    pytest.importorskip("torchao")
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    wanted = {"transformer": diffusers.TorchAoConfig(Int8WeightOnlyConfig())}
    quantised = diffusers.PipelineQuantizationConfig(quant_mapping=wanted)
    model = HookedVideoPipeline.from_pretrained(folder, quantization_config=quantised, dtype=torch.float32)
    assert "torchao" in type(model.pipe.transformer.blocks[0].attn1.to_q.weight).__module__
    proven(model, "wan2.1")
    pipe = tiny.build("cogvideox")
    quantize_(pipe.transformer, Int8WeightOnlyConfig())
    proven(pipe, "cogvideox")


@pytest.mark.parametrize("bits", [8, 4])
def test_bitsandbytes_is_exact(bits):
    """With its own layers: diffusers wants a GPU before it puts them in."""
    bnb = pytest.importorskip("bitsandbytes")
    layers = {8: lambda *a: bnb.nn.Linear8bitLt(*a, has_fp16_weights=False), 4: lambda *a: bnb.nn.Linear4bit(*a)}
    pipe = tiny.build("wan2.1")
    for parent in list(pipe.transformer.blocks.modules()):
        for name, linear in list(parent.named_children()):
            if isinstance(linear, torch.nn.Linear):
                made = layers[bits](linear.in_features, linear.out_features, linear.bias is not None)
                made.load_state_dict(linear.state_dict(), strict=False)
                setattr(parent, name, made.to("cpu"))
    proven(pipe, "wan2.1")


# --- what cannot be traced -----------------------------------------------------------------------------------------

CACHES = {
    "FirstBlock": diffusers.FirstBlockCacheConfig,
    "TaylorSeer": diffusers.TaylorSeerCacheConfig,
    "TextKV": diffusers.TextKVCacheConfig,
    "Faster": lambda: diffusers.FasterCacheConfig(current_timestep_callback=lambda: 1),
    "Mag": lambda: diffusers.MagCacheConfig(num_inference_steps=2, mag_ratios=torch.ones(2)),
    "PyramidAttention": lambda: diffusers.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2, current_timestep_callback=lambda: 1
    ),
}


@pytest.mark.parametrize("cache", CACHES)
def test_block_caches_are_refused_before_and_after_wrapping(cache):
    pipe = tiny.build("wan2.1")
    model = HookedVideoPipeline.from_pipeline(pipe)
    expected = everything(model, "wan2.1")
    pipe.transformer.enable_cache(CACHES[cache]())
    with pytest.raises(InterpError, match=r"call transformer\.disable_cache\(\)"):
        HookedVideoPipeline.from_pipeline(pipe)
    with pytest.raises(InterpError, match=r"call transformer\.disable_cache\(\)"):
        everything(model, "wan2.1")
    pipe.transformer.disable_cache()  # the remedy
    assert same(everything(model, "wan2.1"), expected)


DIRECT = {
    "fbc_leader_block_hook": lambda t: apply_first_block_cache(t, diffusers.FirstBlockCacheConfig()),
    "layer_skip_hook": lambda t: apply_layer_skip(t, LayerSkipConfig(indices=[1], fqn="blocks")),
    "cp_input": lambda t: apply_context_parallel(t, diffusers.ContextParallelConfig(ulysses_degree=2), t._cp_plan),
}


@pytest.mark.parametrize("hook", DIRECT)
def test_hooks_that_skip_or_split_are_refused_by_name(hook):
    pipe = tiny.build("wan2.1")
    DIRECT[hook](pipe.transformer)
    with pytest.raises(InterpError, match=rf"{hook}.*remove_hook"):
        HookedVideoPipeline.from_pipeline(pipe)


def test_compiled_and_replaced_transformers_are_refused():
    pipe = tiny.build("wan2.1")
    model, call = HookedVideoPipeline.from_pipeline(pipe), tiny.call("wan2.1", steps=2)
    whole, pipe.transformer = pipe.transformer, torch.compile(pipe.transformer, backend="eager")
    with pytest.raises(InterpError, match=r"without torch\.compile"):
        HookedVideoPipeline.from_pipeline(pipe)
    with pytest.raises(InterpError, match="make another"):
        model.run(**call)
    pipe.transformer = whole
    pipe.transformer.compile_repeated_blocks(backend="eager")
    with pytest.raises(InterpError, match=r"transformer\.blocks\.0 is compiled"):
        model.run(**call)


@pytest.mark.parametrize("path", ["", "blocks.1"])
def test_a_forward_that_was_replaced_for_a_while_and_put_back_is_traced_again(path):
    pipe = tiny.build("wan2.1")
    model, call = HookedVideoPipeline.from_pipeline(pipe), tiny.call("wan2.1", steps=2)
    module = pipe.transformer.get_submodule(path)
    names = ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]
    run, cache = model.run_with_cache(names=names, seed=0, **call)
    before = module.forward
    module.forward = lambda *args, **kwargs: before(*args, **kwargs)
    assert torch.equal(model.run(seed=0, **call).latents, run.latents)
    if path:  # somebody else's forward of a block is traced as well
        again = model.run_with_cache(names=names, seed=0, **call)[1]
        assert all(torch.equal(again[name, 1, "cond"], cache[name, 1, "cond"]) for name in names)
    module.forward = before
    later, again = model.run_with_cache(names=names, seed=0, **call)
    assert torch.equal(later.latents, run.latents)
    assert all(torch.equal(again[name, 1, "cond"], cache[name, 1, "cond"]) for name in names)


def test_other_attention_backends_are_refused_where_attention_is_asked():
    pipe = tiny.build("wan2.1")
    model, call = HookedVideoPipeline.from_pipeline(pipe), tiny.call("wan2.1", steps=2)
    try:
        pipe.transformer.set_attention_backend("flex")
        model.run_with_cache(names="blocks.*.hook_resid_post", seed=0, **call)
        with pytest.raises(InterpError, match=r"set_attention_backend\('native'\)"):
            model.run_with_cache(names="blocks.0.attn.hook_z", seed=0, **call)
    finally:
        pipe.transformer.set_attention_backend("native")  # diffusers keeps it for the whole process
    proven(model, "wan2.1")


# --- hub ids and folders -------------------------------------------------------------------------------------------


def hub_cache(root, revisions) -> Path:
    """A download cache as huggingface_hub writes it; ``revisions``: name -> (commit, pipeline folder)."""
    repo = root / "models--owner--video"
    for name, (commit, source) in revisions.items():
        (repo / "refs").mkdir(parents=True, exist_ok=True)
        (repo / "refs" / name).write_text(commit)
        (repo / "snapshots").mkdir(exist_ok=True)
        (repo / "snapshots" / commit).symlink_to(source)
    return root


def test_a_hub_id_loads_the_pinned_revision(folder, tmp_path):
    other = tmp_path / "other"
    pipe = tiny.build("wan2.1")
    pipe.transformer.register_to_config(eps=1e-3)
    pipe.save_pretrained(other)
    cache = hub_cache(tmp_path, {"main": ("a" * 40, folder), "v2": ("b" * 40, other)})
    load = lambda **kw: HookedVideoPipeline.from_pretrained("owner/video", cache_dir=cache, local_files_only=True, **kw)
    assert load().pipe.transformer.config.eps == 1e-6
    assert load(revision="v2").pipe.transformer.config.eps == 1e-3
    assert load(revision="b" * 40).pipe.transformer.config.eps == 1e-3
    with pytest.raises(InterpError, match="owner/video"):
        load(revision="c" * 40)


def test_remote_code_does_not_run_unless_trusted(tmp_path):
    mark = tmp_path / "ran"
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": ["pipeline", "Mine"]}))
    code = f"open({str(mark)!r}, 'w')\nfrom diffusers import DiffusionPipeline\nclass Mine(DiffusionPipeline): pass\n"
    (tmp_path / "pipeline.py").write_text(code)
    with pytest.raises(InterpError, match="custom code"):
        HookedVideoPipeline.from_pretrained(tmp_path)
    assert not mark.exists()


def test_folders_that_cannot_be_loaded_say_why(tmp_path):
    with pytest.raises(InterpError, match=r"no model_index\.json"):
        HookedVideoPipeline.from_pretrained(tmp_path)
    with pytest.raises(InterpError, match="hub id owner/name"):
        HookedVideoPipeline.from_pretrained(tmp_path / "nothing")
    index = tmp_path / "model_index.json"
    for content, why in (("{", "not a valid JSON"), ('{"_class_name": "NoSuchPipeline"}', "NoSuchPipeline")):
        index.write_text(content)
        with pytest.raises(InterpError, match=why):
            HookedVideoPipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("scheduler/scheduler_config.json", lambda held: {}, "does not say of which class it is"),
        ("scheduler/scheduler_config.json", lambda held: {**held, "shift": float("nan")}, "its scheduler has shift nan"),
        ("vae/config.json", lambda held: {**held, "latents_std": [0.0] * held["z_dim"]}, "has latents_std"),
        ("vae/config.json", lambda held: {**held, "latents_std": [-1.0] * held["z_dim"]}, "has latents_std"),
        ("vae/config.json", lambda held: {**held, "latents_mean": [None] * held["z_dim"]}, "has latents_mean"),
        ("vae/config.json", lambda held: {**held, "latents_std": [1.0] * 3}, "has 3 latents_std for 4 latent channels"),
    ],
)  # fmt: skip
def test_a_configuration_that_would_mean_something_else_is_refused(folder, tmp_path, file, change, message):
    shutil.copytree(folder, tmp_path / "model")
    path = tmp_path / "model" / file
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(InterpError, match=message):
        HookedVideoPipeline.from_pretrained(tmp_path / "model")


def test_weights_kept_as_whole_numbers_are_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    path = next((tmp_path / "model" / "transformer").glob("*.safetensors"))
    weights = load_file(path)
    weights["proj_out.weight"] = (weights["proj_out.weight"] * 100).to(torch.int8)
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(InterpError, match=r"its transformer hold proj_out.weight as whole numbers, whose scale is not known"):
        HookedVideoPipeline.from_pretrained(tmp_path / "model")


# --- as the command line says ----------------------------------------------------------------------------------------


def test_what_the_command_line_says_is_what_diffusers_does(folder, tmp_path):
    """``--lora ONE:0.5,OTHER --dtype bf16 --vae-tiling`` against the same done by hand on the pipeline."""
    one, other = saved_lora("wan2.1", tmp_path / "one"), saved_lora("wan2.1", tmp_path / "other", seed=6)
    call = tiny.call("wan2.1", steps=2)
    said = Placing(device="cpu", dtype="bf16", vae_tiling=True, lora=(f"{one}:0.5", str(other)))
    model = HookedVideoPipeline.from_pretrained(folder, dtype=said.type())
    said.place(model.pipe)
    own = HookedVideoPipeline.from_pretrained(folder, dtype=torch.bfloat16).pipe
    for name, path in (("a", one), ("b", other)):
        own.load_lora_weights(path, adapter_name=name)
    own.set_adapters(["a", "b"], [0.5, 1.0])
    assert model.pipe.vae.use_tiling and model.pipe.transformer.dtype == torch.bfloat16
    expected = own(**call, generator=torch.Generator().manual_seed(0), output_type="latent", return_dict=False)[0]
    assert torch.equal(model.run(seed=0, **call).latents, expected)


@pytest.mark.parametrize(
    ("word", "into"), [("", ({}, {"load_into_transformer_2": True})), ("transformer=", ({},)),
                       ("transformer_2=", ({"load_into_transformer_2": True},))]
)  # fmt: skip
def test_a_lora_reaches_both_experts_or_the_one_that_it_names(word, into, tmp_path):
    path, call = saved_lora("wan2.1", tmp_path), tiny.call("wan2.2", steps=3)
    model, own = (HookedVideoPipeline.from_pretrained("tiny:wan2.2") for _ in range(2))
    Placing(device="cpu", lora=(f"{word}{path}:0.5",)).place(model.pipe)
    for where in into:
        own.pipe.load_lora_weights(path, adapter_name="a", **where)
    for expert in (own.pipe.transformer, own.pipe.transformer_2):
        if "a" in getattr(expert, "peft_config", {}):
            expert.set_adapters(["a"], [0.5])
    assert torch.equal(model.run(seed=0, **call).latents, own.run(seed=0, **call).latents)


def test_a_lora_of_which_a_weight_fits_no_layer_is_refused(tmp_path):
    path = saved_lora("wan2.1", tmp_path) / "pytorch_lora_weights.safetensors"
    held = load_file(path)
    deeper = {key.replace("blocks.0.", "blocks.7."): value.clone() for key, value in held.items() if "blocks.0." in key}
    for name, changed, message in (
        (
            "part",
            held | deeper,
            rf"{len(deeper)} of its {len(held | deeper)} weights are of no layer of WanPipeline .*blocks\.7\.",
        ),
        ("none", {f"unet.{key}": value for key, value in held.items()}, "could not be loaded|are of no layer"),
    ):
        save_file(changed, tmp_path / f"{name}.safetensors")
        with pytest.raises(InterpError, match=message):
            Placing(device="cpu", lora=(str(tmp_path / f"{name}.safetensors"),)).place(tiny.build("wan2.1"))
    with pytest.raises(InterpError, match="WanPipeline has no transformer_2 here"):
        Placing(device="cpu", lora=(f"transformer_2={path}",)).place(tiny.build("wan2.1"))


@pytest.mark.parametrize("name", LORA)
def test_a_lora_of_every_family_that_takes_one_fits_its_layers(name, tmp_path):
    pipe = tiny.build(name)
    Placing(device="cpu", lora=(str(saved_lora(name, tmp_path)),)).place(pipe)
    assert "lora-0" in pipe.transformer.peft_config


@pytest.mark.parametrize(("asked", "parts"), [(None, [5]), (1, [1, 1, 1, 1, 1]), (2, [2, 2, 1])])
def test_as_many_videos_are_decoded_together_as_was_said(asked, parts, monkeypatch):
    model = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    Placing(device="cpu", decode_steps=asked).place(model.pipe)
    run, seen, decode = model.run(seed=0, **tiny.call("wan2.1", steps=2)), [], model.pipe.vae.decode
    monkeypatch.setattr(model.pipe.vae, "decode", lambda z, **more: seen.append(len(z)) or decode(z, **more))
    together = model.decode(torch.cat([run.latents] * 5))
    assert seen == parts and len(together) == 5
    assert np.abs(together[4].astype(int) - model.decode(run.latents)[0]).max() <= 1  # rounding


@pytest.mark.parametrize(("dtype", "rounded"), [("fp32", False), ("bf16", True), ("auto", True)])
def test_single_precision_on_a_gpu_is_single_precision_in_convolutions_too(dtype, rounded, monkeypatch):
    """PyTorch lets cuDNN round to TF32 by default. There is no GPU here, so where the pipeline goes is only written down."""
    monkeypatch.setattr(placing, "_devices", lambda: ["cuda", "cpu"])
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    moved = []
    Placing(dtype=dtype).place(SimpleNamespace(to=moved.append))
    assert moved == [torch.device("cuda")] and torch.backends.cudnn.allow_tf32 is rounded


def test_auto_is_single_precision_on_the_cpu():
    said = Placing(device="cpu")
    assert (said.type(), said.where()) == (torch.float32, torch.device("cpu"))
    assert Placing(device="cpu", dtype="fp16").type() == torch.float16


@pytest.mark.parametrize(
    ("said", "message"),
    [({"device": "tpu"}, "--device tpu: this machine has cpu"), ({"device": "cpu", "offload": "model"}, "nothing to offload"),
     ({"device": "cpu", "lora": ("nowhere:0.5",)}, "nowhere does not exist"),
     ({"device": "cpu", "lora": (".:much",)}, "is no scale"),
     ({"device": "cpu", "lora": (".",)}, r"--lora \. could not be loaded")],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(said, message):
    with pytest.raises(InterpError, match=message):
        Placing(**said).place(tiny.build("wan2.1"))


def test_another_precision_is_another_run(tmp_path, prompts):
    from cos_interp import analyses
    from cos_interp.analyses.driver.errors import RunError

    asked = {"num_inference_steps": 2, "prompts": prompts, "model": "tiny:wan2.1", "workers": 1, "out": tmp_path / "run"}
    analyses.run("self-correction", device="cpu", **asked)
    analyses.run("self-correction", dtype="fp32", **asked)  # the same numbers by other words
    with pytest.raises(RunError, match="computed in float32 on cpu, now in bfloat16 on cpu"):
        analyses.run("self-correction", dtype="bf16", **asked)
