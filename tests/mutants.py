"""Small mistakes put into the mathematics and the run store on purpose, each with the test that must catch it: ``make mutants``.

The tree is copied; in the copy each mistake is made alone, its tests are run, and the file is restored. Tests that pass with
the mistake in place do not test what they say: exit status 1. ``tests/project/test_mutants.py`` keeps the list from rotting.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from mutations import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[1]
# imported once and shared by all runs, which are forks: libraries, and nothing of the tree
SHARED = [
    "torch",
    "pandas",
    "scipy.stats",
    "sklearn.linear_model",
    "sklearn.model_selection",
    "diffusers",
    "transformers",
    "pytest",
]
LONGEST = 300  # seconds for one selection


# --- the copy ------------------------------------------------------------------------------------------------------------


def copied(folder: Path) -> Path:
    """The tree as it stands, without what git ignores; links to the rooms stay links."""
    listed = subprocess.check_output(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():  # one that was deleted and not yet committed is still listed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


def mutated(tree: Path, mutant: Mutant) -> bytes:
    """Make a mistake in the copy. Returns the file as it was."""
    path = tree / mutant.file
    before = path.read_bytes()
    text = before.decode()
    if text.count(mutant.old) != 1:
        raise SystemExit(f"{mutant.file} holds {text.count(mutant.old)} times, and should hold once: {mutant.old}")
    path.write_text(text.replace(mutant.old, mutant.new))
    return before


# --- runs of pytest ------------------------------------------------------------------------------------------------------


def passes(tree: Path, test: str, log: Path) -> bool:
    """Whether a selection of tests passes in the copy, in a process of its own. What pytest says is left in ``log``.

    SystemExit where no test was run: a mistake that cannot be imported is caught by anything, and says nothing.
    """
    process = CONTEXT.Process(target=_pytest, args=(str(tree), test, str(log)))
    process.start()
    process.join(LONGEST)
    if process.is_alive():  # a mistake that never ends is caught, too
        process.kill()
        process.join()
    elif process.exitcode not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise SystemExit(f"{log.read_text()}\n{test} could not be run")
    return process.exitcode == pytest.ExitCode.OK


def _pytest(tree: str, test: str, log: str) -> None:
    """In the fork: pytest over the copy's tests with the copy's modules."""
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    os.chdir(tree)
    os.environ["PYTHONPATH"] = f"{tree}/src"
    sys.dont_write_bytecode = True  # a mistake of the file's own length within one second would look like the file
    ours = (ROOT, ROOT / "src", ROOT / "tests")
    sys.path[:] = [f"{tree}/src", f"{tree}/tests", *(place for place in sys.path if Path(place).resolve() not in ours)]
    path, _, only = test.partition(" ")
    sys.exit(pytest.main([path, *(["-k", only] if only else []), "-x", "-q", "-p", "no:cacheprovider"]))


CONTEXT = multiprocessing.get_context("forkserver")


# --- the command ---------------------------------------------------------------------------------------------------------


def check_unmutated(tree: Path, chosen: list[Mutant], log: Path) -> None:
    """SystemExit where a selection does not pass as the tree stands: then its failing would say nothing."""
    by_file: dict[str, set[str]] = {}
    for mutant in chosen:
        path, _, only = mutant.test.partition(" ")
        by_file.setdefault(path, set()).add(only)
    for path, names in by_file.items():
        if not passes(tree, f"{path} {' or '.join(sorted(names))}", log):
            raise SystemExit(f"{log.read_text()}\n{path} does not pass without a mutant")


def survives(tree: Path, mutant: Mutant, log: Path) -> bool:
    before = mutated(tree, mutant)
    try:
        return passes(tree, mutant.test, log)
    finally:
        (tree / mutant.file).write_bytes(before)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="mutants whose file, test or description holds this text")
    asked = parser.parse_args().only
    chosen = [mutant for mutant in MUTANTS if asked in f"{mutant.file} {mutant.test} {mutant.breaks}"]
    if not chosen:
        parser.error(f"no mutant has {asked!r} in its file, test or description")
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
    CONTEXT.set_forkserver_preload(SHARED)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        tree, log = copied(Path(folder).resolve() / "tree"), Path(folder) / "log"
        check_unmutated(tree, chosen, log)
        for number, mutant in enumerate(chosen, 1):
            started = time.monotonic()
            found = "SURVIVED" if survives(tree, mutant, log) else "caught"
            rows.append((found, mutant))
            print(f"{number:3}/{len(chosen)} {found:8} {time.monotonic() - started:5.1f} s  {mutant.breaks}", flush=True)
    print()
    for found, mutant in sorted(rows, key=lambda row: (row[0], row[1].file)):
        print(f"{found:8}  {mutant.file:36}  {mutant.breaks}\n{'':10}{mutant.test}")
    caught = sum(found == "caught" for found, _ in rows)
    print(f"{caught} of {len(rows)} caught")
    return 0 if caught == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
