"""What is taken out of here for other programs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from cos_interp.analyses.driver import saying
from cos_interp.analyses.driver.settings import SuiteConfig


class ActivationsConfig(SuiteConfig):
    """Activations by token of many runs, in files."""

    names: tuple[str, ...] = Field(("blocks.*.hook_resid_post",), min_length=1, description="Hook names or patterns.")
    steps: tuple[int, ...] | None = Field(None, description="Steps: 0,10 or 0:20:5. All by default.")
    branches: tuple[Literal["cond", "uncond"], ...] = Field(("cond",), min_length=1, description="cond, uncond or both.")
    tokens: str | None = Field(None, description="Like 'frame=0:2,row=[1,3]'. All by default.")
    reduce: Literal["mean", "norm"] | None = Field(None, description="mean (over tokens) or norm (over channels).")
    targets: tuple[str, ...] | None = Field(None, description="Labels: cos probe targets lists them. All that exist by default.")
    shard_size: str = Field("256MB", description="Of a file; three times as much waits in memory at most.")

    @field_validator("shard_size")
    @classmethod
    def _amount(cls, value: str) -> str:
        saying.amount(value)
        return value

    @model_validator(mode="after")
    def _one_model(self) -> ActivationsConfig:
        if self.twins:
            raise ValueError("an export is of one model: leave out twins, and export a model of random weights by itself")
        return self
