"""The settings of every analysis. Light on purpose: the command line builds its options from these classes.

A field's name is the option's name (see ``analyses.command.FLAGS`` for the exceptions), its description the option's help.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

PairKind = Literal["prompt", "image", "seed"]
AskedRange = Literal["auto", "single", "from", "until"]
Mode = Literal["replace", "add", "renoise", "shuffle"]
Ablation = Literal["mean", "resample", "skip", "random"]
Span = Literal["all", "early", "middle", "late"]
SwapKind = Literal["prompt", "image"]
Swapped = Literal["block", "delta", "attention", "cross", "mlp"]
TokenSet = Literal["all", "object", "random"]
ALL_TASKS = ("maze", "occlusion", "bounce", "place")
SITES = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_cross_attn_out", "hook_mlp_out")
HEAD_SITES = ("attn.hook_z", "cross_attn.hook_z")
EVERYWHERE = "all"  # the group of all tokens
CONTROLS = ("random", "same_answer")  # other donors: a random item, and another noise with the receiving run's answer


class AnalysisConfig(BaseModel):
    """Frozen and strict: an unknown or malformed setting is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field("organism", description="'organism', a folder in diffusers format, or a hub id.")
    revision: str | None = Field(None, description="Revision of a hub model.")
    num_inference_steps: int = Field(20, ge=2, description="Denoising steps of every run.")
    guidance_scale: float = Field(1.0, ge=1.0, description="Guidance scale; 1 is none.")
    seed: int = Field(0, ge=0, description="Picks the noises.")


def _known_task(value: str) -> str:
    if value not in ALL_TASKS:
        raise ValueError(f"unknown task {value!r}; the tasks are {', '.join(ALL_TASKS)}")
    return value


class SuiteConfig(AnalysisConfig):
    """Settings of analyses that go over problems: the suite's items, or the user's own prompts."""

    tasks: tuple[str, ...] = Field(ALL_TASKS, min_length=1, description="Tasks, with commas.")
    items: int = Field(10, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    prompts: str | None = Field(None, description="Own inputs instead: a JSONL file, a line {'prompt': ..., 'image': path}.")

    @field_validator("tasks")
    @classmethod
    def _tasks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_known_task(v) for v in value))


class PatchingConfig(AnalysisConfig):
    """Activation patching between counterfactual pairs."""

    task: str = Field("maze", description="maze, occlusion, bounce or place.")
    pair_kinds: tuple[PairKind, ...] = Field(("prompt", "seed"), description="Kinds of pairs: prompt, image, seed.")
    pairs: int = Field(3, ge=1, description="Pairs of each kind.")
    num_inference_steps: int = Field(8, ge=2, description="Denoising steps of every run.")
    steps: tuple[int, ...] | None = Field(None, description="Patched steps: 0,4,8 or 0:8:2. All by default.")
    layers: tuple[int, ...] | None = Field(None, description="Patched layers. All by default.")
    sites: tuple[str, ...] = Field(("hook_resid_post",), description="Sites: hook_resid_post, attn.hook_z, hook_x_t, ...")
    heads: tuple[int, ...] | None = Field(None, description="Heads, each patched alone (for attn.hook_z).")
    tokens: tuple[str, ...] | None = Field(None, description="Token groups of the task, 'all' among them. All by default.")
    frames: tuple[int, ...] | None = Field(None, description="Latent frames, each patched alone. Together by default.")
    direction: Literal["denoising", "noising"] = Field("denoising", description="denoising or noising: which run receives.")
    span: AskedRange = Field(
        "auto", description="single, from (step k on), until (up to step k), or auto: from, for seed pairs single."
    )
    branch: Literal["cond", "uncond", "both"] = Field("both", description="Guidance branches that are patched.")
    controls: bool = Field(True, description="Random donor, same-answer donor, self, whole x_t.")
    batch: int = Field(1, ge=1, description="Patched rows in one forward; 1 is exact to the bit.")

    @model_validator(mode="after")
    def _branch_exists(self) -> PatchingConfig:
        if self.branch == "uncond" and self.guidance_scale == 1:
            raise ValueError("branch 'uncond' exists with guidance only: give a guidance scale above 1")
        return self

    @field_validator("task")
    @classmethod
    def _task(cls, value: str) -> str:
        return _known_task(value)

    @field_validator("sites")
    @classmethod
    def _sites(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = (*SITES, *HEAD_SITES, "hook_x_t")
        for site in value:
            if site not in known:
                raise ValueError(f"unknown site {site!r}; the sites are {', '.join(known)}")
        return value


class ChainOfStepsConfig(SuiteConfig):
    """Accuracy of the clean estimate of every step."""

    items: int = Field(25, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    noises: int = Field(2, ge=1, description="Noises an item; from 2 on the entropy over seeds is reported.")


def _known_dose(mode: Mode, dose: float) -> None:
    if dose <= 0:
        raise ValueError(f"dose {dose}: give a number above 0")
    if dose > 1 and mode != "add":
        raise ValueError(f"dose {dose} with mode {mode}: 1 is all there is to {mode}; only 'add' takes more")


class NoiseConfig(SuiteConfig):
    """Noise at a step against noise at a frame."""

    items: int = Field(5, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    steps: tuple[int, ...] | None = Field(None, description="Disturbed steps. Six spread ones by default.")
    frames: tuple[int, ...] | None = Field(None, description="Disturbed latent frames. All by default.")
    modes: tuple[Mode, ...] = Field(("replace", "add", "renoise", "shuffle"), description="Kinds of noise.")
    doses: tuple[float, ...] = Field((1.0,), min_length=1, description="Amplitude of the noise, 1 is the paper's.")
    rows: str | None = Field(None, description="Disturb these latent rows only: 0:2. All by default.")
    cols: str | None = Field(None, description="Disturb these latent columns only. All by default.")
    batch: int = Field(12, ge=1, description="Disturbed runs in one forward.")

    @model_validator(mode="after")
    def _fitting_doses(self) -> NoiseConfig:
        for mode in self.modes:
            for dose in self.doses:
                _known_dose(mode, dose)
        return self


class PropagationConfig(SuiteConfig):
    """Perturb at one step, compare all later states."""

    items: int = Field(6, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    steps: tuple[int, ...] | None = Field(None, description="Disturbed steps. All by default.")
    mode: Mode = Field("renoise", description="Kind of noise: replace, add, renoise, shuffle.")
    dose: float = Field(1.0, gt=0, description="Amplitude of the noise.")
    layers: tuple[int, ...] | None = Field(None, description="Layers compared. First, middle and last by default.")
    debiased: bool = Field(True, description="Debiased CKA in figures and findings; both kinds are stored.")
    batch: int = Field(10, ge=1, description="Disturbed runs in one forward; the undisturbed one goes along.")

    @model_validator(mode="after")
    def _fitting_dose(self) -> PropagationConfig:
        _known_dose(self.mode, self.dose)
        return self


class RecoveryConfig(SuiteConfig):
    """Inject a wrong answer at step k; is the right one back, and when?"""

    items: int = Field(6, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    steps: tuple[int, ...] | None = Field(None, description="Injection steps. Eight spread ones by default.")
    donors: tuple[Literal["other", "prompt", "noise"], ...] = Field(
        ("other", "prompt", "noise"), min_length=1, description="Injected: another item, the same scene's other prompt, noise."
    )
    doses: tuple[float, ...] = Field((1.0, 0.5), min_length=1, description="Share of the injected latent: 1 replaces all of it.")
    batch: int = Field(12, ge=1, description="Injected runs in one forward.")

    @field_validator("doses")
    @classmethod
    def _shares(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < dose <= 1 for dose in value):
            raise ValueError("a share of the injected latent lies above 0 and at most at 1")
        return tuple(dict.fromkeys(value))


class CommitmentConfig(SuiteConfig):
    """The re-noising test, transplants between runs, and screening of seeds by an early look."""

    tasks: tuple[str, ...] = Field(("maze", "place"), min_length=1, description="Tasks, with commas.")
    items: int = Field(16, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    steps: tuple[int, ...] | None = Field(None, description="Steps of the re-noising test. Eight spread ones by default.")
    noises: int = Field(4, ge=2, description="Independent noises an item: the chance of agreement, and best-of-K.")
    pairs: int = Field(2, ge=0, description="Pairs of runs with two right answers, for the transplants.")


class SelfCorrectionConfig(SuiteConfig):
    """Answers that change without any injection."""

    items: int = Field(25, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")


class MemoryConfig(SuiteConfig):
    """Follow the tokens of the first frame's objects."""

    tasks: tuple[str, ...] = Field(("occlusion", "maze", "place"), min_length=1, description="Tasks, with commas.")
    items: int = Field(40, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    knocked: int = Field(10, ge=0, description="So many items of each task get the knock-out of attention; 0: none.")
    steps: tuple[int, ...] | None = Field(None, description="Steps that are read. Five spread ones by default.")
    cell: tuple[int, ...] | None = Field(None, description="Row and column followed in own prompts: 2,3. The centre by default.")
    batch: int = Field(7, ge=1, description="Knocked-out runs in one forward.")

    @field_validator("cell")
    @classmethod
    def _cell(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and len(value) != 2:
            raise ValueError("give a row and a column of the latent grid, like 2,3")
        return value


class PerceptionConfig(SuiteConfig):
    """At which step objects are localised, and at which motion appears."""

    items: int = Field(15, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")


class LayersConfig(SuiteConfig):
    """Energy maps by layer, and ablation of layers by step."""

    items: int = Field(4, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    num_inference_steps: int = Field(10, ge=2, description="Denoising steps of every run.")
    layers: tuple[int, ...] | None = Field(None, description="Layers ablated one by one: 0,3,7 or 0:8:2. All by default.")
    ablations: tuple[Ablation, ...] = Field(
        ("mean", "resample", "skip", "random"), description="Kinds: mean, resample, skip; random is their control."
    )
    spans: tuple[Span, ...] = Field(("all", "early", "middle", "late"), description="Thirds of the steps: all,early,middle,late.")
    mean_over: Literal["items", "run"] = Field("items", description="Mean of the update over other items' tokens, or this run's.")
    references: int = Field(2, ge=1, description="Other items that the mean is over; the first is the one for resample.")
    batch: int = Field(16, ge=1, description="Ablated rows in one forward.")


class SwapConfig(SuiteConfig):
    """Swap the visual tokens of two runs at one step, layer by layer."""

    tasks: tuple[str, ...] = Field(("maze", "occlusion", "place"), min_length=1, description="Tasks, with commas.")
    items: int = Field(4, ge=1, le=125, description="Pairs of each task and kind.")
    num_inference_steps: int = Field(10, ge=2, description="Denoising steps of every run.")
    pair_kinds: tuple[SwapKind, ...] = Field(("prompt", "image"), description="What differs in a pair: prompt, image.")
    steps: tuple[int, ...] | None = Field(None, description="Steps, each swapped alone. The first and the middle by default.")
    layers: tuple[int, ...] | None = Field(None, description="Layers, each swapped alone: 0,3,7 or 0:8:2. All by default.")
    variants: tuple[Swapped, ...] = Field(
        ("block", "delta", "attention", "cross", "mlp"), description="block, delta, attention, cross (text), mlp."
    )
    tokens: tuple[TokenSet, ...] = Field(("all", "object", "random"), description="all, object, random (as many others).")
    batch: int = Field(8, ge=1, description="Swapped rows in one forward; 1 is exact to the bit.")


class EnsembleConfig(SuiteConfig):
    """Training-free ensemble of several seeds."""

    items: int = Field(10, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    seeds: int = Field(3, ge=2, description="Runs that are merged.")
    tensors: tuple[Literal["hidden", "v", "x0hat", "x_t"], ...] = Field(
        ("hidden", "v", "x0hat", "x_t"), description="What is averaged: hidden, v, x0hat, x_t."
    )
    steps: tuple[int, ...] = Field((0,), description="Steps in which it is averaged.")
    layers: tuple[int, ...] | None = Field(None, description="Layers averaged, for hidden. The middle third by default.")
    combine: Literal["mean", "norm-matched"] = Field("mean", description="Plain mean, or rescaled to the members' norm.")


class AttentionConfig(SuiteConfig):
    """Attention maps and statistics of heads."""

    items: int = Field(3, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    steps: tuple[int, ...] | None = Field(None, description="Steps that are read. Five spread ones by default.")
    layers: tuple[int, ...] | None = Field(None, description="Layers that are read. All by default.")
    heads: tuple[int, ...] | None = Field(None, description="Heads shown one by one in the maps. Their mean by default.")
    query: tuple[int, ...] | None = Field(
        None, description="Frame, row and column of the query of the maps: 4,2,3. By default the moving thing, or the centre."
    )
    words: tuple[str, ...] | None = Field(None, description="Words of the prompt whose maps are shown. All by default.")

    @field_validator("query")
    @classmethod
    def _query(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and len(value) != 3:
            raise ValueError("give frame, row and column of the latent grid, like 4,2,3")
        return value


class TrajectoryConfig(SuiteConfig):
    """UMAP of latents and layer states along the steps."""

    items: int = Field(15, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    noises: int = Field(4, ge=2, description="Runs an item, from different noises: distances are between them.")
    steps: tuple[int, ...] | None = Field(None, description="Steps looked at. Eight spread ones by default.")
    layers: tuple[int, ...] | None = Field(None, description="Layers whose state is followed. Start, middle, end by default.")
    pool: Literal["flat", "mean"] = Field("flat", description="Layer states with all tokens, or their mean over tokens.")
    neighbours: int = Field(15, ge=2, description="Neighbours of the UMAP.")


class DossierConfig(AnalysisConfig):
    """Every experiment at a size that fits a time budget."""

    budget: str = Field("20m", description="Time for all together: 90s, 20m, 1h. The sizes are chosen to fit.")
    only: tuple[str, ...] | None = Field(None, description="These experiments only, with commas.")
    prompts: str | None = Field(None, description="Own inputs instead: a JSONL file, a line {'prompt': ..., 'image': path}.")


class ProbesConfig(SuiteConfig):
    """Linear probes at every layer and step."""

    tasks: tuple[str, ...] = Field(("maze", "place"), min_length=1, description="Tasks, with commas.")
    items: int = Field(40, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    targets: tuple[str, ...] = Field(
        ("first_class", "on_path", "final_class"), min_length=1, description="What is read; cos probe targets lists them."
    )
    kind: Literal["logistic", "ridge-classifier", "mean-difference", "linear-svm", "pca+logistic"] = Field(
        "ridge-classifier", description="logistic, ridge-classifier, mean-difference, linear-svm, pca+logistic."
    )
    site: str = Field("hook_resid_post", description="Site of every block that is probed.")
    layers: tuple[int, ...] | None = Field(None, description="Layers. All by default.")
    steps: tuple[int, ...] | None = Field(None, description="Steps. All by default.")
    probe_tokens: int = Field(12, ge=1, description="Tokens of each clip, drawn at random.")
    folds: int = Field(4, ge=2, description="Folds of the cross-validation; clips stay whole.")
    used_items: int = Field(6, ge=0, description="Fresh items a task on which the probes' directions are erased; 0: none.")
    views: bool = Field(True, description="PCA and UMAP views of the probed activations.")
