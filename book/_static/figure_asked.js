// Who gets asked: a block of text, masked anew in each epoch as `DynamicMasking` does; the chance of each token; coverage.
"use strict";

Figures.define("asked", (figure) => {
  const { make, scale, format, random, sum } = Figures, { words } = figure.data, counts = words.map(([, count]) => count), asked = counts.filter(Boolean).length, MOST = 20;
  const percent = (x) => `${(100 * x).toFixed(1)}%`;
  figure.slider({ key: "share", label: "Share that is masked", min: 0.05, max: 0.5, step: 0.01, value: 0.2, text: (x) => `${Math.round(100 * x)}%` });
  figure.slider({ key: "smoothing", label: "Smoothing: rarer words more often", min: 0, max: 1.5, step: 0.05, value: 0 });
  figure.slider({ key: "epochs", label: "Epochs", min: 1, max: MOST, step: 1, value: 3 });
  figure.start("seed", 0, (given) => (given >= 0 ? Math.round(given) : undefined));
  figure.button("Draw again", () => figure.set("seed", figure.state.seed + 1));
  const text = make("p", { style: "line-height: 1.9; margin: 0.6rem 0" }), mark = "border-radius: 3px; padding: 0 0.15em; ";
  figure.body.append(text, make("p", { class: "muted" }, make("mark", { style: `${mark}background: var(--teacher); color: var(--paper)` }, "masked"), " in the last epoch; ",
    make("span", { style: "border-bottom: 3px solid var(--third)" }, "underlined"), " in an earlier one; the others never."));
  const svg = figure.svg(600, 220, "Coverage by epochs, and the chance of each token by its count"), lines = make("g");
  svg.append(lines);

  // The chance of each token in one epoch. Each has a clock that rings after a random time, sooner with a larger weight; the first to
  // ring are masked. Chances are those to ring before the time at which as many ring on average as are wanted: right to 0.02.
  function chances(weights, wanted) {
    let low = -40, high = 40; // logarithms of the time
    const at = (t) => weights.map((w) => 1 - Math.exp(-w * Math.exp(t)));
    for (let i = 0; i < 60; i++) sum(at((low + high) / 2)) < wanted ? (low = (low + high) / 2) : (high = (low + high) / 2);
    return at(low);
  }

  // The tokens that are masked in an epoch.
  function masked(weights, wanted, seed, epoch) {
    const next = random(seed * 1000 + epoch), number = Math.floor(wanted + next());
    const rings = weights.map((w, i) => [-Math.log(1 - next()) / w, i]).filter(([, i]) => weights[i]);
    return new Set(rings.sort((a, b) => a[0] - b[0]).slice(0, number).map(([, i]) => i));
  }

  figure.draw(({ share, smoothing, epochs, seed }) => {
    const weights = counts.map((count) => (count ? count ** -smoothing : 0)), wanted = share * asked, chance = chances(weights, wanted);
    const expected = (n) => sum(chance.map((p) => 1 - (1 - p) ** n)) / asked, seen = new Set(), drawn = [];
    let before, now;
    for (let epoch = 1; epoch <= epochs; epoch++) {
      before = new Set(seen);
      now = masked(weights, wanted, seed, epoch);
      now.forEach((i) => seen.add(i));
      drawn.push(seen.size / asked);
    }
    text.replaceChildren(...words.flatMap(([word, count], i) => [make(now.has(i) ? "mark" : "span", {
      title: count ? `${word}: ${count.toLocaleString("en")} times in the corpus, chance ${percent(chance[i])}` : `${word}: never masked`,
      style: mark + (now.has(i) ? "background: var(--teacher); color: var(--paper)" : before.has(i) ? "border-bottom: 3px solid var(--third)" : "color: var(--muted)"),
    }, word), " "]));

    const width = Math.min(760, Math.max(300, svg.clientWidth)), wide = width > 559, end = wide ? width / 2 - 20 : width - 10, [left, down] = wide ? [width / 2 + 40, 0] : [34, 210];
    svg.setAttribute("viewBox", `0 0 ${width} ${210 + down}`);
    const label = (x, y, said, anchor) => make("text", { x, y, "text-anchor": anchor }, said);
    const x = scale([0, MOST], [34, end]), y = scale([0, 1], [170, 24]), log = scale([Math.max(1, Math.min(...counts.filter(Boolean))), Math.max(...counts)], [left + 8, width - 14], true);
    const axes = (from, to, low) => [make("path", { d: `M${from} ${24 + low}V${170 + low}H${to}`, class: "axis", fill: "none" }), label(from - 4, 174 + low, "0", "end"), label(from - 4, 30 + low, "1", "end")];
    lines.replaceChildren(...axes(34, end, 0), ...axes(left, width - 4, down),
      label(34, 12, "asked at least once: line expected, dots drawn"), label((34 + end) / 2, 190, `epochs, to ${MOST}`, "middle"),
      label(left, 12 + down, "chance in one epoch"), label((left + width) / 2, 190 + down, "times in the corpus (log): rare to frequent", "middle"),
      make("path", { d: `M${Array.from({ length: MOST + 1 }, (_, n) => `${x(n)} ${y(expected(n))}`).join("L")}`, stroke: "var(--third)", "stroke-width": 2, fill: "none" }),
      make("path", { d: `M${x(epochs)} 24V170`, stroke: "var(--ghost)", "stroke-dasharray": "4 4" }),
      ...drawn.map((value, i) => make("circle", { cx: x(i + 1), cy: y(value), r: 4, fill: "var(--teacher)" })),
      ...words.flatMap(([, count], i) => (count ? [make("circle", { cx: log(count), cy: y(chance[i]) + down, r: 4, fill: now.has(i) ? "var(--teacher)" : "var(--paper)", stroke: "var(--teacher)" })] : [])));
    const order = counts.map((count, i) => [count, i]).filter(([count]) => count).sort((a, b) => a[0] - b[0]), of = ([, i]) => `“${words[i][0]}” ${percent(chance[i])}`;
    figure.say(`After ${epochs} ${epochs > 1 ? "epochs" : "epoch"} ${percent(drawn.at(-1))} of ${asked} tokens were asked at least once; expected ${percent(expected(epochs))}. Chance in one epoch: the rarest token, ${of(order[0])}; the most frequent, ${of(order.at(-1))}.`);
  });
  new ResizeObserver(() => figure.redraw()).observe(svg);
});
