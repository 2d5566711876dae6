// Chapter 6: a recorded run. A mark that is dragged along its steps, and all that the log says there.
"use strict";

Figures.all.replay = (figure, { make, box, text, path, circle, frame, place, scale, format, whole, exactly, data: { training, held_out: held } }) => {
  const [first, second] = training, last = training.at(-1), STYLES = ["teacher", "student dashed", "third dotted"];
  figure.slider("step", "Step", { min: first.step, max: last.step, step: second.step - first.step, value: 200, text: whole });
  const panels = [
    [training, 40, ["ce", "mlm", "cos"].map(name => [row => row[name] / first[name], `L_${name}`]), "losses, of their first value"],
    [held, 220, [[row => row.agreement, "the teacher's guess"], [row => row.accuracy, "right"]], "held-out first guesses"],
  ];
  const at = (rows, step) => rows.findLast(row => row.step <= step);
  const grip = circle(0, 0, 10, "paper of-teacher"), table = box("values");
  figure.chart("Losses and held-out figures over the steps", ({ step }, width) => {
    const x = scale([0, last.step], [38, width - 14]);
    place(grip, x, step, 352);
    return [390, panels.map(([rows, top, curves, title]) => {
      const y = scale([0, 1], [top + 120, top]), left = width - 150;
      return [text(38, top - 20, title), frame(x, y, [], [0, 1]), curves.map(([value, label], i) => {
        const low = top + 6 + (rows === held ? 68 : 0) + i * 18;
        return [path(rows.map(row => [x(row.step), y(value(row))]), STYLES[i]), path(`M${left} ${low}h26`, STYLES[i]), text(left + 32, low + 4, label)];
      })];
    }), path(`M${x(step)} 40V340`, "ghost"), text((38 + width) / 2, 384, `step, to ${whole(last.step)}`, "middle")];
  }, grip);
  figure.handle(grip, { key: "step", label: "Step of the recorded run", text: step => `step ${step}` });
  figure.add(table);

  figure.draw(({ step }) => {
    const now = at(training, step) ?? first, evaluated = at(held, step);
    const said = {
      "triple loss": format(now.loss), L_ce: format(now.ce), L_mlm: format(now.mlm), L_cos: format(now.cos), "gradient norm": format(now.norm), "learning rate": now.lr.toPrecision(3),
      "million tokens": (now.tokens / 1e6).toFixed(2), minutes: (now.seconds / 60).toFixed(1), "held-out KL": evaluated ? format(evaluated.kl) : "–", right: evaluated ? exactly(evaluated.accuracy) : "–",
    };
    table.replaceChildren(...Object.entries(said).map(([name, value]) => make("span", { "data-name": name }, `${name} `, make("b", {}, value))));
    const fallen = (first.ce - now.ce) / (first.ce - last.ce);
    figure.say(`Step ${step}: ${exactly(fallen)} of the fall of L_ce is over after ${exactly(step / last.step)} of the steps. ` + (evaluated
      ? `Held out, at step ${evaluated.step}, the student guesses as the teacher in ${exactly(evaluated.agreement)} of all cases.` : `The first evaluation is at step ${held[0].step}.`));
  });
};
