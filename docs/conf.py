"""Configuration of the documentation site: `make docs`."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import crossray

project = "CrossRay"
author = "the CrossRay authors"
copyright = f"{author}; Apache-2.0. Research use only, not a medical device"
release = version = crossray.__version__

extensions = [
    "myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton",
    "constant_texts", "generated_pages", "mathml", "rooms", "source_links",
]  # fmt: skip
exclude_patterns = ["_build", "_ext", "figures/*.py"]
suppress_warnings = ["mystnb.unknown_mime_type"]

# Markdown
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "attrs_inline"]
myst_heading_anchors = 4
html_math_renderer = "mathml"
nb_custom_formats: dict[str, str] = {}
# `make notebooks` runs the tutorials; `make docs` shows their text and code alone.
nb_execution_mode = "cache" if os.environ.get("CROSSRAY_NOTEBOOKS") else "off"
nb_execution_cache_path = str(Path(__file__).parent / "_build" / "notebooks")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_render_markdown_format = "myst"

# Docstrings: Google style, with names of the package in single backquotes
default_role = "py:obj"
napoleon_use_ivar = True
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
add_module_names = False

smartquotes = False  # --option stays as it is typed
html_theme = "furo"
html_title = f"CrossRay {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "announcement": "Research use only. CrossRay is not a medical device.",
    "navigation_with_keys": True,
}
html_show_sourcelink = False
copybutton_prompt_text = "$ "
