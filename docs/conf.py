"""How Sphinx builds the site (``make docs``).

Every page but ``index`` and ``api`` is plain reStructuredText, so that it also reads well where
nobody runs Sphinx: on a forge, and at ``/docs/plan`` of the daemon.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.logging import getLogger

from claudeproxy import __version__

log = getLogger(__name__)

project = "claudemax"
author = "the claudemax authors"
copyright = author
version = release = __version__

extensions = ["sphinx.ext.autodoc"]
# Furo: light and dark, usable on a telephone, and no option set. Read the Docs' own theme has no
# dark mode, and Sphinx's alabaster no navigation on a narrow screen.
html_theme = "furo"
html_title = f"claudemax {__version__}"
html_static_path = html_css_files = ["narrow.css"]
html_copy_source = False
html_show_copyright = False

default_role = "code"
smartquotes = False  # makes of the two hyphens of an option one dash
# What is set off with :: is shell, settings, pictures or Python; a wrong guess is worse than none.
highlight_language = "none"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
# Twisted's own objects are described in Twisted's own documentation; the build needs no network.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(twisted|klein|zope|os|pathlib|collections)\b.*")]

# What linkcheck is left with are files: the build must come out the same without a network.
linkcheck_ignore = [r"https?://"]

PAGES = {
    "README.rst": "start",
    "CHANGES.rst": "changes",
    "CONTRIBUTING.rst": "contributing",
    "SECURITY.rst": "reporting",
}
"""The pages that include a file of the root."""


class PageLinks(SphinxTransform):
    """Makes links to ``.rst`` files, which work on a forge, links between the site's pages; and
    finds the pictures of a page that stands in the root."""

    default_priority = 5

    def apply(self, **kwargs: Any) -> None:
        for image in self.document.findall(nodes.image):
            image["uri"] = image["uri"].removeprefix("docs/")
        for link in list(self.document.findall(nodes.reference)):
            path, _, anchor = link.get("refuri", "").partition("#")
            if ":" in path or not path.endswith(".rst"):
                continue
            if anchor:
                log.warning("%s: link to the page, not into it", link["refuri"], location=link)
            name = Path(path).name
            xref = pending_xref(
                "",
                nodes.inline("", link.astext()),
                refdomain="std",
                reftype="doc",
                refexplicit=link.astext() != path,  # else it reads as the page's title
                reftarget=f"/{PAGES.get(name, name.removesuffix('.rst'))}",
                refdoc=self.env.docname,
                refwarn=True,
            )
            xref.source, xref.line = link.source, link.line
            link.replace_self(xref)


def setup(app: Sphinx) -> None:
    app.add_transform(PageLinks)
