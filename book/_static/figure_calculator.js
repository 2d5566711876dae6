// Chapter 10: what a distillation costs: parameters, memory, tokens a second, hours and price.
"use strict";

Figures.all.calculator = (figure, { make, tr, sum, least, format, whole, data: { teachers, machines, masked, speeds } }) => {
  const POSITIONS = 512, MIB = 2 ** 20;
  const large = x => (x >= 1e9 ? `${format(x / 1e9)} billion` : x >= 1e6 ? `${format(x / 1e6)} million` : whole(x));
  const amount = (key, label, min, max, value, text = whole) => figure.slider(key, label, { min, max, value, text, log: true });
  figure.choice("teacher", "Teacher", teachers.map(([name, layers, width]) => [name, `${name}: ${layers} x ${whole(width)}`]));
  figure.choice("keep", "Layers that the student keeps", [[2, "every other"], [3, "every third"], [4, "every fourth"], [1, "all"]]);
  figure.choice("soft", "Soft targets for", [["masked", "masked tokens"], ["all", "all tokens"]]);
  figure.choice("machine", "Machine", machines);
  amount("vocabulary", "Vocabulary", 1000, 250000, 8192);
  amount("length", "Length of a block, in tokens", 16, 512, 64);
  amount("batch", "Blocks in a step", 1, 4096, 64);
  amount("micro", "Blocks at a time", 1, 512, 64);
  amount("text", "Your text, in WordPieces", 1e5, 1e10, 1e6, large);
  amount("epochs", "Times that it is read", 0.5, 100, 10.3, x => format(x));
  figure.text("speed", "Tokens a second, if you measured them", "");
  figure.text("price", "Your price of an hour", "");
  const example = (label, values) => figure.button(label, () => figure.set({ keep: 2, micro: 64, speed: "", ...values }));
  example("This book's student", { teacher: teachers[0][0], soft: "masked", machine: "cpu", vocabulary: 8192, length: 64, batch: 64, text: 1e6, epochs: 10.3 });
  example("The paper's, on one GPU", { teacher: teachers[2][0], soft: "all", machine: "cuda", vocabulary: 30522, length: 512, batch: 4000, text: 4.29e9, epochs: 3 });

  // ------------------------------------------------------- distil_lib.training.costs and .memory, in JavaScript
  // With the MLM head, whose matrix is that of the embeddings. A student has no token types.
  const parameters = ({ layers, H, F, V, types }) => (V + POSITIONS + types) * H + 2 * H + layers * (4 * (H * H + H) + 2 * H * F + F + 5 * H) + H * H + 3 * H + V;
  const forward = ({ layers, H, F, V }, L, share) => [4 * layers * (2 * H * H + H * F + L * H), 2 * (H * H + H * V) * share]; // layers, head
  const costs = ({ teacher, keep, soft, machine, vocabulary, length, batch, micro, text, epochs }) => {
    const [, all, H, , F] = teachers.find(([name]) => name === teacher), [V, L, B, M] = [vocabulary, length, batch, micro].map(Math.round);
    const whole = { layers: all, H, F, V, types: 2 }, cut = { ...whole, layers: Math.ceil(all / keep), types: 0 }, P = parameters(cut), fixed = 4 * parameters(whole);
    const share = soft === "all" ? 1 : (masked * (L - 2)) / L; // [CLS] and [SEP] are never masked
    const parts = [...forward(cut, L, share).map(x => 3 * x), ...forward(whole, L, share)]; // a backward pass costs two forward passes
    const sequences = Math.max(1, Math.round(epochs * Math.floor(text / (L - 2))));
    // bf16 without dropout, losses chunk by chunk: what forward pass, optimizer and evaluation need beside weights and means.
    const cpu = machine === "cpu", tokens = Math.min(M, B) * L, asked = Math.round(tokens * share), chunk = 4 * V * Math.min(asked, Math.floor(((cpu ? 16 : 128) * MIB) / (4 * V)));
    const layers = cut.layers * tokens * (28 * H + 4 * F) + 12 * tokens * H + 2 * (P - POSITIONS * H);
    const head = Math.max(5 * chunk, 2 * chunk + (cpu ? 6 : 4) * V * H) + 4 * V * H + 28 * asked * H;
    const evaluation = 24 * V * Math.round(9.6 * L) + 512 * L * H;
    // The teacher's linear maps are kept in bf16, and a copy of its output's matrix with them.
    const rounded = 2 * (V * H - all * (4 * (H * H + H) + 2 * H * F + F + H) - H * H - H);
    return {
      H, parameters: [P, fixed / 4], parts, flops: sum(parts), tokens: sequences * L, steps: Math.ceil(sequences / B), resident: 16 * P + fixed,
      memory: 12 * P + fixed + rounded + Math.max((B > M ? 4 * P : 0) + layers + head, 4 * P, evaluation),
    };
  };
  const bar = make("div", { "aria-hidden": "true", class: "drag-ruler" }), legend = make("p"), table = make("table", { class: "drag-says" });
  figure.add(bar, legend, table);

  figure.draw(state => {
    const found = costs(state);
    // The measured speed of this machine at the nearest width, for the same soft targets if there is one.
    const near = least(speeds.filter(one => one.machine === state.machine), one => Math.abs(Math.log(one.width / found.H)) + (one.soft === state.soft ? 0 : 1e-6));
    const own = state.speed > 0, speed = own ? +state.speed : near.rate / found.flops;
    const hours = found.tokens / speed / 3600, price = hours * (state.price || NaN), narrow = !own && state.machine === "cuda" && found.H < near.width;
    const shares = found.parts.map(part => (100 * part) / found.flops);
    bar.replaceChildren(...shares.map((share, i) => make("span", { class: i % 2 && "striped", style: `width:${share}%;--color:var(--${i < 2 ? "student" : "teacher"})` })));
    const [a, b, c, d] = shares.map(Math.round);
    legend.textContent = `Arithmetic of a step: student's layers ${a}%, its head ${b}% (striped), teacher's layers ${c}%, its head ${d}% (striped).`;
    const [long, unit] = hours < 1 ? [60 * hours, "minutes"] : hours < 72 ? [hours, "hours"] : [hours / 24, "days"], time = `${narrow ? "at least " : ""}${format(long)} ${unit}`;
    table.replaceChildren(
      tr("parameters", `student ${large(found.parameters[0])}, teacher ${large(found.parameters[1])}`), tr("training reads", `${large(found.tokens)} tokens in ${whole(found.steps)} steps`),
      tr("memory of the tensors", `${format(found.memory / 1e9)} GB, of which weights, gradients, AdamW ${format(found.resident / 1e9)} GB`),
      tr("tokens a second", `${own ? "" : narrow ? "at most " : "about "}${whole(speed)}`), tr("time", time), tr("price", Number.isFinite(price) ? format(price) : "give a price of an hour"));
    figure.shown = { ...found, speed, hours, price };
    const source = own ? "The speed is your own." : `Measured were ${whole(near.speed)} tokens a second at width ${near.width} (${near.source}); yours are in proportion to a token's arithmetic${narrow ? ", and a small model reaches less of a GPU" : ""}.`;
    figure.say(`The run takes ${time} and ${format(found.memory / 1e9)} GB. ${source}`);
  });
};
