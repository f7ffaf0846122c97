"""Further models beside the first one: loading them, and whether their blocks and weights stand for each other."""

from __future__ import annotations

from functools import lru_cache

from torch import Tensor, nn

from cos_interp.analyses.driver.experiment import told
from cos_interp.analyses.driver.settings import Loading
from cos_interp.interp import identity
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.placing import Placing
from cos_interp.interp.planning.skeleton import skeleton


def beside(
    model: HookedVideoPipeline, config: Loading, name: str, placing: Placing, revision: str | None = None
) -> HookedVideoPipeline:
    """Another model, told the same of every call as the first one; without weights beside one that has none, of a plan. One is
    kept for the next time: of many, each is loaded when it is its turn."""
    bare = without_weights(model)
    placing.check()
    other = skeleton(name, placing.type(), revision) if bare else _loaded(name, placing, revision)
    other.defaults = dict(model.defaults)
    told(other, config)
    return other


@lru_cache(maxsize=1)  # two would be a third model in memory
def _loaded(name: str, placing: Placing, revision: str | None) -> HookedVideoPipeline:
    """A model by its name, with its LoRA in its weights, so that these have the names of another model's."""
    given = {"dtype": placing.type()} | ({"revision": revision} if revision else {})
    model = HookedVideoPipeline.from_pretrained(name, **given)
    placing.place(model.pipe)
    if placing.lora:
        model.pipe.fuse_lora(components=list(model.engines))
        model.pipe.unload_lora_weights()
    return model


def without_weights(model: HookedVideoPipeline) -> bool:
    """Whether a model has shapes alone. One whose weights wait elsewhere has them where it computes."""
    return model.pipe._execution_device.type == "meta"


def content(model: HookedVideoPipeline) -> str:
    """sha256 of all that a model is."""
    return identity.whole(model.pipe)


def check_content(other: HookedVideoPipeline, digest: str | None, option: str) -> None:
    """InterpError for a model with another content than was asked for by an option. A plan's has none."""
    if digest is not None and not without_weights(other) and not (found := content(other)).startswith(digest):
        raise InterpError(f"{other.name} has the digest {found[:12]}, {option} asks for {digest}")


def check_build(model: HookedVideoPipeline, other: HookedVideoPipeline) -> None:
    """InterpError for two models whose blocks do not stand for each other."""
    for what, of in (("class", lambda m: type(m.pipe).__name__), ("experts", lambda m: ", ".join(m.engines)),
                     ("layers", lambda m: m.layers), ("names of hooks", lambda m: tuple(m.hook_names)),
                     ("widths", lambda m: m.adapter.sizes(m.adapter.expert(m.pipe).config))):  # fmt: skip
        mine, theirs = of(model), of(other)
        if mine != theirs:
            shown = "" if what == "names of hooks" else f" ({mine} and {theirs})"
            raise InterpError(
                f"{model.name} and {other.name} differ in {what}{shown}, so that no block stands for another: compare runs of "
                "both with cos report compare"
            )


def kept_apart(model: HookedVideoPipeline, other: HookedVideoPipeline) -> str | None:
    """Why weights of the other model cannot be put into the first; None where they can. Of a plan's models by their shapes."""
    planned = without_weights(model)
    for name, engine in model.engines.items():
        mine, theirs = weights(engine.module), weights(other.engines[name].module)
        if different := sorted(mine.keys() ^ theirs.keys()):
            return f"only one of them has {name}.{different[0]}"
        for key, weight in mine.items():
            if (weight.shape, weight.dtype, weight.device) != (theirs[key].shape, theirs[key].dtype, theirs[key].device):
                return f"{name}.{key} is of another kind"
            if (weight.is_meta and not planned) or not weight.is_floating_point():
                return f"{name}.{key} is offloaded or quantised"
    return None


def weights(module: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers of a module by name."""
    return {**dict(module.named_parameters()), **{n: b for n, b in module.named_buffers() if b.is_floating_point()}}
