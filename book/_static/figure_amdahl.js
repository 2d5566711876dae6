"use strict";

Figures.define("amdahl", (figure) => {
  const { make, scale, format } = Figures;
  figure.slider({ key: "outside", label: "Share of the time outside the layers", min: 0, max: 0.6, step: 0.01, value: 0.2 });
  figure.slider({ key: "layers", label: "Layers left, of 12", min: 1, max: 12, step: 1, value: 6 });
  const svg = figure.svg(520, 60, "Time of both models");
  const x = scale([0, 1], [0, 520]);
  const whole = make("rect", { y: 5, height: 20, fill: "var(--teacher)", width: x(1) });
  const cut = make("rect", { y: 32, height: 20, fill: "var(--student)" });
  svg.append(whole, cut);
  figure.draw(({ outside, layers }) => {
    const share = outside + (1 - outside) * layers / 12;
    cut.setAttribute("width", x(share));
    figure.say(`${format(1 / share)} times as fast.`);
  });
});
