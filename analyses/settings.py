"""The settings of every analysis. Light on purpose: the command line builds its options from these classes.

A field's name is the option's name (see ``analyses.command.FLAGS`` for the exceptions), its description the option's help.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

PairKind = Literal["prompt", "image", "seed"]
AskedRange = Literal["auto", "single", "from", "until"]
Mode = Literal["replace", "add", "renoise", "shuffle"]
ALL_TASKS = ("maze", "occlusion", "bounce", "place")
SITES = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_cross_attn_out", "hook_mlp_out")
HEAD_SITES = ("attn.hook_z", "cross_attn.hook_z")


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


class NoiseConfig(SuiteConfig):
    """Noise at a step against noise at a frame."""

    items: int = Field(6, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    steps: tuple[int, ...] | None = Field(None, description="Disturbed steps. Eight spread ones by default.")
    frames: tuple[int, ...] | None = Field(None, description="Disturbed latent frames. All by default.")
    modes: tuple[Mode, ...] = Field(("replace", "add", "renoise", "shuffle"), description="Kinds of noise.")
    doses: tuple[float, ...] = Field((1.0,), description="Amplitude of the noise, 1 is the paper's.")
    rows: str | None = Field(None, description="Disturb these latent rows only: 0:2. All by default.")
    cols: str | None = Field(None, description="Disturb these latent columns only. All by default.")


class PropagationConfig(SuiteConfig):
    """Perturb at one step, compare all later states."""

    items: int = Field(4, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    steps: tuple[int, ...] | None = Field(None, description="Disturbed steps. All by default.")
    mode: Mode = Field("renoise", description="Kind of noise: replace, add, renoise, shuffle.")
    dose: float = Field(1.0, gt=0, description="Amplitude of the noise.")
    layers: tuple[int, ...] | None = Field(None, description="Layers compared. First, middle and last by default.")


class RecoveryConfig(SuiteConfig):
    """Inject a wrong answer at step k; is the right one back, and when?"""

    items: int = Field(6, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    steps: tuple[int, ...] | None = Field(None, description="Injection steps. Eight spread ones by default.")
    doses: tuple[float, ...] = Field((1.0, 0.5), description="Share of the injected latent: 1 replaces all of it.")


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

    tasks: tuple[str, ...] = Field(("occlusion",), min_length=1, description="Tasks, with commas.")
    items: int = Field(10, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")


class PerceptionConfig(SuiteConfig):
    """At which step objects are localised, and at which motion appears."""

    items: int = Field(15, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")


class LayersConfig(SuiteConfig):
    """Energy maps by layer, and ablation of layers by step."""

    items: int = Field(4, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")


class SwapConfig(SuiteConfig):
    """Swap the visual tokens of two runs at one step, layer by layer."""

    items: int = Field(6, ge=1, le=125, description="Pairs of each task.")


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


class TrajectoryConfig(SuiteConfig):
    """UMAP of latents and layer states along the steps."""

    items: int = Field(15, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
