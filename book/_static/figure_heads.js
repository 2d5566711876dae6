// Chapter 3: which head looks where. A small picture for each head of both models; below, one token and what it takes from each other.
"use strict";

Figures.define("heads", (figure) => {
  const { make, sum, percent, unpack } = Figures;
  const NAMES = ["teacher", "student"], data = figure.data;
  const KINDS = [["itself", (i, j) => i === j], ["the token before", (i, j) => j === i - 1], ["the token after", (i, j) => j === i + 1],
    ["[CLS]", (i, j) => j === 0], ["[SEP]", (i, j, n) => j === n - 1]];

  figure.sentence({
    label: "A sentence of your own", value: data.text,
    recorded: { tokens: data.tokens, shares: data.shares.map((text, k) => folded(unpack(text, Uint8Array), data.layers[k], data.tokens.length)) },
    compute: (models, text) => {
      const { ids, place } = models.teacher.read(text, false), tokens = ids.map((id) => models.teacher.tokenizer.pieces[id]);
      const shares = NAMES.map((name) => {
        const attentions = [];
        models[name].logits(ids, Math.max(0, place), { attentions });
        return attentions.map((rows) => [...Array(data.heads).keys()].map((head) => rows.slice(head * ids.length, (head + 1) * ids.length)));
      });
      return { tokens, shares };
    },
  });

  // Recorded bytes, to shares[layer][head][from][to].
  function folded(bytes, layers, n) {
    const rows = (start) => Array.from({ length: n }, (_, i) => Array.from(bytes.subarray(start + i * n, start + (i + 1) * n), (byte) => byte / 255));
    return Array.from({ length: layers }, (_, layer) => Array.from({ length: data.heads }, (_, head) => rows((layer * data.heads + head) * n * n)));
  }

  // What a head looks at most, on average over the tokens.
  function kind(rows) {
    const n = rows.length;
    const shares = KINDS.map(([name, test]) => [sum(rows.map((row, i) => sum(Array.from(row, (share, j) => (test(i, j, n) ? share : 0))))) / n, name]);
    return shares.reduce((a, b) => (b[0] > a[0] ? b : a));
  }

  // One of several buttons, as one stop of the Tab key: arrow keys go on in it, and a pressed pointer that is moved over them.
  function group(label, key, columns, buttons) {
    const pick = (n) => figure.set(key, Math.max(0, Math.min(buttons().length - 1, n)));
    const choose = (event) => {
      const button = event.target.closest("[role=radio]");
      if (!button || (event.type !== "click" && !event.buttons)) return;
      if (event.type === "pointerdown") button.releasePointerCapture(event.pointerId); // a finger may leave it
      pick(buttons().indexOf(button));
    };
    return make("div", {
      role: "radiogroup", "aria-label": label, onclick: choose, onpointerdown: choose, onpointerover: choose,
      onkeydown: (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
        if (!step) return;
        event.preventDefault();
        pick(figure.state[key] + step);
        buttons()[figure.state[key]].focus();
      },
    });
  }
  const mark = (buttons, chosen) => buttons.forEach((button, n) => {
    button.setAttribute("aria-checked", n === chosen);
    button.tabIndex = n === chosen ? 0 : -1;
  });

  const starts = [2, 1].map((layer) => layer * data.heads); // layer and head in one number; this student's layer was that one of the teacher
  const maps = NAMES.map((name, k) => {
    const key = name, title = `${k ? "Student" : "Teacher"}: ${data.layers[k]} layers of ${data.heads} heads`;
    const buttons = Array.from({ length: data.layers[k] * data.heads }, () => make("button", { type: "button", role: "radio" }, make("canvas")));
    figure.start(key, starts[k], (given) => (buttons[Number(given)] ? Number(given) : undefined));
    const box = group(title, key, data.heads, () => buttons);
    box.className = "drag-heads";
    for (let layer = 0; layer < data.layers[k]; layer++) {
      const origin = k ? ` (was ${data.copied[layer]})` : "";
      box.append(make("span", {}, `layer ${layer}${origin}`), ...buttons.slice(layer * data.heads, (layer + 1) * data.heads));
    }
    box.style.setProperty("--heads", data.heads);
    return { title, box, buttons };
  });
  figure.body.append(make("div", { class: "drag-beside", style: "align-items:flex-start" }, maps.map(({ title, box }) => make("div", {}, title, box))));

  let tokens = [];
  figure.start("token", data.tokens.indexOf("[MASK]"), (given) => (/^\d+$/.test(given) ? Number(given) : undefined));
  const line = group("The token that looks", "token", 1, () => tokens);
  line.className = "drag-tokens";
  figure.body.append(make("p", {}, "Which token looks?"), line);
  const write = figure.bars(["It takes from", "teacher’s head", "student’s head (striped)"], "Shares of the token’s new vector");

  let shown;
  function prepare() { // what depends on the sentence alone
    shown = figure.answer;
    tokens = shown.tokens.map((text) => make("button", { type: "button", role: "radio" }, text));
    line.replaceChildren(...tokens);
    maps.forEach(({ buttons }, k) => buttons.forEach((button, n) => {
      const layer = Math.floor(n / data.heads), head = n % data.heads, rows = shown.shares[k][layer][head], [share, name] = kind(rows);
      const text = `${NAMES[k]}, layer ${layer}, head ${head}: ${name} ${percent(share)}`;
      button.setAttribute("aria-label", text);
      button.title = text;
      draw(button.firstChild, rows);
    }));
  }
  function draw(canvas, rows) { // a row a token that looks; the style gives the colour, the share is how much of it
    const n = (canvas.width = canvas.height = rows.length), context = canvas.getContext("2d");
    rows.forEach((row, i) => row.forEach((share, j) => {
      context.fillStyle = `rgb(0 0 0 / ${Math.sqrt(share)})`;
      context.fillRect(j, i, 1, 1);
    }));
  }

  figure.draw((state) => {
    if (figure.answer !== shown) prepare();
    const token = Math.min(state.token, tokens.length - 1);
    mark(tokens, token);
    maps.forEach(({ buttons }, k) => mark(buttons, state[NAMES[k]]));
    const chosen = NAMES.map((name, k) => shown.shares[k][Math.floor(state[name] / data.heads)][state[name] % data.heads]);
    write(shown.tokens.map((text, j) => [text, ...chosen.map((rows, k) => [{ of: NAMES[k], to: rows[token][j], text: percent(rows[token][j]) }])]));
    const most = chosen.map((rows) => rows[token].reduce((a, b, j) => (b > rows[token][a] ? j : a), 0));
    const words = NAMES.map((name, k) => `the ${name}’s head ${state[name] % data.heads} of layer ${Math.floor(state[name] / data.heads)} mostly to “${shown.tokens[most[k]]}” ` +
      `(${percent(chosen[k][token][most[k]])}; on average ${kind(chosen[k])[1]} ${percent(kind(chosen[k])[0])})`);
    figure.say(`“${shown.tokens[token]}” looks: ${words.join("; ")}.`);
  });
});
