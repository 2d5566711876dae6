// Chapter 1: a soft target and a student whose bars are dragged; entropy + KL = cross-entropy; the gradients of labels that are drawn.
"use strict";

Figures.define("labels", (figure) => {
  const { make, set, text, path, axis, rect, sum, scale, entropy, crossEntropy, random, format, count, reduced } = Figures;
  const WORDS = ["exception", "error", "warning", "flag"], MOST = 10000, SECOND = 1000, NAMES = { t: "teacher", s: "student" };
  const RANGE = { t: [0, 1], s: [0.001, 0.99] }; // a student without any probability for a word would have an infinite loss

  // Four probabilities that sum to 1 and are short in the address.
  const distribution = (values) => {
    const p = values.map((x) => x / sum(values));
    return Object.assign(p, { toString: () => p.map((x) => Number(x.toFixed(4))).join() });
  };
  const read = (least) => (given) => {
    const p = given.split(",").map(Number);
    return p.length === 4 && p.every((x) => x >= least && x <= 1) && sum(p) > 0 ? distribution(p) : undefined;
  };
  // One probability becomes x; the others keep their proportions.
  const put = (p, i, x, least) => {
    const rest = 1 - p[i];
    return distribution(p.map((q, j) => (j === i ? x : Math.max(least, rest > 1e-9 ? (q * (1 - x)) / rest : (1 - x) / 3))));
  };
  const FIRST = { t: distribution([4, 2, 1, 1]), s: distribution([1, 1, 1, 1]) };
  for (const key of ["t", "s"]) figure.start(key, FIRST[key], read(RANGE[key][0]));
  figure.number("n", 0, 0, MOST);
  figure.number("seed", 1, 1, 999999);
  let shown = figure.state.n, from = shown, began = 0; // labels that are drawn so far, while they come one after the other

  for (const more of [1, 10, 100]) figure.button(`Draw ${count(more, "label")}`, () => {
    [from, began] = [shown, performance.now()];
    figure.set("n", Math.min(MOST, figure.state.n + more));
  });
  figure.button("Other labels", () => figure.set("seed", (figure.state.seed % 999999) + 1));
  figure.button("Start again", () => {
    Object.assign(figure.state, FIRST);
    figure.set("n", (shown = 0));
  });

  // ---------------------------------------------------------------------------------------------- the bars
  const both = make("div", { class: "drag-beside even" }), y = scale([0, 1], [160, 22]);
  const bars = ["t", "s"].flatMap((key) => {
    const svg = figure.svg(260, 182, `Probabilities of the ${NAMES[key]}`, text(4, 12, `${NAMES[key]} ${key}`), axis("M0 160H260")), [min, max] = RANGE[key];
    both.append(svg);
    return WORDS.map((word, i) => {
      const x = 4 + 64 * i, value = text(x + 30, 0, "", "middle"), bar = rect(x + 8, 0, 44, 0, `of-${NAMES[key]} faded`);
      const grip = rect(x + 4, 0, 52, 5, "of-ink"), hold = make("g", {}, rect(x, 20, 60, 141, "hit"), bar, grip, value);
      svg.append(hold, text(x + 30, 176, word, "middle"));
      figure.handle(hold, {
        label: `${NAMES[key]}: ${word}`, min, max, step: 0.01, vertical: true, text: (p) => `${format(100 * p)}%`,
        get: () => figure.state[key][i], set: (p) => figure.set(key, put(figure.state[key], i, p, min)), from: y.back,
      });
      return () => {
        const p = figure.state[key][i], top = y(p);
        set(bar, { y: top, height: 160 - top });
        set(grip, { y: top - 2.5 });
        set(value, { y: top - 6 });
        value.textContent = p.toFixed(2);
      };
    });
  });

  // ---------------------------------------------------------------------------------------------- the ruler
  const doubt = make("span"), learn = make("span", { class: "striped" }), line = make("div", { class: "drag-brace" }), words = make("p");
  const ruler = make("div", { role: "img", class: "drag-ruler" }, doubt, learn);
  figure.body.append(both, ruler, line, words);

  // ---------------------------------------------------------------------------------------------- the gradients
  const g = scale([-1, 1], [84, 346]), svg = figure.svg(350, 176, "Gradient of the loss in each of the student's logits");
  svg.append(text(215, 12, "← raises a logit · gradient · lowers it →", "middle"), ...[-1, 0, 1].flatMap((at) => [axis(`M${g(at)} 20V158`), text(g(at), 172, at, at > 0 ? "end" : "middle")]));
  const arrows = WORDS.map((word, i) => {
    const middle = 37 + 34 * i, mean = path("", "student broad"), last = path("", "ink dashed");
    const head = path("", "of-ink"), soft = path("", "teacher of-paper");
    svg.append(text(76, middle + 4, word, "end"), mean, last, head, soft);
    return (softly, meanly, lastly) => {
      set(soft, { d: `M${g(softly)} ${middle - 7}l6 7l-6 7l-6 -7z` });
      set(mean, { d: meanly === undefined ? "" : `M${g(0)} ${middle}H${g(meanly)}` });
      set(last, { d: lastly === undefined ? "" : `M${g(0)} ${middle - 9}H${g(lastly)}` });
      set(head, { d: lastly === undefined ? "" : `M${g(lastly)} ${middle - 9}l${lastly > 0 ? -7 : 7} -4v8z` });
    };
  });
  figure.body.append(make("p", {}, "◇ soft target, s − t   ▬ mean of the labels drawn   ⇢ (dashed) the last label, s − one-hot"));

  // The gradients of n labels, each drawn from the teacher: of their mean and of the last one.
  const labels = (t, s, n, seed) => {
    const chance = random(seed), counts = [0, 0, 0, 0];
    let last;
    for (let k = 0; k < n; k++) {
      const u = chance();
      let end = 0;
      last = t.findIndex((p) => u < (end += p));
      if (last < 0) last = t.findLastIndex((p) => p > 0); // the sum may be a little less than 1
      counts[last]++;
    }
    return { mean: n ? s.map((p, i) => p - counts[i] / n) : [], last: n ? s.map((p, i) => p - (i === last)) : [] };
  };

  figure.draw(({ t, s, n, seed }) => {
    const passed = (performance.now() - began) / SECOND;
    shown = reduced.matches || n <= from + 1 || passed >= 1 ? n : Math.max(shown, Math.floor(from + (n - from) * passed));
    const own = entropy(t), cross = crossEntropy(t, s), kl = cross - own, end = Math.max(2, Math.ceil(cross));
    const soft = s.map((p, i) => p - t[i]), { mean, last } = labels(t, s, shown, seed);
    bars.forEach((each) => each());
    for (const [element, nats] of [[doubt, own], [learn, kl], [line, cross]]) element.style.width = `${(100 * nats) / end}%`;
    const sentence = (a, b, c) => `${a}entropy ${own.toFixed(3)} + ${b}KL ${Math.abs(kl).toFixed(3)} = ${c}cross-entropy ${cross.toFixed(3)} nats`;
    words.textContent = sentence("■ ", "▨ ", "└┘ ");
    set(ruler, { "aria-label": sentence("", "", "") });
    arrows.forEach((each, i) => each(soft[i], mean[i], last[i]));
    const away = Math.hypot(...mean.map((m, i) => m - soft[i])), typical = Math.sqrt((1 - sum(t.map((p) => p * p))) / n);
    figure.shown = { entropy: own, kl, cross, soft, mean, last, away, typical };
    if (shown < n) return figure.redraw();
    const left = kl < 0.0005 ? "The student has nothing left to learn: what remains is the teacher's own doubt." : `Training can still remove ${kl.toFixed(3)} of ${cross.toFixed(3)} nats.`;
    const noise = `The mean gradient of ${count(n, "label")} is ${away.toFixed(2)} away from the soft target's; ${typical.toFixed(2)} is usual.`;
    figure.say(`${left} ${n ? noise : "Draw labels, and watch their mean."}`);
  });
});
