"""Where a model computes and in which numbers: device, type, offloading, tiling, LoRA. What a pipeline is told after loading."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cos_interp.interp.errors import InterpError

Dtype = Literal["auto", "bf16", "fp16", "fp32"]
Offload = Literal["none", "model", "group", "sequential"]
TOGETHER = "decoded_together"  # of a pipeline: videos that are decoded together
FIRST, SECOND = EXPERTS = ("transformer", "transformer_2")  # of a pipeline of two, what runs at high noise and at low
NAMES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


@dataclass(frozen=True)
class Placing:
    """How a model is loaded.

    ``device``: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``. ``dtype``: ``auto`` is fp32 on the
    CPU and bf16 on a GPU, whatever the files store. ``offload``: what lies in host memory until it is needed. ``lora``: files or
    folders, ``PATH`` or ``PATH:scale``, of one of two experts ``transformer_2=PATH:scale``. ``decode_steps``: videos that are
    decoded together (None: as :func:`decoding.at_a_time`).
    """

    device: str = "auto"
    dtype: Dtype = "auto"
    offload: Offload = "none"
    vae_tiling: bool = False
    lora: tuple[str, ...] = ()
    decode_steps: int | None = None

    def where(self) -> Any:
        """The torch device. InterpError for one that this machine does not have."""
        import torch

        there = _devices()
        asked = there[0] if self.device == "auto" else self.device
        if asked not in there:
            raise InterpError(f"--device {self.device}: this machine has {', '.join(reversed(there))}")
        return torch.device(asked)

    def type(self) -> Any:
        """The torch type that weights are loaded in."""
        import torch

        name = ("fp32" if self.where().type == "cpu" else "bf16") if self.dtype == "auto" else self.dtype
        return getattr(torch, NAMES[name])

    def check(self) -> None:
        """InterpError for files that are not there, before anything is loaded."""
        for one in self.lora:
            _meant(one)

    def place(self, pipe: Any) -> None:
        """Put a loaded pipeline where it belongs. InterpError for what it cannot do."""
        import torch

        device = self.where()
        if device.type == "cuda" and self.type() is torch.float32:
            torch.backends.cudnn.allow_tf32 = False  # of the whole process: convolutions would keep 10 bits of the mantissa
        _add_loras(pipe, self.lora)
        if self.vae_tiling:
            if not hasattr(pipe.vae, "enable_tiling"):
                raise InterpError(f"--vae-tiling: {type(pipe.vae).__name__} cannot decode in tiles")
            pipe.vae.enable_tiling()
        if self.decode_steps is not None:
            setattr(pipe, TOGETHER, self.decode_steps)
        if self.offload == "none":
            pipe.to(device)
            return
        if device.type == "cpu":
            raise InterpError(f"--offload {self.offload}: there is nothing to offload from the CPU; it is for --device cuda")
        if self.offload == "group":
            pipe.enable_group_offload(onload_device=device, offload_type="leaf_level", use_stream=device.type == "cuda")
        elif self.offload == "model":
            pipe.enable_model_cpu_offload(device=device)
        else:
            pipe.enable_sequential_cpu_offload(device=device)


def is_device(text: str) -> bool:
    """Whether a text names a kind of device on which a model may be placed, or one of several.

    >>> is_device("cuda:1"), is_device("banana")
    (True, False)
    """
    return re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text) is not None


def _devices() -> list[str]:
    """The devices of this machine, the one that ``auto`` takes first."""
    import torch

    found = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))] if torch.cuda.is_available() else []
    return found + (["mps"] if torch.backends.mps.is_available() else []) + ["cpu"]


def _add_loras(pipe: Any, asked: Sequence[str]) -> None:
    """Load each LoRA as an adapter of its own; several add up. Of a pipeline with two experts both have each that names none.
    InterpError for files of which a weight fits no layer."""
    scales = {}
    for number, one in enumerate(asked):
        expert, path, scale = _meant(one)
        name = f"lora-{number}"
        where = {"weight_name": path.name} if path.is_file() else {}
        folder, second = str(path.parent if path.is_file() else path), getattr(pipe, SECOND, None) is not None
        if expert == SECOND and not second:
            raise InterpError(f"--lora {one}: {type(pipe).__name__} has no {SECOND} here: leave out {SECOND}=")
        both = [{}, {"load_into_transformer_2": True}] if second else [{}]
        chosen = both if expert is None else [both[expert == SECOND]]
        try:
            for into in chosen:
                pipe.load_lora_weights(folder, adapter_name=name, **where, **into)
            state = pipe.lora_state_dict(folder, **where)
        except AttributeError as error:
            raise InterpError(f"--lora {one}: {type(pipe).__name__} takes no LoRA") from error
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise InterpError(f"--lora {one} could not be loaded: {str(error).splitlines()[0]}") from error
        _check_fits(pipe, one, name, state[0] if isinstance(state, tuple) else state)
        scales[name] = scale
    for loadable in getattr(pipe, "_lora_loadable_modules", ()):
        part: Any = getattr(pipe, loadable, None)
        if mine := [name for name in scales if name in getattr(part, "peft_config", {})]:
            part.set_adapters(mine, [scales[name] for name in mine])


def _check_fits(pipe: Any, asked: str, name: str, state: Mapping[str, Any]) -> None:
    """InterpError where a weight of a LoRA's file, ``state``, is in no layer that it was loaded into: it would be left out."""
    parts = [part for part in pipe.components.values() if name in getattr(part, "peft_config", {})]
    held = {key.replace(f".{name}.", ".") for part in parts for key, _ in part.named_parameters() if f".{name}." in key}
    components = tuple(f"{part}." for part in pipe.components)
    bare = lambda key: next((key[len(part) :] for part in components if key.startswith(part)), key)
    unfit = [key for key in state if bare(key) not in held and not key.endswith(".alpha")]
    if unfit:
        raise InterpError(
            f"--lora {asked}: {len(unfit)} of its {len(state)} weights are of no layer of {type(pipe).__name__} as it is here, "
            f"like {unfit[0]}: it was made for another model, or for a part that is not loaded"
        )


def _meant(asked: str) -> tuple[str | None, Path, float]:
    """The expert that a LoRA is for (None: all that there are), its path and its scale."""
    expert, _, rest = asked.partition("=")
    if expert not in EXPERTS or not rest or Path(asked).exists():
        expert, rest = "", asked
    return expert or None, *_path_and_scale(rest)


def _path_and_scale(asked: str) -> tuple[Path, float]:
    path, _, scale = asked.rpartition(":") if ":" in asked and not Path(asked).exists() else (asked, "", "1")
    if not Path(path).exists():
        raise InterpError(f"--lora {asked}: {path} does not exist")
    try:
        return Path(path), float(scale)
    except ValueError:
        raise InterpError(f"--lora {asked}: {scale!r} is no scale: give PATH or PATH:0.8") from None
