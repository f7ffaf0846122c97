"""NaN and infinity stop a run where they appear: averaged, read or stored they look like an answer."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from cos_interp.interp.errors import NotFinite


def check_finite(value: Tensor, what: str, modules: Iterable[nn.Module] = ()) -> None:
    """NotFinite, with the weight to blame where one of ``modules`` has one, when a tensor holds NaN or infinity."""
    if bool(value.isfinite().all()):
        return
    count = int((~value.isfinite()).sum())
    blame = next((f"{type(module).__name__}.{name}" for module in modules for name in broken_weights(module)), None)
    because = f"the weight {blame} is not finite" if blame else "all weights are finite: a number overflowed, or was given so"
    raise NotFinite(f"{what} holds NaN or infinity ({count} of {value.numel()} numbers): {because}")


def broken_weights(module: nn.Module) -> Iterable[str]:
    """Names of the weights and buffers that hold NaN or infinity."""
    for name, weight in module.state_dict().items():
        if isinstance(weight, Tensor) and weight.is_floating_point() and not bool(weight.isfinite().all()):
            yield name
