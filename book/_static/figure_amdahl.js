"use strict";

Figures.define("amdahl", (figure) => {
  const { make, scale, format } = Figures, { paper, ours, formats } = figure.data;
  const setOutside = figure.slider({ key: "outside", label: "Share of BERT's time outside the layers", min: 0, max: 0.6, step: 0.01, value: 0.2, text: (x) => `${Math.round(100 * x)}%` });
  const setLayers = figure.slider({ key: "layers", label: "Layers left, of 12", min: 0, max: 12, step: 1, value: 6 });
  const setFormat = figure.choice({ key: "format", label: "Number format of the student's layers", value: formats[0][0], options: formats.map(([name, label, factor]) => [name, `${label}: × ${factor.toFixed(2)}`]) });
  const pin = (outside) => () => {
    setLayers(6);
    setFormat(formats[0][0]);
    setOutside(outside);
  };
  figure.button(`As in the paper: ${paper.toFixed(2)}`, pin(2 / paper - 1)); // Amdahl's law, solved for the share outside
  figure.button("Nothing outside", pin(0));

  // A drawing whose places are per cent of its width, so that its letters stay as large as the page's.
  const drawing = (height, label) => {
    const svg = make("svg", { role: "group", "aria-label": label, style: `height:${height}px` });
    figure.body.append(svg);
    return svg;
  };
  const at = (part) => `${(100 * part).toFixed(3)}%`;

  // ---------------------------------------------------------------------------------------------- the time of both models
  const bars = drawing(122, "Time of a text in both models");
  const stack = (y, color, title) => {
    const name = make("text", { x: 0, y: y - 6 }, title), out = make("rect", { y, height: 30, fill: "var(--ghost)" });
    const layers = make("rect", { y, height: 30, fill: color }), cuts = make("g", { stroke: "var(--paper)" });
    bars.append(name, out, layers, cuts);
    return (outside, inside, count) => {
      out.setAttribute("width", at(outside));
      layers.setAttribute("x", at(outside));
      layers.setAttribute("width", at(inside));
      cuts.replaceChildren(...Array.from({ length: count }, (_, i) => {
        const x = at(outside + (inside * i) / count);
        return make("line", { x1: x, x2: x, y1: y, y2: y + 30, "stroke-width": 1.5 });
      }));
      return name;
    };
  };
  const whole = stack(20, "var(--teacher)", "BERT: time outside (grey), 12 layers"), cut = stack(78, "var(--student)", "");
  const grip = make("rect", { y: 14, width: 8, height: 42, rx: 3, fill: "var(--ink)" }), hold = make("g", {}, make("rect", { y: 10, width: 26, height: 50, fill: "transparent" }), grip);
  bars.append(hold);
  figure.handle(hold, {
    label: "Share of the time outside the layers", min: 0, max: 0.6, step: 0.01, text: (x) => `${Math.round(100 * x)}%`,
    get: () => figure.state.outside, set: (x) => setOutside(Math.round(100 * x) / 100), from: (x) => x / bars.getBoundingClientRect().width,
  });

  // ---------------------------------------------------------------------------------------------- how many times as fast
  const line = drawing(118, "How many times as fast"), place = scale([0.5, 70], [0.02, 0.98], true), AXIS = 62;
  line.append(make("line", { class: "axis", x1: 0, x2: "100%", y1: AXIS, y2: AXIS }));
  for (const times of [1, 2, 4, 8, 16, 32, 64]) {
    line.append(make("line", { class: "axis", x1: at(place(times)), x2: at(place(times)), y1: AXIS, y2: AXIS + 6 }), make("text", { x: at(place(times)), y: AXIS + 20, "text-anchor": "middle" }, String(times)));
  }
  line.append(make("text", { x: "50%", y: 114, "text-anchor": "middle" }, "times as fast as BERT in fp32"));
  const flag = (y, shape, end) => {
    const mark = make("text", { y: AXIS + 5, "text-anchor": "middle" }, shape), stem = make("line", { y1: y + 4, y2: AXIS, stroke: "var(--muted)" }), word = make("text", { y, "text-anchor": end ? "end" : "start" });
    line.append(stem, mark, word);
    return (times, text) => {
      for (const x of [[mark, "x"], [stem, "x1"], [stem, "x2"], [word, "x"]]) x[0].setAttribute(x[1], at(place(times)));
      word.textContent = text;
    };
  };
  flag(30, "◆", true)(paper, `paper ${paper.toFixed(2)}`);
  flag(30, "■")(ours[0], ` ours ${ours[0].toFixed(2)}`);
  line.append(make("line", { x1: at(place(ours[1])), x2: at(place(ours[2])), y1: AXIS, y2: AXIS, stroke: "var(--ink)", "stroke-width": 3 }));
  const measured = flag(48, "▲"), law = make("circle", { cy: AXIS, r: 8, fill: "var(--student)", stroke: "var(--ink)" }), lawWord = make("text", { y: 14, "font-weight": 600 });
  line.append(law, lawWord);

  figure.draw(({ outside, layers, format: chosen }) => {
    const [, label, factor, student] = formats.find(([name]) => name === chosen);
    const inside = ((1 - outside) * layers) / 12 / factor, time = outside + inside, times = 1 / time;
    whole(outside, 1 - outside, 12);
    cut(outside, inside, layers).textContent = `student: the same outside, ${layers} layer${layers === 1 ? "" : "s"}, ${label}`;
    grip.setAttribute("x", `calc(${at(outside)} - 4px)`);
    hold.firstChild.setAttribute("x", `calc(${at(outside)} - 13px)`);
    const x = place(Math.min(70, times));
    law.setAttribute("cx", at(x));
    lawWord.setAttribute("x", at(x));
    lawWord.setAttribute("text-anchor", x > 0.5 ? "end" : "start");
    lawWord.textContent = `● by the law ${Number.isFinite(times) ? format(times) : "∞"}`;
    const fp32 = chosen === formats[0][0];
    measured(fp32 ? ours[0] : student, fp32 ? "" : ` measured, 6 layers: ${student.toFixed(2)}`);
    figure.shown = { times, time, outside, inside };
    const limit = outside > 0 ? `With no layers at all it would be ${format(1 / outside)} times.` : "Nothing stays: there is no limit.";
    figure.say(`${Number.isFinite(times) ? format(times) : "Infinitely many"} times as fast, ${format(100 * (1 - time))}% less time. ${format(100 * outside)}% of BERT's time stays, whatever the layers. ${limit}`);
  });
});
