"""Where a model computes and in which numbers: device, type, offloading, tiling, LoRA. What a pipeline is told after loading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cos_interp.interp.errors import InterpError

Dtype = Literal["auto", "bf16", "fp16", "fp32"]
Offload = Literal["none", "model", "group", "sequential"]
TOGETHER = "decoded_together"  # of a pipeline: videos that are decoded together
NAMES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


@dataclass(frozen=True)
class Placing:
    """How a model is loaded.

    ``device``: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``. ``dtype``: ``auto`` is fp32 on the
    CPU and bf16 on a GPU, whatever the files store. ``offload``: what lies in host memory until it is needed. ``lora``: files or
    folders, ``PATH`` or ``PATH:scale``. ``decode_steps``: videos that are decoded together (None: as :func:`decoding.at_a_time`).
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


def _devices() -> list[str]:
    """The devices of this machine, the one that ``auto`` takes first."""
    import torch

    found = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))] if torch.cuda.is_available() else []
    return found + (["mps"] if torch.backends.mps.is_available() else []) + ["cpu"]


def _add_loras(pipe: Any, asked: Sequence[str]) -> None:
    """Load each ``PATH`` or ``PATH:scale`` as an adapter of its own; several add up."""
    scales = {}
    for number, one in enumerate(asked):
        path, scale = _path_and_scale(one)
        name = f"lora-{number}"
        where = {"weight_name": path.name} if path.is_file() else {}
        try:
            pipe.load_lora_weights(str(path.parent if path.is_file() else path), adapter_name=name, **where)
        except AttributeError as error:
            raise InterpError(f"--lora {one}: {type(pipe).__name__} takes no LoRA") from error
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise InterpError(f"--lora {one} could not be loaded: {str(error).splitlines()[0]}") from error
        scales[name] = scale
    if scales:
        pipe.set_adapters(list(scales), list(scales.values()))


def _path_and_scale(asked: str) -> tuple[Path, float]:
    path, _, scale = asked.rpartition(":") if ":" in asked and not Path(asked).exists() else (asked, "", "1")
    if not Path(path).exists():
        raise InterpError(f"--lora {asked}: {path} does not exist")
    try:
        return Path(path), float(scale)
    except ValueError:
        raise InterpError(f"--lora {asked}: {scale!r} is no scale: give PATH or PATH:0.8") from None
