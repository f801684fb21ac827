"""What Sphinx needs to know of the site; `python docs/build.py` makes it.

Pages are Markdown, read and run by MyST-NB: every page has a Python process of its own, whose code
blocks are run from the top, and whose values stand in the text by {eval}`name`. So no page states a
number that its own code has not just computed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "flax_transformer"
author = "The flax_transformer authors"
copyright = f"2026, {author}"
html_title = "The Transformer in JAX"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "mathml",
    "repository",
    "docstrings",
]
exclude_patterns = ["_site", "_work", "jupyter_execute"]
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
smartquotes = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 4

nb_execution_mode = "inline"  # which {eval} needs
nb_execution_timeout = 600
nb_execution_raise_on_error = False  # but run_pages.py does, when all pages have run
nb_execution_show_tb = False
nb_eval_name_regex = r".+"  # any expression, such as `f"{bleu:.1f}"`
nb_merge_streams = True
nb_output_stderr = "remove"
nb_number_source_lines = False
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
viewcode_line_numbers = True
nitpicky = False


def setup(app):
    app.add_config_value("made_from", "", "env")  # by another value all pages run again
