// Chapter 1: a soft target and a student whose bars are dragged; entropy + KL = cross-entropy; the gradients of labels that are drawn.
"use strict";

Figures.all.labels = (figure, { make, set, box, text, path, axis, rect, sum, scale, entropy, crossEntropy, random, format, count, reduced }) => {
  const WORDS = ["exception", "error", "warning", "flag"], MOST = 10000, SECOND = 1000, TINY = 1e-9, NAMES = { t: "teacher", s: "student" };
  const LEAST = { t: 0, s: 0.001 }; // a student without any probability for a word would have an infinite loss

  // Four probabilities that sum to 1 and are short in the address.
  const distribution = values => {
    const p = values.map(x => x / sum(values));
    return Object.assign(p, { toString: () => p.map(x => Number(x.toFixed(4))).join() });
  };
  // One probability becomes x; the others keep their proportions.
  const put = (p, i, x, least) => distribution(p.map((q, j) => (j === i ? x : Math.max(least, ((q + TINY) * (1 - x)) / (1 - p[i] + 3 * TINY)))));
  const FIRST = { t: distribution([4, 2, 1, 1]), s: distribution([1, 1, 1, 1]) };
  for (const key of ["t", "s"]) {
    figure.start(key, FIRST[key], given => {
      const p = given.split(",").map(Number);
      return p.length === 4 && p.every(x => x >= LEAST[key] && x <= 1) && sum(p) > 0 ? distribution(p) : null;
    });
  }
  figure.number("n", { max: MOST, step: 1 });
  figure.number("seed", { min: 1, max: 999999, step: 1, value: 1 });
  let shown = figure.state.n, from = shown, began = 0; // labels that are drawn so far, while they come one after the other
  for (const more of [1, 10, 100]) figure.button(`Draw ${count(more, "label")}`, () => {
    [from, began] = [shown, performance.now()];
    figure.set({ n: Math.min(MOST, figure.state.n + more) });
  });
  figure.button("Other labels", () => figure.set({ seed: (figure.state.seed % 999999) + 1 }));
  figure.button("Start again", () => figure.set({ ...FIRST, n: (shown = 0) }));

  // The gradients of n labels, each drawn from the teacher: of their mean and of the last one.
  const labels = (t, s, n, seed) => {
    const chance = random(seed), counts = [0, 0, 0, 0];
    let last;
    for (let k = 0; k < n; k++) {
      const u = chance() * sum(t); // which may be a little less than 1
      let end = 0;
      last = t.findIndex(p => u < (end += p));
      counts[last]++;
    }
    return { mean: n ? s.map((p, i) => p - counts[i] / n) : [], last: s.map((p, i) => p - (i === last)) };
  };
  figure.draw(({ t, s, n, seed }) => {
    const passed = (performance.now() - began) / SECOND;
    shown = reduced.matches || n <= from + 1 || passed >= 1 ? n : Math.max(shown, Math.floor(from + (n - from) * passed));
    const own = entropy(t), cross = crossEntropy(t, s), kl = cross - own, soft = s.map((p, i) => p - t[i]), drawn = labels(t, s, shown, seed);
    const away = Math.hypot(...drawn.mean.map((m, i) => m - soft[i])), typical = Math.sqrt((1 - sum(t.map(p => p * p))) / n);
    figure.shown = { entropy: own, kl, cross, soft, ...drawn, away, typical };
    if (shown < n) return figure.redraw();
    const left = kl < 0.0005 ? "The student has nothing left to learn: what remains is the teacher's own doubt." : `Training can still remove ${kl.toFixed(3)} of ${cross.toFixed(3)} nats.`;
    const noise = `The mean gradient of ${count(n, "label")} is ${away.toFixed(2)} away from the soft target's; ${typical.toFixed(2)} is usual.`;
    figure.say(`${left} ${n ? noise : "Draw labels, and watch their mean."}`);
  });

  // ---------------------------------------------------------------------------------------------- the bars
  const y = scale([0, 1], [160, 22]), both = box("beside even", ["t", "s"].map(key => {
    const holds = WORDS.map((word, i) => {
      const hold = make("g", {}, make("g"), rect(0, 20, 0, 141, "hit"));
      figure.handle(hold, {
        label: `${NAMES[key]}: ${word}`, min: LEAST[key], max: 1 - 10 * LEAST[key], step: 0.01, vertical: true, text: p => `${format(100 * p)}%`,
        get: () => figure.state[key][i], set: p => figure.set({ [key]: put(figure.state[key], i, p, LEAST[key]) }), from: y.back,
      });
      return hold;
    });
    return figure.chart(`Probabilities of the ${NAMES[key]}`, (state, width) => [182, text(4, 12, `${NAMES[key]} ${key}`), axis(`M0 160H${width}`), holds.map((hold, i) => {
      const p = state[key][i], top = y(p), room = width / 4, x = i * room, middle = x + room / 2;
      set(hold.lastChild, { x, width: room });
      hold.firstChild.replaceChildren(rect(x + 8, top, room - 16, 160 - top, `of-${NAMES[key]} faded`), rect(x + 4, top - 2.5, room - 8, 5, "of-ink"), text(middle, top - 6, p.toFixed(2), "middle"));
      return text(middle, 176, WORDS[i], "middle");
    })], ...holds);
  }));

  // ---------------------------------------------------------------------------------------------- the ruler
  const doubt = make("span"), learn = make("span", { class: "striped" }), line = box("brace"), words = make("p");
  const ruler = make("div", { role: "img", class: "drag-ruler" }, doubt, learn);
  figure.add(both, ruler, line, words);
  figure.draw(() => {
    const { entropy: own, kl, cross } = figure.shown, end = Math.max(2, Math.ceil(cross));
    for (const [element, nats] of [[doubt, own], [learn, kl], [line, cross]]) element.style.width = `${(100 * nats) / end}%`;
    const sentence = (a, b, c) => `${a}entropy ${own.toFixed(3)} + ${b}KL ${Math.abs(kl).toFixed(3)} = ${c}cross-entropy ${cross.toFixed(3)} nats`;
    words.textContent = sentence("■ ", "▨ ", "└┘ ");
    set(ruler, { "aria-label": sentence("", "", "") });
  });

  // ---------------------------------------------------------------------------------------------- the gradients
  figure.chart("Gradient of the loss in each of the student's logits", (state, width) => {
    const { soft, mean, last } = figure.shown, g = scale([-1, 1], [84, width - 4]);
    return [176, text(g(0), 12, "← raises a logit · gradient · lowers it →", "middle"), [-1, 0, 1].map(at => [axis(`M${g(at)} 20V158`), text(g(at), 172, at, at > 0 ? "end" : "middle")]),
      WORDS.map((word, i) => {
        const middle = 37 + 34 * i, drawn = i in mean && [path(`M${g(0)} ${middle}H${g(mean[i])}`, "student broad"), path(`M${g(0)} ${middle - 9}H${g(last[i])}`, "ink dashed"),
          path(`M${g(last[i])} ${middle - 9}l${last[i] > 0 ? -7 : 7} -4v8z`, "of-ink")];
        return [text(76, middle + 4, word, "end"), drawn, path(`M${g(soft[i])} ${middle - 7}l6 7l-6 7l-6 -7z`, "teacher of-paper")];
      })];
  });
  figure.add(make("p", {}, "◇ soft target, s − t   ▬ mean of the labels drawn   ⇢ (dashed) the last label, s − one-hot"));
};
