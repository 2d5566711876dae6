"""Which pages speak about a question of `findings`, and whether they lead to what was found.

unlinked(pages)        # claims of pages that do not
"""

import re

from distil_lib.pages.findings import FINDINGS, answers_of, contradictions

PAGE = "what_we_found"
WITHIN_A_SENTENCE = r"(?:[^.|]|\.\d)"  # written ~ in a phrase: it does not end the sentence
# Patterns by which a page's text is known to speak about a question.
PHRASES = {
    "Soft targets": (
        r"without \$L_\{ce\}\$",
        r"(no|without) soft targets",
    ),
    "Labels and soft targets": (r"softness",),
    "Temperature": (
        r"best (of the \w+ )?temperature",
        r"temperature~{0,80}(teaches best|is best|better than|worse than)",
        r"T = (1|4|8)\$?~{0,60}(nearer|further|better|worse|behind)",
        r"best of the (six|three|four)",
    ),
    "T squared": (
        r"without \$T\^2\$",
        r"without the factor",
    ),
    "Cosine loss": (
        r"without \$L_\{cos\}\$",
        r"(no|without the) cosine loss",
    ),
    "Masked language modelling loss": (
        r"without \$L_\{mlm\}\$",
        r"(no|without the) true words",
    ),
    "One loss alone": (r"(soft targets|true words|cosine loss) alone",),
    "Weights of the losses": (
        r"equal weights",
        r"weighted alike",
    ),
    "All tokens or masked tokens": (
        r"soft targets on all tokens",
        r"soft targets on masked tokens",
    ),
    "Copied layers": (r"random (start|weights|initialization)~{0,80}(nats|behind|worse|further)",),
    "Which layers": (
        r"`alternate`~{0,120}(nats|better|worse|ahead|behind|nearer)",
        r"layers 0, 1, 2\b",
    ),
    "Copied head": (
        r"new head~{0,80}nats",
        r"head~{0,60}costs [\d.]+ nats",
    ),
    "Teacher and tasks": (
        r"without (a |the )?teacher~{0,160}points",
        r"points~{0,160}without (a |the )?teacher",
        r"teacher's (words|answers) (are|were) worth",
    ),
    "What the student keeps": (r"96\.6%",),
    "Real tasks": (r"77\.5~{0,80}77\.2",),
    "Second teacher": (r"second teacher~{0,120}points",),
    "Luck of the development sets": (
        r"equally good~{0,120}0\.31",
        r"0\.31~{0,120}equally good",
    ),
    "Ninety-seven percent": (r"96\.9",),
    "CPU time": (r"2\.05", r"(at most|about) twice as fast", r"2\.0 times as fast"),
    "Runtimes and bytes": (r"9\.[37] times",),
    "Training step": (
        r"textbook~{0,80}(6\.0|six) times",
        r"(6\.0|six) times~{0,80}textbook",
    ),
    "A real teacher": (r"40\.5%",),
}


def speaks_about(text, patterns):
    """The words by which a page's text speaks about a question; "" if it does not."""
    text = " ".join(text.split())
    for pattern in patterns:
        if match := re.search(pattern.replace("~", WITHIN_A_SENTENCE), text):
            return match[0]
    return ""


def unlinked(pages, findings=tuple(FINDINGS), phrases=PHRASES):
    """Sentences, one for each claim of a page that does not lead to what was found.

    A page that speaks about a question, or whose experiment is one of its answers, links to the
    question's heading if experiments differ on it, and to the page of findings in any case.
    """
    found = []
    for finding in findings:
        contested = contradictions(answers_of(finding))
        target = f"{PAGE}.ipynb#{finding.anchor}" if contested else f"{PAGE}.ipynb"
        shown = {answer.page for answer in answers_of(finding)} if contested else set()
        for page, text in pages.items():
            words = speaks_about(text, phrases.get(finding.name, ()))
            words = words or (page in shown and "one of its experiments")
            if page != PAGE and words and f"({target}" not in text:
                why = f" Answers differ on: {', '.join(contested)}." if contested else ""
                found.append(f"{page} says {words!r} and does not link to {target}.{why}")
    return found
