// Chapter 2: one blank at every temperature. Teacher and student answer; below, how strongly the loss pulls.
"use strict";

Figures.define("temperature", (figure) => {
  const { make, softmax, entropy, kl, sum, format, percent, scale, leading, unpack } = Figures;
  const NAMES = ["teacher", "student"], WORDS = 10, SMALL = 1e-8, LARGE = 10; // the range of pulls, which are drawn by their logarithm
  const RANGE = [0.25, 64], ALL = Array.from({ length: 25 }, (_, k) => 2 ** (k / 3 - 2));
  const data = figure.data;

  const moveT = figure.slider({ key: "T", label: "Temperature T", min: RANGE[0], max: RANGE[1], value: 2, log: true });
  figure.sentence({
    value: data.text,
    recorded: { logits: data.logits.map((text) => unpack(text, Float32Array)), word: (id) => data.words[id] },
    compute: (models, text) => ({
      logits: NAMES.map((name) => {
        const { ids, place } = models[name].read(text);
        return models[name].logits(ids, place);
      }),
      word: (id) => models.teacher.tokenizer.pieces[id],
    }),
  });

  // Of one temperature: both distributions, and the pull on each logit, T^2 times the negative gradient of KL.
  function at(T) {
    const [t, s] = figure.answer.logits.map((z) => softmax(z, T)), pull = t.map((p, i) => T * (p - s[i]));
    return { t, s, pull, entropies: [entropy(t), entropy(s)], kl: kl(t, s), norm: Math.sqrt(sum(pull.map((x) => x * x))) };
  }

  figure.body.append(make("p", {}, "Probability: teacher, student (striped); a line marks T = 1. Pull, on a logarithmic scale: with T², without (dashed)."));
  const write = figure.bars(["Word", "Probability", "Pull on the logit"], "The likeliest words");
  const small = (x) => (Math.abs(x) < 0.001 ? x.toExponential(1) : x.toPrecision(3));
  const signed = (x) => (x < 0 ? "−" : "+") + small(Math.abs(x)).replace("e-", "e−");
  const side = scale([SMALL, LARGE], [0, 0.5], true);
  function arrow(of, x) {
    const length = Math.abs(x) > SMALL ? Math.min(0.5, side(Math.abs(x))) : 0;
    return { of, from: x < 0 ? 0.5 - length : 0.5, to: x < 0 ? 0.5 : 0.5 + length, text: signed(x) };
  }
  function row(name, T, now, one, total) { // `total`: of one word, or the sum over all others
    const probability = NAMES.map((of, k) => {
      const p = total(k ? now.s : now.t);
      return { of, to: p, mark: total(k ? one.s : one.t), text: percent(p) };
    });
    return [name, probability, [arrow("third", total(now.pull)), arrow("ghost", total(now.pull) / T ** 2)]];
  }

  // How strong the pull is on all words together; the temperature can be dragged in the drawing.
  const svg = figure.svg(400, 170, "Norm of the gradient of the logits at each temperature"), x = scale(RANGE, [40, 330], true), y = scale([1e-6, 10], [140, 8], true);
  svg.style.maxWidth = "560px";
  const lines = ["var(--third)", "var(--ink)"].map((stroke, k) => make("path", { fill: "none", stroke, "stroke-width": 2, "stroke-dasharray": k ? "5 4" : null }));
  const ends = ["with T²", "without"].map((text) => make("text", { x: 336 }, text)), dots = lines.map(() => make("circle", { r: 4, fill: "var(--ink)" }));
  const handle = make("g", {}, make("rect", { x: -14, y: 0, width: 28, height: 140, fill: "transparent" }), make("line", { y1: 0, y2: 140, stroke: "var(--student)", "stroke-width": 3 }),
    make("circle", { cy: 140, r: 8, fill: "var(--student)" }));
  svg.append(...[0.25, 1, 4, 16, 64].map((T) => make("text", { x: x(T), y: 165, "text-anchor": "middle", class: "muted" }, T === 0.25 ? "¼" : String(T))),
    ...[1, 0.01, 0.0001].flatMap((v) => [make("line", { class: "axis", x1: 40, x2: 330, y1: y(v), y2: y(v) }), make("text", { x: 35, y: y(v) + 4, "text-anchor": "end", class: "muted" }, String(v))]),
    ...lines, ...ends, ...dots, handle);
  const log2 = (T) => Math.log2(T);
  figure.handle(handle, {
    label: "Temperature T, logarithm to the base 2", min: -2, max: 6, step: 0.25, get: () => log2(figure.state.T), set: (k) => moveT(2 ** k),
    from: (place) => log2(RANGE[0]) + (place - 40) / 290 * 8, text: (k) => `T = ${format(2 ** k)}`,
  });
  const measures = make("table");
  figure.body.append(make("div", { class: "drag-beside" }, make("div", {}, "The norm of the pull on all words together:", svg), measures));

  let shown, ids, one, norms; // what depends on the sentence alone
  function prepare() {
    shown = figure.answer;
    ids = leading(shown.logits, WORDS);
    one = at(1);
    norms = ALL.map((T) => at(T).norm);
    lines.forEach((line, k) => {
      const points = ALL.map((T, n) => [x(T), Math.min(150, y(norms[n] / (k ? T ** 2 : 1)))]);
      line.setAttribute("d", `M${points.map((p) => p.map((v) => v.toFixed(1)).join(" ")).join("L")}`);
      ends[k].setAttribute("y", points.at(-1)[1] + 4);
    });
  }

  figure.draw(({ T }) => {
    if (figure.answer !== shown) prepare();
    const now = at(T), others = now.t.length - WORDS, chosen = new Set(ids);
    const rest = (values) => sum(values.filter((_, id) => !chosen.has(id))), many = others.toLocaleString("en");
    write([...ids.map((id) => row(shown.word(id), T, now, one, (values) => values[id])), row(`the other ${many} words`, T, now, one, rest)]);
    handle.setAttribute("transform", `translate(${x(T)} 0)`);
    dots.forEach((dot, k) => {
      dot.setAttribute("cx", x(T));
      dot.setAttribute("cy", Math.min(150, y(now.norm / (k ? T ** 2 : 1))));
    });
    const lines_ = [["entropy of the teacher (nats)", (a) => a.entropies[0]], ["entropy of the student (nats)", (a) => a.entropies[1]], ["KL (nats)", (a) => a.kl], ["T² KL (nats)", (a, T) => T ** 2 * a.kl],
      ["norm of the pull, with T²", (a) => a.norm], ["norm of the pull, without", (a, T) => a.norm / T ** 2]];
    measures.replaceChildren(make("tr", {}, ["measure", `T = ${format(T)}`, "T = 1"].map((text) => make("th", { scope: "col" }, text))),
      ...lines_.map(([name, of]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, small(of(now, T))), make("td", {}, small(of(one, 1))))));
    const factor = T > 1 ? `Without T², each pull is divided by ${format(T * T)}.` : T < 1 ? `Without T², each pull is multiplied by ${format(1 / T / T)}.` : "At T = 1 the factor T² changes nothing.";
    figure.say(`T = ${format(T)}: the teacher gives “${shown.word(ids[0])}” ${percent(now.t[ids[0]])} and the other ${many} words ${percent(rest(now.t))}. ${factor}`);
  });
});
