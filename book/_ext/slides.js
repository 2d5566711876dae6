// Keys move from slide to slide. Without scripts the slides are a page that scrolls.
const sections = [...document.querySelectorAll("section")];
const STEPS = {ArrowRight: 1, PageDown: 1, " ": 1, ArrowLeft: -1, PageUp: -1};
const current = () => sections.findLastIndex((s) => s.getBoundingClientRect().top < innerHeight / 2);

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  let next = current() + (STEPS[event.key] ?? 0) * (event.key === " " && event.shiftKey ? -1 : 1);
  if (event.key === "Home") next = 0;
  else if (event.key === "End") next = sections.length - 1;
  else if (!(event.key in STEPS)) return;
  event.preventDefault();
  next = Math.max(0, Math.min(sections.length - 1, next));
  sections[next].scrollIntoView();
  history.replaceState(null, "", `#${sections[next].id}`); // a link to this slide
});
