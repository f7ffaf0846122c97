"""Nothing reads pickles; the command line starts without heavy libraries."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("interp", "reports", "tasks", "probes", "analyses", "organism", "cli")


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def sources(package: str) -> list[Path]:
    return [ROOT / "cli.py"] if package == "cli" else sorted((ROOT / package).rglob("*.py"))


def test_no_pickle_reader():
    for package in PACKAGES:
        for path in sources(package):
            text = path.read_text()
            assert not imported(path) & {"pickle", "joblib", "dill", "cloudpickle"}, path
            assert "torch.load(" not in text and "torch.save(" not in text, path


def test_help_loads_no_heavy_library():
    code = (
        "import sys\nfrom cos_interp import cli\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(cli.app, ['analyze', 'patching', '--help']).exit_code == 0\n"
        "heavy = {'torch', 'diffusers', 'numpy', 'pandas', 'matplotlib', 'nnsight', 'av'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_first_help_loads_no_experiment():
    code = (
        "import sys\nfrom cos_interp import cli\nfrom typer.testing import CliRunner\n"
        "said = CliRunner().invoke(cli.app, ['--help']).output\n"
        "assert all(name in said for name in cli.GROUPS), said\n"
        "assert not {'cos_interp.analyses', 'pydantic'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_drawing_leaves_pyplot_as_it_is():
    """A notebook's backend is not changed, and no figure stays open."""
    code = (
        "import matplotlib\nmatplotlib.use('svg')\n"
        "import pandas as pd\nfrom cos_interp.reports.figures import bars, matrix_maps\n"
        "table = pd.DataFrame([[0.0, 1.0], [1.0, 0.5]])\n"
        "assert '<svg' in bars(pd.DataFrame({'name': ['a'], 'mean': [1.0], 'low': [0.5], 'high': [1.5]}), 'y').svg\n"
        "assert '<svg' in matrix_maps([('one', table)], 'x', 'y', 'effect').svg\n"
        "import matplotlib.pyplot as plt\n"
        "assert matplotlib.get_backend() == 'svg' and not plt.get_fignums()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
