// Chapter 5: twelve bugs of the triple loss: the loss and the gradient beside the right ones, and a guess which check catches it.
"use strict";

Figures.all.bugs = (figure, { make, text, path, axis, circle, frame, place, scale, format, data: { right, bugs, checks } }) => {
  const last = right.length - 1, about = make("p"), RIGHT = "teacher wide", BUG = "student wide dashed";
  figure.choice("bug", "Bug", bugs.map((bug, i) => [i, bug.name]), 11);
  figure.choice("guess", "Which check catches it?", [["", "guess"], ...Object.keys(checks).map(name => [name, name])]);
  figure.number("step", { label: "Step of the training", max: last, step: 1, value: 10, text: step => `step ${step}` });
  figure.add(about);
  const arrow = (length, angle, x, y, style) => make("g", { transform: `translate(${x} ${y}) rotate(${-angle})` },
    path(`M0 0H${length}`, style), path(`M${length - 12}-6L${length} 0L${length - 12} 6`, style.replace("dashed", "")));
  const angle = (bug, step) => (Math.acos(Math.min(1, bug.cosine[step])) * 180) / Math.PI;

  const grip = circle(0, 0, 10, "paper of-student");
  figure.chart("Loss of 60 steps, and both gradients as arrows", ({ bug: number, step }, width, wide) => {
    const bug = bugs[number], end = wide ? width - 230 : width - 12, top = Math.max(...right, ...bug.loss), x = scale([0, last], [42, end]), y = scale([0, top], [210, 30]);
    const curve = (values, style) => path(values.map((value, i) => [x(i), y(value)]), style);
    const length = bug.length[step], [left, ground] = wide ? [end + 60, 210] : [90, 400], unit = 150 / Math.max(1, length);
    place(grip, x, step, y(bug.loss[step]));
    return [wide ? 250 : 440, frame(x, y, [0, last], [0, top], "step"),
      path("M40 12h30", RIGHT), text(76, 16, "right"), path("M130 12h30", BUG), text(166, 16, "with the bug"),
      curve(right, RIGHT), curve(bug.loss, BUG), axis(`M${x(step)} 30V210`),
      arrow(unit, 0, left, ground, RIGHT), arrow(unit * length, angle(bug, step), left, ground, BUG),
      text(left, ground + 22, `gradient: ${format(length)} times, ${Math.round(angle(bug, step))}°`)];
  }, grip);
  figure.handle(grip, { key: "step" });

  let shown;
  figure.draw(state => {
    const bug = bugs[state.bug], { step } = state, says = checks[state.guess];
    if (shown && shown !== bug) figure.set({ guess: "" });
    shown = bug;
    about.textContent = `What is wrong: ${bug.wrong}. What is seen: ${bug.symptom}.`;
    const verdict = !state.guess ? "" : bug.caught_by.includes(state.guess)
      ? `Right: with this bug it does not hold. (“${says}”) All that catch it: ${bug.caught_by.join("; ")}.`
      : `Wrong: it holds with this bug as well. (“${says}”)`;
    figure.say(`Step ${step}: the loss is ${format(bug.loss[step])} with the bug, ${format(right[step])} without. ` +
      `At the same weights the bug's gradient is ${format(bug.length[step])} times as long as the right one and points ${Math.round(angle(bug, step))}° away from it. ${verdict}`);
  });
};
