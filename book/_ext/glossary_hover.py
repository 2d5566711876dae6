"""Sphinx extension: the definition of a term beside each link to the glossary.

    {term}`temperature`

links to the glossary, as in every Sphinx book. On HTML pages the first paragraph of the definition
follows the link, out of sight until the link is pointed at or has the focus (`custom.css`); Escape
puts it away (`glossary_hover.js`). The definition is part of the page: nothing is fetched, so it
works for pages opened from a disk and with scripts switched off.
"""

from pathlib import Path

from docutils import nodes
from rjsmin import jsmin
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


def definitions(env: BuildEnvironment) -> dict[str, nodes.paragraph]:
    """{anchor: first paragraph} of every glossary of the book."""
    found: dict[str, nodes.paragraph] = {}
    objects = env.get_domain("std").get_objects()
    for document in {document for _, _, kind, document, _, _ in objects if kind == "term"}:
        for item in env.get_doctree(document).findall(nodes.definition_list_item):
            paragraph = next(iter(item.findall(nodes.paragraph)), None)
            if paragraph is not None:
                terms = (child for child in item if isinstance(child, nodes.term))
                found |= {anchor: paragraph for term in terms for anchor in term["ids"]}
    return found


def plain(node: nodes.Node) -> list[nodes.Node]:
    """Copies of the node's children without links: a definition that appears and goes again holds
    nothing to be reached.
    """
    copies: list[nodes.Node] = []
    for child in node.children:
        if isinstance(child, nodes.Text | nodes.math | nodes.literal):
            copies.append(child.deepcopy())
        elif isinstance(child, nodes.emphasis | nodes.strong):
            copies.append(type(child)("", "", *plain(child)))
        else:
            copies += plain(child)
    return copies


def add_definitions(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    if app.builder.format != "html":
        return
    links = [
        link
        for link in doctree.findall(nodes.reference)
        if any("std-term" in inline["classes"] for inline in link.findall(nodes.inline))
    ]
    known = definitions(app.env) if links else {}
    for number, link in enumerate(links):
        anchor = link.get("refuri", "").partition("#")[2] or link.get("refid", "")
        if anchor in known:
            name = f"definition-{number}"
            begin = f'<span class="definition" role="tooltip" id="{name}">'
            definition = [
                nodes.raw("", begin, format="html"),
                *plain(known[anchor]),
                nodes.raw("", "</span></span>", format="html"),
            ]
            around = f'<span class="term" data-definition="{name}">'
            position = link.parent.index(link)
            link.parent[position : position + 1] = [
                nodes.raw("", around, format="html"),
                link,
                *definition,
            ]


def write_script(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        folder = Path(app.outdir, "_static")
        source = (folder / "glossary_hover.js").read_text(encoding="utf-8")
        (folder / "glossary_hover.min.js").write_text(jsmin(source), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-resolved", add_definitions)
    app.connect("build-finished", write_script)
    app.add_js_file("glossary_hover.min.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
