// Chapter 2: one blank at every temperature. Teacher and student answer; below, how strongly the loss pulls.
"use strict";

Figures.define("temperature", (figure) => {
  const { make, set, text, path, axis, circle, rect, move, line, softmax, entropy, kl, sum, format, whole, percent, scale, leading, unpack } = Figures, { data } = figure;
  const NAMES = ["teacher", "student"], WORDS = 10, RANGE = [0.25, 64], ALL = Array.from({ length: 25 }, (_, k) => 2 ** (k / 3 - 2));
  const SMALL = 1e-8, side = scale([SMALL, 10], [0, 0.5], true); // pulls, which are drawn by their logarithm

  const moveT = figure.slider({ key: "T", label: "Temperature T", min: RANGE[0], max: RANGE[1], value: 2, log: true });
  const recorded = { logits: data.logits.map((packed) => unpack(packed, Float32Array)), word: (id) => data.words[id] };
  figure.sentence({
    value: data.text,
    recorded: (text) => text === data.text && recorded,
    compute: (models, text) => {
      const { ids, place } = models.teacher.read(text);
      return { logits: NAMES.map((name) => models[name].logits(ids, place)), word: (id) => models.teacher.tokenizer.pieces[id] };
    },
  });

  // Of one temperature: both distributions, and the pull on each logit, T^2 times the negative gradient of KL.
  function at(T) {
    const [t, s] = figure.answer.logits.map((z) => softmax(z, T)), pull = t.map((p, i) => T * (p - s[i]));
    return { t, s, pull, entropies: [entropy(t), entropy(s)], kl: kl(t, s), norm: Math.sqrt(sum(pull.map((x) => x * x))) };
  }

  figure.body.append(make("p", {}, "Probability: teacher, student (striped); a line marks T = 1. Pull, on a logarithmic scale: with T², without (dashed)."));
  const write = figure.bars(["Word", "Probability", "Pull on the logit"], "The likeliest words");
  const small = (x) => (Math.abs(x) < 0.001 ? x.toExponential(1) : x.toPrecision(3));
  function arrow(of, x) {
    const length = Math.abs(x) > SMALL ? Math.min(0.5, side(Math.abs(x))) : 0;
    return { of, from: x < 0 ? 0.5 - length : 0.5, to: x < 0 ? 0.5 : 0.5 + length, text: (x < 0 ? "−" : "+") + small(Math.abs(x)).replace("e-", "e−") };
  }
  function row(name, T, now, one, total) { // `total`: of one word, or the sum over all others
    const probability = NAMES.map((of) => ({ of, to: total(now[of[0]]), mark: total(one[of[0]]), text: percent(total(now[of[0]])) }));
    return [name, probability, [arrow("third", total(now.pull)), arrow("ghost", total(now.pull) / T ** 2)]];
  }

  // How strong the pull is on all words together; the temperature can be dragged in the drawing.
  const x = scale(RANGE, [40, 330], true), y = scale([1e-6, 10], [140, 8], true), low = (norm) => Math.min(150, y(norm));
  const lines = [path("", "third"), path("", "ink dashed")], ends = ["with T²", "without"].map((said) => text(336, 0, said)), dots = lines.map(() => circle(0, 0, 4, "of-ink"));
  const handle = make("g", {}, rect(-14, 0, 28, 140, "hit"), path("M0 0V140", "student wide"), circle(0, 140, 8, "of-student"));
  const svg = figure.svg(400, 170, "Norm of the gradient of the logits at each temperature", ...[0.25, 1, 4, 16, 64].map((T) => text(x(T), 165, T < 1 ? "¼" : T, "middle")), ...[1, 0.01, 0.0001].flatMap((v) => [axis(`M40 ${y(v)}H330`), text(35, y(v) + 4, v, "end")]), ...lines, ...ends, ...dots, handle);
  figure.handle(handle, {
    label: "Temperature T, logarithm to the base 2", min: -2, max: 6, step: 0.25, text: (k) => `T = ${format(2 ** k)}`,
    get: () => Math.log2(figure.state.T), set: (k) => moveT(2 ** k), from: (place) => Math.log2(x.back(place)),
  });
  const measures = make("table");
  figure.body.append(make("div", { class: "drag-beside" }, make("div", {}, "The norm of the pull on all words together:", svg), measures));
  const MEASURES = [["entropy of the teacher (nats)", (a) => a.entropies[0]], ["entropy of the student (nats)", (a) => a.entropies[1]], ["KL (nats)", (a) => a.kl], ["T² KL (nats)", (a, T) => T ** 2 * a.kl],
    ["norm of the pull, with T²", (a) => a.norm], ["norm of the pull, without", (a, T) => a.norm / T ** 2]];

  let shown, ids, one; // what depends on the sentence alone
  function prepare() {
    shown = figure.answer;
    ids = leading(shown.logits, WORDS);
    one = at(1);
    const norms = ALL.map((T) => at(T).norm);
    lines.forEach((each, k) => {
      const points = ALL.map((T, n) => [x(T), low(norms[n] / (k ? T ** 2 : 1))]);
      set(each, { d: line(points) });
      set(ends[k], { y: points.at(-1)[1] + 4 });
    });
  }

  figure.draw(({ T }) => {
    if (figure.answer !== shown) prepare();
    const now = at(T), chosen = new Set(ids), rest = (values) => sum(values.filter((_, id) => !chosen.has(id))), many = `other ${whole(now.t.length - WORDS)} words`;
    write([...ids.map((id) => row(shown.word(id), T, now, one, (values) => values[id])), row(`the ${many}`, T, now, one, rest)]);
    move(handle, x(T), 0);
    dots.forEach((dot, k) => move(dot, x(T), low(now.norm / (k ? T ** 2 : 1))));
    measures.replaceChildren(make("tr", {}, ["measure", `T = ${format(T)}`, "T = 1"].map((said) => make("th", { scope: "col" }, said))),
      ...MEASURES.map(([name, of]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, small(of(now, T))), make("td", {}, small(of(one, 1))))));
    const factor = T === 1 ? "At T = 1 the factor T² changes nothing." : `Without T², each pull is ${T > 1 ? "divided" : "multiplied"} by ${format(Math.max(T, 1 / T) ** 2)}.`;
    figure.say(`T = ${format(T)}: the teacher gives “${shown.word(ids[0])}” ${percent(now.t[ids[0]])} and the ${many} ${percent(rest(now.t))}. ${factor}`);
  });
});
