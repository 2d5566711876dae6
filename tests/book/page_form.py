"""Reads a page of the book and names every departure from the form that all pages share.

    faults_of(read_page(Path("book/02_temperature.ipynb")), terms)     # [] if there are none

CONTRIBUTING.md says in words what is held here. Pages with a number are the main path, those with a
letter go deeper; the others (what we found) keep only to the rules that all pages share.
"""

import ast
import html
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

HEADINGS = (
    "What you will learn", "Predict first", "By hand", "The equation", "In the library",
    "On real text", "Drag it", "The paper and ours", "Exercises", "Take away", "Next",
)  # fmt: skip
OPTIONAL = "Drag it"
# The first page shows what it is about before all else, and has headings of its own between these.
OF_THE_START = ("What you will learn", "Predict first", "Exercises", "Take away", "Next")
WORDS, WORDS_OF_THE_START = 2000, 1200
CODE_CELLS, VISIBLE_LINES, VISIBLE_IMPORTS, COLUMNS = 25, 199, 5, 100
WORDS_A_MINUTE, MINUTES_OFF = 200, 2
SETUP = "set-up"  # the id of the cell that every page begins with
PROMPT = re.compile(r"Show (the|how) \w")  # such as "Show the checks"; not "Show code cell source"
FOLDED = {"hide-input", "remove-input", "hide-cell", "remove-cell"}
# Only states are hidden; and a sentence says who does what.
AVOIDED = re.compile(
    r"\b(hidden words?|(?<!of )one can|can be told|whoever|nobody|somebody)\b", re.IGNORECASE
)
QUIZ = re.compile(
    r'<details class="quiz(?P<right> right)?" name="(?P<name>[\w-]+)">\s*'
    r"<summary>(?P<choice>.*?)</summary>(?P<why>.*?)</details>",
    re.DOTALL,
)
TERM = re.compile(r"\{term\}`(?:[^`<]*<)?([^`<>]+)>?`")
EXERCISE = re.compile(r"`{3,}\{exercise\}(?P<title>.*)\n:label: *(?P<label>\S+)")
SOLUTION = re.compile(r"`{3,}\{solution(?:-start)?\} *(\S+)")
TIME = re.compile(r"\*\*Time:\*\* (\d+) minutes? to read, .*\bto run")
NUMBER = re.compile(r"(?<![\w.^{])\d[\d,]*(?:\.\d+)?")
CELL_NUMBER = re.compile(
    r"(?<![A-Za-z_])(?:(?:\d{1,3}(?:,\d{3})+|\d[\d_]*)(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?"
)
# What a number in a sentence may be a name of, instead of a finding.
NAMES = re.compile(
    r"\b(tables?|figures?|fig\.|chapters?|sections?|equations?|pages?|layers?)\s+\d[\d.]*"
    r"|\b95% (?=(\w+ )?(interval|bar))|\b(intervals?|bars?) of 95%",
    re.IGNORECASE,
)
SCALES = {"%": 100, " per": 100, " poi": 100, " tho": 1e-3, " mil": 1e-6, " MB": 1e-6, " bil": 1e-9}


@dataclass
class Page:
    """A stored notebook, read once."""

    name: str
    cells: list[dict]

    @property
    def on_main_path(self) -> bool:
        return self.name[:2].isdigit()

    @property
    def is_lettered(self) -> bool:
        return bool(re.match(r"[a-z]_", self.name))

    @cached_property
    def code(self) -> list[dict]:
        return [cell for cell in self.cells if cell["cell_type"] == "code"]

    @cached_property
    def visible(self) -> list[dict]:
        return [c for c in self.code if not FOLDED & set(c["metadata"].get("tags", []))]

    @cached_property
    def markdown(self) -> str:
        return "\n\n".join(source(c) for c in self.cells if c["cell_type"] == "markdown")

    @cached_property
    def prose(self) -> str:
        """The markdown without its code."""
        text = re.sub(r"^(`{3,})(?!\{)\w.*?^\1", "", self.markdown, flags=re.DOTALL | re.MULTILINE)
        return re.sub(r"(?<![`}])`[^`\n]+`", "", text)

    @cached_property
    def figures(self) -> list[tuple[str, str]]:
        """(caption, alternative text) of every cell that has drawn something."""
        found = []
        for cell in self.code:
            if any(k.startswith("image/") for out in cell["outputs"] for k in out.get("data", {})):
                shown = cell["metadata"].get("mystnb", {})
                found.append(
                    (
                        shown.get("figure", {}).get("caption", ""),
                        shown.get("image", {}).get("alt", ""),
                    )
                )
        return found

    @cached_property
    def known_numbers(self) -> set[float]:
        """All that its cells print or hold: what prose may say of a result."""
        texts = [source(cell) for cell in self.code]
        for cell in self.code:
            for output in cell["outputs"]:
                texts.append("".join(output.get("text", [])))
                for kind, data in output.get("data", {}).items():
                    if kind.startswith("text/"):
                        texts.append(html.unescape(re.sub(r"<[^>]+>", " ", "".join(data))))
        return {
            float(number.replace(",", "").replace("_", ""))
            for text in texts
            for number in CELL_NUMBER.findall(text)
        }


def source(cell: dict) -> str:
    return "".join(cell["source"])


def read_page(path: Path) -> Page:
    return Page(path.stem, json.loads(path.read_text(encoding="utf-8"))["cells"])


def glossary_entries(path: Path) -> dict[str, str]:
    """{term: what is said of it}; the terms are the glossary's lines that are not indented."""
    inside = path.read_text(encoding="utf-8").partition("```{glossary}\n")[2].partition("\n```")[0]
    parts = re.split(r"^(\S.*)$", inside, flags=re.MULTILINE)
    return {term.strip(): said for term, said in zip(parts[1::2], parts[2::2], strict=True)}


def glossary_faults(path: Path, unwritten: Collection[str] = ()) -> Iterator[str]:
    """Terms without a page that explains them. `unwritten`: pages that are not judged yet."""
    for term, said in glossary_entries(path).items():
        named = re.search(r"^  Page: \[\]\(([\w.]+)\)$", said, re.MULTILINE)
        page = path.parent / named[1] if named else path
        if not named or not page.is_file():
            yield f"{term}: its page {named[1] if named else ''} is not there"
        elif page.stem not in unwritten:
            text = read_page(page).markdown.lower()
            words = re.findall(r"[\w-]+", term.lower().replace("'s", ""))
            if not all(word[:5] in text for word in words):
                yield f"{term}: {page.name} does not speak of it"


def faults_of(page: Page, terms: Collection[str]) -> list[str]:
    """One sentence for every fault; [] for a page as it should be."""
    found = [*shared_faults(page, terms)]
    if page.on_main_path:
        found += main_path_faults(page)
    if page.is_lettered:
        found += lettered_faults(page)
    return found


def main_path_faults(page: Page) -> Iterator[str]:
    words = len(page.markdown.split())
    lines = [line for c in page.visible for line in source(c).splitlines() if line.strip()]
    imports = sum(bool(re.match(r"\s*(import|from) ", line)) for line in lines)
    most = WORDS_OF_THE_START if page.name.startswith("00") else WORDS
    for number, limit, what in (
        (words, most, "words"),
        (len(page.code), CODE_CELLS, "code cells"),
        (len(lines), VISIBLE_LINES, "visible lines of code"),
        (imports, VISIBLE_IMPORTS, "visible imports"),
    ):
        if number > limit:
            yield f"{number} {what}, more than {limit}"

    headings = re.findall(r"^## (.+?)\s*$", page.prose, re.MULTILINE)
    expected = [heading for heading in HEADINGS if heading != OPTIONAL]
    given = [heading for heading in headings if heading != OPTIONAL]
    if page.name.startswith("00"):
        expected, given = list(OF_THE_START), [h for h in headings if h in OF_THE_START]
    elif OPTIONAL in headings and headings[headings.index(OPTIONAL) - 1] != "On real text":
        given = []
    if given != expected:
        yield f"headings are {' | '.join(headings)}"
    before = page.markdown.partition("\n## ")[0]
    if not re.match(r"# .+\n", before) or not re.search(r"^\*[^*].*?\*$", before, re.M | re.DOTALL):
        yield "no title with a claim in italics below it"
    time = TIME.search(page.markdown)
    if not time:
        yield "no line '**Time:** N minutes to read, about M minutes to run'"
    elif abs(int(time[1]) - words / WORDS_A_MINUTE) > MINUTES_OFF:
        yield f"{time[1]} minutes to read for {words} words"

    for heading in ("Predict first", "Take away"):
        if not QUIZ.search(section(page, heading)):
            yield f"no quiz under '{heading}'"
    if not re.search(r"\]\([\w/]+\.(ipynb|md)\)", section(page, "Next")):
        yield "'Next' links no page"
    exercises = list(EXERCISE.finditer(page.markdown))
    if len(exercises) < 3:
        yield f"{len(exercises)} exercises, fewer than 3"
    solutions, code = SOLUTION.findall(page.markdown), "\n".join(map(source, page.code))
    for exercise in exercises:
        label = exercise["label"]
        if "★" not in exercise["title"]:
            yield f"{label} has no stars"
        if label not in solutions or not re.search(rf"check\(\s*[\"']{label}[\"']", code):
            yield f"{label} has no solution that is checked"

    for cell in page.visible:
        text = source(cell)
        if re.search(r"\bplt\.|\.plot\(", text):
            yield f"a plot in sight: {first_line(text)}"
        statements = ast.parse(text).body
        if sum(isinstance(s, ast.Assert) for s in statements) * 2 > len(statements):
            yield f"checks in sight: {first_line(text)}"


def lettered_faults(page: Page) -> Iterator[str]:
    title = re.match(r"# (\w)\. ", page.markdown)
    if not title or title[1].lower() != page.name[0]:
        yield f"its title does not begin with '{page.name[0].upper()}. '"
    text = page.markdown.partition("\n")[2].lstrip("\n *_>").partition("\n\n")[0]
    if not re.match(r"(This page is )?for (?!example)", text, re.IGNORECASE):
        yield "it does not begin with 'For whom'"


def shared_faults(page: Page, terms: Collection[str]) -> Iterator[str]:
    for cell in page.code:
        text = source(cell)
        for line in text.splitlines():
            if len(line) > COLUMNS:
                yield f"a line of {len(line)} columns: {line.strip()[:40]}"
        tags = set(cell["metadata"].get("tags", []))
        prompt = cell["metadata"].get("mystnb", {}).get("code_prompt_show", "")
        if "hide-input" in tags and cell.get("id") != SETUP and not PROMPT.match(prompt):
            yield f"a folded cell without a prompt of its own: {first_line(text)}"

    for caption, alt in page.figures:
        if not caption or len(alt.split()) < 5:
            yield f"a figure without caption or alternative text: {caption[:40] or alt[:40]}"
        for what, text in (("caption", caption), ("alternative text", alt)):
            for number in unknown_numbers(text, page.known_numbers):
                yield f"{what}: no cell prints or holds {number}: {text[:60]}"
    figures = " ".join(text for figure in page.figures for text in figure)
    for avoided in AVOIDED.finditer(f"{page.prose} {figures}"):
        around = avoided.string[max(0, avoided.start() - 20) : avoided.end() + 20]
        yield f"'{avoided[0]}' in '{' '.join(around.split())}'"

    yield from quiz_faults(page)
    used = Counter(" ".join(term.split()) for term in TERM.findall(page.markdown))
    for term, times in used.items():
        if times > 1:
            yield f"the term {term!r} is linked {times} times"
        if term.lower() not in {known.lower() for known in terms}:
            yield f"the term {term!r} is not in the glossary"


def quiz_faults(page: Page) -> Iterator[str]:
    quizzes: dict[str, list[re.Match]] = {}
    for choice in QUIZ.finditer(page.markdown):
        quizzes.setdefault(choice["name"], []).append(choice)
    if sum(map(len, quizzes.values())) != page.markdown.count('<details class="quiz'):
        yield "a choice of a quiz that cannot be read: see CONTRIBUTING.md for the form"
    for name, choices in quizzes.items():
        right = [choice for choice in choices if choice["right"]]
        if len(right) != 1 or len(choices) < 2:
            yield f"{name}: {len(right)} right answers of {len(choices)}"
        for choice in choices:
            if re.search(r"[`$]|\*\w", choice["choice"]):
                yield f"{name}: markup in '{choice['choice']}', which is plain HTML"
            begins = "Right:" if choice["right"] else "Wrong:"
            explanation = choice["why"].strip()
            if not explanation.startswith(begins) or len(explanation.split()) < 4:
                yield f"{name}: '{choice['choice']}' has no explanation that begins '{begins}'"
            said = explanation + (" " + choice["choice"] if choice["right"] else "")
            for number in unknown_numbers(said, page.known_numbers):
                yield f"{name}: no cell prints or holds {number} of '{choice['choice']}'"


def section(page: Page, heading: str) -> str:
    """The markdown between a heading and the next of its level."""
    return f"\n{page.markdown}".partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:60]


def unknown_numbers(text: str, known: set[float]) -> list[str]:
    """The numbers of a sentence that are no rounding of a known one.

    Shares may be told in percent or as 1 in so many, and large numbers in thousands or millions;
    signs, and the numbers of tables, figures and chapters, are left out.
    """
    text = NAMES.sub("", re.sub(r"\{\w+\}`[^`]*`", "", text)).replace("{,}", ",")
    unknown = []
    for found in NUMBER.finditer(text):
        digits = found[0].rstrip(",").replace(",", "")
        value, half = float(digits), 0.5000001 * 10 ** -len(digits.partition(".")[2])
        after = text[found.end() :].replace("\\", "")
        scales = [1.0, *(s for word, s in SCALES.items() if after.startswith(word))]
        known_here = (
            {1 / k for k in known if k} if text[: found.start()].endswith("1 in ") else known
        )
        if not any(abs(k * scale - value) <= half for k in known_here for scale in scales):
            unknown.append(found[0].rstrip(","))
    return unknown
