"""The list of mistakes made on purpose (``make mutants``) fits the tree: each can still be made, and its tests are there."""

from __future__ import annotations

import pytest
from mutants import ROOT
from mutations import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.breaks)
def test_a_mutant_can_be_made(mutant: Mutant):
    text = (ROOT / mutant.file).read_text()
    assert text.count(mutant.old) == 1 and mutant.new != mutant.old
    compile(text.replace(mutant.old, mutant.new), mutant.file, "exec")  # one that cannot be imported is caught by any test
    path, _, only = mutant.test.partition(" ")
    assert (ROOT / path).is_file() and only.isidentifier() and only in (ROOT / path).read_text()


def test_there_are_many_and_each_is_named_once():
    assert len(MUTANTS) >= 100 and len({mutant.breaks for mutant in MUTANTS}) == len(MUTANTS)
    assert {mutant.file.split("/")[0] for mutant in MUTANTS} == {"analyses", "interp", "probes", "tasks"}
