// Chapter 3: which head looks where. A small picture for each head of both models; below, one token and what it takes from each other.
"use strict";

Figures.all.heads = (figure, { MODELS, make, set, button, box, sum, range, least, percent, bytes, data }) => {
  const HEADS = data.heads; // in a layer; heads are counted through all layers
  const KINDS = [["itself", i => i], ["the token before", i => i - 1], ["the token after", i => i + 1], ["[CLS]", () => 0], ["[SEP]", (i, n) => n - 1]];
  const pieces = (values, n) => range(values.length / n, i => values.slice(i * n, (i + 1) * n));

  // Of each model, shares[head][from][to].
  const size = data.tokens.length, recorded = data.shares.map(packed => pieces(pieces(Array.from(bytes(packed), byte => byte / 255), size), size));
  figure.sentence({
    label: "A sentence of your own", blank: false, known: [[data.text, { tokens: data.tokens, shares: recorded }]],
    compute: ({ ids, place, pieces: words, ...models }) => {
      const shares = MODELS.map(name => {
        const seen = [];
        models[name].logits(ids, place, { seen }); // of no word, if there is no blank
        return pieces(seen, ids.length);
      });
      return { tokens: ids.map(id => words[id]), shares };
    },
  });

  // What a head looks at most, on average over the tokens.
  const kind = rows => least(KINDS.map(([name, place]) => [sum(rows.map((row, i) => row[place(i, rows.length)] ?? 0)) / rows.length, name]), ([share]) => -share);

  // One of several buttons, as one stop of the Tab key: arrow keys go on in it, and a pressed pointer that is moved over them.
  const radio = child => button(child, null, { role: "radio" });
  function choices(label, key, columns, style, ...children) {
    const radios = () => [...group.querySelectorAll("[role=radio]")];
    const choose = event => {
      const found = event.target.closest("[role=radio]");
      if (!found || (event.type !== "click" && !event.buttons)) return;
      if (event.type === "pointerdown") found.releasePointerCapture(event.pointerId); // a finger may leave it
      figure.set({ [key]: radios().indexOf(found) });
    };
    const onkeydown = event => {
      const next = figure.state[key] + { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key], found = radios()[next];
      if (!found) return;
      event.preventDefault();
      found.focus();
      figure.set({ [key]: next });
    };
    const group = make("div", { class: style, style: `--heads: ${HEADS}`, role: "radiogroup", "aria-label": label, onclick: choose, onpointerdown: choose, onpointerover: choose, onkeydown }, ...children);
    figure.draw(state => radios().forEach((each, n) => set(each, { "aria-checked": n === state[key], tabindex: n === state[key] ? 0 : -1 })));
    return group;
  }

  let shown;
  figure.draw(state => {
    if (figure.answer === shown) return;
    shown = figure.answer;
    state.token = Math.min(state.token, shown.tokens.length - 1);
    tokens.replaceChildren(...shown.tokens.map(radio));
    maps.forEach((map, k) => map.querySelectorAll("button").forEach((each, n) => {
      const rows = shown.shares[k][n], [share, what] = kind(rows), said = `${MODELS[k]}, layer ${Math.floor(n / HEADS)}, head ${n % HEADS}: ${what} ${percent(share)}`;
      set(each, { "aria-label": said, title: said });
      // A row a token that looks; the style gives the colour, the share is how much of it.
      const canvas = each.firstChild, context = canvas.getContext("2d");
      canvas.width = canvas.height = rows.length;
      rows.forEach((row, i) => row.forEach((share, j) => {
        context.fillStyle = `rgb(0 0 0 / ${Math.sqrt(share)})`;
        context.fillRect(j, i, 1, 1);
      }));
    }));
  });

  // In the beginning this student's layer 1, which was the teacher's layer 2.
  const maps = MODELS.map((name, k) => {
    const heads = recorded[k].map(() => radio(make("canvas"))), said = `${k ? "Student" : "Teacher"}: ${heads.length / HEADS} layers of ${HEADS} heads`;
    figure.number(name, { max: heads.length - 1, step: 1, value: [2, 1][k] * HEADS });
    return make("div", {}, said, choices(said, name, HEADS, "drag-heads", pieces(heads, HEADS).map((row, layer) => [make("span", {}, `layer ${layer}` + (k ? ` (was ${data.copied[layer]})` : "")), row])));
  });
  figure.number("token", { max: 999, step: 1, value: data.tokens.indexOf("[MASK]") });
  const tokens = choices("The token that looks", "token", 1, "drag-tokens");
  figure.add(box("beside even", maps), make("p", {}, "Which token looks?"), tokens);
  const write = figure.bars(["It takes from", "teacher’s head", "student’s head (striped)"], "Shares of the token’s new vector");

  figure.draw(state => {
    const chosen = MODELS.map((name, k) => shown.shares[k][state[name]]);
    write(shown.tokens.map((text, j) => [text, ...chosen.map(rows => rows[state.token][j])]));
    const words = MODELS.map((name, k) => {
      const row = chosen[k][state.token], most = row.indexOf(Math.max(...row)), [share, what] = kind(chosen[k]), n = state[name];
      return `the ${name}’s head ${n % HEADS} of layer ${Math.floor(n / HEADS)} mostly to “${shown.tokens[most]}” (${percent(row[most])}; on average ${what} ${percent(share)})`;
    });
    figure.say(`“${shown.tokens[state.token]}” looks: ${words.join("; ")}.`);
  });
};
