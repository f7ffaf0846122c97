"""What the settings of all experiments share. Light on purpose: the command line builds its options from these classes.

A field's name is the option's name (see ``analyses.command.FLAGS`` for the exceptions), its description the option's help.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from cos_interp.analyses.driver import saying
from cos_interp.analyses.driver.saying import EMPTY, Assignment
from cos_interp.interp.limits import MOST_STEPS
from cos_interp.interp.placing import Dtype, Offload, Placing, is_device
from cos_interp.tasks import NAMES, outside, scorers


class Loading(BaseModel):
    """Which model, how it is loaded (see :class:`cos_interp.interp.placing.Placing`), what every call of it is told, and what
    memory there is. See docs/loading.md."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    PLACING: ClassVar[tuple[str, ...]] = ("device", "dtype", "offload", "vae_tiling", "decode_steps", "lora")
    CALL: ClassVar[tuple[str, ...]] = ("size", "num_frames", "negative_prompt", "set")
    LIMITS: ClassVar[tuple[str, ...]] = ("memory", "host_memory", "disk")
    # settings of several values of which the same may stand twice; of all others twice is once
    REPEATED: ClassVar[tuple[str, ...]] = ("set", "lora", "against_lora", "checkpoints", "checkpoint_digests", "cell", "query")

    model: str = Field("organism", description="'organism', 'organism:NAME', a diffusers folder, a hub id, or tiny:NAME.")
    revision: str | None = Field(None, description="Revision of a hub model.")
    device: str = Field("auto", description="auto (a GPU where there is one), cpu, cuda, cuda:1 or mps.")
    dtype: Dtype = Field("auto", description="auto (fp32 on the CPU, bf16 on a GPU), bf16, fp16 or fp32.")
    offload: Offload = Field("none", description="What waits in host memory: none, model, group or sequential.")
    vae_tiling: bool = Field(False, description="Decode in tiles, for the memory.")
    decode_steps: int | None = Field(
        None, ge=1, description="Clean estimates decoded together. One by one by default, small ones up to 16."
    )
    lora: tuple[str, ...] = Field((), description="LoRA weights, PATH or PATH:scale, with commas.")
    size: str | None = Field(None, description="WIDTHxHEIGHT in pixels, like 832x480. The model's own by default.")
    num_frames: int | None = Field(None, ge=1, description="Frames of a video. The model's own number by default.")
    negative_prompt: str | None = Field(None, description="What guidance leads away from.")
    set: tuple[Assignment, ...] = Field((), description="key=value for any argument of the pipeline's call; several with commas.")
    memory: str | None = Field(None, description="Of the device, like 60GB: a run that takes more is refused. All by default.")
    host_memory: str | None = Field(None, description="Of the machine, like 100GB. All by default.")
    disk: str | None = Field(
        None, description="For the run folder and what waits there, like 200GB. All that is free by default."
    )

    @field_validator("set", mode="before")
    @classmethod
    def _mapping(cls, value: Any) -> Any:
        """From Python a dictionary will do."""
        return tuple(f"{key}={json.dumps(one)}" for key, one in value.items()) if isinstance(value, dict) else value

    @field_validator("size", "set", "memory", "host_memory", "disk")
    @classmethod
    def _readable(cls, value: Any, info: ValidationInfo) -> Any:
        """ValueError for a size, an assignment or an amount that is none."""
        read = {"size": saying.size, "set": saying.keywords}.get(str(info.field_name), saying.amount)
        if value is not None:
            read(value)
        return value

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        """ValueError for what is no kind of device. Whether this machine has it is seen where it is used; a plan needs none."""
        if not is_device(value):
            raise ValueError(f"there is no device {value!r}: give auto, cpu, cuda, cuda:1 or mps")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _one_word(cls, value: Any, info: ValidationInfo) -> Any:
        """One word where several may stand. ValueError for an empty one, which a shell's empty variable leaves."""
        if value == "" and info.field_name != "negative_prompt":  # which may be empty
            raise ValueError(EMPTY)
        annotation = cls.model_fields[str(info.field_name)].annotation
        several = any(get_origin(kind) is tuple for kind in (annotation, *get_args(annotation)))
        return (value,) if several and isinstance(value, str) else value

    @field_validator("*")
    @classmethod
    def _once(cls, value: Any, info: ValidationInfo) -> Any:
        """Each of several values once: what is asked for twice is not measured and counted twice."""
        several = isinstance(value, tuple) and info.field_name not in cls.REPEATED
        return tuple(dict.fromkeys(value)) if several else value

    def placing(self) -> Placing:
        """How the model is loaded."""
        return Placing(**{name: getattr(self, name) for name in self.PLACING})

    def call(self) -> dict[str, Any]:
        """Keywords of every call of the pipeline."""
        said = saying.size(self.size) if self.size is not None else {}
        said |= {name: held for name in ("num_frames", "negative_prompt") if (held := getattr(self, name)) is not None}
        return said | saying.keywords(self.set)

    def limits(self) -> dict[str, int]:
        """Bytes that there are, by where; only what was said."""
        return {name: saying.amount(said) for name in self.LIMITS if (said := getattr(self, name)) is not None}


class AnalysisConfig(Loading):
    """Frozen and strict: an unknown or malformed setting is an error."""

    FILES: ClassVar[tuple[str, ...]] = ()  # settings that name a file of the user's, whose content counts
    CODE: ClassVar[Mapping[str, str]] = {}  # settings that may name code from outside, with its group of entry points
    OWN: ClassVar[tuple[str, ...]] = ("num_inference_steps", "guidance_scale")  # where nothing is said, the pipeline's own

    num_inference_steps: int = Field(20, ge=2, le=MOST_STEPS, description="Denoising steps of every run.")
    guidance_scale: float = Field(1.0, ge=1.0, description="Guidance scale; 1 is none.")
    seed: int = Field(0, ge=0, description="Picks the noises.")
    confirm: bool = Field(False, description="Items outside cos-500 and other noises, to confirm; each --seed has its own.")
    twins: int = Field(0, ge=0, le=8, description="Models of random weights beside it: what these show is not reproduced.")

    @property
    def about(self) -> tuple[int | str, ...]:
        """What every noise and drawn item of a run is about: its seed, and whether it confirms what another run found."""
        return (self.seed, "confirm") if self.confirm else (self.seed,)

    def beside(self) -> Self:
        """The settings of a twin's run inside this one. It solves nothing, so that pairs which the model must solve are taken as
        they come: their effects can be asked for all the same."""
        taken = {"solved": False} if "solved" in type(self).model_fields else {}
        return self.model_copy(update={"twins": 0, **taken})


def known_task(value: str) -> str:
    """The name of a task, or of one from outside (``my.py:MyTask``), whose file is not executed here; ValueError for another."""
    if value not in NAMES and not outside.is_outside(value, outside.TASK_GROUP) and value not in registered():
        raise ValueError(f"unknown task {value!r}; the tasks are {', '.join(NAMES)}, or give my.py:MyTask")
    return value


def registered() -> tuple[str, ...]:
    """The tasks that are known in this process."""
    from cos_interp.tasks import TASKS  # numpy

    return tuple(TASKS)


class TasksConfig(AnalysisConfig):
    """Settings of what goes over items of the tasks."""

    CODE = {"tasks": outside.TASK_GROUP}

    tasks: tuple[str, ...] = Field(NAMES, min_length=1, description="Tasks, with commas.")
    items: int = Field(10, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")

    @field_validator("tasks")
    @classmethod
    def _tasks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(known_task(v) for v in value))

    @property
    def task_names(self) -> tuple[str, ...]:
        """The names of the tasks of the grid. InterpError for one of clips, which has no cells. Executes what is from outside."""
        from cos_interp.tasks.clips import grid_task

        return tuple(map(grid_task, self.tasks))


class ScoredConfig(AnalysisConfig):
    """Settings of what may be the user's own, and then has a scorer where one is given."""

    CODE = {"scorer": outside.SCORER_GROUP}
    INSTEAD: ClassVar[tuple[str, ...]] = ("prompts",)  # settings that stand in the place of the tasks' items

    scorer: str | None = Field(None, description=f"Of own prompts: {', '.join(scorers.READY)}, or my.py:judge (executed).")
    scorer_cmd: str | None = Field(None, description="Of own prompts: a command line, JSON in and out, instead of --scorer.")
    scorer_seconds: float = Field(60.0, gt=0, description="Longest time of --scorer-cmd for one video.")

    @field_validator("scorer")
    @classmethod
    def _scorer(cls, value: str | None) -> str | None:
        if value is not None and not scorers.is_known(value):
            raise ValueError(f"unknown scorer {value!r}; there are {', '.join(scorers.READY)}, or give my.py:judge")
        return value

    @model_validator(mode="after")
    def _one_scorer(self) -> ScoredConfig:
        if self.scorer is not None and self.scorer_cmd is not None:
            raise ValueError("scorer and scorer_cmd say the same: give one of them")
        if self.scored and not any(getattr(self, name) for name in self.INSTEAD):
            what = self.INSTEAD[0]
            raise ValueError(f"a scorer judges own {what}; the tasks' items have their verifier: add {what}, or leave it out")
        return self

    @property
    def scored(self) -> bool:
        """Whether a scorer was given."""
        return self.scorer is not None or self.scorer_cmd is not None


class OneTaskConfig(AnalysisConfig):
    """Settings of what takes items, or pairs, of one task."""

    CODE = {"task": outside.TASK_GROUP}

    task: str = Field("maze", description=f"One of {', '.join(NAMES)}, or my.py:MyTask.")

    @field_validator("task")
    @classmethod
    def _task(cls, value: str) -> str:
        return known_task(value)

    @property
    def task_name(self) -> str:
        """The task's name, which a task from outside has once it is there. InterpError for one of clips, which has no cells.
        Executes what is from outside."""
        from cos_interp.tasks.clips import grid_task

        return grid_task(self.task)


class PairsConfig(OneTaskConfig, ScoredConfig):
    """Settings of what takes pairs: of a task, or the user's own, with a scorer where one is given."""

    FILES: ClassVar[tuple[str, ...]] = ("pair_file",)
    INSTEAD = ("pair_file",)
    CODE = {"task": outside.TASK_GROUP, "scorer": outside.SCORER_GROUP}


class SuiteConfig(TasksConfig, ScoredConfig):
    """Settings of analyses that go over problems: the suite's items, or the user's own prompts."""

    FILES: ClassVar[tuple[str, ...]] = ("prompts",)
    CODE = {"tasks": outside.TASK_GROUP, "scorer": outside.SCORER_GROUP}
    OF_ITEMS: ClassVar[tuple[str, ...]] = ("tasks", "items")  # settings that have no meaning for prompts

    prompts: str | None = Field(
        None, description="Own inputs instead: JSON lines {'prompt', 'image'}, .txt, .json, or a folder (prompt.txt)."
    )

    @model_validator(mode="after")
    def _one_source(self) -> SuiteConfig:
        """Settings of the tasks' items have no part where the user's own prompts stand in their place."""
        if self.prompts is not None:
            set_too = [n for n in self.OF_ITEMS if getattr(self, n) != type(self).model_fields[n].default]
            if set_too:
                raise ValueError(f"prompts stand in the place of the tasks' items: leave out {' and '.join(set_too)}, or prompts")
        return self


class ChoiceConfig(SuiteConfig):
    """Settings of analyses of which of several videos a run makes: an item's right answers, clips, or other noises' videos."""

    FILES = ("prompts", "candidates")

    tasks: tuple[str, ...] = Field(("maze", "place"), min_length=1, description="Tasks, with commas.")
    candidates: str | None = Field(
        None, description="With --prompts: a folder of clips of the model's size, the videos that a run may make."
    )
    noises: int = Field(4, ge=2, description="With --prompts and without clips: the videos of so many noises are.")

    @model_validator(mode="after")
    def _prompts_have_candidates(self) -> ChoiceConfig:
        """The candidates of a task's item are its right answers."""
        if self.prompts is None:
            set_too = [n for n in ("candidates", "noises") if getattr(self, n) != type(self).model_fields[n].default]
            if set_too:
                raise ValueError(
                    f"an item's candidates are its right answers: leave out {' and '.join(set_too)}, or give prompts"
                )
        if self.candidates is not None and self.noises != type(self).model_fields["noises"].default:
            raise ValueError("candidates are clips or the videos of several noises: leave out candidates or noises")
        return self
