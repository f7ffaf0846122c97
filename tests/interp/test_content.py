"""What a model is by content: whatever changes a number changes its digest, and what does not, does not."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.families import tiny
from cos_interp.interp.identity import identity


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "wan2.2"
    tiny.build("wan2.2").save_pretrained(path)
    return path


def loaded(path):
    return HookedVideoPipeline.from_pretrained(path)


def test_running_and_offloading_change_nothing(folder):
    model = loaded(folder)
    before = identity(model.pipe)
    model.run(**tiny.call("wan2.2") | {"seed": 0, "num_inference_steps": 2})
    assert identity(model.pipe) == before == identity(loaded(folder).pipe)
    model.pipe.enable_sequential_cpu_offload(device=torch.device("cpu"))
    assert identity(model.pipe) == before


@pytest.mark.parametrize(
    ("file", "change", "part"),
    [
        ("model_index.json", lambda held: {**held, "boundary_ratio": 0.1}, "pipeline"),
        ("tokenizer/tokenizer.json", lambda held: {**held, "post_processor": None}, "tokenizer"),
        ("tokenizer/tokenizer.json", lambda held: {**held, "pre_tokenizer": {"type": "WhitespaceSplit"}}, "tokenizer"),
        ("tokenizer/tokenizer_config.json", lambda held: {**held, "padding_side": "left"}, "tokenizer"),
        ("scheduler/scheduler_config.json", lambda held: {**held, "shift": 2.5}, "scheduler"),
        ("transformer/config.json", lambda held: {**held, "eps": 0.1}, "transformer"),
    ],
)  # fmt: skip
def test_a_change_of_a_file_changes_the_part_that_it_is_of(folder, tmp_path, file, change, part):
    shutil.copytree(folder, tmp_path / "model")
    path = tmp_path / "model" / file
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    before, after = identity(loaded(folder).pipe), identity(loaded(tmp_path / "model").pipe)
    assert {name for name in before if before[name] != after[name]} == {part}


def test_the_scale_of_an_adapter_and_whether_it_is_on_count():
    peft = pytest.importorskip("peft")
    pipe = tiny.build("wan2.1")
    pipe.transformer.add_adapter(peft.LoraConfig(r=2, lora_alpha=4, target_modules=["to_q"]), "style")
    seen = [identity(pipe)["transformer"]]
    pipe.transformer.set_adapters("style", 0.05)
    seen.append(identity(pipe)["transformer"])
    pipe.transformer.disable_adapters()
    seen.append(identity(pipe)["transformer"])
    assert len(set(seen)) == 3
    pipe.transformer.enable_adapters()
    pipe.transformer.set_adapters("style", 1.0)
    assert identity(pipe)["transformer"] == seen[0]


def test_a_run_is_not_continued_with_another_boundary_between_experts(folder, tmp_path):
    from cos_interp import analyses
    from cos_interp.analyses.driver.errors import RunError

    size = {"height": 32, "width": 32, "num_frames": 9, "max_sequence_length": 12}
    (tmp_path / "own.jsonl").write_text(json.dumps({"prompt": "a red ball", **size}))
    settings = {"prompts": str(tmp_path / "own.jsonl"), "num_inference_steps": 2, "workers": 1, "out": tmp_path / "run"}
    shutil.copytree(folder, tmp_path / "model")
    analyses.run("trajectory", model=str(tmp_path / "model"), **settings)
    index = tmp_path / "model" / "model_index.json"
    index.write_text(index.read_text().replace("0.85", "0.1"))
    with pytest.raises(RunError, match="the model: other pipeline"):
        analyses.run("trajectory", model=str(tmp_path / "model"), **settings)
