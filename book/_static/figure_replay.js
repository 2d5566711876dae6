// Chapter 6: a recorded run. A mark that is dragged along its steps, and all that the log says there.
"use strict";

Figures.define("replay", (figure) => {
  const { make, text, path, axis, circle, move, line, scale, format, whole } = Figures, { training, held_out: held } = figure.data, [first, last] = [training[0], training.at(-1)];
  figure.slider({ key: "step", label: "Step", min: first.step, max: last.step, step: training[1].step - first.step, value: 200, text: whole });
  const STYLES = ["teacher", "student dashed", "third dotted"], percent = (x) => `${(100 * x).toFixed(1)}%`;
  const panels = [
    [training, 20, ["ce", "mlm", "cos"].map((name) => [(row) => row[name] / first[name], `L_${name}`]), "losses, of their first value"],
    [held, 200, [[(row) => row.agreement, "the teacher's guess"], [(row) => row.accuracy, "right"]], "held-out first guesses"],
  ];
  const at = (rows, step) => rows.findLast((row) => row.step <= step);
  let x;
  const grip = circle(0, 0, 10, "paper of-teacher");
  figure.chart("Losses and held-out figures over the steps", () => 390, (width, wide, { step }) => {
    x = scale([0, last.step], [38, width - 14]);
    move(grip, x(step), 352);
    return [...panels.flatMap(([rows, top, curves, title]) => {
      const y = scale([0, 1], [top + 140, top + 20]), left = width - 150, lowest = top + 26 + (rows === held ? 68 : 0);
      return [text(38, top, title), axis(`M38 ${top + 20}V${top + 140}H${width - 10}`), text(34, top + 144, 0, "end"), text(34, top + 26, 1, "end"),
        ...curves.flatMap(([value, label], i) => {
          const low = lowest + i * 18;
          return [path(line(rows.map((row) => [x(row.step), y(value(row))])), STYLES[i]), path(`M${left} ${low}h26`, STYLES[i]), text(left + 32, low + 4, label)];
        })];
    }), path(`M${x(step)} 40V340`, "ghost"), text((38 + width) / 2, 372, `step, to ${whole(last.step)}`, "middle")];
  }, grip);
  const { step: every, set } = figure.sliders.step;
  figure.handle(grip, { key: "step", label: "Step of the recorded run", set: (step) => set(Math.round(step / every) * every), from: (place) => x.back(place), text: (step) => `step ${step}` });
  const table = make("div", { class: "drag-values" });
  figure.body.append(table);

  figure.draw(({ step }) => {
    const now = at(training, step) ?? first, evaluated = at(held, step);
    const said = {
      "triple loss": format(now.loss), L_ce: format(now.ce), L_mlm: format(now.mlm), L_cos: format(now.cos), "gradient norm": format(now.norm), "learning rate": now.lr.toPrecision(3),
      "million tokens": (now.tokens / 1e6).toFixed(2), minutes: (now.seconds / 60).toFixed(1), "held-out KL": evaluated ? format(evaluated.kl) : "–", right: evaluated ? percent(evaluated.accuracy) : "–",
    };
    table.replaceChildren(...Object.entries(said).map(([name, value]) => make("span", { "data-name": name }, `${name} `, make("b", {}, value))));
    const fallen = (first.ce - now.ce) / (first.ce - last.ce);
    figure.say(`Step ${step}: ${percent(fallen)} of the fall of L_ce is over after ${percent(step / last.step)} of the steps. ` + (evaluated
      ? `Held out, at step ${evaluated.step}, the student guesses as the teacher in ${percent(evaluated.agreement)} of all cases.` : `The first evaluation is at step ${held[0].step}.`));
  });
});
