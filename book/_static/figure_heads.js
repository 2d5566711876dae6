// Chapter 3: which head looks where. A small picture for each head of both models; below, one token and what it takes from each other.
"use strict";

Figures.define("heads", (figure) => {
  const { make, set, button, sum, clamp, percent, unpack } = Figures, { data } = figure, NAMES = ["teacher", "student"], HEADS = data.heads;
  const KINDS = [["itself", (i, j) => i === j], ["the token before", (i, j) => j === i - 1], ["the token after", (i, j) => j === i + 1],
    ["[CLS]", (i, j) => j === 0], ["[SEP]", (i, j, n) => j === n - 1]];
  const range = (n, value) => Array.from({ length: n }, (_, i) => value(i));

  const recorded = { tokens: data.tokens, shares: data.shares.map((packed, k) => folded(unpack(packed, Uint8Array), data.layers[k], data.tokens.length)) };
  figure.sentence({
    label: "A sentence of your own", value: data.text,
    recorded: (text) => text === data.text && recorded,
    compute: (models, text) => {
      const { ids, place } = models.teacher.read(text, false);
      const shares = NAMES.map((name) => {
        const attentions = [];
        models[name].logits(ids, Math.max(0, place), { attentions });
        return attentions.map((rows) => range(HEADS, (head) => rows.slice(head * ids.length, (head + 1) * ids.length)));
      });
      return { tokens: ids.map((id) => models.teacher.tokenizer.pieces[id]), shares };
    },
  });

  // Recorded bytes, to shares[layer][head][from][to].
  function folded(bytes, layers, n) {
    const row = (start) => Array.from(bytes.subarray(start, start + n), (byte) => byte / 255);
    return range(layers, (layer) => range(HEADS, (head) => range(n, (i) => row(((layer * HEADS + head) * n + i) * n))));
  }
  // What a head looks at most, on average over the tokens.
  function kind(rows) {
    const n = rows.length, means = KINDS.map(([name, test]) => [sum(rows.map((row, i) => sum(Array.from(row).filter((_, j) => test(i, j, n))))) / n, name]);
    return means.reduce((a, b) => (b[0] > a[0] ? b : a));
  }

  // One of several buttons, as one stop of the Tab key: arrow keys go on in it, and a pressed pointer that is moved over them.
  function group(label, key, columns, style) {
    let buttons = [];
    const pick = (n) => figure.set(key, clamp(n, 0, buttons.length - 1));
    const choose = (event) => {
      const button = event.target.closest("[role=radio]");
      if (!button || (event.type !== "click" && !event.buttons)) return;
      if (event.type === "pointerdown") button.releasePointerCapture(event.pointerId); // a finger may leave it
      pick(buttons.indexOf(button));
    };
    const onkeydown = (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
      if (!step) return;
      event.preventDefault();
      pick(figure.state[key] + step);
      buttons[figure.state[key]].focus();
    };
    const box = make("div", { class: style, style: `--heads: ${HEADS}`, role: "radiogroup", "aria-label": label, onclick: choose, onpointerdown: choose, onpointerover: choose, onkeydown });
    return {
      box,
      fill: (children) => {
        box.replaceChildren(...children);
        buttons = children.filter((each) => each.localName === "button");
      },
      mark: (chosen) => buttons.forEach((each, n) => set(each, { "aria-checked": String(n === chosen), tabindex: n === chosen ? 0 : -1 })),
    };
  }
  const radio = (child) => button(child, null, { role: "radio" });

  // Layer and head in one number; in the beginning this student's layer 1, which was the teacher's layer 2.
  const maps = NAMES.map((name, k) => {
    const title = `${k ? "Student" : "Teacher"}: ${data.layers[k]} layers of ${HEADS} heads`, map = group(title, name, HEADS, "drag-heads"), heads = range(data.layers[k] * HEADS, () => radio(make("canvas")));
    figure.number(name, [2, 1][k] * HEADS, 0, heads.length - 1);
    map.fill(range(data.layers[k], (layer) => [make("span", {}, `layer ${layer}${k ? ` (was ${data.copied[layer]})` : ""}`), ...heads.slice(layer * HEADS, (layer + 1) * HEADS)]).flat());
    return { ...map, title, heads };
  });
  const line = group("The token that looks", "token", 1, "drag-tokens");
  figure.number("token", data.tokens.indexOf("[MASK]"), 0, 999);
  figure.body.append(make("div", { class: "drag-beside even" }, maps.map(({ title, box }) => make("div", {}, title, box))), make("p", {}, "Which token looks?"), line.box);
  const write = figure.bars(["It takes from", "teacher’s head", "student’s head (striped)"], "Shares of the token’s new vector");

  let shown;
  function prepare() { // what depends on the sentence alone
    shown = figure.answer;
    line.fill(shown.tokens.map(radio));
    maps.forEach(({ heads }, k) => heads.forEach((each, n) => {
      const layer = Math.floor(n / HEADS), head = n % HEADS, rows = shown.shares[k][layer][head], [share, name] = kind(rows), title = `${NAMES[k]}, layer ${layer}, head ${head}: ${name} ${percent(share)}`;
      set(each, { "aria-label": title, title });
      draw(each.firstChild, rows);
    }));
  }
  function draw(canvas, rows) { // a row a token that looks; the style gives the colour, the share is how much of it
    canvas.width = canvas.height = rows.length;
    const context = canvas.getContext("2d");
    rows.forEach((row, i) => row.forEach((share, j) => {
      context.fillStyle = `rgb(0 0 0 / ${Math.sqrt(share)})`;
      context.fillRect(j, i, 1, 1);
    }));
  }

  figure.draw((state) => {
    if (figure.answer !== shown) prepare();
    const token = Math.min(state.token, shown.tokens.length - 1);
    line.mark(token);
    maps.forEach((map, k) => map.mark(state[NAMES[k]]));
    const chosen = NAMES.map((name, k) => shown.shares[k][Math.floor(state[name] / HEADS)][state[name] % HEADS]);
    write(shown.tokens.map((text, j) => [text, ...chosen.map((rows, k) => [{ of: NAMES[k], to: rows[token][j], text: percent(rows[token][j]) }])]));
    const words = NAMES.map((name, k) => {
      const row = chosen[k][token], most = row.reduce((a, b, j) => (b > row[a] ? j : a), 0), [share, what] = kind(chosen[k]);
      return `the ${name}’s head ${state[name] % HEADS} of layer ${Math.floor(state[name] / HEADS)} mostly to “${shown.tokens[most]}” (${percent(row[most])}; on average ${what} ${percent(share)})`;
    });
    figure.say(`“${shown.tokens[token]}” looks: ${words.join("; ")}.`);
  });
});
