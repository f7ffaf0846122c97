"""What a pipeline and an adapter's table must have, checked before anything runs, so that nothing fails deep inside a run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from cos_interp.interp.errors import InterpError
from cos_interp.interp.families.sites import Point, Site
from cos_interp.interp.run.sdpa import INNER
from cos_interp.interp.views import KINDS, LISTS, TokenGrid

PAGE = "see 'What the pipeline must have' in docs/adding-a-family.md"
TABLE = "see 'The file' in docs/adding-a-family.md"


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function has a parameter of that name, or takes any keyword."""
    parameters = inspect.signature(function).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def check_pipeline(pipe: Any, experts: Iterable[nn.Module]) -> None:
    """InterpError with everything that a pipeline lacks; ``experts`` are its transformers."""
    missing = [*_missing_in_pipeline(pipe), *(m for expert in experts for m in _missing_in_expert(expert))]
    if missing:
        raise InterpError(f"{type(pipe).__name__} cannot be run here: {'; '.join(missing)}; {PAGE}")


def _missing_in_pipeline(pipe: Any) -> Iterator[str]:
    if not callable(getattr(pipe, "prepare_latents", None)):
        yield "it has no method prepare_latents that makes (and returns) the first latents"
    for keyword, why in (
        ("output_type", "'latent' must return the final latents"),
        ("return_dict", "False must return a tuple"),
        ("num_inference_steps", "the number of denoising steps"),
    ):
        if not takes(type(pipe).__call__, keyword):
            yield f"its __call__ takes no {keyword} ({why})"


def _missing_in_expert(expert: nn.Module) -> Iterator[str]:
    if not takes(type(expert).forward, "hidden_states"):
        yield f"the forward of {type(expert).__name__} has no argument hidden_states (the latents)"


def latents_of(pipe: Any, out: Any) -> Tensor:
    """The final latents in what a pipeline returned for ``output_type="latent", return_dict=False``."""
    first = out[0] if isinstance(out, tuple | list) and len(out) else out
    if isinstance(first, list) and len(first) == 1:  # FramePack lists the latents of its sections, of which one is run
        first = first[0]
    if isinstance(out, tuple) and isinstance(first, Tensor):
        return first
    raise InterpError(
        f"{type(pipe).__name__} was asked for output_type='latent', return_dict=False and returned {type(out).__name__} of "
        f"{type(first).__name__}, not a tuple whose first item is the latents; {PAGE}"
    )


def check_output(transformer: nn.Module, out: Any, item: int | None) -> None:
    """InterpError where a transformer does not return what its adapter's ``output_item`` says."""
    first = out[0] if isinstance(out, tuple) and out else out
    if isinstance(first, Tensor) and isinstance(out, tuple) == (item is not None):
        return
    remedy = "give the adapter output_item = None" if isinstance(out, Tensor) else "return a tensor, or a tuple of tensors"
    raise InterpError(
        f"the forward of {type(transformer).__name__} returned {type(out).__name__}, the adapter says "
        f"{'a tensor' if item is None else 'a tuple with the output first'} (output_item={item}): {remedy}; {PAGE}"
    )


def wrong_tensor(value: Any, site: Site, grid: TokenGrid) -> str | None:
    """Why what was found at a site cannot be of its kind; None if it can."""
    if not isinstance(value, Tensor):
        return f"found {type(value).__name__}, not a tensor; Site.item picks one from a tuple"
    kind = KINDS[site.kind]
    if kind.varies:
        return None
    axes, shape = [axis for axis in kind.native if site.fold is None or axis != "frame"], list(value.shape)
    given = f"a site of kind {site.kind!r} needs [{', '.join(axes)}], found {shape}"
    if value.ndim != len(axes):
        return f"{given}; another kind or item is meant"
    if site.fold is not None:
        outer = grid.frames if site.fold == "spatial" else grid.rows * grid.cols
        return f"{given}; fold={site.fold!r} needs a batch axis that {outer} divides" if shape[0] % outer else None
    if "token" not in axes:
        return None
    found = shape[kind.listed]
    if found == grid.tokens or (site.part is not None and found > grid.tokens):
        return None
    return (
        f"{given}, and the video has {grid.tokens} tokens ({grid.frames} frames x {grid.rows} rows x {grid.cols} columns); "
        "look at item (video or text of a tuple), part (both on one axis), fold, and the adapter's patch and layout"
    )


def check_declaration(adapter: type, base: type) -> None:
    """InterpError where a subclass of ``base`` lacks what it must say, or has a name that ``base`` does not know."""
    known = {*dir(base), *base.__annotations__}
    own = [name for part in adapter.__mro__ if part not in base.__mro__ for name in vars(part)]
    missing = [name for name in base.__annotations__ if not hasattr(adapter, name)]
    unknown = [name for name in own if name not in known and not name.startswith("_")]
    if missing:
        raise InterpError(f"the adapter {adapter.__name__} has no {', '.join(missing)}; {TABLE}")
    if unknown:
        raise InterpError(
            f"the adapter {adapter.__name__} has {', '.join(unknown)}, which nothing reads; an Adapter has "
            f"{', '.join(sorted(name for name in known if not name.startswith('_')))}, and names of your own start with _"
        )


def check_sites(family: str, transformer: nn.Module, sites: Iterable[tuple[str, Point]]) -> None:
    """InterpError for the first site that cannot be; ``sites`` are (full name, point)."""
    modules = dict(transformer.named_modules())
    for name, point in sites:
        problem = _wrong_site(transformer, modules, point)
        if problem:
            raise InterpError(f"{name} of the {family} adapter: {problem}; {TABLE}")


def _wrong_site(transformer: nn.Module, modules: Mapping[str, nn.Module], point: Point) -> str | None:
    if point.kind not in KINDS:
        return f"there is no kind {point.kind!r}, there are {', '.join(KINDS)}"
    if point.key not in ("input", "output", *INNER) and not point.key.startswith("source."):
        return f"there is no key {point.key!r}, there are 'input', 'output', 'source.LABEL' and {', '.join(sorted(INNER))}"
    if point.site.part is not None and not set(KINDS[point.kind].native) & set(LISTS):
        return f"part={point.site.part!r} cuts an axis of tokens, and a site of kind {point.kind!r} has none"
    if point.path not in modules:
        return f"there is no module {point.path!r}; {_nearest(transformer, modules, point.path)}"
    return None


def _nearest(transformer: nn.Module, modules: Mapping[str, nn.Module], path: str) -> str:
    """The modules that the nearest owner of a path does have."""
    owner = path
    while owner not in modules:
        owner = owner.rpartition(".")[0]
    where = f"{owner} ({type(modules[owner]).__name__})" if owner else type(transformer).__name__
    return f"{where} has {', '.join(name for name, _ in modules[owner].named_children()) or 'none'}"


def check_stacks(family: str, transformer: nn.Module, attributes: Iterable[str]) -> None:
    """InterpError where a list of blocks is not there."""
    for attribute in attributes:
        if not isinstance(getattr(transformer, attribute, None), nn.ModuleList):
            lists = [name for name, module in transformer.named_children() if isinstance(module, nn.ModuleList)]
            raise InterpError(
                f"the {family} adapter has a Stack({attribute!r}, ...), but {type(transformer).__name__} has no list of blocks "
                f"of that name; its lists are {', '.join(lists) or 'none'}; {TABLE}"
            )
