// Chapter 7: two equally good systems on a test set of n examples. The exact distribution of their difference, and its range over n.
"use strict";

Figures.all.luck = (figure, { make, text, path, axis, circle, frame, place, range, scale, format, whole, count, points, data: { sets } }) => {
  const [FEW, MANY] = [50, 10000], STEPS = 70;
  figure.slider("n", "Test examples n", { min: FEW, max: MANY, value: 71, log: true, text: n => count(Math.round(n), "example") });
  figure.slider("share", "Share on which exactly one of the two is right", { min: 0.02, max: 0.6, step: 0.01, value: 0.28, text: points });
  for (const [name, n] of sets) figure.button(`${name} ${whole(n)}`, () => figure.set({ n }));
  figure.choice("zoom", "Points shown", [["", "40 to either side"], ["true", "as the range needs"]]);

  // How far the first system is ahead if so many examples have one right answer each, and a coin says whose: exact probabilities of
  // 2 heads - coins, in examples.
  const coins = (n, share) => {
    const differ = Math.round(n * share);
    let log = -differ * Math.LN2;
    const probability = range(differ + 1, k => {
      const chance = Math.exp(log);
      log += Math.log((differ - k) / (k + 1));
      return chance;
    });
    const odd = differ % 2, both = most => (most ? 2 : 1) * probability[(differ + most) / 2], near = both(odd); // a tie, or a difference of one
    let most = odd, inside = near;
    while (inside < 0.95 && most < differ) inside += both((most += 2));
    return { n, differ, probability, ahead: probability.map((_, k) => 2 * k - differ), most, points: (100 * most) / n, tie: odd ? 0 : near, apart: 1 - near };
  };

  figure.draw(({ n, share }) => {
    const found = (figure.shown = coins(Math.round(n), share));
    figure.say(`On ${found.differ} of ${whole(n)} examples exactly one of the two is right. Then equally good systems are, at least 95 times in 100, ` +
      `at most ${count(found.most, "example")} apart: ${format(found.points)} points of accuracy, or ${format(found.points / 9)} of a mean of nine tasks. ` +
      `The probability of a tie is ${found.tie.toFixed(2)}, of two examples or more ${found.apart.toFixed(2)}.`);
  });

  // ---------------------------------------------------------------------------------------------- the histogram
  figure.chart("Probability of each difference", ({ share, zoom }, width) => {
    const found = figure.shown, edge = found.points, most = (zoom && [1, 2, 5, 10, 20].find(w => w >= 1.7 * edge)) || 40, x = scale([-most, most], [0, width]);
    // Bars as one path, since there may be hundreds; each is as high as its probability, the highest 110 pixels.
    const bars = ({ n, ahead, probability }, style, chosen = () => true) => path(ahead.map((each, k) => {
      const step = 100 / n, height = (110 * probability[k]) / Math.max(...probability), [left, right] = [-0.9, 0.9].map(side => x((each + side) * step));
      return height < 0.2 || !chosen(Math.abs(each)) || right < 0 || left > width ? "" : `M${left} 150v${-height}H${right}v${height}`;
    }).join(""), style);
    return [190, bars(found, "of-ghost", each => each > found.most), bars(found, "of-teacher", each => each <= found.most), bars(coins(71, share), "student thin dashed"),
      path(`M${x(-edge)} 24v8m0-4H${x(edge)}m0-4v8`, "ink"), text(width / 2, 12, `95 times in 100 within ±${format(edge)} points`, "middle"),
      axis(`M0 150H${width}`), [-1, -0.5, 0, 0.5, 1].map(part => text(x(part * most), 167, `${part > 0 ? "+" : ""}${part * most}`, { [-1]: "", 1: "end" }[part] ?? "middle")),
      text(width / 2, 186, "difference in accuracy (points)", "middle")];
  });

  // ---------------------------------------------------------------------------------------------- the range, over n
  const dot = circle(0, 0, 9, "ink of-teacher faded");
  figure.chart("Range of 95% for each number of examples", ({ n, share }, width) => {
    const across = scale([FEW, MANY], [38, width - 20], true), up = scale([0.1, 40], [112, 8], true), high = n => up(coins(n, share).points);
    place(dot, across, n, up(figure.shown.points));
    return [150, frame(across, up, [100, 1000, MANY], [0.1, 1, 10], "test examples; up: ± points"),
      path(range(STEPS, i => Math.round(FEW * (MANY / FEW) ** (i / (STEPS - 1)))).map(m => [across(m), high(m)]), "teacher"),
      sets.map(([name, m]) => {
        const mark = name === "WNLI" ? path(`M${across(m) - 6} ${high(m) - 12}h12l-6 9z`, "of-student") : path(`M${across(m)} ${high(m) - 4}l4 4l-4 4l-4 -4z`, "ink of-paper");
        return make("g", {}, mark, make("title", {}, `${name}, ${m}`));
      }), text(across(71) + 8, 18, "WNLI", "bold")];
  }, dot);
  figure.handle(dot, { key: "n", label: "Test examples", step: 1, get: () => Math.round(figure.state.n) });
};
