"""The wheel holds the tree, no more and no less, and works beside a user's own ``tasks.py``, ``reports/`` and ``interp.py``."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("analyses", "interp", "organism", "probes", "reports", "tasks")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return next(folder.glob("*.whl"))


def tree() -> set[str]:
    """The files that belong into the package, by their place in it."""
    rooms = {path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*") if path.is_file()}
    return {path.as_posix() for path in rooms if "__pycache__" not in path.parts} | {"cli.py", "__init__.py", "py.typed"}


def test_the_wheel_holds_the_tree_both_ways(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    held = {name.removeprefix("cos_interp/") for name in names if name.startswith("cos_interp/")}
    assert held == tree()
    assert {name.split("/")[0] for name in names} == {"cos_interp", f"{wheel.name.split('-py3')[0]}.dist-info"}


def test_the_installed_wheel_runs_beside_files_of_the_users_own(wheel, tmp_path):
    home = tmp_path / "environment"
    venv.create(home, with_pip=False)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(home), "platbase": str(home)}))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages), str(wheel)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    # the libraries come from the environment of the tests; a path in a .pth file brings no editable install along
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    work = tmp_path / "work"
    (work / "reports").mkdir(parents=True)
    for name in ("tasks.py", "interp.py", "reports/__init__.py"):
        (work / name).write_text("raise RuntimeError('a file of the user was imported')\n")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    flags = ["analyze", "patching", "--pairs", "1", "--pair-kind", "prompt", "--num-steps", "4", "--steps", "1", "--layers", "3"]
    line = [str(home / "bin" / "python"), "-m", "cos_interp.cli", *flags, "--workers", "1", "--out", "run"]
    done = subprocess.run(line, cwd=work, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (work / "run" / "report.html").is_file()
    where = [str(home / "bin" / "python"), "-c", "import cos_interp; print(cos_interp.__file__)"]
    found = subprocess.run(where, cwd=work, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    assert Path(found).is_relative_to(packages)
