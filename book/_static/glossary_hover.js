// Definitions of the glossary (book/_ext/glossary_hover.py). CSS shows and hides them; this names
// them for screen readers, and lets Escape put one away until its link is left.
"use strict";

for (const term of document.querySelectorAll(".term[data-definition]")) {
  term.querySelector("a").setAttribute("aria-describedby", term.dataset.definition);
  for (const left of ["mouseleave", "focusout"])
    term.addEventListener(left, () => term.classList.remove("dismissed"));
  // The Tab key passes by the formulas of a definition, which MathJax would let it enter.
  term.addEventListener("focusin", () => {
    for (const math of term.querySelectorAll("mjx-container")) math.removeAttribute("tabindex");
  });
}
document.addEventListener("keydown", event => {
  if (event.key === "Escape")
    for (const term of document.querySelectorAll(".term:is(:hover, :focus-within)"))
      term.classList.add("dismissed");
});
