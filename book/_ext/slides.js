// Keys move from slide to slide. Without scripts the slides are a page that scrolls.
const sections = [...document.querySelectorAll("section")];
const STEPS = {ArrowRight: 1, PageDown: 1, " ": 1, ArrowLeft: -1, PageUp: -1, Home: -Infinity, End: Infinity};
const current = () => sections.findLastIndex((s) => s.getBoundingClientRect().top < innerHeight / 2);

addEventListener("keydown", (event) => {
  const step = STEPS[event.key] * (event.key === " " && event.shiftKey ? -1 : 1);
  if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  const next = sections[Math.max(0, Math.min(sections.length - 1, current() + step))];
  next.scrollIntoView();
  history.replaceState(null, "", `#${next.id}`); // a link to this slide
});
