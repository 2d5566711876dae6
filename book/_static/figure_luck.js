// Chapter 7: two equally good systems on a test set of n examples. The exact distribution of their difference, and its range over n.
"use strict";

Figures.define("luck", (figure) => {
  const { make, set, text, path, axis, circle, move, line, sum, scale, format, whole, count, points } = Figures, SETS = figure.data.sets, [FEW, MANY] = [50, 10000], WIDTH = 350;
  const setN = figure.slider({ key: "n", label: "Test examples n", min: FEW, max: MANY, value: 71, log: true, text: (n) => count(Math.round(n), "example") });
  figure.slider({ key: "share", label: "Share on which exactly one of the two is right", min: 0.02, max: 0.6, step: 0.01, value: 0.28, text: points });
  for (const [name, n] of SETS) figure.button(`${name} ${whole(n)}`, () => setN(n));
  figure.choice({ key: "zoom", label: "Points shown", options: [[false, "40 to either side"], [true, "as the range needs"]] });

  // log k! for each k, as far as it is asked for.
  const factorials = [0];
  const logFactorial = (k) => {
    for (let i = factorials.length; i <= k; i++) factorials.push(factorials[i - 1] + Math.log(i));
    return factorials[k];
  };
  // How far the first system is ahead if so many examples have one right answer each, and a coin says whose: exact probabilities of
  // 2 heads - coins, in examples.
  const coins = (n, share) => {
    const differ = Math.round(n * share), probability = Array.from({ length: differ + 1 }, (_, k) => Math.exp(logFactorial(differ) - logFactorial(k) - logFactorial(differ - k) - differ * Math.LN2));
    const ahead = probability.map((_, k) => 2 * k - differ), within = (most) => sum(probability.filter((_, k) => Math.abs(ahead[k]) <= most));
    let range = differ % 2, inside = within(range);
    while (inside < 0.95 && range < differ) {
      range += 2;
      inside += 2 * probability[(range + differ) / 2];
    }
    return { n, differ, probability, ahead, range, inside, points: (100 * range) / n, tie: differ % 2 ? 0 : probability[differ / 2], apart: 1 - within(1) };
  };

  // ---------------------------------------------------------------------------------------------- the histogram
  const ghost = path("", "student thin dashed"), outer = path("", "of-ghost"), inner = path("", "of-teacher"), ends = path("", "ink"), word = text(WIDTH / 2, 12, "", "middle"), ticks = make("g");
  figure.svg(WIDTH, 190, "Probability of each difference", outer, inner, ghost, ends, word, axis(`M0 150H${WIDTH}`), ticks, text(WIDTH / 2, 186, "difference in accuracy (points)", "middle"));
  // Bars as one path, since there may be hundreds; each is as high as its probability, the highest 110 pixels.
  const bars = (found, x, chosen = () => true) => {
    const top = Math.max(...found.probability), step = 100 / found.n;
    return found.ahead.map((ahead, k) => {
      const height = (110 * found.probability[k]) / top, left = x(ahead * step - 0.9 * step), right = x(ahead * step + 0.9 * step);
      return height < 0.2 || !chosen(ahead) || right < 0 || left > WIDTH ? "" : `M${left} 150v${-height}H${right}v${height}`;
    }).join("");
  };

  // ---------------------------------------------------------------------------------------------- the range, over n
  const across = scale([FEW, MANY], [38, 340], true), up = scale([0.1, 40], [112, 8], true), curve = path("", "teacher"), dot = circle(0, 0, 9, "ink of-teacher faded");
  const marks = SETS.map(([name]) => path("", name === "WNLI" ? "of-student" : "ink of-paper"));
  marks.forEach((mark, i) => mark.append(make("title", {}, SETS[i].join(", "))));
  figure.svg(WIDTH, 150, "Range of 95% for each number of examples", curve, text(190, 148, "test examples", "middle"),
    ...[0.1, 1, 10].flatMap((v) => [axis(`M38 ${up(v)}H340`), text(34, up(v) + 4, `±${v}`, "end")]), ...[100, 1000, 10000].map((n) => text(across(n), 130, whole(n), n > MANY / 2 ? "end" : "middle")),
    ...marks, text(across(71) + 8, 18, "WNLI", "bold"), dot);
  figure.handle(dot, { key: "n", label: "Test examples", step: 1, get: () => Math.round(figure.state.n), from: across.back });

  figure.draw(({ n: given, share, zoom }) => {
    const n = Math.round(given), found = (figure.shown = coins(n, share)), high = (n) => up(coins(n, share).points);
    const wide = zoom ? [1, 2, 5, 10, 20, 40].find((w) => w >= 1.7 * found.points) ?? 40 : 40, x = scale([-wide, wide], [0, WIDTH]);
    set(inner, { d: bars(found, x, (ahead) => Math.abs(ahead) <= found.range) });
    set(outer, { d: bars(found, x, (ahead) => Math.abs(ahead) > found.range) });
    set(ghost, { d: bars(coins(71, share), x) });
    set(ends, { d: `M${x(-found.points)} 24v8M${x(-found.points)} 28H${x(found.points)}M${x(found.points)} 24v8` });
    word.textContent = `95 times in 100 within ±${format(found.points)} points`;
    ticks.replaceChildren(...[-1, -0.5, 0, 0.5, 1].map((part) => text(x(part * wide), 167, `${part > 0 ? "+" : ""}${part * wide}`, { [-1]: "", 1: "end" }[part] ?? "middle")));
    const steps = Array.from({ length: 70 }, (_, i) => Math.round(across.back(38 + (302 * i) / 69)));
    set(curve, { d: line(steps.map((m) => [across(m), high(m)])) });
    SETS.forEach(([name, m], i) => set(marks[i], { d: name === "WNLI" ? `M${across(m) - 6} ${high(m) - 12}h12l-6 9z` : `M${across(m)} ${high(m) - 4}l4 4l-4 4l-4 -4z` }));
    move(dot, across(n), up(found.points));
    figure.say(`On ${found.differ} of ${whole(n)} examples exactly one of the two is right. Then equally good systems are, at least 95 times in 100, ` +
      `at most ${count(found.range, "example")} apart: ${format(found.points)} points of accuracy, or ${format(found.points / 9)} of a mean of nine tasks. ` +
      `The probability of a tie is ${found.tie.toFixed(2)}, of two examples or more ${found.apart.toFixed(2)}.`);
  });
});
