// A recorded run: a mark that is dragged along its steps, and all that the log says there.
"use strict";

Figures.define("replay", (figure) => {
  const { make, scale, format } = Figures, { training, held_out: held } = figure.data, first = training[0], last = training.at(-1), every = training[1].step - first.step;
  const set = figure.slider({ key: "step", label: "Step", min: first.step, max: last.step, step: every, value: 200, text: (step) => step.toLocaleString("en") });
  const svg = figure.svg(600, 370, "Losses and held-out figures over the steps"), lines = make("g"), grip = make("circle", { r: 10, fill: "var(--teacher)", stroke: "var(--paper)", "stroke-width": 2 }), table = make("div", { style: "display: grid; gap: 0.3rem 1.5rem; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); margin-top: 0.5rem" });
  svg.append(lines, grip);
  figure.body.append(table);
  const STYLES = [["var(--teacher)", null], ["var(--student)", "8 4"], ["var(--third)", "2 4"]], percent = (x) => `${(100 * x).toFixed(1)}%`;
  const panels = [
    [training, 20, [["ce", "L_ce"], ["mlm", "L_mlm"], ["cos", "L_cos"]].map(([name, label]) => [(row) => row[name] / first[name], label]), "losses, of their first value"],
    [held, 200, [[(row) => row.agreement, "the teacher's guess"], [(row) => row.accuracy, "right"]], "held-out first guesses"],
  ];
  let x;
  figure.handle(grip, {
    label: "Step of the recorded run", min: first.step, max: last.step, step: every, get: () => figure.state.step, set: (step) => set(Math.round(step / every) * every),
    from: (place) => first.step + ((place - x(first.step)) / (x(last.step) - x(first.step))) * (last.step - first.step), text: (step) => `step ${step}`,
  });

  figure.draw(({ step }) => {
    const now = training.findLast((row) => row.step <= step) ?? first, evaluated = held.findLast((row) => row.step <= step);
    const width = Math.min(760, Math.max(300, svg.clientWidth));
    x = scale([0, last.step], [38, width - 14]);
    svg.setAttribute("viewBox", `0 0 ${width} 390`);
    const text = (at, y, said, anchor) => make("text", { x: at, y, "text-anchor": anchor }, said), path = (d, more) => make("path", { d, fill: "none", ...more });
    lines.replaceChildren(...panels.flatMap(([rows, top, curves, title]) => {
      const y = scale([0, 1], [top + 140, top + 20]);
      return [text(38, top, title), path(`M38 ${top + 20}V${top + 140}H${width - 10}`, { class: "axis" }), text(34, top + 144, "0", "end"), text(34, top + 26, "1", "end"),
        ...curves.flatMap(([value, label], i) => {
          const style = { stroke: STYLES[i][0], "stroke-dasharray": STYLES[i][1], "stroke-width": 2.5 }, at = width - 150, high = top + 26 + (rows === held ? 68 : 0) + i * 18;
          return [path(`M${rows.map((row) => `${x(row.step)} ${y(value(row))}`).join("L")}`, style), path(`M${at} ${high}h26`, style), text(at + 32, high + 4, label)];
        })];
    }), path(`M${x(step)} 40V340`, { stroke: "var(--ghost)" }), text((38 + width) / 2, 372, `step, to ${last.step.toLocaleString("en")}`, "middle"));
    grip.setAttribute("transform", `translate(${x(step)} 352)`);
    const fallen = (first.ce - now.ce) / (first.ce - last.ce);
    const said = {
      "triple loss": format(now.loss), L_ce: format(now.ce), L_mlm: format(now.mlm), L_cos: format(now.cos), "gradient norm": format(now.norm), "learning rate": now.lr.toPrecision(3),
      "million tokens": (now.tokens / 1e6).toFixed(2), minutes: (now.seconds / 60).toFixed(1), "held-out KL": evaluated ? format(evaluated.kl) : "–", right: evaluated ? percent(evaluated.accuracy) : "–",
    };
    table.replaceChildren(...Object.entries(said).map(([name, value]) => make("span", { style: "display: flex; justify-content: space-between", "data-name": name }, `${name} `, make("b", {}, value))));
    figure.say(`Step ${step}: ${percent(fallen)} of the fall of L_ce is over after ${percent(step / last.step)} of the steps. ${evaluated ? `Held out, at step ${evaluated.step}, the student guesses as the teacher in ${percent(evaluated.agreement)} of all cases.` : "The first evaluation is at step " + held[0].step + "."}`);
  });
  new ResizeObserver(() => figure.redraw()).observe(svg);
});
