"use strict";

Figures.define("calculator", (figure) => {
  const { make, format } = Figures, { teachers, machines, masked, speeds } = figure.data, POSITIONS = 512;
  const count = (x) => Math.round(x).toLocaleString("en");
  const large = (x) => (x >= 1e9 ? `${format(x / 1e9)} billion` : x >= 1e6 ? `${format(x / 1e6)} million` : count(x));
  const controls = {
    teacher: figure.choice({ key: "teacher", label: "Teacher", value: teachers[0][0], options: teachers.map(([name, layers, width]) => [name, `${name}: ${layers} x ${count(width)}`]) }),
    keep: figure.choice({ key: "keep", label: "Layers that the student keeps", value: 2, options: [[1, "all"], [2, "every other"], [3, "every third"], [4, "every fourth"]] }),
    soft: figure.choice({ key: "soft", label: "Soft targets for", value: "masked", options: [["masked", "masked tokens"], ["all", "all tokens"]] }),
    machine: figure.choice({ key: "machine", label: "Machine", value: "cpu", options: machines }),
    vocabulary: figure.slider({ key: "vocabulary", label: "Vocabulary", min: 1000, max: 250000, value: 8192, log: true, text: count }),
    length: figure.slider({ key: "length", label: "Length of a block", min: 16, max: 512, value: 64, log: true, text: (x) => `${count(x)} tokens` }),
    batch: figure.slider({ key: "batch", label: "Blocks in a step", min: 1, max: 4096, value: 64, log: true, text: count }),
    text: figure.slider({ key: "text", label: "Your text, in WordPieces", min: 1e5, max: 1e10, value: 1e6, log: true, text: large }),
    epochs: figure.slider({ key: "epochs", label: "Times that it is read", min: 0.5, max: 100, value: 10.3, log: true }),
    speed: figure.text({ key: "speed", label: "Tokens a second, if you measured them", value: "" }),
    price: figure.text({ key: "price", label: "Your price of an hour", value: "" }),
  };
  const example = (label, values) => figure.button(label, () => Object.entries(values).forEach(([key, value]) => controls[key](value)));
  const first = { keep: 2, soft: "masked", machine: "cpu", length: 64, batch: 64, speed: "" };
  example("This book's student", { ...first, teacher: teachers[0][0], vocabulary: 8192, text: 1e6, epochs: 10.3 });
  example("BERT-base, the paper's recipe", { ...first, teacher: teachers[2][0], soft: "all", machine: "h200", vocabulary: 30522, length: 512, batch: 4000, text: 4.29e9, epochs: 3 });

  // ---------------------------------------------------------------------------- distil_lib.training.costs, in JavaScript
  // Parameters with the MLM head, whose matrix is that of the embeddings; `types`: token types, which a student has not.
  const parameters = ({ layers, H, F, V, types }) =>
    (V + POSITIONS + types) * H + 2 * H + layers * (4 * (H * H + H) + (H * F + F) + (F * H + H) + 4 * H) + (H * H + H) + 2 * H + V;
  // FLOPs of a forward pass for each token; the head computes for a share of them.
  const forward = ({ layers, H, F, V }, length, share) => [2 * layers * (4 * H * H + 2 * H * F), 4 * layers * length * H, 2 * (H * H + H * V) * share];
  const cost = ({ teacher, keep, soft, vocabulary, length, batch, text, epochs }) => {
    const [, layers, H, , F] = teachers.find(([name]) => name === teacher), V = Math.round(vocabulary), L = Math.round(length), B = Math.round(batch);
    const large = { layers, H, F, V, types: 2 }, small = { ...large, layers: Math.ceil(layers / keep), types: 0 };
    const share = soft === "all" ? 1 : (masked * (L - 2)) / L; // [CLS] and [SEP] are never masked
    const parts = [...forward(small, L, share).map((x) => 3 * x), ...forward(large, L, share)]; // a backward pass costs two forward passes
    const blocks = Math.floor(text / (L - 2)), sequences = Math.max(1, Math.round(epochs * blocks));
    return {
      H, student: parameters(small), teacher: parameters(large), layers: small.layers, parts, flops: parts.reduce((a, b) => a + b),
      tokens: sequences * L, steps: Math.ceil(sequences / B), resident: 16 * parameters(small) + 4 * parameters(large),
    };
  };
  // The measured speed that is nearest: of this machine, for these soft targets if there is one, of a similar width.
  const nearest = ({ machine, soft }, H) => {
    const far = (one) => Math.abs(Math.log(one.width / H)) + (one.soft === soft ? 0 : 0.5);
    return speeds.filter((one) => one.machine === machine).reduce((a, b) => (far(b) < far(a) ? b : a));
  };

  const bar = make("div", { role: "img", style: "display:flex;height:1.6rem;margin:0.8rem 0 0.2rem" }), legend = make("p", { style: "margin:0" }), table = make("table");
  const PARTS = [["student's layers", "student", 0, 1], ["student's head", "student", 2], ["teacher's layers", "teacher", 3, 4], ["teacher's head", "teacher", 5]];
  figure.body.append(bar, legend, table);

  figure.draw((state) => {
    const found = cost(state), near = nearest(state, found.H), own = Number(state.speed), price = state.price === "" ? NaN : Number(state.price);
    const speed = own > 0 ? own : near.rate / found.flops, hours = found.tokens / speed / 3600, most = Math.max(...speeds.filter((one) => one.machine === state.machine).map((one) => one.rate));
    const shares = PARTS.map(([, , ...of]) => of.reduce((sum, i) => sum + found.parts[i], 0) / found.flops);
    bar.replaceChildren(...PARTS.map(([, color, , layers], i) => make("span", {
      style: `width:${100 * shares[i]}%;border-right:1px solid var(--paper);background:${layers ? `var(--${color})` : `repeating-linear-gradient(45deg,var(--${color}) 0 5px,transparent 5px 9px)`}`,
    })));
    legend.textContent = `Arithmetic of a step: ${PARTS.map(([name], i) => `${name} ${Math.round(100 * shares[i])}%`).join(", ")} (heads striped).`;
    bar.setAttribute("aria-label", legend.textContent);
    const time = hours < 1 ? `${format(60 * hours)} minutes` : hours < 72 ? `${format(hours)} hours` : `${format(hours / 24)} days`;
    const total = Number.isFinite(price) ? format(hours * price) : "give a price";
    const small = state.machine === "h200" && found.H < near.width && !(own > 0);
    table.replaceChildren(...[
      ["parameters", `student ${large(found.student)}, teacher ${large(found.teacher)}`],
      ["training reads", `${large(found.tokens)} tokens in ${count(found.steps)} steps`],
      ["memory for the weights", `${format(found.resident / 1e9)} GB; the batch comes on top`],
      ["tokens a second", `${own > 0 ? "" : small ? "at most " : "about "}${count(speed)}`],
      ["time", `${small ? "at least " : ""}${time}`], ["price", total],
    ].map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", { style: "text-align:left" }, value))));
    figure.shown = { ...found, speed, hours, price: hours * price, most };
    const source = own > 0 ? "Speed: your own." : `Speed: measured ${count(near.speed)} tokens a second at width ${near.width} (${near.source}), here in proportion to the arithmetic of a token${small ? "; a small model reaches less of a GPU" : ""}.`;
    figure.say(`${time[0].toUpperCase()}${time.slice(1)} for ${large(found.tokens)} tokens. ${source}`);
  });
});
