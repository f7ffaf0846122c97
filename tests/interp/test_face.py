"""What the packages show: the lists agree, every name resolves and says what it is, and asking loads nothing heavy."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import cos_interp

ROOT = Path(__file__).resolve().parents[2]
LAZY = {
    "cos_interp": "src/cos_interp",
    **{f"cos_interp.{room}": room for room in ("interp", "probes", "tasks", "reports", "organism")},
}
FACES = (*LAZY, "cos_interp.analyses")
INSTRUMENT = {
    "HookedVideoPipeline", "Run", "ActivationCache", "Address", "Hook", "record", "replay", "restart", "Patch", "Recording",
    "EnsembleSampler", "check_adapter", "Adapter", "Site", "Stack", "register", "tiny", "InterpError", "UnknownHook",
    "BudgetExceeded", "NoAdapter", "AddressError", "sweep", "pixel_to_latent", "choose_seed", "ChosenSeed", "Steer", "steer",
    "attribute", "ActivationRows", "invert", "Inversion", "SeedScreen", "at_sigmas",
}  # fmt: skip


def for_type_checkers(folder: str) -> set[str]:
    """The names that a package imports from the project, at once or in its TYPE_CHECKING block."""
    tree = ast.parse((ROOT / folder / "__init__.py").read_text())
    blocks = [n for n in tree.body if isinstance(n, ast.If) and isinstance(n.test, ast.Name) and n.test.id == "TYPE_CHECKING"]
    imports = [n for block in (tree, *blocks) for n in block.body if isinstance(n, ast.ImportFrom)]
    imports = [n for n in imports if (n.module or "").startswith("cos_interp")]
    named = {alias.asname or alias.name for n in imports for alias in n.names} - {"*"}
    starred = [importlib.import_module(n.module).__all__ for n in imports if n.names[0].name == "*"]
    return named.union(*starred)


def defined(folder: str) -> set[str]:
    """The public names that a package defines itself."""
    tree = ast.parse((ROOT / folder / "__init__.py").read_text())
    functions = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    tables = {n.target.id for n in tree.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    return {name for name in functions | tables if not name.startswith("_")}


def test_every_lazy_package_is_looked_at():
    found = {path.parent for path in ROOT.glob("*/__init__.py") if "def __getattr__" in path.read_text()}
    assert found | {ROOT / "src/cos_interp"} == {ROOT / folder for folder in LAZY.values()}


@pytest.mark.parametrize("package", LAZY)
def test_the_lists_of_a_lazy_package_agree(package):
    module = importlib.import_module(package)
    assert for_type_checkers(LAZY[package]) == set(module.__all__) == set(dir(module))
    assert sorted(module.__all__) == sorted(set(module.__all__))


def test_the_experiments_show_what_they_define_and_nothing_that_only_types_need():
    from cos_interp import analyses

    assert defined("analyses") == set(analyses.__all__) == set(dir(analyses))
    assert not for_type_checkers("analyses") & set(analyses.__all__)


@pytest.mark.parametrize("package", FACES)
def test_every_public_name_is_there_and_says_what_it_is(package):
    module = importlib.import_module(package)
    assert set(dir(module)) == set(module.__all__)
    for name in module.__all__:
        value = getattr(module, name)
        if isinstance(value, dict):
            continue  # a table
        assert value.__doc__ and not value.__doc__.startswith(f"{name}("), f"{package}.{name} has no docstring of its own"
    with pytest.raises(AttributeError, match=f"{package!r} has no attribute 'nonsense'"):
        module.nonsense  # noqa: B018


def test_the_instrument_is_shown_by_its_room_and_by_the_package():
    import cos_interp
    from cos_interp import interp

    assert set(interp.__all__) == INSTRUMENT
    assert set(cos_interp.__all__) == INSTRUMENT | set(cos_interp.ROOMS)
    assert all(getattr(cos_interp, name) is getattr(interp, name) for name in INSTRUMENT)


def test_a_name_stays_what_it_is_when_its_module_was_imported_first():
    """A module of the name of a function would take the function's place."""
    from cos_interp import interp

    modules = {path.stem for path in (ROOT / "interp").iterdir()}
    assert not modules & set(interp.__all__)


def test_looking_at_the_face_loads_nothing_heavy():
    code = (
        "import sys, cos_interp, cos_interp.interp, cos_interp.probes\n"
        "dir(cos_interp), dir(cos_interp.interp), dir(cos_interp.probes)\n"
        "heavy = {'torch', 'diffusers', 'numpy', 'pandas', 'sklearn', 'nnsight'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    assert cos_interp.__version__ == version("cos-interp")


@pytest.mark.parametrize("room", ["reports", "organism"])
def test_rooms_of_modules_list_them(room):
    package = getattr(cos_interp, room)
    assert dir(package) == sorted(package.__all__) and all(getattr(package, name).__doc__ for name in package.__all__)
    with pytest.raises(AttributeError, match="it has"):
        package.nothing  # noqa: B018
