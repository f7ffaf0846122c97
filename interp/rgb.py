"""A picture of any mode as RGB of 8 bits. Without torch, for those who only read files."""

from __future__ import annotations

import numpy as np
from PIL import Image


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture as RGB of 8 bits; transparent parts over white. 16-bit grey is scaled, not cut.

    ValueError for numbers without a scale (32-bit grey beyond 16 bits, floats).
    """
    if image.mode in ("F", "I"):
        raise ValueError(f"mode {image.mode} (numbers of 32 bits) has no scale: save it with 8 or 16 bits")
    if image.mode.startswith("I;16"):
        grey = np.round(np.asarray(image).astype(np.float64) / 257).astype(np.uint8)  # 65535 -> 255
        return Image.fromarray(grey, "L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        solid = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", solid.size, "white"), solid).convert("RGB")
    return image.convert("RGB")
