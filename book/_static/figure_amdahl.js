// Chapter 9: the time of both models as bars; how many times as fast, by Amdahl's law, as the paper has it and as we measured.
"use strict";

Figures.all.amdahl = (figure, { make, text, path, axis, circle, rect, place, range, scale, format, points, count, data: { paper, ours, formats } }) => {
  const SMALL = 6, PLAIN = formats[0][0];
  figure.slider("outside", "Share of BERT's time outside the layers", { max: 0.6, step: 0.01, value: 0.2, text: points });
  figure.slider("layers", "Layers left, of 12", { max: 12, step: 1, value: SMALL });
  figure.choice("format", "Number format of the student's layers", formats.map(([name, label, factor]) => [name, `${label}: × ${factor.toFixed(2)}`]));
  const pin = outside => () => figure.set({ layers: SMALL, format: PLAIN, outside });
  figure.button(`As in the paper: ${paper.toFixed(2)}`, pin(2 / paper - 1)); // Amdahl's law, solved for the share outside
  figure.button("Nothing outside", pin(0));

  function law({ outside, layers, format: chosen }) {
    const [name, label, factor, student] = formats.find(([name]) => name === chosen), inside = ((1 - outside) * layers) / 12 / factor;
    return { outside, inside, time: outside + inside, times: 1 / (outside + inside), label, student: name !== PLAIN && student };
  }

  // ---------------------------------------------------------------------------------------------- the time of both models
  const hold = make("g", {}, rect(-13, 10, 26, 50, "hit"), rect(-4, 17, 8, 36, "of-ink"));
  const stack = (width, y, of, title, outside, inside, layers) => [text(0, y - 6, title), rect(0, y, width * outside, 30, "of-ghost"), rect(width * outside, y, width * inside, 30, `of-${of}`),
    range(layers, i => path(`M${width * (outside + (inside * i) / layers)} ${y}v30`, "paper"))];
  figure.chart("Time of a text in both models", (state, width) => {
    const { outside, inside, label } = law(state);
    place(hold, scale([0, 1], [0, width]), outside);
    return [122, stack(width, 20, "teacher", "BERT: time outside (grey), 12 layers", outside, 1 - outside, 12),
      stack(width, 78, "student", `student: the same outside, ${count(state.layers, "layer")}, ${label}`, outside, inside, state.layers)];
  }, hold);
  figure.handle(hold, { key: "outside" });

  // ---------------------------------------------------------------------------------------------- how many times as fast
  figure.chart("How many times as fast", (state, width) => {
    const found = law(state), at = scale([0.5, 70], [0.02 * width, 0.98 * width], true), AXIS = 62, x = at(Math.min(70, found.times));
    const flag = (y, shape, value, said, style) => [axis(`M${at(value)} ${y + 4}V${AXIS}`), text(at(value), AXIS + 5, shape, "middle"), text(at(value), y, said, style)];
    return [118, axis(`M0 ${AXIS}H${width}`), [1, 2, 4, 8, 16, 32, 64].map(n => [axis(`M${at(n)} ${AXIS}v6`), text(at(n), AXIS + 20, n, "middle")]),
      text(width / 2, 114, "times as fast as BERT in fp32", "middle"),
      flag(30, "◆", paper, `paper ${paper.toFixed(2)}`, "end"), flag(30, "■", ours[0], ` ours ${ours[0].toFixed(2)}`),
      path(`M${at(ours[1])} ${AXIS}H${at(ours[2])}`, "ink wide"),
      found.student && flag(48, "▲", found.student, ` measured, ${SMALL} layers: ${found.student.toFixed(2)}`),
      circle(x, AXIS, 8, "ink of-student"), text(x, 14, `● by the law ${format(found.times)}`, x > width / 2 ? "bold end" : "bold")];
  });

  figure.draw(state => {
    const { outside, time, times: fast } = (figure.shown = law(state));
    const limit = outside > 0 ? `With no layers at all it would be ${format(1 / outside)} times.` : "Nothing stays: there is no limit.";
    figure.say(`${format(fast)} times as fast, ${format(100 * (1 - time))}% less time. ${format(100 * outside)}% of BERT's time stays, whatever the layers. ${limit}`);
  });
};
