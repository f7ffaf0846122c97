"""The site made of these pages: ``make docs`` writes it to docs/_build/html. Neither making nor reading it fetches anything."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "site"), str(HERE.parent / "src")]

project = "cos-interp"
copyright = "the cos-interp authors"
version = release = installed("cos-interp")
language = "en_GB"
smartquotes = False  # options begin with two hyphens

extensions = ["sphinx.ext.autodoc", "myst_parser", "site_experiments", "site_maths", "site_architecture"]
exclude_patterns = ["_build", "site"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # pages of an experiment begin with what is made of its settings

html_theme = "furo"
html_static_path = ["site/static"]
html_css_files = ["site.css"]
html_title = f"cos-interp {version}"
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"footer_icons": []}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "imported-members": True}
python_use_unqualified_type_names = True

# What a docstring names must be there, where it is of the documented faces; types of other libraries are not looked up.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!cos_interp).*"), ("py:.*", r"cos_interp\.(?!interp$|probes$|analyses$|tasks$)[a-z_]+\..*")]

# pages that lie elsewhere in the repository, and where the site shows them
ELSEWHERE = {f"](../organism/{card}/README.md)": "](model-cards.md)" for card in ("weights", "variants/young")}


def _moved(app: Sphinx, name: str, source: list[str]) -> None:
    for there, here in ELSEWHERE.items():
        source[0] = source[0].replace(there, here)


def setup(app: Sphinx) -> None:
    app.connect("source-read", _moved)
