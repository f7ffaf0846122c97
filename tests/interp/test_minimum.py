"""The fewest blocks of many rows are those of each row alone, and are worked out once for rows that are alike."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cos_interp.interp import HookedVideoPipeline, Patch, patching, record
from cos_interp.interp.families import tiny
from cos_interp.interp.patches import first_step, resolved
from cos_interp.interp.patching import Minimum, minimal_blocks, shared_key, start_of

STEPS = 4
SITES = ("hook_resid_post", "hook_resid_post", "attn.hook_z", "hook_attn_out", "hook_mlp_out")


@pytest.fixture(scope="module", params=["wan2.2", "cogvideox"])
def made(request):
    model = HookedVideoPipeline.from_pretrained(f"tiny:{request.param}")
    call = {**tiny.call(request.param), "seed": 0, "num_inference_steps": STEPS}
    return model, record(model, **call)


def one_by_one(model, target, row, done):
    """As it is defined: forward by forward."""
    patches = [resolved(model, target.run, patch) for patch in ([row] if isinstance(row, Patch) else row)]
    later, total = [call for call in target.run.calls if call.step >= first_step(patches)], 0
    for _, forward in groupby(later, key=lambda call: call.forward):
        calls = tuple(forward)
        start = start_of(model, target, patches, calls)
        key = None if done is None or start is None else shared_key(model, patches, calls, start)
        if start is None or (done is not None and key in done):
            continue
        total += len(calls) * (model.layers - start)
        if done is not None and key is not None:
            done.add(key)
    return total


def donors():
    return [lambda step, branch: None, lambda step, branch: None]


GIVEN = donors()


@st.composite
def patches(draw, model, run):
    site = draw(st.sampled_from([*SITES, "hook_x_t"]))
    name = site if site == "hook_x_t" else f"blocks.{draw(st.integers(0, model.layers - 1))}.{site}"
    if name != "hook_x_t" and name not in model.hook_names:
        name = "hook_x_t"
    first = draw(st.integers(0, STEPS - 1))
    steps = draw(st.sampled_from([(first,), tuple(range(first, STEPS)), tuple(range(first + 1))]))
    branches = draw(st.sampled_from([run.branches, run.branches[:1]]))
    tokens = draw(st.sampled_from([None, {"frame": [0]}])) if "hook_z" not in name else None
    return Patch(name, steps, draw(st.sampled_from(GIVEN)), branches, tokens)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_many_rows_take_what_each_takes(made, data):
    model, target = made
    one = patches(model, target.run)
    rows = data.draw(st.lists(st.one_of(one, st.lists(one, min_size=1, max_size=3)), min_size=1, max_size=12))
    for shared in (False, True):
        done, again = (set(), set()) if shared else (None, None)
        least = Minimum(model, target, done)
        assert [least.blocks(row) for row in rows] == [one_by_one(model, target, row, again) for row in rows]
        assert done == again
    assert minimal_blocks(model, target, rows[0]) == one_by_one(model, target, rows[0], None)


def test_token_groups_and_donors_cost_nothing_to_plan(made, monkeypatch):
    """Two thousand rows at two places work out what two do."""
    model, target = made
    asked, start_of_ = [], patching.start_of
    monkeypatch.setattr(patching, "start_of", lambda *given: asked.append(1) or start_of_(*given))
    least = Minimum(model, target, set())
    for donor in [*donors(), *donors()] * 250:
        for layer in (0, 1):
            least.blocks(Patch(f"blocks.{layer}.hook_resid_post", tuple(range(STEPS)), donor, target.run.branches))
    forwards = len({call.forward for call in target.run.calls})
    assert len(asked) == 2 * forwards
