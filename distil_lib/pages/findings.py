"""Every result of the book: question, answer, and how far its evidence goes.

    findings_table()       # Markdown: one row for each question
    steps_table()          # Markdown: comparisons that came out otherwise with other steps
    unlinked(pages)        # claims of pages that do not lead to what was found

The answers are computed from the records when they are asked for. The page is `what_we_found`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from distil_lib.pages import finding_answers as answers
from distil_lib.pages import result_answers as results
from distil_lib.pages.finding_answers import Answer, Result

PAGE = "what_we_found"
WITHIN_A_SENTENCE = r"(?:[^.|]|\.\d)"  # written ~ in a phrase


@dataclass(frozen=True)
class Finding:
    """A question and what the book knows about it.

    Attributes:
        name: of its heading; in lower case and with hyphens it is the anchor.
        question: in a sentence.
        short: the answer in a few words; figures follow it.
        answered: gives the answers of all experiments, the one that decides first.
        phrases: patterns by which a page's text is known to speak about the question; `~` stands
            for a character that does not end the sentence.
    """

    name: str
    question: str
    short: str
    answered: Callable[[], list[Answer]]
    phrases: tuple[str, ...] = ()

    @property
    def anchor(self) -> str:
        """Of its heading on the page."""
        return self.name.lower().replace(" ", "-")

    @property
    def link(self) -> str:
        """What another page links to."""
        return f"{PAGE}.ipynb#{self.anchor}"


FINDINGS = [
    Finding(
        "Soft targets",
        "Does the triple loss need its soft targets?",
        "Yes. Without them the student ends further from its teacher:",
        answers.soft_targets,
        (r"without \$L_\{ce\}\$", r"(no|without) soft targets"),
    ),
    Finding(
        "Labels and soft targets",
        "What teaches most about the same masked tokens: the label, the teacher's distribution, or "
        "its softness alone?",
        "The teacher's distribution.",
        answers.labels_and_soft_targets,
        (r"softness",),
    ),
    Finding(
        "Temperature",
        "Which temperature teaches best?",
        "T = 4 and T = 2 are close, T = 1 is worse:",
        answers.temperature,
        (
            r"best (of the \w+ )?temperature",
            r"temperature~{0,80}(teaches best|is best|better than|worse than)",
            r"T = (1|4|8)\$?~{0,60}(nearer|further|better|worse|behind)",
            r"best of the (six|three|four)",
        ),
    ),
    Finding(
        "T squared",
        "What does the factor T squared change for soft targets alone?",
        "Almost nothing.",
        answers.t_squared,
        (r"without \$T\^2\$", r"without the factor"),
    ),
    Finding(
        "Cosine loss",
        "What does the loss on hidden states change?",
        "Little. Without it the student ends a little further from its teacher:",
        answers.cosine_loss,
        (r"without \$L_\{cos\}\$", r"(no|without the) cosine loss"),
    ),
    Finding(
        "Masked language modelling loss",
        "Does the student need the true words?",
        "Not to come near its teacher. Without them it ends nearer:",
        answers.masked_language_modelling_loss,
        (r"without \$L_\{mlm\}\$", r"(no|without the) true words"),
    ),
    Finding(
        "One loss alone",
        "How far does one of the three losses go alone?",
        "Soft targets alone end nearest to the teacher; true words alone are far behind:",
        answers.one_loss_alone,
        (r"(soft targets|true words|cosine loss) alone",),
    ),
    Finding(
        "Weights of the losses",
        "Do the released weights 5, 2 and 1 matter?",
        "Yes. Equal weights are worse:",
        answers.weights_of_the_losses,
        (r"equal weights", r"weighted alike"),
    ),
    Finding(
        "All tokens or masked tokens",
        "Soft targets on all tokens, or on masked tokens alone?",
        "Masked tokens alone:",
        answers.all_or_masked_tokens,
        (r"soft targets on all tokens", r"soft targets on masked tokens"),
    ),
    Finding(
        "Copied layers",
        "What is the start from the teacher's layers worth?",
        "More than anything else:",
        answers.copied_layers,
        (r"random (start|weights|initialization)~{0,80}(nats|behind|worse|further)",),
    ),
    Finding(
        "Which layers",
        "Which of the teacher's layers should the student keep?",
        "Of the named choices 0, 1, 2 and 0, 2, 4, which are not distinguishable:",
        answers.which_layers,
        (
            r"`alternate`~{0,120}(nats|better|worse|ahead|behind|nearer)",
            r"layers 0, 1, 2\b",
        ),
    ),
    Finding(
        "Copied head",
        "What is the copied MLM head worth?",
        "A new one is worse:",
        answers.copied_head,
        (r"new head~{0,80}nats", r"head~{0,60}costs [\d.]+ nats"),
    ),
    Finding(
        "Teacher and tasks",
        "Are the teacher's answers worth anything on the documentation's tasks?",
        "Yes, after a full training:",
        results.teacher_and_tasks,
        (
            r"without (a |the )?teacher~{0,160}points",
            r"points~{0,160}without (a |the )?teacher",
            r"teacher's (words|answers) (are|were) worth",
        ),
    ),
    Finding(
        "What the student keeps",
        "How much of its teacher does the default student keep?",
        "Almost all.",
        results.what_the_student_keeps,
        (r"96\.6%",),
    ),
    Finding(
        "Real tasks",
        "And on SST-2, MRPC, STS-B and IMDb?",
        "78 to 98% of a real teacher; the small one knows too little to tell.",
        results.real_tasks,
        (r"77\.5~{0,80}77\.2",),
    ),
    Finding(
        "Second teacher",
        "Does a second teacher help when the student is fine-tuned on questions?",
        "We cannot say:",
        results.second_teacher,
        (r"second teacher~{0,120}points",),
    ),
    Finding(
        "Luck of the development sets",
        "Which of the paper's four effects lie within the luck of GLUE's development sets?",
        "One of the four.",
        results.luck_of_the_development_sets,
        (r"equally good~{0,120}0\.31", r"0\.31~{0,120}equally good"),
    ),
    Finding(
        "Ninety-seven percent",
        "Does DistilBERT keep 97% of BERT's score?",
        "Yes, but for the last digit:",
        results.ninety_seven_percent,
        (r"96\.9",),
    ),
    Finding(
        "CPU time",
        "How much faster than BERT-base is DistilBERT on a CPU?",
        "Twice as fast:",
        results.cpu_time,
        (r"2\.05",),
    ),
    Finding(
        "Runtimes and bytes",
        "What do other runtimes and 8-bit weights add?",
        "More than halving the layers does:",
        results.runtimes_and_bytes,
        (r"9\.[37] times",),
    ),
    Finding("ELMo time", "How does ELMo's time compare?", "It is far slower:", results.elmo_time),
    Finding(
        "Browser",
        "How fast do the models answer in a browser?",
        "Faster than a reader sees:",
        results.browser,
    ),
    Finding(
        "Training step",
        "How much faster is the library's training step than a textbook's?",
        "",
        results.training_step,
        (
            r"textbook~{0,80}(6\.0|six) times",
            r"(6\.0|six) times~{0,80}textbook",
        ),
    ),
    Finding(
        "A real teacher",
        "How good is the teacher that is made from a public encoder?",
        "",
        results.a_real_teacher,
        (r"40\.5%",),
    ),
]


@cache
def answers_of(finding: Finding) -> tuple[Answer, ...]:
    """All answers to a question, the one that decides first."""
    return tuple(finding.answered())


def comparisons(found: Iterable[Answer]) -> dict[str, list[tuple[Answer, Result]]]:
    """{name of a comparison: what each experiment says}, of those with several."""
    by: dict[str, list[tuple[Answer, Result]]] = {}
    for answer in found:
        for name, result in answer.results.items():
            by.setdefault(name, []).append((answer, result))
    return {name: rows for name, rows in by.items() if len(rows) > 1}


def contradictions(found: Iterable[Answer]) -> dict[str, list[tuple[Answer, Result]]]:
    """The comparisons whose sign, or whose being distinguishable from 0, is not always the same."""
    return {
        name: rows
        for name, rows in comparisons(found).items()
        if len({result.verdict for _, result in rows}) > 1
    }


# -------------------------------------------------------------------------------- the page
def page_link(page: str) -> str:
    """A link to a page by its number or letter."""
    first = page.partition("_")[0]
    name = f"Chapter {int(first)}" if first.isdigit() else f"Page {first.upper()}"
    return f"[{name}]({page}.ipynb)"


def findings_table() -> str:
    """Markdown: a row for each question, with the answer that decides."""
    lines = ["| question | answer | how | page |", "|---|---|---|---|"]
    for finding in FINDINGS:
        first, *others = answers_of(finding)
        how = [first.scale]
        if first.steps and "steps" not in first.scale:
            how.append(f"{first.steps:,} steps")
        pages = dict.fromkeys(a.page for a in (first, *others))
        lines.append(
            f"| [{finding.name}](#{finding.anchor}). {finding.question} | "
            f"{f'{finding.short} {first.text}'.strip()} | "
            f"{', '.join(filter(None, (*how, count(first))))} | "
            f"{', '.join(page_link(page) for page in pages if page)} |"
        )
    return "\n".join(lines)


def count(answer: Answer) -> str:
    """How often something was repeated, where the scale does not say so."""
    if not answer.seeds or "rounds" in answer.scale:
        return ""
    timed = "Chromium" in answer.scale
    noun = "repetition" if timed else "seed"
    return f"{answer.seeds} {noun}{'s' if answer.seeds > 1 else ''}"


def steps_table() -> str:
    """Markdown: the comparisons that come out otherwise with other steps, shortest run first."""
    lines = ["| question | comparison | with fewer steps | with more steps |", "|---|---|---|---|"]
    for finding in FINDINGS:
        for name, rows in contradictions(answers_of(finding)).items():
            cells = [
                f"{answer.steps:,} steps{', real teacher' * (answer.scale == answers.REAL_SCALE)}: "
                f"{result} {result.unit}"
                for answer, result in sorted(rows, key=lambda row: row[0].steps)
            ]
            later = "; ".join(cells[1:])
            lines.append(f"| [{finding.name}](#{finding.anchor}) | {name} | {cells[0]} | {later} |")
    return "\n".join(lines)


# ------------------------------------------------------------------------------- other pages
def speaks_about(text: str, finding: Finding) -> str:
    """The words by which a page's text speaks about a question; "" if it does not."""
    text = " ".join(text.split())
    for phrase in finding.phrases:
        if match := re.search(phrase.replace("~", WITHIN_A_SENTENCE), text):
            return match[0]
    return ""


def unlinked(pages: Mapping[str, str], findings: Iterable[Finding] = tuple(FINDINGS)) -> list[str]:
    """Sentences, one for each claim of a page that does not lead to what was found.

    A page that speaks about a question, or whose experiment is one of its answers, links to the
    question's heading if experiments differ on it, and to the page of findings in any case.

    Args:
        pages: {name: its text}.
        findings: the questions.
    """
    found = []
    for finding in findings:
        contested = contradictions(answers_of(finding))
        target = finding.link if contested else f"{PAGE}.ipynb"
        shown = {answer.page for answer in answers_of(finding)} if contested else set()
        for page, text in pages.items():
            words = speaks_about(text, finding) or (page in shown and "one of its experiments")
            if page != PAGE and words and f"({target}" not in text:
                why = f" Answers differ on: {', '.join(contested)}." if contested else ""
                found.append(f"{page} says {words!r} and does not link to {target}.{why}")
    return found
