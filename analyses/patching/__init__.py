"""Activation patching over steps, layers and token groups, with controls."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import Facts
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import PairsConfig
from cos_interp.analyses.kit.kinds import PairKind
from cos_interp.interp.limits import MOST_STEPS

AskedRange = Literal["auto", "single", "from", "until"]
PAIRS = 12  # of each kind, where no number was asked for: the fewest that a mean is decided on
SITES = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_cross_attn_out", "hook_mlp_out")
HEAD_SITES = ("attn.hook_z", "cross_attn.hook_z")
DEFAULT_SITES = ("hook_resid_post", "cross_attn.hook_z")  # those of them that a model has


class PatchingConfig(PairsConfig):
    """Activation patching between counterfactual pairs."""

    OF_TASKS: ClassVar[tuple[str, ...]] = ("task", "pair_kinds", "unique")  # settings that have no meaning for own pairs

    pair_kinds: tuple[PairKind, ...] = Field(("prompt",), min_length=1, description="Kinds of pairs: prompt, image, seed.")
    pairs: int | None = Field(None, ge=1, description=f"Pairs of each kind. {PAIRS}, or all of --pair-file, by default.")
    unique: bool = Field(True, description="Prompt and image pairs have one right answer on either side.")
    solved: bool = Field(
        True, description="Pairs are such as the model solves; without, prompt and image pairs whatever it makes of them."
    )
    pair_file: str | None = Field(
        None, description="Own pairs: a line {'clean': {'prompt', 'image', 'seed'}, 'corrupt': {...}, 'boxes': {...}}."
    )
    num_inference_steps: int = Field(8, ge=2, le=MOST_STEPS, description="Denoising steps of every run.")
    steps: tuple[int, ...] | None = Field(None, description="Patched steps: 0,4,8 or 0:8:2. By default all: a range whole.")
    layers: tuple[int, ...] | None = Field(None, description="Patched layers. All by default.")
    sites: tuple[str, ...] | None = Field(
        None, min_length=1, description=f"Sites: attn.hook_z, hook_x_t, ... {' and '.join(DEFAULT_SITES)} by default."
    )
    heads: tuple[int, ...] | None = Field(None, description="Heads, each patched alone (for attn.hook_z).")
    tokens: tuple[str, ...] | None = Field(
        None, description="Token groups of the task, or boxes, and 'all'. By default those that can tell something."
    )
    frames: tuple[int, ...] | None = Field(None, description="Latent frames, each patched alone. Together by default.")
    direction: Literal["denoising", "noising"] = Field("denoising", description="denoising or noising: which run receives.")
    span: AskedRange = Field(
        "auto", description="single, from (step k on), until (up to step k), or auto: from, between two noises single."
    )
    branch: Literal["cond", "uncond", "both"] = Field("both", description="Guidance branches that are patched.")
    controls: bool = Field(True, description="Random donor, same-answer donor, self, whole x_t; a gradient map has self alone.")
    coarse: int | None = Field(
        None,
        ge=2,
        description="First blocks of so many steps and layers; cells where a block moves some pair more than --refine.",
    )
    refine: float = Field(0.1, gt=0, lt=1, description="With --coarse: the effect of a block above which its cells are finished.")
    method: Literal["exact", "gradient"] = Field(
        "exact", description="exact: each cell finished; gradient: all at first order by one sweep, held against some exact ones."
    )
    exact_cells: int = Field(
        20,
        ge=10,
        description="With --method gradient: random exact cells of a pair and site, of named tokens and as many of all.",
    )
    top_cells: int = Field(10, ge=1, description="With --method gradient: the map's largest cells of a pair, finished exactly.")
    batch: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="Patched rows in one forward: a number, or auto, up to 12 as fit; 1 is exact to the bit."
    )

    @model_validator(mode="after")
    def _branch_exists(self) -> PatchingConfig:
        if self.branch == "uncond" and self.guidance_scale == 1:
            raise ValueError("branch 'uncond' exists with guidance only: give a guidance scale above 1")
        return self

    @model_validator(mode="after")
    def _of_blocks(self) -> PatchingConfig:
        """Blocks are of exact grids, and what refines them is nothing without them."""
        if self.coarse is not None and self.method == "gradient":
            raise ValueError("a gradient map has every cell at once: leave out coarse, or the method")
        if self.coarse is None and self.refine != type(self).model_fields["refine"].default:
            raise ValueError("refine says which blocks are looked at closely: add coarse")
        return self

    @model_validator(mode="after")
    def _of_a_map(self) -> PatchingConfig:
        """Settings of a gradient map have no part in a run that has none."""
        fields = type(self).model_fields
        set_too = [name for name in ("exact_cells", "top_cells") if getattr(self, name) != fields[name].default]
        if self.method == "exact" and set_too:
            raise ValueError(f"{' and '.join(set_too)} say what a gradient map is held against: add --method gradient")
        return self

    @model_validator(mode="after")
    def _one_source(self) -> PatchingConfig:
        """Settings of the tasks' pairs have no part where the user's own pairs stand in their place."""
        set_too = [name for name in self.OF_TASKS if getattr(self, name) != type(self).model_fields[name].default]
        if self.pair_file is not None and set_too:
            raise ValueError(f"own pairs stand in the place of a task's: leave out {' and '.join(set_too)}, or pair_file")
        return self

    @field_validator("sites")
    @classmethod
    def _sites(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        known = (*SITES, *HEAD_SITES, "hook_x_t")
        for site in value or ():
            if site not in known:
                raise ValueError(f"unknown site {site!r}; the sites are {', '.join(known)}")
        return value


class SideFacts(BaseModel):
    """One side of a pair. The last three are None for a side without an item."""

    prompt: str
    seed: int
    answer: str | None = None
    item_seed: int | None = None
    difficulty: int | None = None


class PairFacts(Facts):
    """Of the unit of a pair. ``sigmas``: with the final 0; ``controls``: names of the donors; ``tried``: candidates it took;
    ``whole_state``: whether x_t is all that the sides differ in."""

    pair: str
    kind: PairKind | Literal["own"]
    tried: int
    sigmas: tuple[float, ...]
    controls: tuple[str, ...]
    whole_state: bool
    corrupt: SideFacts
    clean: SideFacts


class StepFacts(Facts):
    """Of one step of a pair: transformer blocks that ran for it, and how few could have. ``shown``: which of its rows has its
    video kept, the one that moved the answer most. ``rounding``: how far a row that shared a forward is from itself alone, as a
    share of its norm; None where none did."""

    block_calls: int
    block_calls_minimum: int
    shown: int | None = None
    rounding: float | None = None


class BlockFacts(Facts):
    """Of the blocks of a pair: how many there are, and the transformer blocks that ran for them."""

    blocks: int
    block_calls: int


class MapFacts(Facts):
    """Of the gradient map of a pair: its cells, and the transformer blocks that ran for all of them."""

    cells: int
    block_calls: int


ENTRY = Entry(
    "patching",
    PatchingConfig,
    "Activation patching over steps, layers and token groups, with controls.",
    (
        "cos analyze patching",
        "cos analyze patching --task place --pair-kind prompt --pairs 8 --out runs/place",
        "cos analyze patching --sites attn.hook_z --heads 0,1,2,3 --steps 0:10:3 --tokens goals,donor_route",
        "cos analyze patching --range single --direction noising --out runs/single",
        "cos analyze patching --pair-kind seed --coarse 4 --out runs/coarse",
        "cos analyze patching --method gradient --pair-kind seed --out runs/map",
        "cos analyze patching --model ./my-model --pair-file pairs.jsonl --num-steps 20 --steps 0:20:5 --out runs/own",
    ),
    seconds=85,
    facts=(PairFacts, StepFacts, BlockFacts, MapFacts),
    compared=(
        Measured(
            "Effect of patching all tokens",
            "effect",
            ("step", "layer"),
            {"donor": "clean", "group": "all", "head": None, "frame": None},
            ("pair_kind", "site"),
        ),
        Measured(
            "The donor's answer after patching all tokens",
            "outcome",
            ("step", "layer"),
            {"donor": "clean", "group": "all", "head": None, "frame": None},
            ("pair_kind", "site"),
            "donor",
        ),
    ),
)
