// Chapter 4: a teacher without some of its layers answers; how far all 63 cuts are from the whole teacher; what training makes of some.
"use strict";

Figures.define("cut", (figure) => {
  const { make, set, button, row, text, path, axis, circle, rect, move, line, softmax, format, percent, scale, leading, reduced } = Figures, { data } = figure;
  const WORDS = 6, ALL = "012345", kl = data.cuts, order = Object.keys(kl).sort((a, b) => kl[a] - kl[b]); // the best cut first
  const said = (cut) => (cut === ALL ? "the whole teacher" : `layer${cut.length > 1 ? "s" : ""} ${[...cut].join(", ")}`);
  const runs = data.trained.map((run) => ({ ...run, cut: run.layers.join("") })), LAST = data.last;

  const recorded = { words: (cut) => data.answers[cut] };
  figure.sentence({
    value: data.text,
    recorded: (text) => text === data.text && recorded,
    compute: ({ teacher }, text) => {
      const { ids, place } = teacher.read(text), kept = {};
      const of = (cut) => (kept[cut] ??= softmax(teacher.logits(ids, place, { layers: [...cut].map(Number) })));
      return { words: (cut) => leading([of(cut), of(ALL)], WORDS).map((id) => [teacher.tokenizer.pieces[id], of(ALL)[id], of(cut)[id]]) };
    },
  });
  figure.start("layers", "025", (given) => (given in kl ? given : undefined));
  figure.number("step", 0, 0, LAST, data.every);
  const choose = (cut) => {
    if (!(cut in kl)) return figure.say("Keep one layer at least.");
    figure.state.step = playing = 0;
    figure.set("layers", cut);
  };

  // The stack: a press removes a layer or puts it back.
  const without = (n) => [...ALL].filter((k) => (k === n) !== figure.state.layers.includes(k)).join("");
  const stack = [...ALL].map((n) => button(`layer ${n}`, () => choose(without(n)), { class: "drag-layer" }));
  const strategies = runs.map(({ cut, strategy }) => button(strategy, () => choose(cut))), train = button(`then ${LAST} steps`, play);
  figure.body.append(row("Layers of the teacher, from the words to the answer", "words →", ...stack, "→ answer"), row("Strategies", "Strategies:", ...strategies, train));
  const write = figure.bars(["Word", "the whole teacher", "what is left of it (striped)"], "The likeliest words of both");

  // The strip: a point a cut, a row for each number of layers that are left.
  const x = scale([0, 4], [30, 390]), y = (cut) => 8 + 17 * (6 - cut.length);
  const dots = order.map((cut) => circle(x(kl[cut]), y(cut), 3.5, "teacher of-paper"));
  const here = path("M0-8L8 0L0 8L-8 0Z", "ink of-student"), strip = make("g", {}, rect(16, -4, 384, 112, "hit"), dots, here);
  dots.forEach((dot, n) => dot.append(make("title", {}, `${said(order[n])}: ${format(kl[order[n]])}`)));
  figure.svg(400, 150, "Held-out KL to the whole teacher of all 63 cuts, before any training", ...[1, 2, 3, 4, 5, 6].map((n) => text(8, 12 + 17 * (6 - n), n)),
    axis("M30 112H390"), ...[0, 1, 2, 3, 4].map((v) => text(x(v), 127, v, "middle")), text(210, 145, "held-out KL (nats); rows: layers that are left", "middle"), strip);
  const away = (cut, place) => Math.abs(x(kl[cut]) - place);
  figure.handle(strip, {
    label: "All cuts, from the nearest to the whole teacher to the farthest", min: 0, max: order.length - 1, step: 1,
    get: () => order.indexOf(figure.state.layers), set: (n) => choose(order[Math.round(n)]), text: (n) => `${said(order[n])}: ${format(kl[order[n]])} nats`,
    from: (place) => order.reduce((best, cut, n) => (away(cut, place) < away(order[best], place) ? n : best), 0),
  });

  // Training, as recorded: only the strategies' cuts were trained. The mark is dragged along the curve, or runs by itself.
  const across = scale([0, LAST], [36, 390]), up = scale([0, data.most], [120, 14]), curves = runs.map(({ curve }) => path(curve ? line(curve.map((v, i) => [across(i * data.every), up(v)])) : ""));
  const mark = circle(0, 0, 8, "ink of-student");
  const svg = figure.svg(400, 162, "Held-out KL of the strategies' students while they are trained", axis("M36 14V120H390"), ...[0, 1, 2, 3].filter((v) => v <= data.most).map((v) => text(22, up(v) + 4, v, "end")),
    ...[0, 100, 200, 300].map((v) => text(across(v), 138, v, "middle")), text(210, 156, "steps of training; up: held-out KL (nats)", "middle"), ...curves, mark);
  const to = (step) => figure.set("step", Math.round(step / data.every) * data.every);
  figure.handle(mark, {
    label: "Steps of training", min: 0, max: LAST, step: data.every, text: (step) => `${step} steps`, from: across.back, get: () => figure.state.step,
    set: (step) => {
      playing = 0;
      to(step);
    },
  });
  let playing = 0; // when it began
  function play() {
    if (figure.state.step === LAST) return to(0);
    if (reduced.matches || svg.style.display) return to(LAST);
    playing = performance.now();
    figure.redraw();
  }

  figure.draw(({ layers }) => {
    const run = runs.find(({ cut }) => cut === layers), words = figure.answer.words(layers);
    if (playing) {
      to(Math.min(LAST, (performance.now() - playing) / 5)); // a second and a half in all
      if (figure.state.step === LAST) playing = 0;
    }
    const { step } = figure.state, now = run?.curve?.[step / data.every];
    stack.forEach((each, n) => set(each, { "aria-pressed": String(layers.includes(n)) }));
    strategies.forEach((each, n) => set(each, { "aria-pressed": String(runs[n] === run) }));
    set(train, { disabled: !run, "aria-pressed": String(Boolean(run) && step === LAST) });
    write(words.map(([word, whole, left]) => [word, [{ of: "teacher", to: whole, text: percent(whole) }], [{ of: "student", to: left, text: percent(left) }]]));
    move(here, x(kl[layers]), y(layers));
    curves.forEach((each, n) => set(each, { class: runs[n] === run ? "third wide" : "ghost dashed" }));
    svg.style.display = now ? "" : "none";
    if (now) move(mark, across(step), up(now));
    const first = words[0], most = words.reduce((a, b) => (b[1] > a[1] ? b : a)), teacher = `The whole teacher says “${most[0]}” (${percent(most[1])})`;
    const left = layers === ALL ? `${teacher}.` : `${teacher}, ${said(layers)} alone “${first[0]}” (${percent(first[2])}).`;
    const seeds = run?.kl.map((v) => v.toFixed(2)).join(", "), after = step < LAST ? format(now ?? 0) : `${seeds} nats, ${run?.kl.length > 1 ? "three seeds" : "one seed"}`;
    const trained = run && step ? ` After ${step} recorded steps (batches of 32, on that run’s own held-out text): ${after}.` : "";
    figure.say(`${left} Held-out KL ${format(kl[layers])} nats: number ${order.indexOf(layers) + 1} of 63.${trained}`);
  });
});
