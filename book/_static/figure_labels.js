"use strict";

Figures.define("labels", (figure) => {
  const { make, sum, scale, entropy, crossEntropy, random, format, reduced } = Figures;
  const WORDS = ["exception", "error", "warning", "flag"], MOST = 10000, SECOND = 1000;
  const LEAST = { t: 0, s: 0.001 }; // a student without any probability for a word would have an infinite loss
  const NAMES = { t: "teacher", s: "student" }, COLORS = { t: "var(--teacher)", s: "var(--student)" };

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
  const whole = (low, high) => (given) => (/^\d+$/.test(given) && given >= low && given <= high ? Number(given) : undefined);

  figure.start("t", distribution([4, 2, 1, 1]), read(LEAST.t));
  figure.start("s", distribution([1, 1, 1, 1]), read(LEAST.s));
  figure.start("n", 0, whole(0, MOST));
  figure.start("seed", 1, whole(1, 999999));
  let shown = figure.state.n, from = shown, began = 0; // labels that are drawn so far, while they come one after the other

  const draw = (count) => {
    [from, began] = [shown, performance.now()];
    figure.set("n", Math.min(MOST, figure.state.n + count));
  };
  for (const count of [1, 10, 100]) figure.button(`Draw ${count} label${count > 1 ? "s" : ""}`, () => draw(count));
  figure.button("Other labels", () => figure.set("seed", (figure.state.seed % 999999) + 1));
  figure.button("Start again", () => {
    [figure.state.n, figure.state.t, shown] = [0, distribution([4, 2, 1, 1]), 0];
    figure.set("s", distribution([1, 1, 1, 1]));
  });

  // ---------------------------------------------------------------------------------------------- the bars
  const both = make("div", { style: "display:flex;flex-wrap:wrap;gap:0 1rem" });
  figure.body.append(both);
  const y = scale([0, 1], [160, 22]), TOP = { t: 1, s: 0.99 };
  const bars = ["t", "s"].map((key) => {
    const svg = figure.svg(260, 182, `Probabilities of the ${NAMES[key]}`);
    svg.style.cssText = "flex:1 1 15rem;max-width:24rem";
    both.append(svg);
    svg.append(make("text", { x: 4, y: 12, "font-weight": 600 }, key === "t" ? "teacher t" : "student s"), make("line", { class: "axis", x1: 0, x2: 260, y1: 160, y2: 160 }));
    return WORDS.map((word, i) => {
      const x = 4 + 64 * i, value = make("text", { x: x + 30, "text-anchor": "middle" });
      const bar = make("rect", { x: x + 8, width: 44, fill: COLORS[key], "fill-opacity": 0.75 });
      const grip = make("rect", { x: x + 4, width: 52, height: 5, rx: 2, fill: "var(--ink)" });
      const hold = make("g", {}, make("rect", { x, y: 15, width: 60, height: 146, fill: "transparent" }), bar, grip, value);
      svg.append(hold, make("text", { x: x + 30, y: 176, "text-anchor": "middle" }, word));
      figure.handle(hold, {
        label: `${NAMES[key]}: ${word}`, min: LEAST[key], max: TOP[key], step: 0.01, vertical: true, text: (p) => `${format(100 * p)}%`,
        get: () => figure.state[key][i], set: (p) => figure.set(key, put(figure.state[key], i, p, LEAST[key])),
        from: (place) => 1 - (place - 22) / 138,
      });
      return () => {
        const p = figure.state[key][i], top = y(p);
        bar.setAttribute("y", top);
        bar.setAttribute("height", 160 - top);
        grip.setAttribute("y", top - 2.5);
        value.setAttribute("y", top - 6);
        value.textContent = p.toFixed(2);
      };
    });
  }).flat();

  // ---------------------------------------------------------------------------------------------- the ruler
  const part = (style) => make("span", { style: `display:block;height:1.4rem;${style}` });
  const doubt = part("background:var(--teacher)"), learn = part("background:repeating-linear-gradient(45deg,var(--student) 0 5px,transparent 5px 9px);outline:1px solid var(--student);outline-offset:-1px");
  const ruler = make("div", { role: "img", style: "display:flex" }, doubt, learn);
  const line = make("div", { style: "border:solid var(--ink);border-width:0 1px 1px;height:0.4rem" });
  const words = make("p", { style: "margin:0.2rem 0 0.8rem;font-variant-numeric:tabular-nums" });
  figure.body.append(ruler, line, words);

  // ---------------------------------------------------------------------------------------------- the gradients
  const g = scale([-1, 1], [84, 346]);
  const svg = figure.svg(350, 176, "Gradient of the loss in each of the student's logits");
  svg.style.maxWidth = "34rem";
  svg.append(make("text", { x: 215, y: 12, "text-anchor": "middle" }, "← raises a logit · gradient · lowers it →"));
  for (const at of [-1, 0, 1]) {
    svg.append(make("line", { class: "axis", x1: g(at), x2: g(at), y1: 20, y2: 158 }), make("text", { x: g(at), y: 172, "text-anchor": at > 0 ? "end" : "middle" }, String(at)));
  }
  const arrows = WORDS.map((word, i) => {
    const middle = 37 + 34 * i, mean = make("path", { stroke: "var(--student)", "stroke-width": 7, fill: "none" });
    const last = make("path", { stroke: "var(--ink)", "stroke-width": 1.6, "stroke-dasharray": "4 3", fill: "none" });
    const head = make("path", { fill: "var(--ink)" }), soft = make("path", { stroke: "var(--teacher)", "stroke-width": 2.5, fill: "var(--paper)" });
    svg.append(make("text", { x: 76, y: middle + 4, "text-anchor": "end" }, word), mean, last, head, soft);
    return (softly, meanly, lastly) => {
      const x = g(softly), tip = g(lastly ?? 0), side = lastly > 0 ? -7 : 7;
      soft.setAttribute("d", `M${x} ${middle - 7}l6 7l-6 7l-6 -7z`);
      mean.setAttribute("d", meanly === undefined ? "" : `M${g(0)} ${middle}H${g(meanly)}`);
      last.setAttribute("d", lastly === undefined ? "" : `M${g(0)} ${middle - 9}H${tip}`);
      head.setAttribute("d", lastly === undefined ? "" : `M${tip} ${middle - 9}l${side} -4v8z`);
    };
  });
  figure.body.append(make("p", { style: "margin:0" }, "◇ soft target, s − t   ▬ mean of the labels drawn   ⇢ (dashed) the last label, s − one-hot"));

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
    [[doubt, own], [learn, kl], [line, cross]].forEach(([element, nats]) => { element.style.width = `${(100 * nats) / end}%`; });
    const sentence = (a, b, c) => `${a}entropy ${own.toFixed(3)} + ${b}KL ${Math.abs(kl).toFixed(3)} = ${c}cross-entropy ${cross.toFixed(3)} nats`;
    words.textContent = sentence("■ ", "▨ ", "└┘ ");
    ruler.setAttribute("aria-label", sentence("", "", ""));
    arrows.forEach((each, i) => each(soft[i], mean[i], last[i]));
    const away = Math.hypot(...mean.map((m, i) => m - soft[i])), typical = Math.sqrt((1 - sum(t.map((p) => p * p))) / n);
    figure.shown = { entropy: own, kl, cross, soft, mean, last, away, typical };
    if (shown < n) return figure.redraw();
    const left = kl < 0.0005 ? "The student has nothing left to learn: what remains is the teacher's own doubt." : `Training can still remove ${kl.toFixed(3)} of ${cross.toFixed(3)} nats.`;
    const noise = `The mean gradient of ${n.toLocaleString("en")} label${n > 1 ? "s" : ""} is ${away.toFixed(2)} away from the soft target's; ${typical.toFixed(2)} is usual.`;
    figure.say(`${left} ${n ? noise : "Draw labels, and watch their mean."}`);
  });
});
