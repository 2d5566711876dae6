"""Sphinx extension: the teacher and the student, alive in a page.

    ```{fill-mask}
    If the file does not exist, a [MASK] is raised.
    Return the [MASK] of the array along the given axis.
    ```

gives a form with those sentences as examples. Until it is used, and wherever scripts are off, the
page shows what PyTorch answered to the first of them while the book was built. The models are
packed into `_static` by the build, so the repository holds their weights once; they are fetched
from there when the form is first used, by a `<script>` element, which browsers allow for pages
opened from a disk.
"""

from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from distil_lib.export.browser import fill_blank, stored_model

MODELS = ("teacher", "student")
FILES = ("fill_mask.js", "fill_mask_demo.js")
KEY = "fill_mask"  # in the metadata of pages that hold the form
WIDGET = """\
<div class="fill-mask" data-megabytes="{megabytes:.0f}">
  <form hidden>
    <label>A sentence with one blank, written [MASK] or ___
      <input type="text" name="text" value="{sentence}" autocomplete="off"
             autocapitalize="off" spellcheck="false"></label>
    <button type="submit">Fill the blank</button>
    <ul aria-label="Examples">{examples}</ul>
  </form>
  <noscript><p>Scripts are switched off in this browser, so the models cannot answer here;
    this is a recorded answer.</p></noscript>
  <p role="status">Recorded when the book was built: <q>{sentence}</q></p>
  <div class="fill-mask-answers">{answers}</div>
</div>
"""
ANSWER = """
    <section data-model="{name}" aria-label="{title}">
      <p><strong>{title}</strong> {description}</p>
      <ol>{words}</ol>
    </section>"""


def widget(sentences: list[str]) -> str:
    """The form as HTML, with PyTorch's answer to the first sentence.

    Raises `UserError` if that has not exactly one blank.
    """
    answers = []
    for name in MODELS:
        model, tokenizer, _ = stored_model(name)
        # The same markup as `fill_mask_demo.js` makes: the share is a number for readers and a
        # length for the bar behind it.
        words = "".join(
            f'<li style="--share: {share:.3f}"><span>{escape(word)}</span> '
            f"<span>{share:.0%}</span></li>"
            for word, share in fill_blank(model, tokenizer, sentences[0])
        )
        weights = sum(p.numel() for p in model.parameters()) / 1e6
        description = f"{model.config.n_layers} layers, {weights:.1f} million weights"
        answers.append(
            ANSWER.format(name=name, title=name.title(), description=description, words=words)
        )
    return WIDGET.format(
        megabytes=sum(len(stored_model(name)[2]) for name in MODELS) / 1e6,
        sentence=escape(sentences[0]),
        examples="".join(
            f'<li><button type="button">{escape(sentence)}</button></li>' for sentence in sentences
        ),
        answers="".join(answers),
    )


def write_models(folder: Path) -> None:
    """The scripts with the weights, where `fill_mask_demo.js` looks for them: beside itself."""
    for name in MODELS:
        (folder / f"fill_mask_{name}.js").write_text(stored_model(name)[2], encoding="ascii")


class FillMask(SphinxDirective):
    """One example sentence a line."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        sentences = [line.strip() for line in self.content if line.strip()]
        if not sentences:
            raise self.error(
                "fill-mask needs a sentence with [MASK] in it, and may have more, one a line."
            )
        self.env.metadata[self.env.docname][KEY] = "yes"
        return [nodes.raw("", widget(sentences), format="html")]


def add_files(
    app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None
) -> None:
    if KEY in app.env.metadata.get(pagename, ()):  # no other page carries these scripts
        app.add_css_file("fill_mask.css")
        for file in FILES:
            app.add_js_file(file, loading_method="defer")


def finish(app: Sphinx, error: Exception | None) -> None:
    if (
        error is None
        and app.builder.format == "html"
        and any(KEY in page for page in app.env.metadata.values())
    ):
        write_models(Path(app.outdir, "_static"))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("fill-mask", FillMask)
    app.connect("html-page-context", add_files)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
