"""Capture, patches and recordings at the shapes of released models, with random weights in bfloat16, on a GPU.

Run it with ``make bench-gpu``, or ``python benchmarks/gpu.py 14B --tokens 32760 --json FILE``. A run here is two denoising
steps without guidance. Times are of the whole call with the device waited for; memory is the allocator's peak, weights included.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

from cos_interp.interp import HookedVideoPipeline, Patch, record, replay
from cos_interp.interp.keeping import Keeping
from cos_interp.interp.places import HostMemory
from cos_interp.interp.planning.costs import Shape
from cos_interp.organism import text

SHAPES = {  # of Wan2.1 and Wan2.2; "small" is for a look without a GPU
    "14B": {"num_attention_heads": 40, "attention_head_dim": 128, "ffn_dim": 13824, "num_layers": 40},
    "1.3B": {"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30},
    "small": {"num_attention_heads": 2, "attention_head_dim": 32, "ffn_dim": 128, "num_layers": 4},
}
SIZES = {32760: (480, 832, 81), 7800: (480, 832, 17), 128: (64, 128, 13)}  # tokens: height, width, frames
WORDS = 4096
LIMIT = 40 * 10**9  # bytes that a recording may take


def transformer(shape: str, device: str, dtype: torch.dtype) -> WanTransformer3DModel:
    """Random weights at the scale of a trained model's, drawn on the device."""
    with torch.device("meta"):
        made = WanTransformer3DModel(patch_size=(1, 2, 2), text_dim=WORDS, freq_dim=256, cross_attn_norm=True, **SHAPES[shape])
    for name, part in [*made.named_parameters()]:  # as from_pretrained does
        wide = any(kept in name for kept in made._keep_in_fp32_modules)
        holder = made.get_submodule(name.rpartition(".")[0])
        setattr(holder, name.rpartition(".")[2], torch.nn.Parameter(part.to(torch.float32 if wide else dtype)))
    made = made.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "norm" in name and weight.ndim == 1:
                weight.fill_(float(name.endswith("weight")))
            else:
                weight.normal_(0, 0.02 if weight.ndim < 2 else weight[0].numel() ** -0.5, generator=generator)
    made.rope = type(made.rope)(SHAPES[shape]["attention_head_dim"], (1, 2, 2), 1024).to(device)
    return made.eval()


def pipeline(shape: str, device: str, dtype: torch.dtype) -> WanPipeline:
    """Wan's pipeline around it; the text encoder and the autoencoder are small, for they are not measured."""
    torch.manual_seed(0)
    words = UMT5Config(vocab_size=text.vocabulary(), d_model=WORDS, d_kv=64, num_heads=4, d_ff=128, num_layers=1)
    vae = AutoencoderKLWan(base_dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=1, temperal_downsample=[False, True, True])
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    return WanPipeline(
        tokenizer=text.build_tokenizer(),
        text_encoder=UMT5EncoderModel(words).to(device, dtype).eval(),
        vae=vae.to(device, dtype),
        scheduler=scheduler,
        transformer=transformer(shape, device, dtype),
    )


class Watch:
    """Seconds and peak bytes of what runs on a device."""

    def __init__(self, device: str, silent: bool = False):
        self.cuda, self.silent, self.found = device.startswith("cuda"), silent, {}
        self.seconds: dict[str, float] = {}  # not rounded

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        out = work()
        if self.cuda:
            torch.cuda.synchronize()
        self.seconds[name] = time.perf_counter() - began
        self.found[name] = {"seconds": round(self.seconds[name], 3)}
        if self.cuda:
            self.found[name]["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
        if not self.silent:
            print(f"  {name:46} {self.found[name]}", flush=True)
        return out


def flops(shape: str, tokens: int) -> float:
    """Operations of one forward: matrix products and attention of all blocks."""
    s = SHAPES[shape]
    d = s["num_attention_heads"] * s["attention_head_dim"]
    products = tokens * (4 * d * d + 2 * d * d + 2 * d * s["ffn_dim"]) + 512 * 2 * d * d
    return 2 * s["num_layers"] * (products + 2 * d * tokens * tokens + 2 * d * tokens * 512)


def limit(device: str, dtype: torch.dtype, size: int) -> float:
    """TFLOP/s of a product of two square matrices, the best of ten: what the device does at most."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    watch = Watch(device, silent=True)
    for attempt in range(10):
        watch(str(attempt), lambda: a @ b)
    return 2 * size**3 / min(watch.seconds.values()) / 1e12


def planned(model: HookedVideoPipeline, call: dict[str, Any]) -> float:
    """Gigabytes on the device that a plan counts for one run: weights, activations of a forward, latents."""
    shape = Shape.of(model, call)
    latents = 3 * (call["num_inference_steps"] + 1) * shape.latent_bytes
    return (sum(shape.weights.values()) + shape.forward(1) + latents) / 1e9


def hand_hook(pipe: WanPipeline, layer: int, call: dict[str, Any], change: Callable[[int, Any], Any]) -> torch.Tensor:
    """The plain pipeline with a plain forward hook on a block: ``change(step, output)`` may give another output."""
    step = iter(range(1000))
    handle = pipe.transformer.blocks[layer].register_forward_hook(lambda module, args, out: change(next(step), out))
    try:
        return pipe(**call).frames
    finally:
        handle.remove()


def measure(shape: str, tokens: int, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """The table of one shape."""
    height, width, frames = SIZES[tokens]
    print(f"{shape}, {tokens} tokens, {dtype}, {torch.cuda.get_device_name() if device != 'cpu' else 'CPU'}", flush=True)
    watch = Watch(device)
    pipe = watch("build", lambda: pipeline(shape, device, dtype))
    pipe.set_progress_bar_config(disable=True)
    asked = {"prompt": "go to the red goal", "height": height, "width": width, "num_frames": frames, "num_inference_steps": 2,
             "guidance_scale": 1.0}  # fmt: skip
    seeded = lambda seed: {**asked, "output_type": "latent", "generator": torch.Generator("cpu").manual_seed(seed)}
    layer, name = SHAPES[shape]["num_layers"] // 2, f"blocks.{SHAPES[shape]['num_layers'] // 2}.hook_resid_post"
    with torch.no_grad():
        watch("plain pipeline, the first time", lambda: pipe(**seeded(0)))
        plain = watch("plain pipeline", lambda: pipe(**seeded(0)).frames)
        rate = 2 * flops(shape, tokens) / watch.found["plain pipeline"]["seconds"] / 1e12
        model = HookedVideoPipeline.from_pipeline(pipe)
        run = watch("run", lambda: model.run(**asked, seed=0))
        held: dict[int, torch.Tensor] = {}
        watch("plain hook on one block", lambda: hand_hook(pipe, layer, seeded(0), lambda k, out: held.update({k: out.cpu()})))
        _, one = watch("cache of one block", lambda: model.run_with_cache(names=name, **asked, seed=0))
        every = {"names": "blocks.*.hook_resid_post", "reduce": "norm"}
        watch("cache of all blocks, norms", lambda: model.run_with_cache(**every, **asked, seed=0))
        kept = watch(
            "record of one block, seed 1", lambda: record(model, names=[name], recompute=True, max_bytes=LIMIT, **asked, seed=1)
        )
        target = watch("record, seed 0", lambda: record(model, names=[], recompute=True, max_bytes=LIMIT, **asked, seed=0))
        aside = Keeping(place=HostMemory())  # pinned, on a GPU
        watch(
            "record of all blocks into host memory",
            lambda: record(model, [], True, aside, max_bytes=LIMIT, **asked, seed=0),
        )
        patch = Patch(name, steps=(1,), donor=kept.donor(name))
        patched = watch("replay with a patch at the last step", lambda: replay(model, target, [patch]))
        other: dict[int, torch.Tensor] = {}  # the same by hand
        hand_hook(pipe, layer, seeded(1), lambda k, out: other.update({k: out}))
        by_hand = watch(
            "the same patch by a plain hook",
            lambda: hand_hook(pipe, layer, seeded(0), lambda k, out: other[1] if k == 1 else None),
        )
        most, plan = limit(device, dtype, 8192 if device != "cpu" else 512), planned(model, asked)
        if device != "cpu":
            pipe.enable_model_cpu_offload()
            away = Keeping(place=HostMemory())
            offloaded = lambda: record(model, [name], True, away, max_bytes=LIMIT, **asked, seed=0)
            watch("the same with weights that wait in host memory", offloaded)
    flat = one[name, 1].flatten(1, 3)
    equal = {
        "run": torch.equal(run.latents, plain.to(run.latents.device)),
        "cached block": torch.equal(flat.to(held[1]), held[1]),
        "patch": torch.equal(patched, by_hand.to(patched.device)),
        "patch acts": not torch.equal(patched, run.latents.to(patched.device)),
    }  # fmt: skip
    print(
        f"  {rate:.3g} TFLOP/s of a plain run, {most:.3g} of a product of matrices; {plan:.2f} GB planned for a run", flush=True
    )
    print(f"  bit-equal to plain diffusers: {equal}", flush=True)
    return {
        "shape": shape, "tokens": tokens, "tflops": rate, "limit_tflops": most, "planned_gb": plan, "equal": equal,
        "measured": watch.found,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", nargs="+", choices=list(SHAPES))
    parser.add_argument("--tokens", type=int, nargs="+", choices=list(SIZES), default=[32760])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = []
    for shape in asked.shape:
        for tokens in asked.tokens:
            found.append(measure(shape, tokens, asked.device, torch.bfloat16))
            if asked.json:
                asked.json.write_text(json.dumps(found, indent=1) + "\n")
            if asked.device != "cpu":
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
