"""The algebraic identities of check_adapter find a model that breaks them."""

from __future__ import annotations

import torch
from torch import nn

from cos_interp.interp.check.proof import check_adapter
from cos_interp.interp.families import tiny


class Twice(nn.Module):
    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return 2 * value


def problems(pipe, name):
    report = check_adapter(pipe, **tiny.call(name, steps=2))
    return {problem for check in report.checks for problem in check.problems}


def test_something_between_the_projection_and_attn_out_is_found():
    pipe = tiny.build("wan2.1")
    assert problems(pipe, "wan2.1") == set()
    pipe.transformer.blocks[1].attn1.to_out[1] = Twice()  # where the dropout was
    assert problems(pipe, "wan2.1") == {"W_O blocks.1.attn.hook_z is not blocks.1.hook_attn_out"}


def test_the_projection_holds_where_the_image_and_the_text_are_attended_to():
    assert problems(tiny.build("wan2.1-i2v"), "wan2.1-i2v") == set()
