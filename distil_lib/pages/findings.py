"""Every result of the book: question, answer, and how far its evidence goes.

    findings_table()       # Markdown: one row for each question
    steps_table()          # Markdown: comparisons that came out otherwise with other steps

The answers are computed from the records when they are asked for. The page is `what_we_found`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial

from distil_lib.pages import finding_answers as answers
from distil_lib.pages import result_answers as results
from distil_lib.pages.finding_answers import Answer, Result


@dataclass(frozen=True)
class Finding:
    """A question and what the book knows about it.

    Attributes:
        name: of its heading; in lower case and with hyphens it is the anchor.
        question: in a sentence.
        short: the answer in a few words; figures follow it.
        answered: gives the answers of all experiments, the one that decides first.
    """

    name: str
    question: str
    short: str
    answered: Callable[[], list[Answer]]

    @property
    def anchor(self) -> str:
        """Of its heading on the page."""
        return self.name.lower().replace(" ", "-")


FINDINGS = [
    Finding(
        "Soft targets",
        "Does the triple loss need its soft targets?",
        "Yes. Without them the student ends further from its teacher:",
        partial(answers.left_out, "without-ce"),
    ),
    Finding(
        "Labels and soft targets",
        "What teaches most about the same masked tokens: the label, the teacher's distribution, or "
        "its softness alone?",
        "The teacher's distribution.",
        answers.labels_and_soft_targets,
    ),
    Finding(
        "Temperature",
        "Which temperature teaches best?",
        "T = 4 and T = 2 are close, T = 1 is worse:",
        answers.temperature,
    ),
    Finding(
        "T squared",
        "What does the factor T squared change for soft targets alone?",
        "Almost nothing.",
        answers.t_squared,
    ),
    Finding(
        "Cosine loss",
        "What does the loss on hidden states change?",
        "Little. Without it the student ends a little further from its teacher:",
        partial(answers.left_out, "without-cos"),
    ),
    Finding(
        "Masked language modelling loss",
        "Does the student need the true words?",
        "Not to come near its teacher. Without them it ends nearer:",
        partial(answers.left_out, "without-mlm"),
    ),
    Finding(
        "One loss alone",
        "How far does one of the three losses go alone?",
        "Soft targets alone end nearest to the teacher; true words alone are far behind:",
        answers.one_loss_alone,
    ),
    Finding(
        "Weights of the losses",
        "Do the released weights 5, 2 and 1 matter?",
        "Yes. Equal weights are worse:",
        answers.weights_of_the_losses,
    ),
    Finding(
        "All tokens or masked tokens",
        "Soft targets on all tokens, or on masked tokens alone?",
        "Masked tokens alone:",
        answers.all_or_masked_tokens,
    ),
    Finding(
        "Copied layers",
        "What is the start from the teacher's layers worth?",
        "More than anything else:",
        answers.copied_layers,
    ),
    Finding(
        "Which layers",
        "Which of the teacher's layers should the student keep?",
        "Of the named choices 0, 1, 2 and 0, 2, 4, which are not distinguishable:",
        answers.which_layers,
    ),
    Finding(
        "Copied head",
        "What is the copied MLM head worth?",
        "A new one is worse:",
        answers.copied_head,
    ),
    Finding(
        "Teacher and tasks",
        "Are the teacher's answers worth anything on the documentation's tasks?",
        "Yes, after a full training:",
        results.teacher_and_tasks,
    ),
    Finding(
        "What the student keeps",
        "How much of its teacher does the default student keep?",
        "Almost all.",
        results.what_the_student_keeps,
    ),
    Finding(
        "Real tasks",
        "And on SST-2, MRPC, STS-B, IMDb and SQuAD?",
        "90 to 98% of a real teacher, 39% on SQuAD; the small one knows too little to tell.",
        results.real_tasks,
    ),
    Finding(
        "Second teacher",
        "Does a second teacher help when the student is fine-tuned on questions?",
        "We cannot say:",
        results.second_teacher,
    ),
    Finding(
        "Luck of the development sets",
        "Which of the paper's four effects lie within the luck of GLUE's development sets?",
        "One of the four.",
        results.luck_of_the_development_sets,
    ),
    Finding(
        "Ninety-seven percent",
        "Does DistilBERT keep 97% of BERT's score?",
        "Yes, but for the last digit:",
        results.ninety_seven_percent,
    ),
    Finding(
        "CPU time",
        "How much faster than BERT-base is DistilBERT on a CPU?",
        "Twice as fast:",
        results.cpu_time,
    ),
    Finding(
        "Runtimes and bytes",
        "What do other runtimes and 8-bit weights add?",
        "More than halving the layers does:",
        results.runtimes_and_bytes,
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
    ),
    Finding(
        "A real teacher",
        "How good is the teacher that is made from a public encoder?",
        "",
        results.a_real_teacher,
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
