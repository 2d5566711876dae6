// The first page: a blank in one's own sentence, filled by teacher and student side by side, with the time that each takes.
"use strict";

Figures.all.fill_in = (figure, { MODELS, make, button, box, row, softmax, leading, data: { answers, titles } }) => {
  const WORDS = 5, RUNS = 5; // the time shown is the median; the first is often slow: the browser compiles
  const known = Object.entries(answers).map(([text, words]) => [text, { words, said: `Recorded: what both models answer to “${text}”` }]);
  const ask = figure.sentence({ known, compute });
  figure.button("Fill the blank", () => ask(figure.state.text));
  const columns = MODELS.map(() => make("div"));
  figure.add(row("Examples", known.map(([text]) => button(text, () => {
    figure.set({ text });
    ask(text);
  }))), box("beside even", columns));
  const tables = columns.map((column, i) => figure.bars(titles[i], `The ${MODELS[i]}'s likeliest words`, column, [MODELS[i]]));

  async function compute({ ids, place, pieces, newest, ...models }) {
    const times = [[], []], words = [];
    for (let run = 0; run < RUNS; run++) {
      for (const [i, name] of MODELS.entries()) { // taking turns, so that a busy moment does not fall on one of them alone
        await new Promise(resolve => setTimeout(resolve)); // the browser paints and reacts
        if (!newest()) return;
        const begin = performance.now(), shares = softmax(models[name].logits(ids, place));
        words[i] = leading([shares], WORDS).map(id => [pieces[id], shares[id]]);
        times[i].push(performance.now() - begin);
      }
      figure.answer = { words };
      figure.busy(false);
      figure.note = "Measuring the time …";
      figure.redraw();
    }
    const median = values => values.sort((a, b) => a - b)[RUNS >> 1].toFixed(0), says = MODELS.map((name, i) => `the ${name} says “${words[i][0][0]}” in ${median(times[i])} ms`);
    return { words, said: `For ${ids.length} tokens on this device, ${says.join(", ")} (median of ${RUNS} runs).` };
  }

  figure.draw(() => {
    const { words, said } = figure.answer;
    tables.forEach((write, i) => write(words[i]));
    figure.say(said);
  });
};
