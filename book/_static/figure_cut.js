// Chapter 4: a teacher without some of its layers answers; below, how far all 63 cuts are from the whole teacher.
"use strict";

Figures.define("cut", (figure) => {
  const { make, softmax, format, percent, scale, leading, reduced } = Figures;
  const data = figure.data, WORDS = 6, ALL = "012345", kl = data.cuts;
  const order = Object.keys(kl).sort((a, b) => kl[a] - kl[b]); // the best cut first
  const said = (cut) => (cut === ALL ? "the whole teacher" : `layer${cut.length > 1 ? "s" : ""} ${[...cut].join(", ")}`);

  figure.sentence({
    value: data.text,
    recorded: { words: (cut) => data.answers[cut] },
    compute: (models, text) => {
      const model = models.teacher, { ids, place } = model.read(text), kept = {};
      const of = (cut) => (kept[cut] ??= softmax(model.logits(ids, place, { layers: [...cut].map(Number) })));
      return { words: (cut) => leading([of(cut), of(ALL)], WORDS).map((id) => [model.tokenizer.pieces[id], of(ALL)[id], of(cut)[id]]) };
    },
  });

  figure.start("layers", "025", (given) => (given in kl ? given : undefined));
  figure.start("trained", false, (given) => given === "true");
  const choose = (cut) => {
    if (!(cut in kl)) return figure.say("Keep one layer at least.");
    figure.state.trained = false;
    figure.set("layers", cut);
  };

  // The stack: a press removes a layer or puts it back.
  const stack = [...ALL].map((n) => make("button", { type: "button", class: "drag-layer", onclick: () => choose([...ALL].filter((k) => (k === n) !== figure.state.layers.includes(k)).join("")) }, `layer ${n}`));
  const strategies = data.trained.map(({ strategy, layers }) => [layers.join(""), make("button", { type: "button", onclick: () => choose(layers.join("")) }, strategy)]);
  figure.body.append(make("div", { class: "drag-stack", role: "group", "aria-label": "Layers of the teacher, from the words to the answer" }, make("span", {}, "words →"), stack, make("span", {}, "→ answer")),
    make("div", { class: "drag-stack", role: "group", "aria-label": "Strategies" }, make("span", {}, "Strategies:"), strategies.map(([, button]) => button)));
  const write = figure.bars(["Word", "the whole teacher", "what is left of it (striped)"], "The likeliest words of both");

  // The strip: a point a cut, a row for each number of layers that are left.
  const x = scale([0, 4], [30, 390]), y = (cut) => 8 + 17 * (6 - cut.length);
  const svg = figure.svg(400, 150, "Held-out KL to the whole teacher of all 63 cuts, before any training");
  svg.style.maxWidth = "540px";
  const dots = order.map((cut) => make("circle", { cx: x(kl[cut]), cy: y(cut), r: 3.5, fill: "var(--paper)", stroke: "var(--teacher)" }, make("title", {}, `${said(cut)}: ${format(kl[cut])}`)));
  const here = make("path", { d: "M0-8L8 0L0 8L-8 0Z", fill: "var(--student)", stroke: "var(--ink)" }), ahead = make("g", {});
  const handle = make("g", {}, make("rect", { x: 16, y: -4, width: 384, height: 112, fill: "transparent" }), dots, ahead, here);
  svg.append(...[1, 2, 3, 4, 5, 6].map((n) => make("text", { x: 8, y: 12 + 17 * (6 - n), class: "muted" }, String(n))),
    make("line", { class: "axis", x1: 30, x2: 390, y1: 112, y2: 112 }),
    ...[0, 1, 2, 3, 4].map((v) => make("text", { x: x(v), y: 127, "text-anchor": "middle", class: "muted" }, String(v))),
    make("text", { x: 210, y: 145, "text-anchor": "middle" }, "held-out KL (nats); rows: layers that are left"), handle);
  figure.handle(handle, {
    label: "All cuts, from the nearest to the whole teacher to the farthest", min: 0, max: order.length - 1, step: 1,
    get: () => order.indexOf(figure.state.layers), set: (n) => choose(order[Math.round(n)]), text: (n) => `${said(order[n])}: ${format(kl[order[n]])} nats`,
    from: (place) => order.reduce((best, cut, n) => (Math.abs(x(kl[cut]) - place) < Math.abs(x(kl[order[best]]) - place) ? n : best), 0),
  });

  // What 300 steps made of it, as recorded; only the strategies' cuts were trained.
  const train = make("button", { type: "button", onclick: () => figure.set("trained", !figure.state.trained) }, "then 300 steps");
  strategies.at(-1)[1].parentNode.append(train);

  figure.draw(({ layers, trained }) => {
    stack.forEach((button, n) => button.setAttribute("aria-pressed", layers.includes(String(n))));
    strategies.forEach(([cut, button]) => button.setAttribute("aria-pressed", cut === layers));
    const run = data.trained.find((each) => each.layers.join("") === layers);
    train.disabled = !run;
    train.setAttribute("aria-pressed", Boolean(run && trained));
    const words = figure.answer.words(layers);
    write(words.map(([word, whole, left]) => [word, [{ of: "teacher", to: whole, text: percent(whole) }], [{ of: "student", to: left, text: percent(left) }]]));
    here.setAttribute("transform", `translate(${x(kl[layers])} ${y(layers)})`);
    ahead.replaceChildren(...(run && trained ? replay(run, layers) : []));
    const first = words[0], most = words.reduce((a, b) => (b[1] > a[1] ? b : a));
    const after = run && trained ? ` After 300 recorded steps (batches of 32, on that run’s own held-out text): ${run.kl.map((v) => v.toFixed(2)).join(", ")} nats, ${run.kl.length > 1 ? "three seeds" : "one seed"}.` : "";
    const now = layers === ALL ? `The whole teacher says “${most[0]}” (${percent(most[1])}).`
      : `The whole teacher says “${most[0]}” (${percent(most[1])}), ${said(layers)} alone “${first[0]}” (${percent(first[2])}).`;
    figure.say(`${now} Held-out KL ${format(kl[layers])} nats: number ${order.indexOf(layers) + 1} of 63.${after}`);
  });

  function replay(run, layers) {
    const from = x(kl[layers]), to = run.kl.map(x);
    const marks = to.map((place) => make("path", { d: `M${place} ${y(layers) - 7}v14`, stroke: "var(--third)", "stroke-width": 3 }));
    const path = make("path", { d: `M${from} ${y(layers)}H${Math.max(...to)}`, stroke: "var(--third)", "stroke-width": 2, "stroke-dasharray": "4 3" });
    if (!reduced.matches) path.animate([{ clipPath: "inset(-5px 0 -5px 100%)" }, { clipPath: "inset(-5px 0 -5px 0)" }], 600);
    return [path, ...marks];
  }
});
