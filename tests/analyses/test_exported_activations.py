"""Exported activations: the rows are the activations, a killed export ends with the same bytes, other programs read them."""

from __future__ import annotations

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from faults import at_change, content, in_a_child
from torch.utils.data import DataLoader

from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.exporting import ActivationsConfig, activations
from cos_interp.analyses.exporting.activations import export
from cos_interp.analyses.kit.problems import arguments, problems
from cos_interp.analyses.probing import FollowConfig, TrainConfig, following, training
from cos_interp.interp import ActivationRows, HookedVideoPipeline, InterpError
from cos_interp.interp.row_format import read
from cos_interp.probes.inputs import as_tokens
from cos_interp.probes.targets import Clip, known

NAMES = ("blocks.1.hook_resid_post", "blocks.0.attn.hook_z", "hook_x_t", "hook_time_emb")


@pytest.fixture(scope="module")
def model():
    return HookedVideoPipeline.from_pretrained("tiny:wan2.1")


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    path = tmp_path_factory.mktemp("asked") / "prompts.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": text, "seed": n}) + "\n" for n, text in enumerate(("a red ball", "a box", "snow")))
    )
    return ActivationsConfig(prompts=str(path), names=NAMES, num_inference_steps=3, steps=(0, 2), shard_size="3KB")


@pytest.fixture(scope="module")
def whole(model, asked, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "rows"
    export(asked, folder, model)
    return folder


def test_rows_are_the_activations(model, asked, whole):
    for name in NAMES:
        rows = ActivationRows(whole, name)
        values, columns = rows.take(slice(None))
        assert len(rows) == len(values) and set(columns["clip"]) == {"prompt-000", "prompt-001", "prompt-002"}
        for number, problem in enumerate(problems(asked)):
            run, cache = model.run_with_cache(names=[name], steps=[0, 2], **arguments(model, asked, problem))
            for step in (0, 2):
                mine = (columns["item"] == number) & (columns["step"] == step)
                act, grid = cache[name, step][0], model.token_grid(run.latents).shape
                if name == "hook_x_t":
                    wanted = torch.from_numpy(as_tokens(act, grid)).flatten(0, 2)
                else:
                    wanted = act.flatten(0, 2).flatten(1) if act.ndim > 1 else act[None]
                assert torch.equal(values[torch.from_numpy(mine)], wanted)
                assert np.allclose(columns["sigma"][mine], run.sigmas[step], atol=0)
                place = np.stack([columns[axis][mine] for axis in ("frame", "row", "col")], 1)
                cells = [[-1] * 3] if name == "hook_time_emb" else [list(cell) for cell in np.ndindex(grid)]
                assert place.tolist() == cells
                assert set(columns["seed"][mine]) == {number}


def test_no_shard_is_larger_than_asked_and_all_digests_hold(whole):
    shards = sorted((whole / "shards").iterdir())
    assert len(shards) > 5
    for path in shards:
        tensors, _ = read(path)
        assert sum(t.numel() * t.element_size() for t in tensors.values()) <= 3000


def test_a_loader_with_workers_and_a_shuffle_give_every_row_once(whole):
    for where, said in (({"task": "mazes"}, "has task 'mazes'; there are"), ({"step": [0, 99]}, "has step 99; there are 0, ")):
        with pytest.raises(InterpError, match=f"where: no row of {NAMES[0]} {said}"):
            ActivationRows(whole, NAMES[0], where=where)
    rows = ActivationRows(whole, NAMES[0], where={"step": [2], "item": (0, 2)})
    assert len(pickle.loads(pickle.dumps(rows))) == len(rows) and {row["step"] for row in rows.__getitems__(range(9))} == {2}
    key = lambda batch: [*zip(batch["item"].tolist(), batch["frame"].tolist(), batch["row"].tolist(), batch["col"].tolist())]
    seen = [one for batch in DataLoader(rows, batch_size=7, shuffle=True, num_workers=2) for one in key(batch)]
    assert len(seen) == len(rows) == len(set(seen))
    values, columns = rows.take(slice(None))
    order = []
    for part, told in rows.batches(5, seed=3):
        order += [*zip(told["item"], told["frame"], told["row"], told["col"], part[:, 0].tolist())]
    straight = [*zip(columns["item"], columns["frame"], columns["row"], columns["col"], values[:, 0].tolist())]
    assert order != straight and sorted(order) == sorted(straight)


@pytest.mark.parametrize("number", [3, 8, 17, 30])
def test_a_killed_export_ends_with_the_same_bytes(model, asked, whole, tmp_path, number):
    folder = tmp_path / "rows"

    def work():
        at_change(number, folder)
        export(asked, folder, model)

    assert os.WIFSIGNALED(in_a_child(work))
    export(asked, folder, model)
    assert content(folder) == content(whole)


def test_damage_is_named_and_made_again(model, asked, whole, tmp_path):
    folder = tmp_path / "rows"
    shutil.copytree(whole, folder)
    shard = folder / "shards/00003.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    (folder / "items/000000.safetensors").unlink()
    with pytest.raises(InterpError, match=r"00003.* is damaged"):
        ActivationRows(folder, NAMES[0]).take(slice(None))
    with pytest.warns(UserWarning, match=r"00003.* is damaged"):
        export(asked, folder, model)
    assert content(folder) == content(whole)


def test_other_content_and_other_settings_are_refused(model, asked, whole, tmp_path):
    with pytest.raises(RunError, match=r"holds another export \(--steps: \[0, 2\], now \[1\]\)"):
        export(asked.model_copy(update={"steps": (1,)}), whole, model)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(Exception, match=r"holds notes.txt"):
        export(asked, tmp_path, model)
    with pytest.raises(RunError, match=r"3 items of .* take .* at most, and there are 100 B: 0 items fit"):
        export(asked.model_copy(update={"disk": "100B"}), tmp_path / "full", model)
    with pytest.raises(InterpError, match="was not exported; there are"):
        ActivationRows(whole, "blocks.0.hook_resid_post")


def test_reductions_and_tokens(model, asked, tmp_path):
    small = asked.model_copy(update={"names": NAMES[:1], "tokens": "frame=1,row=0:2"})
    export(small, tmp_path / "tokens", model)
    columns = ActivationRows(tmp_path / "tokens", NAMES[0]).take(slice(None))[1]
    assert set(columns["frame"]) == {1} and set(columns["row"]) == {0, 1}
    export(small.model_copy(update={"tokens": None, "reduce": "mean"}), tmp_path / "mean", model)
    values, columns = ActivationRows(tmp_path / "mean", NAMES[0]).take(slice(None))
    call = arguments(model, asked, problems(asked)[0])
    wanted = model.run_with_cache(names=NAMES[:1], steps=[0, 2], reduce="mean", **call)[1]
    assert len(values) == 6 and torch.equal(values[1], wanted[NAMES[0], 2][0]) and set(columns["frame"]) == {-1}


def test_labels_of_the_tasks(organism, tmp_path):
    config = ActivationsConfig(tasks=("maze",), items=2, names=("blocks.2.hook_resid_post",), steps=(1,), num_inference_steps=2)
    export(config, tmp_path / "rows", organism)
    rows = ActivationRows(tmp_path / "rows", "blocks.2.hook_resid_post", labels=["first_class", "final_class"])
    columns = rows.take(slice(None))[1]
    problem = problems(config)[1]
    run = organism.run(**arguments(organism, config, problem))
    clip = Clip(problem.name, run, problem.item, organism.token_grid(run.latents).shape)
    for label in ("first_class", "final_class"):
        wanted = known()[label].read(clip)
        mine = columns["item"] == 1
        assert np.array_equal(columns[label][mine], wanted[tuple(columns[axis][mine] for axis in ("frame", "row", "col"))])
        assert (wanted >= 0).any()
    assert set(columns["status"]) <= {"solved", "wrong", "undecided"}


@pytest.mark.parametrize("limit", [{"memory": "10kB"}, {"host_memory": "10kB"}])
def test_an_export_that_takes_more_than_was_stated_is_refused_before_it_loads(limit, asked, model, tmp_path, monkeypatch):
    monkeypatch.setattr(activations, "loaded", lambda config: pytest.fail("the model was loaded"))
    with pytest.raises(InterpError, match=r"does not fit: the host takes .*, and has 10 kB\nwhat makes it fit: "):
        export(asked.model_copy(update=limit), tmp_path / "rows")
    before = model.block_calls
    with pytest.raises(InterpError, match="does not fit: the host takes"):
        export(asked.model_copy(update=limit), tmp_path / "rows", model)
    assert model.block_calls == before and not (tmp_path / "rows").exists()
    export(asked.model_copy(update=dict.fromkeys(limit, "10GB")), tmp_path / "rows", model)


@pytest.mark.parametrize("limit", [{"memory": "10kB"}, {"host_memory": "10kB"}])
def test_the_training_of_a_probe_that_takes_more_than_was_stated_is_refused_before_it_loads(limit, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "loaded", lambda config: pytest.fail("the model was loaded"))
    config = TrainConfig(target="on_path", tasks=("maze",), items=4, num_inference_steps=2, **limit)
    with pytest.raises(InterpError, match=r"does not fit: the host takes .*, and has 10 kB"):
        training.train(config, tmp_path / "probes", None)
    follow = FollowConfig(video="none.mp4", prompt="a ball", cell=(0, 0), layer=0, step=0, **limit)
    with pytest.raises(InterpError, match="does not fit: the host takes"):
        following.follow(follow, tmp_path / "out.mp4")
