// Chapter 4: a teacher without some of its layers answers; how far all 63 cuts are from the whole teacher; what training makes of some.
"use strict";

Figures.all.cut = (figure, { make, set, button, row, text, circle, rect, path, frame, move, place, softmax, format, percent, scale, leading, least, reduced, data }) => {
  const WORDS = 6, ALL = "012345", { cuts: kl, trained: runs, last } = data, order = Object.keys(kl).sort((a, b) => kl[a] - kl[b]); // the best cut first
  const said = cut => (cut === ALL ? "the whole teacher" : `layer${cut.length > 1 ? "s" : ""} ${[...cut].join(", ")}`);

  figure.sentence({
    known: [[data.text, cut => data.answers[cut]]],
    compute: ({ teacher, ids, place, pieces }) => {
      const kept = {}, of = cut => (kept[cut] ??= softmax(teacher.logits(ids, place, { layers: [...cut] })));
      return cut => leading([of(cut), of(ALL)], WORDS).map(id => [pieces[id], of(ALL)[id], of(cut)[id]]);
    },
  });
  figure.start("layers", "025", given => (given in kl ? given : null));
  figure.number("step", { label: "Steps of training", max: last, step: data.every, text: step => `${step} steps` });
  const to = figure.ranges.step.set;
  const choose = cut => {
    if (!(cut in kl)) return figure.say("Keep one layer at least.");
    figure.set({ layers: cut, step: (playing = 0) });
  };

  // The stack: a press removes a layer or puts it back.
  const without = n => [...ALL].filter(k => (k === n) !== figure.state.layers.includes(k)).join("");
  const stack = [...ALL].map(n => button(`layer ${n}`, () => choose(without(n)), { class: "drag-layer" }));
  const strategies = runs.map(({ layers, strategy }) => button(strategy, () => choose(layers))), train = button(`then ${last} steps`, play);
  figure.add(row("Layers of the teacher, from the words to the answer", "words →", ...stack, "→ answer"), row("Strategies", "Strategies:", ...strategies, train));
  const write = figure.bars(["Word", "the whole teacher", "what is left of it (striped)"], "The likeliest words of both");

  let run, now; // the recorded training of these layers, if they are a strategy's, and its KL at this step
  let playing = 0; // when it began
  function play() {
    if (figure.state.step === last) return to(0);
    if (reduced.matches) return to(last);
    playing = performance.now();
    figure.redraw();
  }
  figure.draw(({ layers }) => {
    if (playing) {
      to((performance.now() - playing) / 5); // a second and a half in all
      if (figure.state.step === last) playing = 0;
    }
    const { step } = figure.state, words = figure.answer(layers), press = (each, yes) => set(each, { "aria-pressed": yes });
    run = runs.find(run => run.layers === layers);
    now = run?.curve[step / data.every];
    stack.forEach((each, n) => press(each, layers.includes(n)));
    strategies.forEach((each, n) => press(each, runs[n] === run));
    press(train, Boolean(run) && step === last);
    train.disabled = !run; // only the strategies' cuts were trained
    write(words);
    const first = words[0], most = least(words, ([, whole]) => -whole), teacher = `The whole teacher says “${most[0]}” (${percent(most[1])})`;
    const left = layers === ALL ? `${teacher}.` : `${teacher}, ${said(layers)} alone “${first[0]}” (${percent(first[2])}).`;
    let trained = "";
    if (run && step) {
      const ends = run.kl.map(v => v.toFixed(2)).join(", ");
      trained = ` After ${step} recorded steps (batches of 32, on that run’s own held-out text): ${step < last ? format(now) : `${ends} nats, ${run.kl[1] ? "three seeds" : "one seed"}`}.`;
    }
    figure.say(`${left} Held-out KL ${format(kl[layers])} nats: number ${order.indexOf(layers) + 1} of 63.${trained}`);
  });

  // The strip: a point a cut, a row for each number of layers that are left.
  let x;
  const hit = rect(0, -4, 0, 112, "hit"), dots = make("g"), here = path("M0-8L8 0L0 8L-8 0Z", "ink of-student"), strip = make("g", {}, hit, dots);
  figure.chart("Held-out KL to the whole teacher of all 63 cuts, before any training", ({ layers }, width) => {
    const y = cut => 8 + 17 * (6 - cut.length);
    x = scale([0, 4], [24, width - 10]);
    set(hit, { x: 10, width: width - 10 });
    dots.replaceChildren(...order.map(cut => {
      const dot = circle(x(kl[cut]), y(cut), 3.5, "teacher of-paper");
      dot.append(make("title", {}, `${said(cut)}: ${format(kl[cut])}`));
      return dot;
    }), here);
    move(here, x(kl[layers]), y(layers));
    return [150, [1, 2, 3, 4, 5, 6].map(n => text(0, 12 + 17 * (6 - n), n)), frame(x, { ends: [110, 110] }, [0, 1, 2, 3, 4], [], "held-out KL (nats); rows: layers that are left")];
  }, strip);
  figure.handle(strip, {
    label: "All cuts, from the nearest to the whole teacher to the farthest", min: 0, max: order.length - 1, step: 1,
    get: () => order.indexOf(figure.state.layers), set: n => choose(order[Math.round(n)]), text: n => `${said(order[n])}: ${format(kl[order[n]])} nats`,
    from: place => order.indexOf(least(order, cut => Math.abs(x(kl[cut]) - place))),
  });

  // Training, as recorded: only the strategies' cuts were trained. The mark is dragged along the curve, or runs by itself.
  const mark = circle(0, 0, 8, "ink of-student");
  const svg = figure.chart("Held-out KL of the strategies' students while they are trained", ({ step }, width) => {
    const across = scale([0, last], [24, width - 14]), up = scale([0.5, data.most], [120, 14], true);
    svg.style.display = run ? "" : "none";
    place(mark, across, step, up(now ?? 1));
    return [162, frame(across, up, [0, 100, 200, last], [0.5, 1, data.most], "steps of training; up: held-out KL (nats, log)"),
      runs.map(each => path(each.curve.map((v, i) => [across(i * data.every), up(v)]), each === run ? "third wide" : "ghost dashed"))];
  }, mark);
  figure.handle(mark, {
    key: "step", set: step => {
      playing = 0;
      to(step);
    },
  });
};
