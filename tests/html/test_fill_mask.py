"""The models in the reader's browser: fill_mask.js in headless Chromium against `tokenizers` and
PyTorch. The box around it is a figure (test_figure_fill_in.py).
"""

import functools
import json
import re
import shutil
import unicodedata
from pathlib import Path

import pytest
import torch
from browser import Browser, missing_browser

from distil_lib.common.paths import PROJECT, data_folder
from distil_lib.export.browser import KINDS, as_packed, load_as_student, pack, stored_model
from distil_lib.initialization import initialize_student
from distil_lib.student import Student
from distil_lib.teacher import load_teacher
from distil_lib.text.docstrings import docstrings, paragraphs
from distil_lib.text.documentation import documentation_files
from distil_lib.text.documents import split_of
from distil_lib.text.tokenizer import load_tokenizer

MISSING = missing_browser()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
STATIC = PROJECT / "book" / "_static"
SENTENCE = "If the file does not exist, a [MASK] is raised."
PAGE = '<!doctype html><meta charset="utf-8">'
PAGE += '<script src="figures.js"></script><script src="fill_mask.js"></script>'
NASTY = [
    "", " ", "Crème brûlée, ÅNGSTRÖM and İstanbul", "e\u0301 is é, n\u0303 is ñ",
    "ΟΔΥΣΣΕΥΣ and ὀδυσσεύς", "Straße, ﬁne, Ǆ, ẞ", "漢字とカナ混じり文 and 한국어",
    "\U00020000\U0002f800 rare ideographs", "👩‍👩‍👧 🎉 ❤️", "مرحبا بالعالم", "हिन्दी में",
    "ภาษาไทย", "[MASK]", "a[MASK]b", "[mask] [Mask] [MASK][MASK]",
    "[[MASK]] [SEP]x[CLS] [PAD][UNK]", "MASK] [MASK", "x" * 100, "x" * 101, "é" * 100,
    "a\x00b\x07c\ufffdd\x7fe\x85f", "tab\tnew\nline\r\nend\x0b\x0c",
    "a\u00a0b\u2003c\u3000d\u2028e\u200bf\u00adg\ufeffh\ue000i", "$1 + 2 = 3 < 4 | ^~`",
    "don't-do_this... (ever)!?", "“quoted” ‘text’ — dash … «guillemets» ¿qué? 「」",
    "C++ foo.bar(baz=1)[2:3]", "½ ² ① Ⅷ ٣ ５", "ⓐ ﬀ Å K Ω", "\u0378 unassigned",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
]  # fmt: skip
# Bugs put in on purpose: a piece of fill_mask.js and what it is replaced by.
TOKENIZER_BUGS = [
    ('.normalize("NFD")', ""), ("c.toLowerCase()", "c"), (".replace(IDEOGRAPH", ".replace(/^$/"),
    ("length > LONGEST_WORD", "length > 999"), ('start ? "##" : ""', '""'), (r"-\/:-@", ""),
    (".replace(NOT_TEXT", ".replace(/^$/"), ("text.split(SPECIAL)", "[text]"),
    ('if (end === start) return ["[UNK]"]', "if (end === start) return found"),
    ("[...clean.", "[...clean.toLowerCase()."),
]  # fmt: skip
MODEL_BUGS = [
    (" / Math.sqrt(size)", ""), ("variance + epsilon", "variance + 1e-3"),
    ("bias[o] + dot", "dot"), ("j => dot", "j => j <= i && dot"),
    ("v += a[i + 3] * b[j + 3];", ""),
    ("Math.SQRT1_2", "0.85"), ("add(x, places)", "x"),
    ("this.norm(gelu(", "this.norm(("), ("floats[Math.floor(i / columns)]", "floats[0]"),
]  # fmt: skip


@functools.cache
def held_out_sentences(number: int = 1000) -> list[str]:
    """Sentences of installed documentation that no model and no tokenizer of this book has been
    trained on.
    """
    packages = ("numpy", "scipy", "pandas", "matplotlib", "scikit-learn", "sympy")
    files = [file for file in documentation_files(packages) if split_of(file["name"]) == "held_out"]
    docs = (doc for file in files for doc in docstrings(Path(file["path"]).read_bytes()))
    found = list(
        dict.fromkeys(
            s for doc in docs for p in paragraphs(doc) for s in re.split(r"(?<=[.!?:]) ", p)
        )
    )
    assert len(found) >= number
    return found[:: len(found) // number][:number]


@functools.cache
def blanks(number: int, longest: int = 64) -> list[str]:
    """Held-out sentences of all lengths, a word of each hidden."""
    tokenizer, texts = load_tokenizer(data_folder("tokenizer")), []
    for i, sentence in enumerate(held_out_sentences()):
        words = sentence.split()
        words[i % len(words)] = "[MASK]"
        if 4 <= len(tokenizer(" ".join(words))["input_ids"]) <= longest:
            texts.append(" ".join(words))
    return texts[:: len(texts) // number][:number]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A page with the script, and the packed models beside it."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("figures", "fill_mask"):
        shutil.copy(STATIC / f"{name}.js", folder)
    for name in ("teacher", "student"):
        (folder / f"fill_mask_{name}.js").write_text(stored_model(name)[2], encoding="ascii")
    (folder / "page.html").write_text(PAGE, encoding="utf-8")
    return folder


class ScriptPage:
    """The opened page: `page(expression)` is what the expression, which may await, gives there."""

    def __init__(self, browser: Browser, folder: Path):
        self.browser, self.folder, self.window = browser, folder, None
        self.source = (STATIC / "fill_mask.js").read_text(encoding="utf-8")

    def open(self) -> None:
        self.window = self.browser.window()
        self.page = self.window.page
        self.page.goto((self.folder / "page.html").as_uri())

    def __call__(self, expression: str):
        return self.page.evaluate(f"(async () => {expression})()")

    def load(self, script: Path) -> None:
        """What is packed in a script, as `window.packed`."""
        self(f"""await new Promise((resolve, reject) => document.head.append(
            Object.assign(document.createElement("script"),
            {{src: {json.dumps(script.as_uri())}, onload: resolve, onerror: reject}})))""")
        self("(window.packed = Object.values(FILL_MASK_MODELS)[0], 0)")

    def with_bug(self, bug: tuple[str, str] = ("", "")) -> str:
        """An expression for `FillMask`, or for what it is with a bug put in."""
        changed = self.source.replace(*bug, 1) if bug[0] else self.source
        assert not bug[0] or changed != self.source, f"{bug[0]!r} is no longer in fill_mask.js"
        return f"new Function({json.dumps(changed + '; return FillMask')})()"

    def logits(self, texts: list[str], bug: tuple[str, str] = ("", "")) -> torch.Tensor:
        """(N, V): what the packed model scores at the blank of each text.

        Rounded to float32, as numbers travel as text.
        """
        return torch.tensor(
            self(f"""{{
            const model = new ({self.with_bug(bug)}).Model(packed);
            const mask = model.tokenizer.ids.get("[MASK]");
            return {json.dumps(texts)}.map((text) => {{
              const ids = model.tokenizer.encode(text);
              const scores = model.logits(ids, ids.indexOf(mask));
              return [...scores].map((score) => +score.toPrecision(8));
            }});
        }}""")
        )


@pytest.fixture
def page(browser, folder):
    page = ScriptPage(browser, folder)
    page.open()
    yield page
    page.page.context.close()


def expected_logits(model, texts: list[str]) -> torch.Tensor:
    tokenizer = load_tokenizer(data_folder("tokenizer"))
    with torch.no_grad():
        encoded = [tokenizer(text, return_tensors="pt")["input_ids"] for text in texts]
        return torch.cat(
            [model(ids, None, ids == tokenizer.mask_token_id).logits for ids in encoded]
        )


# ------------------------------------------------------------------------------------ the tokenizer
def words_of(tokenizer, text: str) -> list[str]:
    """What `tokenizers` cuts into pieces."""
    steps = tokenizer.backend_tokenizer
    return [
        word
        for word, _ in steps.pre_tokenizer.pre_tokenize_str(steps.normalizer.normalize_str(text))
    ]


def test_ids_are_those_of_the_tokenizer(page):
    tokenizer = load_tokenizer(data_folder("tokenizer"))
    vocabulary = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    texts = [*held_out_sentences(), *NASTY, *(text[::-1] for text in NASTY)]
    expected = [
        [ids, words_of(tokenizer, text)]
        for ids, text in zip(tokenizer(texts)["input_ids"], texts, strict=True)
    ]

    def in_the_page(bug: tuple[str, str] = ("", "")) -> list[list]:
        return page(f"""{{
            const tokenizer = new ({page.with_bug(bug)}).Tokenizer({json.dumps(vocabulary)});
            return {json.dumps(texts)}.map(
              (text) => [tokenizer.encode(text), tokenizer.words(text)]); }}""")

    wrong = [
        text
        for text, mine, theirs in zip(texts, in_the_page(), expected, strict=True)
        if mine != theirs
    ]
    assert wrong == []
    for bug in TOKENIZER_BUGS:  # the texts would show them
        assert in_the_page(bug) != expected, bug


def test_every_character_is_treated_alike(page):
    """All of Unicode 3.2 that has kept its category since: beyond it, browser and `tokenizers` go
    by different editions.
    """
    old = unicodedata.ucd_3_2_0
    tokenizer = load_tokenizer(data_folder("tokenizer"))
    characters = [
        c
        for c in map(chr, range(0x110000))
        if old.category(c) == unicodedata.category(c) not in ("Cn", "Cs", "Co")
    ]
    assert len(characters) > 90_000
    wrong = []
    for start in range(0, len(characters), 20_000):
        texts = [f"a{c}b" for c in characters[start : start + 20_000]]
        mine = page(
            "{ const t = new FillMask.Tokenizer([]);"
            f" return {json.dumps(texts)}.map((text) => t.words(text)); }}"
        )
        theirs = [words_of(tokenizer, text) for text in texts]
        wrong += [(text, a, b) for text, a, b in zip(texts, mine, theirs, strict=True) if a != b]
    assert wrong == []


# ---------------------------------------------------------------------------------------- the model
@pytest.mark.parametrize("name", ["teacher", "student"])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_pytorch(page, name, kind):
    """With float32 weights, those of the stored model itself, BERT as BERT; with int8, of the model
    with the rounded weights.
    """
    folder, texts = data_folder(name), blanks(12)
    student = load_as_student(folder)
    script = page.folder / f"{kind}.js"
    script.write_text(pack(student, load_tokenizer(folder), name, kind, positions=64))
    page.load(script)
    stored = load_teacher(folder) if name == "teacher" else Student.from_pretrained(folder)
    expected = expected_logits(as_packed(student) if kind == "int8" else stored, texts)
    assert expected.std() > 1  # the comparison is about something
    torch.testing.assert_close(page.logits(texts), expected, rtol=0, atol=1e-3)
    if (name, kind) == ("student", "int8"):
        for bug in MODEL_BUGS:
            assert (page.logits(texts[:4], bug) - expected[:4]).abs().max() > 0.01, bug


@pytest.mark.parametrize("kept", [[0, 2, 5], [4], [5, 2, 0]])
def test_some_layers_alone_are_the_cut_model(page, kept):
    page.load(page.folder / "fill_mask_teacher.js")
    text = SENTENCE
    scores = page(f"""{{
        const model = new FillMask.Model(packed), {{ ids, place }} = model.read({json.dumps(text)});
        return [...model.logits(ids, place, {{ layers: {kept} }})]; }}""")
    cut = initialize_student(as_packed(load_as_student(data_folder("teacher"))), kept).eval()
    torch.testing.assert_close(
        torch.tensor([scores]), expected_logits(cut, [text]), rtol=0, atol=1e-3
    )


def test_the_student_is_quick(page):
    """Far below a second on an idle core; the bound leaves room for a busy machine, and none for an
    arithmetic gone wrong.
    """
    tokenizer = load_tokenizer(data_folder("tokenizer"))
    text = next(t for t in blanks(400) if len(tokenizer(t)["input_ids"]) == 32)
    medians = {}
    for name in ("student", "teacher"):
        page("(delete globalThis.FILL_MASK_MODELS, 0)")
        page.load(page.folder / f"fill_mask_{name}.js")
        medians[name] = page(f"""{{
            const model = new FillMask.Model(packed), times = [];
            for (let run = 0; run < 9; run++) {{
              const begin = performance.now();
              const {{ ids, place }} = model.read({json.dumps(text)});
              Figures.softmax(model.logits(ids, place));
              times.push(performance.now() - begin);
            }}
            return times.sort((a, b) => a - b)[4]; }}""")
    print(f"\nmedian of 9 runs at 32 tokens: {medians}")
    assert medians["student"] < 3000
