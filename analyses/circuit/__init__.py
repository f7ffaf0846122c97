"""From pairs to a verified circuit: the fewest components that carry an answer, tested on pairs that the search has not seen."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import Facts, Showing
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import PairsConfig
from cos_interp.interp.limits import MOST_STEPS

Part = Literal["cross", "attn", "mlp"]
Number = Annotated[int, Field(ge=0)]
SITES: dict[str, str] = {"cross": "hook_cross_attn_out", "attn": "hook_attn_out", "mlp": "hook_mlp_out"}
HEADS: dict[str, str] = {"cross": "cross_attn.hook_z", "attn": "attn.hook_z"}
CLOSER = 6  # parts of blocks that are looked at more closely, at most
CHECKED = 64  # unseen pairs, where no number was asked for: 24 left every set of the organisms undecided


class CircuitConfig(PairsConfig):
    """From pairs to a verified circuit: the fewest components that carry the answer."""

    FILES = ("pair_file", "check")

    pairs: int = Field(4, ge=1, description="Pairs that the circuit is looked for on.")
    check_pairs: int = Field(CHECKED, ge=0, description="Further pairs that it is tested on; of --pair-file, at most so many.")
    unique: bool = Field(True, description="Pairs have one right answer on either side.")
    solved: bool = Field(True, description="Pairs are such as the model solves; without, whatever it makes of them.")
    pair_file: str | None = Field(
        None, description="Own pairs: a line {'clean': {...}, 'corrupt': {...}, 'boxes': {'ball': [left, top, right, bottom]}}."
    )
    check: str | None = Field(None, description="Test this circuit.json instead of looking for one.")
    num_inference_steps: int = Field(8, ge=2, le=MOST_STEPS, description="Denoising steps of every run.")
    refine: float = Field(0.1, gt=0, lt=1, description="Components with more than this effect are looked at more closely.")
    full: bool = Field(False, description="Look at every part closely, for the maps; the set is made of the same ones.")
    keep: float = Field(0.8, gt=0, le=1, description="Share of the whole effect that the set must keep.")
    most: int = Field(4, ge=1, le=6, description="The largest set that is looked for.")
    batch: int = Field(12, ge=1, description="Patched rows in one forward; 1 is exact to the bit.")


class Component(BaseModel):
    """What a block's attention to the prompt (``cross``), to the video (``attn``) or its ``mlp`` writes into some tokens.

    ``group``: of the task's token groups, or a box of the pair's. ``heads``: None for all; ``steps``: of the denoising.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    part: Part
    layer: Number
    group: str
    steps: tuple[Number, ...] = Field(min_length=1)
    heads: tuple[Number, ...] | None = Field(None, min_length=1)

    def __str__(self) -> str:
        heads = "" if self.heads is None else f", heads {'+'.join(map(str, self.heads))}"
        first, last = min(self.steps), max(self.steps)
        return f"{self.part} of layer {self.layer} at {self.group.replace('_', ' ')}{heads}, steps {first} to {last}"


class Circuit(BaseModel):
    """``circuit.json``. ``narrow``: the components at the steps and heads that they need.

    ``effect``: of the set on the pairs that it was found on; ``whole``: of all components there. ``smaller``: the best set with
    one component less, of the set's own and the next candidates, its effect, and how many were tried. ``checks``: numbers on
    unseen pairs by rule: value, bounds, n. ``model``: name and digest of what it was found in; ``transformer``: its class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    task: str | None
    layers: int
    num_inference_steps: int
    components: tuple[Component, ...] = Field(min_length=1)
    narrow: tuple[Component, ...]
    effect: float
    whole: float
    smaller: tuple[Component, ...] = ()
    smaller_effect: float = 0.0
    tried_smaller: int = 0
    checks: dict[str, dict[str, float | int | str | None]] = {}
    model: dict[str, str | None] = {}
    transformer: str = ""

    @property
    def every(self) -> tuple[Component, ...]:
        """The components of all its sets."""
        return (*self.components, *self.narrow, *self.smaller)

    @model_validator(mode="after")
    def _in_its_runs(self) -> Circuit:
        for one in self.every:
            if max(one.steps) >= self.num_inference_steps:
                raise ValueError(f"{one} is beyond the {self.num_inference_steps} steps of its runs")
        return self


class PairFacts(Showing):
    """Of a pair. ``sigmas``: with the final 0; ``tokens``: how many tokens each group has; ``tried``: how many candidates it took
    to find it."""

    pair: str
    prompts: tuple[str, str]
    sigmas: tuple[float, ...]
    tokens: dict[str, int]
    tried: int | None = None


class SearchFacts(Facts):
    """Of the search. ``circuit``: None where nothing was found, and ``why``; ``order``: the sets that greedy search went
    through, with their effects."""

    circuit: Circuit | None
    why: str = ""
    order: tuple[tuple[str, float], ...] = ()


ENTRY = Entry(
    "circuit",
    CircuitConfig,
    "From pairs to a verified circuit: the fewest components that carry an answer.",
    (
        "cos analyze circuit",
        "cos analyze circuit --task place --keep 0.7 --out runs/circuit-place",
        "cos analyze circuit --full --out runs/circuit-map",
        "cos analyze circuit --check runs/circuit/media/circuit.json --model OTHER --out runs/circuit-other",
        "cos analyze circuit --model ./my-model --pair-file pairs.jsonl --num-steps 20 --out runs/own-circuit",
    ),
    seconds=160,
    facts=(PairFacts, SearchFacts),
    compared=(
        Measured("Effect on unseen pairs", "effect", (), {"table": "check"}, ("way",)),
        Measured("The donor's answer on unseen pairs", "outcome", (), {"table": "check"}, ("way",), "donor"),
        Measured("Effect of a part of a block, all tokens and steps", "effect", ("layer",), {"table": "part"}, ("part",)),
        Measured("Effect of the residual stream at some tokens, all steps", "effect", ("layer",), {"table": "flow"}, ("group",)),
    ),
)
