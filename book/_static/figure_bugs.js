// Twelve bugs of the triple loss: the loss beside the right one, the gradient beside the right one, and a guess which check catches it.
"use strict";

Figures.define("bugs", (figure) => {
  const { make, scale, format } = Figures, { right, bugs, checks } = figure.data, last = right.length - 1;
  figure.choice({ key: "bug", label: "Bug", options: bugs.map((bug, i) => [i, bug.name]), value: 11 });
  const guess = figure.choice({ key: "guess", label: "Which check catches it?", options: [["", "guess"], ...Object.keys(checks).map((name) => [name, name])], value: "" });
  figure.start("step", 10, (given) => (given >= 0 && given <= last ? Math.round(given) : undefined));
  const about = make("p", { style: "margin: 0.6rem 0 0" });
  figure.body.append(about);
  const svg = figure.svg(600, 250, "Loss of 60 steps, and both gradients as arrows"), lines = make("g");
  const grip = make("circle", { r: 10, fill: "var(--student)", stroke: "var(--paper)", "stroke-width": 2 });
  svg.append(lines, grip);
  const RIGHT = { stroke: "var(--teacher)", "stroke-width": 3, fill: "none" }, BUG = { ...RIGHT, stroke: "var(--student)", "stroke-dasharray": "7 4" };
  const text = (x, y, said, anchor) => make("text", { x, y, "text-anchor": anchor }, said);
  const path = (d, more) => make("path", { d, ...more });
  const arrow = (length, angle, x, y, style) => make("g", { transform: `translate(${x} ${y}) rotate(${-angle})` }, path(`M0 0H${length}`, style), path(`M${length - 12}-6L${length} 0L${length - 12} 6`, { ...style, "stroke-dasharray": null }));
  let x, shown;

  figure.handle(grip, {
    label: "Step of the training", min: 0, max: last, step: 1, get: () => figure.state.step, set: (step) => figure.set("step", Math.round(step)),
    from: (place) => ((place - x(0)) / (x(last) - x(0))) * last, text: (step) => `step ${step}`,
  });

  figure.draw((state) => {
    const bug = bugs[state.bug], step = state.step, length = bug.length[step], angle = (Math.acos(Math.min(1, bug.cosine[step])) * 180) / Math.PI;
    if (shown !== undefined && shown !== state.bug) guess("");
    shown = state.bug;
    const width = Math.min(760, Math.max(300, svg.clientWidth)), wide = width > 559, end = wide ? width - 230 : width - 12, top = Math.max(...right, ...bug.loss);
    const y = scale([0, top], [210, 30]), curve = (values) => `M${values.map((value, i) => `${x(i)} ${y(value)}`).join("L")}`;
    x = scale([0, last], [42, end]);
    const [left, ground] = wide ? [end + 60, 210] : [90, 400], unit = 150 / Math.max(1, length);
    svg.setAttribute("viewBox", `0 0 ${width} ${wide ? 250 : 440}`);
    lines.replaceChildren(
      path(`M30 30V210H${end}`, { class: "axis", fill: "none" }), text(26, 214, "0", "end"), text(26, 36, format(top, 2), "end"), text((30 + end) / 2, 232, "step", "middle"),
      path("M40 12h30", RIGHT), text(76, 16, "right"), path("M130 12h30", BUG), text(166, 16, "with the bug"),
      path(curve(right), RIGHT), path(curve(bug.loss), BUG), path(`M${x(step)} 30V210`, { class: "axis" }),
      arrow(unit, 0, left, ground, RIGHT), arrow(unit * length, angle, left, ground, BUG), text(left, ground + 22, `gradient: ${format(length)} times, ${Math.round(angle)}°`));
    grip.setAttribute("transform", `translate(${x(step)} ${y(bug.loss[step])})`);
    about.textContent = `What is wrong: ${bug.wrong}. What is seen: ${bug.symptom}.`;
    const found = bug.caught_by.includes(state.guess), says = checks[state.guess];
    const verdict = !state.guess ? "" : found
      ? `Right: with this bug it does not hold. (“${says}”) All that catch it: ${bug.caught_by.join("; ")}.`
      : `Wrong: it holds with this bug as well. (“${says}”)`;
    figure.say(`Step ${step}: the loss is ${format(bug.loss[step])} with the bug, ${format(right[step])} without. At the same weights the bug's gradient is ${format(length)} times as long as the right one and points ${Math.round(angle)}° away from it. ${verdict}`);
  });
  new ResizeObserver(() => figure.redraw()).observe(svg);
});
