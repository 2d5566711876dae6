// The first page: a blank in one's own sentence, filled by teacher and student side by side, with the time that each takes.
"use strict";

Figures.define("fill_in", (figure) => {
  const { make, button, row, percent } = Figures, { answers, titles } = figure.data, NAMES = ["teacher", "student"], TEXTS = Object.keys(answers);
  const RUNS = 5; // the time shown is the median of these; the first is often slow, because the browser compiles while it runs
  const recorded = new Map(TEXTS.map((text) => [text, { words: answers[text], said: `Recorded: what both models answer to “${text}”` }]));
  const [put, ask] = figure.sentence({ value: TEXTS[0], recorded: (text) => recorded.get(text), compute });
  figure.button("Fill the blank", () => ask(figure.state.text));
  figure.body.append(row("Examples", TEXTS.map((text) => button(text, () => {
    put(text);
    ask(text);
  }))));
  const beside = make("div", { class: "drag-beside even" }), columns = NAMES.map(() => make("div"));
  beside.append(...columns);
  figure.body.append(beside);
  const tables = columns.map((column, i) => figure.bars(titles[i], `The ${NAMES[i]}'s likeliest words`, column));

  async function compute(models, text, newest) {
    const times = [[], []], words = [], tokens = models.teacher.read(text).ids.length;
    for (let run = 0; run < RUNS; run++) {
      for (const [i, name] of NAMES.entries()) { // taking turns, so that a busy moment does not fall on one of them alone
        await new Promise((resolve) => setTimeout(resolve)); // the browser paints and reacts
        if (!newest()) return;
        const begin = performance.now();
        words[i] = models[name].fill(text).map(({ word, probability }) => [word, probability]);
        times[i].push(performance.now() - begin);
      }
      figure.answer = { words };
      figure.busy(false);
      figure.note = "Measuring the time …";
      figure.redraw();
    }
    const median = (values) => values.sort((a, b) => a - b)[RUNS >> 1].toFixed(0), says = NAMES.map((name, i) => `the ${name} says “${words[i][0][0]}” in ${median(times[i])} ms`);
    return { words, said: `For ${tokens} tokens on this device, ${says.join(", ")} (median of ${RUNS} runs).` };
  }

  figure.draw(() => {
    const { words, said } = figure.answer;
    tables.forEach((write, i) => write(words[i].map(([word, share]) => [word, [{ of: NAMES[i], to: share, text: percent(share) }]])));
    figure.say(said);
  });
});
