// The form of the directive `fill-mask` (book/_ext/fill_mask.py): the reader's sentence through teacher and student, side by side.
// What they compute is in fill_mask.js. Their weights lie beside this file and are fetched when the form is first used.
"use strict";

(() => {
  const HERE = document.currentScript.src;
  const RUNS = 5; // the time shown is the median of these; the first is often slow, because the browser compiles while it runs
  const models = {}; // name -> promise of a FillMask.Model

  // A <script> element, because pages opened from a disk may not fetch() files.
  function load(name) {
    models[name] ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL(`fill_mask_${name}.js`, HERE);
      script.onload = resolve;
      script.onerror = () => {
        delete models[name]; // so that another try is possible
        reject(new Error(`The ${name}'s weights could not be loaded (${script.src}). Build the book again, or try once more.`));
      };
      document.head.append(script);
    }).then(() => {
      const model = new FillMask.Model(FILL_MASK_MODELS[name]);
      delete FILL_MASK_MODELS[name]; // the packed form, no longer needed
      return model;
    });
    return models[name];
  }

  // Lets the browser paint and react between two computations.
  const pause = () => new Promise((resolve) => setTimeout(resolve));
  const median = (times) => [...times].sort((a, b) => a - b)[times.length >> 1];

  function show(section, answer) {
    section.querySelector("ol").replaceChildren(...answer.map(({ word, probability }) => {
      const item = document.createElement("li");
      item.style.setProperty("--share", probability);
      for (const text of [word, `${Math.round(100 * probability)}%`]) {
        item.append(Object.assign(document.createElement("span"), { textContent: text }), " ");
      }
      return item;
    }));
  }

  function start(widget) {
    const form = widget.querySelector("form"), status = widget.querySelector("[role=status]");
    const input = form.elements.text, answered = widget.querySelector(".fill-mask-answers");
    const sections = [...answered.querySelectorAll("section")];
    let latest = 0; // a new question makes the one before it stop

    function say(text, wrong = false) {
      status.textContent = text;
      input.setAttribute("aria-invalid", wrong);
    }

    async function ask() {
      const mine = ++latest, text = input.value.replace(/\[mask\]|_{3,}/gi, "[MASK]");
      const times = sections.map(() => []), answers = [];
      answered.setAttribute("aria-busy", true); // dims what is still shown of the question before
      try {
        say(`Loading both models, ${widget.dataset.megabytes} MB, once …`);
        const loaded = [];
        for (const section of sections) loaded.push(await load(section.dataset.model));
        for (let run = 0; run < RUNS; run++) {
          for (const [i, model] of loaded.entries()) { // taking turns, so that a busy moment does not fall on one of them alone
            await pause();
            if (mine !== latest) return;
            const begin = performance.now();
            answers[i] = model.fill(text);
            times[i].push(performance.now() - begin);
            if (run === 0) show(sections[i], answers[i]);
          }
          if (run === 0) {
            answered.setAttribute("aria-busy", false);
            say("Measuring the time …");
          }
        }
        const said = sections.map((section, i) =>
          `the ${section.dataset.model} says “${answers[i][0].word}” in ${median(times[i]).toFixed(0)} ms`);
        say(`For ${loaded[0].tokenizer.encode(text).length} tokens on this device, ${said.join(", ")} (median of ${RUNS} runs).`);
      } catch (error) {
        if (mine !== latest) return;
        answered.setAttribute("aria-busy", false);
        say(error.message, true);
        for (const section of sections) section.querySelector("ol").replaceChildren();
      }
    }

    form.addEventListener("submit", (event) => {
      event.preventDefault();
      ask();
    });
    for (const example of form.querySelectorAll("ul button")) {
      example.addEventListener("click", () => {
        input.value = example.textContent;
        ask();
      });
    }
    form.hidden = false;
  }

  document.querySelectorAll(".fill-mask").forEach(start);
})();
