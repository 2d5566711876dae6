"use strict";

Figures.define("luck", (figure) => {
  const { make, sum, scale, format } = Figures;
  const SETS = figure.data.sets, [FEW, MANY] = [50, 10000], WIDTH = 350, WNLI = "var(--student)";
  const show = (n) => `${Math.round(n).toLocaleString("en")} examples`;
  const setN = figure.slider({ key: "n", label: "Test examples n", min: FEW, max: MANY, value: 71, log: true, text: show });
  figure.slider({ key: "share", label: "Share on which exactly one of the two is right", min: 0.02, max: 0.6, step: 0.01, value: 0.28, text: (x) => `${format(100 * x)}%` });
  for (const [name, n] of SETS) figure.button(`${name} ${n.toLocaleString("en")}`, () => setN(n));
  figure.toggle({ key: "zoom", label: "Zoom in on the range" });

  // log k! for each k, as far as it is asked for.
  const factorials = [0];
  const logFactorial = (k) => {
    for (let i = factorials.length; i <= k; i++) factorials.push(factorials[i - 1] + Math.log(i));
    return factorials[k];
  };
  // How far the first system is ahead if `coins` examples have one right answer each, and a coin says whose: exact probabilities of
  // 2 heads - coins, in examples.
  const coins = (n, share) => {
    const differ = Math.round(n * share), probability = [];
    for (let k = 0; k <= differ; k++) probability.push(Math.exp(logFactorial(differ) - logFactorial(k) - logFactorial(differ - k) - differ * Math.LN2));
    const ahead = probability.map((_, k) => 2 * k - differ);
    const within = (most) => sum(probability.filter((_, k) => Math.abs(ahead[k]) <= most));
    let range = differ % 2, inside = within(range);
    while (inside < 0.95 && range < differ) {
      range += 2;
      inside += 2 * probability[(range + differ) / 2];
    }
    return { n, differ, probability, ahead, range, inside, points: (100 * range) / n, tie: differ % 2 ? 0 : probability[differ / 2], apart: 1 - within(1) };
  };

  // ---------------------------------------------------------------------------------------------- the histogram
  const svg = figure.svg(WIDTH, 190, "Probability of each difference");
  svg.style.maxWidth = "36rem";
  const ghost = make("path", { fill: "none", stroke: WNLI, "stroke-width": 1.3, "stroke-dasharray": "4 2" });
  const outer = make("path", { fill: "var(--ghost)" }), inner = make("path", { fill: "var(--teacher)" });
  const ends = make("path", { stroke: "var(--ink)", "stroke-width": 1.5, fill: "none" });
  const word = make("text", { x: WIDTH / 2, y: 12, "text-anchor": "middle" }), ticks = make("g");
  svg.append(outer, inner, ghost, ends, word, make("line", { class: "axis", x1: 0, x2: WIDTH, y1: 150, y2: 150 }), ticks,
    make("text", { x: WIDTH / 2, y: 186, "text-anchor": "middle" }, "difference in accuracy (points)"));
  // Bars as one path, since there may be hundreds; each is as high as its probability, the highest 110 pixels.
  const bars = (found, x, chosen = () => true) => {
    const top = Math.max(...found.probability), step = 100 / found.n;
    return found.ahead.map((ahead, k) => {
      const height = (110 * found.probability[k]) / top, left = x(ahead * step - 0.9 * step), right = x(ahead * step + 0.9 * step);
      return height < 0.2 || !chosen(ahead) || right < 0 || left > WIDTH ? "" : `M${left} 150v${-height}H${right}v${height}`;
    }).join("");
  };

  // ---------------------------------------------------------------------------------------------- the range, over n
  const strip = figure.svg(WIDTH, 150, "Range of 95% for each number of examples");
  strip.style.maxWidth = "36rem";
  const across = scale([FEW, MANY], [38, 340], true), up = scale([0.1, 40], [112, 8], true);
  const curve = make("path", { fill: "none", stroke: "var(--teacher)", "stroke-width": 2 });
  strip.append(curve, make("text", { x: 190, y: 148, "text-anchor": "middle" }, "test examples"));
  for (const points of [0.1, 1, 10]) strip.append(make("line", { class: "axis", x1: 38, x2: 340, y1: up(points), y2: up(points) }), make("text", { x: 34, y: up(points) + 4, "text-anchor": "end" }, `±${points}`));
  for (const n of [100, 1000, 10000]) strip.append(make("text", { x: across(n), y: 130, "text-anchor": n > 5000 ? "end" : "middle" }, n.toLocaleString("en")));
  const marks = SETS.map(([name, n]) => {
    const first = name === "WNLI", mark = make("path", { fill: first ? WNLI : "var(--paper)", stroke: first ? WNLI : "var(--ink)" }, make("title", {}, `${name}, ${n}`));
    strip.append(mark);
    if (first) strip.append(make("text", { x: across(n) + 8, y: 18, "font-weight": 600 }, "WNLI"));
    return (share) => mark.setAttribute("d", first ? `M${across(n) - 6} ${up(coins(n, share).points) - 12}h12l-6 9z` : `M${across(n)} ${up(coins(n, share).points) - 4}l4 4l-4 4l-4 -4z`);
  });
  const dot = make("circle", { r: 9, fill: "var(--teacher)", "fill-opacity": 0.6, stroke: "var(--ink)" });
  strip.append(dot);
  figure.handle(dot, {
    label: "Test examples", min: FEW, max: MANY, step: 1, text: show, get: () => Math.round(figure.state.n),
    set: setN, from: (x) => FEW * (MANY / FEW) ** ((x - 38) / 302),
  });

  figure.draw(({ n: given, share, zoom }) => {
    const n = Math.round(given), found = coins(n, share), wnli = coins(71, share);
    const wide = zoom ? [1, 2, 5, 10, 20, 40].find((w) => w >= 1.7 * found.points) ?? 40 : 40, x = scale([-wide, wide], [0, WIDTH]);
    inner.setAttribute("d", bars(found, x, (ahead) => Math.abs(ahead) <= found.range));
    outer.setAttribute("d", bars(found, x, (ahead) => Math.abs(ahead) > found.range));
    ghost.setAttribute("d", bars(wnli, x));
    ends.setAttribute("d", `M${x(-found.points)} 24v8M${x(-found.points)} 28H${x(found.points)}M${x(found.points)} 24v8`);
    word.textContent = `95 times in 100 within ±${format(found.points)} points`;
    ticks.replaceChildren(...[-1, -0.5, 0, 0.5, 1].map((part) =>
      make("text", { x: x(part * wide), y: 167, "text-anchor": part === -1 ? "start" : part === 1 ? "end" : "middle" }, `${part > 0 ? "+" : ""}${part * wide}`)));
    const path = [];
    for (let m = FEW; m < MANY * 1.02; m *= 1.08) path.push(`${across(m)} ${up(coins(Math.round(m), share).points)}`);
    curve.setAttribute("d", `M${path.join("L")}`);
    marks.forEach((mark) => mark(share));
    dot.setAttribute("cx", across(n));
    dot.setAttribute("cy", up(found.points));
    figure.shown = found;
    figure.say(`On ${found.differ} of ${n.toLocaleString("en")} examples exactly one of the two is right. Then equally good systems are, at least 95 times in 100, ` +
      `at most ${found.range} example${found.range === 1 ? "" : "s"} apart: ${format(found.points)} points of accuracy, or ${format(found.points / 9)} of a mean of nine tasks. ` +
      `The probability of a tie is ${found.tie.toFixed(2)}, of two examples or more ${found.apart.toFixed(2)}.`);
  });
});
