"""The dossier: sizes from a budget, one page with all verdicts, continued and not repeated, failures named."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from cos_interp.analyses.dossier import DossierConfig, ExperimentFacts, numbers, together
from cos_interp.analyses.dossier import run as dossier
from cos_interp.analyses.dossier.text import markdown
from cos_interp.analyses.dossier.together import Told
from cos_interp.analyses.driver import experiment
from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.experiment import Experiment, Report, Unit, each_unit
from cos_interp.analyses.driver.findings import Finding, Number, decide
from cos_interp.analyses.driver.pages import build
from cos_interp.analyses.driver.settings import SuiteConfig
from cos_interp.analyses.driver.store import RunError, RunStore
from cos_interp.analyses.driver.workers import WorkerFailed
from cos_interp.cli import app
from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.terminal import Failure
from cos_interp.organism import package


class CountConfig(SuiteConfig):
    """Counts its runs."""


class OpenConfig(CountConfig):
    """Says no number of items: three by default."""

    items: int | None = None  # type: ignore[assignment]


CALLS: list[int] = []


def measure(model, config, piece):
    if config.seed == 13:
        raise ValueError("thirteen was asked for: take another seed")
    CALLS.append(piece)
    return Unit([{"problem": str(piece), "value": float(piece)}])


def report(result, store) -> Report:
    finding = Finding("claim <b>", "reproduced", "it is", Number(0.5, 0.4, 0.6, 5), "nothing", Number(0.0), "above 0")
    return build(result, "Count", "How many?", "nowhere", [finding], [])


EXPERIMENT = Experiment(
    "count", CountConfig, lambda c: [(i, [f"u{i}"]) for i in range(c.items)], each_unit(measure, lambda p: f"u{p}"), report
)


@pytest.fixture
def counted(monkeypatch):
    CALLS.clear()
    entry = Entry("count", CountConfig, "Counts.", ())
    monkeypatch.setattr(dossier, "load", lambda name: EXPERIMENT)
    monkeypatch.setattr(dossier, "known", lambda: {"count": entry})


def test_budget_and_sizes():
    assert dossier.seconds("90s") == 90 and dossier.seconds("20m") == 1200 and dossier.seconds("1.5h") == 5400
    assert dossier.seconds("none") == float("inf")
    for bad in ("20", "0m", "soon", "-3m"):
        with pytest.raises(ValueError, match="20m"):
            dossier.seconds(bad)
    assert dossier.fitting_items(100, 10) == 20 and dossier.fitting_items(-5, 10) == dossier.PILOT
    assert dossier.fitting_items(1e9, 1) == dossier.LARGEST


def test_every_experiment_can_be_configured():
    config = DossierConfig(seed=3, num_inference_steps=7)
    for entry in dossier.chosen(config):
        made = dossier.configured(entry, config, 4)
        assert (made.seed, made.num_inference_steps, getattr(made, dossier.size_field(entry))) == (3, 7, 4)
    told = {"size": "48x32", "num_frames": 5, "device": "cpu", "offload": "model", "host_memory": "3GB", "negative_prompt": "fog"}
    for entry in dossier.chosen(DossierConfig()):  # what is told of the model holds in every experiment, its plan and its command
        made = dossier.configured(entry, DossierConfig(**told))
        assert {name: getattr(made, name) for name in told} == {name: getattr(DossierConfig(**told), name) for name in told}
    with pytest.raises(ValueError, match="the experiments are patching"):
        dossier.chosen(DossierConfig(only=("nothing",)))


def test_a_dossier_without_a_budget_has_the_experiments_own_sizes(counted, organism, tmp_path):
    result, _ = dossier.run_and_report(DossierConfig(budget="none", twins=0), tmp_path / "run", model=organism, workers=1)
    own = CountConfig().items
    assert dossier.expected(result.config).startswith("1 experiment: about 1 minute for")
    assert dossier.expected(DossierConfig(budget="1h")) == ""
    assert result.units["count"].items == own == len(CALLS) and result.units["count"].command == "cos analyze count"


class LaterConfig(CountConfig):
    """As a later version has it, with one more setting."""

    window: int | None = None


def test_a_setting_that_a_later_version_adds_makes_no_unit_another_runs(organism, tmp_path):
    CALLS.clear()
    experiment.run_and_report(EXPERIMENT, CountConfig(items=3), tmp_path, model=organism, workers=1)
    before = {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir()}
    later = replace(EXPERIMENT, config=LaterConfig)
    experiment.run_and_report(later, LaterConfig(items=3), tmp_path, model=organism, workers=1)
    assert len(CALLS) == 3 and {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir()} == before
    with pytest.raises(RunError, match="--window: None, now 2"):
        experiment.run_and_report(later, LaterConfig(items=3, window=2), tmp_path, model=organism, workers=1)


def test_a_dossier_like_another_has_its_sizes_and_takes_over_the_twins_that_are_the_same(counted, organism, tmp_path):
    config = DossierConfig(budget="none", twins=2)
    dossier.run_and_report(config, tmp_path / "first", model=organism, workers=1)
    size = len(CALLS) // 5  # it takes under a minute, and has four twins
    other = HookedVideoPipeline(package.untrained_twin(5), "twin", organism.defaults)
    CALLS.clear()
    asked = config.model_copy(update={"like": str(tmp_path / "first"), "budget": "9h"})
    dossier.run_and_report(asked, tmp_path / "second", model=other, workers=1)
    assert len(CALLS) == size  # the model alone, and no larger
    for name in ("twin-0", "twin-1", "twin-2", "twin-3"):
        first, second = (tmp_path / of / "count" / name / "results.parquet" for of in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
    with torch.no_grad():
        next(other.pipe.vae.parameters()).add_(0.1)  # other twins
    CALLS.clear()
    dossier.run_and_report(asked, tmp_path / "third", model=other, workers=1)
    assert len(CALLS) == 5 * size


@pytest.mark.parametrize(("short", "twins", "ran"), [(60, 2, 4), (0, 2, 2), (60, 1, 1), (60, 0, 0)])
def test_an_experiment_whose_run_takes_under_a_minute_has_four_twins(counted, organism, tmp_path, monkeypatch, short, twins, ran):
    monkeypatch.setattr(dossier, "SHORT", short)
    config = DossierConfig(budget="none", twins=twins)
    result, _ = dossier.run_and_report(config, tmp_path / "run", model=organism, workers=1)
    assert len(list((tmp_path / "run/count").glob("twin-*"))) == ran and len(CALLS) == (1 + ran) * CountConfig().items
    assert RunStore(tmp_path / "run/count").verify() == [] and ("--twins 4" in result.units["count"].command) == (ran == 4)


def test_an_interrupted_experiment_keeps_its_twins(counted, organism, tmp_path):
    """What is left of it takes less than a whole run does."""
    experiment.run(EXPERIMENT, CountConfig(twins=2), tmp_path / "run" / "count", model=organism, workers=1)
    dossier.run_and_report(DossierConfig(budget="none", twins=2), tmp_path / "run", model=organism, workers=1)
    assert sorted(path.name for path in (tmp_path / "run/count").glob("twin-*")) == ["twin-0", "twin-1"]


def test_a_dossier_like_one_of_other_items_or_none_is_refused(counted, organism, tmp_path):
    config = DossierConfig(budget="1s", twins=0)
    dossier.run_and_report(config, tmp_path / "first", model=organism, workers=1)
    for change, said in (
        ({"like": str(tmp_path / "nowhere")}, "no dossier is there"),
        ({"like": str(tmp_path / "first" / "count")}, "no dossier is there"),
        ({"like": str(tmp_path / "first"), "confirm": True}, "it has --confirm False and this one True"),
    ):
        with pytest.raises(ValueError, match=said):
            dossier.run_and_report(config.model_copy(update=change), tmp_path / "second", model=organism, workers=1)


def test_a_dossier_grows_to_its_budget_and_is_not_repeated(counted, organism, tmp_path):
    config = DossierConfig(budget="1h", twins=0)
    result, made = dossier.run_and_report(config, tmp_path / "run", model=organism, workers=1)
    assert result.units["count"].items == dossier.LARGEST and len(CALLS) == dossier.LARGEST  # the small run grew
    assert RunStore(tmp_path / "run").verify() == [] and RunStore(tmp_path / "run/count").verify() == []
    assert "1 reproduced" in made.lines[0] and "claim &lt;b&gt;" in made.html and 'href="count/report.html"' in made.html
    assert "--items 125" in (tmp_path / "run/findings.md").read_text()
    json.dumps(made.data)
    dossier.run_and_report(config, tmp_path / "run", model=organism, workers=1)
    assert len(CALLS) == dossier.LARGEST
    (tmp_path / "run/count/report.html").write_text("changed")
    assert RunStore(tmp_path / "run").verify() == ["count: report.html has been changed since it was written"]


def test_an_experiment_whose_run_was_removed_is_made_again(counted, organism, tmp_path):
    config = DossierConfig(budget="none", twins=0)
    first, _ = dossier.run_and_report(config, tmp_path / "run", model=organism, workers=1)
    made = len(CALLS)
    shutil.rmtree(tmp_path / "run/count")
    again, _ = dossier.run_and_report(config, tmp_path / "run", model=organism, workers=1)
    assert len(CALLS) == 2 * made and again.units["count"].items == first.units["count"].items
    assert RunStore(tmp_path / "run").verify() == [] and RunStore(tmp_path / "run/count").verify() == []


def test_a_failure_that_may_pass_is_not_kept(counted, organism, tmp_path, monkeypatch):
    def lost(*args, **kwargs):
        raise WorkerFailed("a worker process died")

    with monkeypatch.context() as broken:
        broken.setattr(experiment, "run_and_report", lost)
        with pytest.raises(RunError, match="count failed and may succeed next time"):
            dossier.run_and_report(DossierConfig(budget="1h"), tmp_path / "run", model=organism, workers=1)
    assert "a worker process died" in (tmp_path / "run/report.html").read_text()
    result, _ = dossier.run_and_report(DossierConfig(budget="1h"), tmp_path / "run", model=organism, workers=1)
    assert result.units["count"].items == dossier.LARGEST and RunStore(tmp_path / "run").verify() == []


def test_a_small_budget_keeps_the_small_run(counted, organism, tmp_path, monkeypatch):
    monkeypatch.setattr(dossier, "fitting_items", lambda allowed, spent: dossier.PILOT)
    result, _ = dossier.run_and_report(DossierConfig(budget="1s", twins=0), tmp_path / "run", model=organism, workers=1)
    assert result.units["count"].items == len(CALLS) == dossier.PILOT


def test_an_experiment_that_cannot_run_is_named_and_the_rest_goes_on(counted, organism, tmp_path):
    _, made = dossier.run_and_report(DossierConfig(seed=13), tmp_path / "run", model=organism, workers=1)
    assert "could not run: thirteen was asked for" in made.html and any("could not run" in line for line in made.lines)


def test_verdicts_follow_the_interval():
    assert decide(0.1, 0.4) == "reproduced" and decide(-0.1, 0.4) == "undecided" and decide(-0.4, -0.1) == "refuted"
    assert decide(0.1, 0.4, 0.2) == "undecided" and decide(float("nan"), 0.1) == "not testable"


def test_a_killed_experiment_is_continued_at_its_own_size(counted, organism, tmp_path):
    config = DossierConfig(budget="1h", twins=0)
    experiment.run(EXPERIMENT, CountConfig(items=7), tmp_path / "run" / "count", model=organism, workers=1)
    result, _ = dossier.run_and_report(config, tmp_path / "run", model=organism, workers=1)
    assert result.units["count"].items == 7 and len(CALLS) == 7


def finding(p: float, verdict: str = "reproduced", primary: bool = True) -> Finding:
    number = Number(0.5, 0.4, 0.6, 30)
    return Finding("c", verdict, "s", number, "nothing", Number(0.0), "r", "x.c", 0.0, p, (), "", primary)


def test_what_holds_alone_need_not_hold_among_many():
    """Benjamini-Hochberg by hand: sorted p .001 .02 .03 .04 .2 times 5 / rank gives q .005 .05 .05 .05 .2."""
    from cos_interp.analyses.dossier import ExperimentFacts
    from cos_interp.analyses.dossier.multiplicity import corrected

    def verdicts(*found: Finding) -> list[tuple[str, str]]:
        units = {f"e{i}": ExperimentFacts(about="", seconds=1, findings=(one,)) for i, one in enumerate(found)}
        return [(u.findings[0].verdict, u.findings[0].why) for u in corrected(units).values()]

    held = verdicts(*(finding(p) for p in (0.03, 0.001, 0.2, 0.02, 0.04)))
    assert [verdict for verdict, _ in held] == ["reproduced", "reproduced", "undecided", "reproduced", "reproduced"]
    assert held[2][1] == "multiplicity: q = 0.20 among 5 claims"
    assert [v for v, _ in verdicts(*(finding(p) for p in (0.02, 0.9, 0.9, 0.9)))] == ["undecided"] * 4
    refuted = verdicts(
        finding(0.001), finding(0.9, "refuted"), finding(0.9, primary=False), finding(float("nan"), "not testable")
    )
    assert [verdict for verdict, _ in refuted] == ["reproduced", "refuted", "reproduced", "not testable"]


def test_what_a_twin_shows_too_makes_no_room_for_another_claim():
    """Three claims with p = .0001 that twins oppose, one that is reproduced with p = .024, two with .9: its q is .024 * 6 / 1.
    Were the three counted as found it would be .024 * 6 / 4 = .036."""
    from cos_interp.analyses.dossier.multiplicity import corrected

    found = [*[finding(0.0001, "undecided")] * 3, finding(0.024), finding(0.9, "refuted"), finding(0.9, "refuted")]
    units = {f"e{i}": ExperimentFacts(about="", seconds=1, findings=(one,)) for i, one in enumerate(found)}
    held = corrected(units)["e3"].findings[0]
    assert held.verdict == "undecided" and held.q == pytest.approx(0.144) and "q = 0.14 among 6 claims" in held.why
    assert corrected({"e3": units["e3"], "e4": units["e4"]})["e3"].findings[0].verdict == "reproduced"  # .024 * 2


def test_an_experiment_whose_own_size_is_no_number_has_that_of_its_pieces(counted, organism, tmp_path, monkeypatch):
    made = replace(EXPERIMENT, config=OpenConfig, pieces=lambda c: [(i, [f"u{i}"]) for i in range(c.items or 3)])
    monkeypatch.setattr(dossier, "load", lambda name: made)
    monkeypatch.setattr(dossier, "known", lambda: {"count": Entry("count", OpenConfig, "Counts.", ())})
    result, _ = dossier.run_and_report(DossierConfig(budget="none", twins=0), tmp_path / "run", model=organism, workers=1)
    assert result.units["count"].items == 3 and not result.units["count"].error


def told(label: str, confirms: bool, **found: Finding) -> Told:
    facts = ExperimentFacts(
        about="Counts.", command=f"cos analyze count --out {label}", seconds=1, findings=tuple(found.values())
    )
    return Told(label, (f"cos analyze all --out {label}",), confirms, {"count": facts}, {"count": "rules1"})


def test_how_far_models_lie_apart_is_said():
    at = lambda value: replace(finding(0.001), number=Number(value, value - 0.1, value + 0.1, 30))
    page = markdown([told(name, False, x=at(value)) for name, value in (("a", 0.9), ("b", 0.5), ("c", 0.7))])
    assert "Over these 3 runs the number goes from 0.50 to 0.90." in page
    assert "Over these" not in markdown([told("a", False, x=at(0.9))])


def test_several_dossiers_have_a_verdict_only_where_they_agree():
    good, bad = finding(0.001), finding(0.9, "refuted")
    for dossiers, right in (
        ((told("a", False, x=good), told("b", False, x=good), told("c", False, x=good)), "reproduced"),
        ((told("a", False, x=good), told("b", False, x=bad), told("c", False, x=good)), "undecided: 2 reproduced, 1 refuted"),
        ((told("a, weights 1", False, x=good), told("a, weights 1, unseen items", True, x=bad)), "refuted"),  # which decide
        (  # of another model they say nothing
            (told("a, weights 1", False, x=bad), told("b, weights 2, unseen items", True, x=good)),
            "undecided: 1 refuted, 1 reproduced",
        ),
        ((told("a", False, x=good), told("b", False)), "undecided: 1 reproduced, 1 no finding"),
    ):
        page = markdown(dossiers, "What is known.")
        assert f"**{right[:1].upper()}{right[1:]}.**" in page and "## count" in page and "What is known." in page
        assert f"1 {right.partition(':')[0]}" in page.split("Reproduced:")[0]
        shown = [line for line in page.splitlines() if line.startswith("| ") and "0.50 [0.40, 0.60]" in line]
        rows = [line for line in shown if not line.startswith("| [count](#count) |")]
        (overview,) = set(shown) - set(rows)  # one line for the claim, with the number of each
        assert overview.count("0.50 [0.40, 0.60]") == len(rows) and overview.endswith(f"| {right} |")
        assert len(rows) == sum(bool(one.units["count"].findings) for one in dossiers)
    variant = markdown([told("a", False, x=finding(0.001, primary=False))])
    assert "Variant, without a verdict" in variant and "0 reproduced" in variant
    lacking = replace(finding(float("nan"), "not testable", primary=False), why="3 of at least 12 items")
    assert "| variant (not testable: 3 of at least 12 items) |" in markdown([told("a", False, x=lacking)])
    page = markdown([told("a", False, x=finding(0.001), y=finding(0.0204), z=finding(0.9, "refuted"))])
    cells = [line.rsplit("|", 2)[1].strip() for line in page.split("### c")[1].splitlines() if line.startswith("| a |")]
    assert cells == ["reproduced (q = 0.003)"]  # three times .001; the next one 3 / 2 times .0204
    assert "reproduced (q = 0.031)" in page and "| refuted |" in page


def test_a_page_says_which_unseen_items_were_seen_and_which_twins_did_not_run():
    ran = replace(finding(0.001), key="x.a", twins=(Number(0.1, 0.0, 0.2, 30),))
    changed = replace(ran, key="x.b", rule=f"{ran.rule} (rule of 2026-11-25, changed on 2026-11-26, after its numbers were seen)")
    page = markdown([told("a", True, x=ran, y=changed), told("b", True, x=ran, y=changed)])
    assert "1 of the 2 claims have a rule that was changed after its numbers" in page and "No models of random" not in page
    assert "that was changed" not in markdown([told("a", True, x=ran)]) + markdown([told("a", False, x=changed)])
    alone = markdown([told("a", False, x=ran), told("b", False, x=finding(0.001))])
    assert (
        "No models of random weights ran beside it (--twins), so that what is reproduced need not be what was learnt: b." in alone
    )


def test_dossiers_of_one_model_with_other_experiments_are_one_and_their_claims_are_corrected_together():
    several = [told("a", False, x=finding(0.04)), *(replace(told("a", False, x=finding(0.9)), rules={}) for _ in range(3))]
    parts = [replace(one, units={f"count{i}": one.units["count"]}) for i, one in enumerate(several)]
    (one,) = together.joined(parts)
    assert list(one.units) == ["count0", "count1", "count2", "count3"]
    page = markdown([one])
    assert "multiplicity: q = 0.16 among 4 claims" in page and "4 experiments of" not in page  # they have one command
    named = replace(one, units=dict.fromkeys(("recovery", "mine", "patching"), one.units["count0"]), commands=("a", "b"))
    page = markdown([named])
    assert [line for line in page.splitlines() if line.startswith("## ")] == ["## patching", "## recovery", "## mine"]
    assert "a: 3 experiments of several dossiers" in page
    assert page.startswith("# Findings\n") and markdown([named], "# Mine\n\nWords.").startswith("# Mine\n\nWords.\n")
    with pytest.raises(RunError, match="count of a was given twice, which is no second model"):
        together.joined([several[0], told("b", False), several[0]])
    assert "multiplicity" not in markdown([parts[0]])


def test_numbers_are_kept_where_runs_are_gone(tmp_path):
    path = tmp_path / "numbers.json"
    path.write_bytes(numbers.written([told("a", True, x=finding(0.001), y=finding(math.nan)), told("b", False, x=finding(0.5))]))
    kept = numbers.read(path)
    assert numbers.written(kept) == path.read_bytes() and [one.label for one in kept] == ["a", "b"]
    assert math.isnan(kept[0].units["count"].findings[1].p) and kept[0].confirms
    other = replace(told("b", False, x=finding(0.2)), rules={"more": "rules2"}, units={"more": kept[1].units["count"]})
    found = numbers.added(kept, [other, told("a", True, x=finding(0.3))])
    assert [(one.label, list(one.units)) for one in found] == [("a", ["count"]), ("b", ["count", "more"])]
    assert found[0].units["count"].findings[0].p == 0.3 and len(found[0].units["count"].findings) == 1
    page = markdown(found)
    assert "- rules rules1: count" in page and "- rules rules2: more" in page and "2 experiments of" not in page
    path.write_text("[{}]")
    with pytest.raises(RunError, match=r"numbers\.json holds no numbers of findings"):
        numbers.read(path)


def test_a_bound_without_end_is_kept(tmp_path):
    open_sided = replace(finding(0.5), number=Number(0.5, 0.2, math.inf, 5))
    (tmp_path / "n.json").write_bytes(numbers.written([told("a", False, x=open_sided)]))
    assert numbers.read(tmp_path / "n.json")[0].units["count"].findings[0].number.high == math.inf


def test_the_page_of_several_dossiers_is_written(counted, organism, tmp_path):
    for name, seed in (("seen", 0), ("other", 1)):
        config = DossierConfig(budget="1s", twins=0, seed=seed)
        dossier.run_and_report(config, tmp_path / name, model=organism, workers=1)
    out = tmp_path / "docs" / "findings.md"
    arguments = [str(tmp_path / "seen"), str(tmp_path / "other"), "--out", str(out)]
    assert CliRunner().invoke(app, ["report", "findings", *arguments], catch_exceptions=False).exit_code == 0
    page = out.read_text()
    assert (
        page.count("| organism, weights ") == 2
        and page.count(", seed 1 |") == 1
        and "**Reproduced.**" in page
        and str(tmp_path) not in page
    )
    kept = ["--numbers", str(tmp_path / "docs" / "findings.json"), "--out", str(out)]
    for given in ([arguments[0]], [arguments[1]], []):  # one after the other, and then of the file alone
        assert CliRunner().invoke(app, ["report", "findings", *given, *kept], catch_exceptions=False).exit_code == 0
        assert given != [arguments[0]] or out.read_text().count("| organism, weights ") == 1
    assert out.read_text() == page
    with pytest.raises(Failure, match="there are no findings"):
        CliRunner().invoke(app, ["report", "findings", "--out", str(out)], catch_exceptions=False)
    with pytest.raises(RunError, match="is a run of noise, not a dossier"):
        together.told(SimpleNamespace(config=CountConfig(), folder="runs/noise", name="noise"))


def test_a_dossier_is_drawn_again_and_put_into_one_file(counted, organism, tmp_path):
    from cos_interp.analyses import draw
    from cos_interp.analyses.dossier.again import in_one_file

    folder = tmp_path / "run"
    dossier.run_and_report(DossierConfig(budget="1s", twins=0), folder, model=organism, workers=1)
    whole = (folder / "report.html").read_bytes()
    (folder / "report.html").write_text("lost")
    assert draw(folder) == folder / "report.html" and (folder / "report.html").read_bytes() == whole
    assert RunStore(folder).verify() == []
    text = in_one_file(folder)
    assert text == in_one_file(folder) and '<article id="page-count"' in text and 'id="count-evidence"' in text
    assert text.count("How many?") == 1 and 'href="count/report.html"' not in text and text.count("<script>") == 1
    out = tmp_path / "sent" / "all.html"
    CliRunner().invoke(app, ["report", "draw", str(folder), "--single-file", str(out)], catch_exceptions=False)
    assert out.read_text() == text
    with pytest.raises(Failure, match="a run of count, whose page is one file already"):
        CliRunner().invoke(app, ["report", "draw", str(folder / "count"), "--single-file", str(out)], catch_exceptions=False)
    (folder / "count" / "report.html").write_text("changed")
    with pytest.raises(RunError, match=r"count/report\.html has been changed"):
        in_one_file(folder)


def test_a_dossier_that_is_drawn_again_is_judged_by_the_rules_of_today(organism, tmp_path, monkeypatch):
    """Its experiments, their twins and itself; which rules judged is in every run.json, and all are as they were written."""
    from cos_interp.analyses import draw
    from cos_interp.analyses.driver import rules

    folder = tmp_path / "run"
    config = DossierConfig(only=("lengths",), budget="1s", twins=1, num_inference_steps=2)
    dossier.run_and_report(config, folder, model=organism, workers=1)
    before = RunStore(folder / "lengths").read("results.parquet")
    text = rules.PATH.read_text()
    (tmp_path / "rules.toml").write_text(text.replace("Items longer than any", "Longer items than any"))
    monkeypatch.setattr(rules, "PATH", tmp_path / "rules.toml")
    rules.rules.cache_clear()
    try:
        draw(folder)
        judged = rules.digest()[: rules.SHOWN]
    finally:
        monkeypatch.undo()
        rules.rules.cache_clear()
    facts = RunStore(folder, dossier.ENTRY.facts).finished("lengths")[1]
    assert any(finding.claim.startswith("Longer items") for finding in facts.findings)
    for run in (folder, folder / "lengths", folder / "lengths" / "twin-0"):
        assert RunStore(run).verify() == [] and RunStore(run).facts()["versions"]["rules"] == judged != rules.digest()[:12]
    assert RunStore(folder / "lengths").read("results.parquet") == before
    assert "Longer items than any" in (folder / "findings.md").read_text()


def test_a_scorer_goes_to_every_experiment_that_takes_prompts(prompts):
    asked = DossierConfig(prompts=prompts, scorer="motion", scorer_seconds=7)
    chosen = dossier.chosen(asked)
    assert len(chosen) > 8
    for entry in chosen:  # all lines are taken, so that no size is said
        made = dossier.configured(entry, asked, 2)
        assert (made.prompts, made.scorer, made.scorer_seconds) == (prompts, "motion", 7)
    with pytest.raises(ValueError, match="add prompts"):
        DossierConfig(scorer="motion")
