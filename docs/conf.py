"""How the site is made: ``sphinx-build -W -n docs OUT``, or ``tox -e docs``."""

import builtins
import os
import posixpath
import re
import subprocess
import sys
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

import memlimits
import memlimits.testing

ROOT = Path(__file__).parents[1]

project = "memlimits"
copyright = "the authors of memlimits"
version = release = memlimits.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
templates_path = ["_templates"]
nitpicky = True

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 4

# ---- the reference ----

default_role = "py:obj"
add_module_names = False
autodoc_preserve_defaults = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autosummary_generate = False
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False
numpydoc_attributes_as_param_list = True
# A name that is documented and lacks one of these fails the build.
numpydoc_validation_checks = {
    "EX01",  # an example
    "GL06",  # an unknown section
    "GL07",  # sections in another order
    "GL08",  # a docstring
    "GL09",  # where a deprecation stands
    "PR01",  # each parameter,
    "PR02",  # and none that is not there,
    "PR03",  # in the order of the signature,
    "PR04",  # with its type
    "PR05",
    "PR07",  # and a description
    "PR10",
    "RT01",  # what is returned,
    "RT03",  # with a description
    "SA01",  # what else to look at
    "SS01",  # a summary,
    "SS03",  # that is a sentence,
    "SS04",
    "SS06",  # on one line
    "YD01",  # what is yielded
}
# What a function makes has its example there; what is made from a text has attributes.
numpydoc_validation_overrides = {
    "EX01": [r"Made by `"],
    "PR01": [r"Made by `", r"made from a text"],
    # Compiled classes have no signature to compare with.
    "PR02": [r"^Limits for a part of a program"],
}
# Methods: tests/site/test_reference.py asks less of them.
numpydoc_validation_exclude = {r"\.[A-Z]\w+\.\w+$", r"\.limits\.\w+$"}

# Modules that are made when something in them is first used.
memlimits.testing.fail()
memlimits.govern_python  # noqa: B018

# What C has by itself.
nitpick_ignore = [("c:identifier", "size_t")]

# The modules that a name in a docstring may be of, the first that has it.
MODULES = (
    "memlimits",
    "memlimits.errors",
    "memlimits.figures",
    "memlimits.system",
    "memlimits.pools",
    "memlimits.processes",
    "memlimits.cuda",
    "memlimits.metal",
    "memlimits.testing",
    "memlimits.recording",
    "memlimits.recording.history",
    "memlimits.adapters.dask",
    "memlimits.adapters.jupyter",
    "memlimits.adapters.mlx",
    "memlimits.adapters.prometheus",
    "memlimits.adapters._governing",
    "memlimits._bindings.failures",
)
_ARGUMENTS = re.compile(r"^ *((?:\*{0,2}\w+(?:, )?)+)(?: : .*)?$")
_SECTIONS = ("Parameters", "Attributes")


def quote_arguments(app, what, name, obj, options, lines):
    """Have arguments and attributes, which are no names to link to, be literals in a docstring."""
    names, inside = set(), False
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if below.startswith("---"):
            inside = line in _SECTIONS
        elif inside and line and not line[0].isspace() and (found := _ARGUMENTS.match(line)):
            names |= {each.strip("* ") for each in found[1].split(",")}
    if names:
        argument = re.compile(rf"(?<![`:])`({'|'.join(names)})`(?!`)")
        lines[:] = [argument.sub(r"``\1``", line) for line in lines]


def is_pythons(name):
    """Whether it is a builtin, or of a module of Python's."""
    first = name.split(".")[0]
    return hasattr(builtins, first) or first in sys.stdlib_module_names


def resolve(app, env, node, text):
    """Find what a name in a docstring means from wherever it stands."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    domain = env.get_domain("py")
    for name in (f"{module}.{target}" for module in MODULES):
        # Attributes stand in the entry of their class.
        for known in (name, name.rpartition(".")[0]):
            if known in domain.objects and (known == name or known not in MODULES):
                entry = domain.objects[known]
                source = node.get("refdoc", env.docname)
                return make_refnode(app.builder, source, entry.docname, entry.node_id, text)
    return text if is_pythons(target) else None


def said(*words):
    command = [sys.executable, "-m", "memlimits", *words, "--help"]
    environ = {**os.environ, "COLUMNS": "92", "NO_COLOR": "1", "PYTHON_COLORS": "0"}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout


class CommandHelp(SphinxDirective):
    """What ``memlimits`` says of its commands and, in a section for each, of their options."""

    def run(self):
        whole = said()
        parts = [self.block(whole)]
        for command in re.findall(r"^ {2,4}([a-z]+) {2,}[a-z]", whole, re.M):
            title = nodes.title("", f"memlimits {command}")
            section = nodes.section("", title, ids=[f"memlimits-{command}"])
            section += self.block(said(command))
            parts.append(section)
        return parts

    def block(self, text):
        return nodes.literal_block(text, text, language="text")


# ---- pages ----

_LINK = re.compile(r"(?<!!)\[([^\[\]]*)\]\(((?:\.\./)+[^)#\s]+)(#[^)\s]*)?\)")
# A workflow of GitHub's says where the sources are. Elsewhere nothing links to them.
REPOSITORY = os.environ.get("GITHUB_REPOSITORY")


def read_page(app, docname, source):
    """Link to the repository for what is outside of the site."""
    folder = posixpath.dirname(docname)

    def link(match):
        text, target, place = match.groups("")
        path = posixpath.normpath(posixpath.join("docs", folder, target))
        if path.startswith("docs/"):
            return match[0]
        if path == "CHANGELOG.md":
            return f"[{text}]({posixpath.relpath('changelog.md', folder or '.')}{place})"
        if not (ROOT / path).exists():
            raise ValueError(f"docs/{docname}.md links to {path}, which is not there")
        if REPOSITORY is None:
            return text
        return f"[{text}](https://github.com/{REPOSITORY}/blob/main/{path}{place})"

    source[0] = _LINK.sub(link, source[0])


# ---- the pages' looks ----

html_theme = "pydata_sphinx_theme"
html_title = "memlimits"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["search.js"]
html_favicon = "_static/mark.svg"
html_show_sourcelink = False
html_show_sphinx = False
html_copy_source = False
# Pages that are in no folder have no others beside them.
html_sidebars = {"*": []}
html_context = {"default_mode": "auto"}
html_theme_options = {
    "logo": {
        "text": "memlimits",
        "image_light": "_static/mark.svg",
        "image_dark": "_static/mark.svg",
    },
    "header_links_before_dropdown": 4,
    "navbar_align": "left",
    "navbar_end": ["theme-switcher", "navbar-icon-links"],
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "a11y-light",
    "pygments_dark_style": "a11y-dark",
}
copybutton_exclude = ".linenos, .gp, .go"


def setup(app):
    app.add_directive("command-help", CommandHelp)
    app.connect("source-read", read_page)
    # Before numpydoc, which makes fields of the sections.
    app.connect("autodoc-process-docstring", quote_arguments, priority=400)
    app.connect("missing-reference", resolve)
