// Chapter 6: who gets asked. A block of text, masked anew in each epoch as `DynamicMasking` does; the chance of each token; coverage.
"use strict";

Figures.all.asked = (figure, { make, text, path, circle, frame, scale, points, whole, count, random, sum, range, exactly, data: { words } }) => {
  const counts = words.map(([, count]) => count), asked = counts.filter(Boolean).length, MOST = 20;
  const order = counts.map((count, i) => [count, i]).filter(([count]) => count).sort(([a], [b]) => a - b), [rarest, commonest] = [order[0], order.at(-1)];
  figure.slider("share", "Share that is masked", { min: 0.05, max: 0.5, step: 0.01, value: 0.2, text: points });
  figure.slider("smoothing", "Smoothing: rarer words more often", { max: 1.5, step: 0.05 });
  figure.slider("epochs", "Epochs", { min: 1, max: MOST, step: 1, value: 3 });
  figure.number("seed", { max: 1e6, step: 1 });
  figure.button("Draw again", () => figure.set({ seed: figure.state.seed + 1 }));
  const block = make("p", { class: "drag-block" });
  figure.add(block, make("p", {}, make("mark", {}, "masked"), " in the last epoch; ", make("span", { class: "before" }, "underlined"), " in an earlier one; the others never."));

  // The chance of each token in one epoch. Each has a clock that rings after a random time, sooner with a larger weight; the first to
  // ring are masked. Chances are those to ring before the time at which as many ring on average as are wanted: right to 0.02.
  function chances(weights, wanted) {
    const at = t => weights.map(w => 1 - Math.exp(-w * Math.exp(t)));
    let time = -40; // its logarithm
    for (let step = 40; step > 1e-15; step /= 2) if (sum(at(time + step)) < wanted) time += step;
    return at(time);
  }
  let chance, now, drawn, expected;
  figure.draw(({ share, smoothing, epochs, seed }) => {
    const weights = counts.map(count => (count ? count ** -smoothing : 0)), wanted = share * asked, seen = new Set();
    let before;
    chance = chances(weights, wanted);
    expected = n => sum(chance.map(p => 1 - (1 - p) ** n)) / asked;
    drawn = range(epochs, epoch => {
      before = new Set(seen);
      const next = random(seed * 1000 + epoch + 1), number = Math.floor(wanted + next());
      const rings = weights.map((w, i) => [-Math.log(1 - next()) / w, i]).filter(([, i]) => weights[i]);
      now = new Set(rings.sort(([a], [b]) => a - b).slice(0, number).map(([, i]) => i));
      now.forEach(i => seen.add(i));
      return seen.size / asked;
    });
    block.replaceChildren(...words.flatMap(([word, count], i) => [make(now.has(i) ? "mark" : "span", {
      title: count ? `${word}: ${whole(count)} times in the corpus, chance ${exactly(chance[i])}` : `${word}: never masked`, class: before.has(i) && "before",
    }, word), " "]));
    const of = ([, i]) => `“${words[i][0]}” ${exactly(chance[i])}`;
    figure.say(`After ${count(epochs, "epoch")} ${exactly(drawn.at(-1))} of ${asked} tokens were asked at least once; expected ${exactly(expected(epochs))}. ` +
      `Chance in one epoch: the rarest token, ${of(rarest)}; the most frequent, ${of(commonest)}.`);
  });

  figure.chart("Coverage by epochs, and the chance of each token by its count", ({ epochs }, width, wide) => {
    const [left, down] = wide ? [width / 2 + 40, 0] : [34, 210], x = scale([0, MOST], [34, wide ? width / 2 - 20 : width - 10]);
    const log = scale([Math.max(1, rarest[0]), commonest[0]], [left + 8, width - 14], true), [y, low] = [0, down].map(top => scale([0, 1], [170 + top, 24 + top]));
    return [wide ? 210 : 420, frame(x, y, [0, 5, 10, 15, MOST], [0, 1], "epochs"), frame({ ends: [left, width - 4] }, low, [], [0, 1], "times in the corpus (log): rare to frequent"),
      text(34, 12, "asked at least once: line expected, dots drawn"), text(left, 12 + down, "chance in one epoch"),
      path(range(MOST + 1, n => [x(n), y(expected(n))]), "third"),
      path(`M${x(epochs)} 24V170`, "ghost dashed"),
      drawn.map((value, i) => circle(x(i + 1), y(value), 4, "teacher of-teacher")),
      order.map(([count, i]) => circle(log(count), low(chance[i]), 4, now.has(i) ? "teacher of-teacher" : "teacher of-paper"))];
  });
};
