// Chapter 2: one blank at every temperature. Teacher and student answer; below, how strongly the loss pulls.
"use strict";

Figures.all.temperature = (figure, { MODELS, make, box, text, path, circle, rect, frame, move, head, tr, softmax, entropy, kl, sum, range, format, whole, percent, clamp, scale, leading, bytes, data }) => {
  const WORDS = 10, RANGE = [0.25, 64], ALL = range(25, k => 2 ** (k / 3 - 2));
  const SMALL = 1e-8, side = scale([SMALL, 10], [0, 0.5], true); // pulls, which are drawn by their logarithm
  figure.slider("T", "Temperature T", { min: RANGE[0], max: RANGE[1], value: 2, log: true });
  figure.sentence({
    known: [[data.text, { logits: data.logits.map(packed => new Float32Array(bytes(packed).buffer)), words: data.words }]],
    compute: ({ ids, place, pieces, ...models }) => ({ logits: MODELS.map(name => models[name].logits(ids, place)), words: pieces }),
  });

  // Of one temperature: both distributions, and the pull on each logit, T^2 times the negative gradient of KL.
  function at(T) {
    const [t, s] = figure.answer.logits.map(z => softmax(z, T)), pull = t.map((p, i) => T * (p - s[i]));
    return { t, s, pull, norm: Math.sqrt(sum(pull.map(x => x * x))) };
  }

  figure.add(make("p", {}, "Probability: teacher, student (striped); a line marks T = 1. Pull, on a logarithmic scale: with T², without (dashed)."));
  const write = figure.bars(["Word", "Probability", "Pull on the logit"], "The likeliest words");
  const small = x => (Math.abs(x) < 0.001 ? x.toExponential(1) : x.toPrecision(3));
  function arrow(of, x) {
    const size = Math.abs(x), length = clamp(side(size), 0, 0.5), left = x < 0;
    return { of, from: left ? 0.5 - length : 0.5, to: left ? 0.5 : 0.5 + length, text: (left ? "−" : "+") + small(size).replace("e-", "e−") };
  }
  function row(name, T, total) { // `total`: of one word, or the sum over all others
    const probability = MODELS.map(of => ({ of, to: total(now[of[0]]), mark: total(one[of[0]]) }));
    return [name, probability, [arrow("third", total(now.pull)), arrow("ghost", total(now.pull) / T ** 2)]];
  }
  const measures = make("table"), MEASURES = [["entropy of the teacher (nats)", ({ t }) => entropy(t)], ["entropy of the student (nats)", ({ s }) => entropy(s)], ["KL (nats)", ({ t, s }) => kl(t, s)],
    ["T² KL (nats)", ({ t, s }, T) => T ** 2 * kl(t, s)], ["norm of the pull, with T²", ({ norm }) => norm], ["norm of the pull, without", ({ norm }, T) => norm / T ** 2]];

  let shown, ids, one, norms, now; // all but the last depend on the sentence alone
  figure.draw(({ T }) => {
    if (figure.answer !== shown) {
      shown = figure.answer;
      ids = leading(shown.logits, WORDS);
      one = at(1);
      norms = ALL.map(T => at(T).norm);
    }
    now = at(T);
    const chosen = new Set(ids), rest = values => sum(values.filter((_, id) => !chosen.has(id))), many = `other ${whole(now.t.length - WORDS)} words`;
    write([...ids.map(id => row(shown.words[id], T, values => values[id])), row(`the ${many}`, T, rest)]);
    measures.replaceChildren(head("measure", `T = ${format(T)}`, "T = 1"),
      ...MEASURES.map(([name, of]) => tr(name, small(of(now, T)), small(of(one, 1)))));
    const factor = T === 1 ? "At T = 1 the factor T² changes nothing." : `Without T², each pull is ${T > 1 ? "divided" : "multiplied"} by ${format(Math.max(T, 1 / T) ** 2)}.`;
    figure.say(`T = ${format(T)}: the teacher gives “${shown.words[ids[0]]}” ${percent(now.t[ids[0]])} and the ${many} ${percent(rest(now.t))}. ${factor}`);
  });

  // How strong the pull is on all words together; the temperature can be dragged in the drawing.
  let x;
  const handle = make("g", {}, rect(-14, 0, 28, 140, "hit"), path("M0 0V140", "student wide"), circle(0, 140, 8, "of-student"));
  const svg = figure.chart("Norm of the gradient of the logits at each temperature", ({ T }, width) => {
    const y = scale([1e-6, 10], [140, 8], true), low = norm => Math.min(150, y(norm));
    x = scale(RANGE, [48, width - 66], true);
    move(handle, x(T), 0);
    return [170, frame(x, y, [0.25, 1, 4, 16, 64], [1, 0.01, 0.0001]), [["third", "with T²", () => 1], ["ink dashed", "without", T => T ** 2]].map(([style, said, of]) => {
      const curve = ALL.map((T, n) => [x(T), low(norms[n] / of(T))]);
      return [path(curve, style), text(x(RANGE[1]) + 6, curve.at(-1)[1] + 4, said), circle(x(T), low(now.norm / of(T)), 4, "of-ink")];
    })];
  }, handle);
  figure.handle(handle, {
    label: "Temperature T, logarithm to the base 2", min: -2, max: 6, step: 0.25, text: k => `T = ${format(2 ** k)}`,
    get: () => Math.log2(figure.state.T), set: k => figure.set({ T: 2 ** k }), from: place => Math.log2(x.back(place)),
  });
  figure.add(box("beside", make("div", {}, "The norm of the pull on all words together:", svg), measures));
};
