// Definitions of the glossary (book/_ext/glossary_hover.py). CSS shows and hides them; this names
// them for screen readers, and lets Escape put one away until its link is left.
"use strict";

for (const term of document.querySelectorAll(".term[data-definition]")) {
  term.querySelector("a").setAttribute("aria-describedby", term.dataset.definition);
  for (const left of ["mouseleave", "focusout"])
    term.addEventListener(left, () => term.classList.remove("dismissed"));
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape")
    for (const term of document.querySelectorAll(".term:is(:hover, :focus-within)"))
      term.classList.add("dismissed");
});
