// BERT and DistilBERT in one page of plain JavaScript: a sentence with a blank goes in, a score for each word comes out.
//
//     const model = new FillMask.Model(FILL_MASK_MODELS.student);       // as distil_lib/export/browser.py has packed it
//     const { ids, place } = model.read("If the file does not exist, a [MASK] is raised.");
//     Figures.softmax(model.logits(ids, place));                        // [0.0001, ...], of model.tokenizer.pieces
//
// No library, no network, one thread; it needs figures.js. The model is the student of distil_lib/student.py, under the same names; the teacher comes as a
// student with all of its layers (BERT's token-type vector has been added to the positions). A matrix of n rows is n vectors, one
// after the other, in a Float32Array; a text of L tokens is a matrix of L rows.
"use strict";

globalThis.FillMask = (({ sum, range, softmax, bytes }) => {
  // ------------------------------------------------------------------------------------------------ from text to numbers
  const SPECIAL = /(\[(?:PAD|UNK|CLS|SEP|MASK)\])/;
  const LONGEST_WORD = 100; // characters; a longer one is [UNK] without a look into the vocabulary
  // A browser knows a newer Unicode than the tokenizer's tables: a few hundred characters that are younger than those may differ.
  const NOT_TEXT = /[\0-\x08\x0B\f\x0E-\x1F\x7F-\x9F\uFFFD\p{Cf}\p{Co}]/gu; // control characters, invisible marks, private use
  const PUNCTUATION = /[!-\/:-@[-`{-~\p{P}]/gu; // every sign of ASCII, "$" and "+" too, and what Unicode calls punctuation
  const IDEOGRAPH =
    /[\u3400-\u4DBF\u4E00-\u9FFF\uF900-\uFAFF\u{20000}-\u{2A6DF}\u{2A700}-\u{2B81F}\u{2B920}-\u{2CEAF}\u{2F800}-\u{2FA1F}]/gu;

  // BERT's "uncased" tokenizer: text is cleaned, cut at spaces and punctuation, and each word into the longest pieces that the
  // vocabulary has.
  class Tokenizer {
    constructor(vocabulary) {
      this.pieces = vocabulary;
      this.ids = new Map(vocabulary.map((piece, id) => [piece, id]));
    }

    // The ids of a text between [CLS] and [SEP]. A special token in the text is itself, written exactly so; "[mask]" is three words.
    encode(text) {
      const pieces = text.split(SPECIAL).flatMap(part =>
        SPECIAL.test(part) ? part : this.words(part).flatMap(word => this.wordPieces(word)));
      return ["[CLS]", ...pieces, "[SEP]"].map(piece => this.ids.get(piece));
    }

    // Words and punctuation marks, in lower case and without accents.
    words(text) {
      const clean = text.replace(NOT_TEXT, "").replace(IDEOGRAPH, " $& "); // each ideograph is a word; \s is now Unicode's white space
      // Decomposed, an accent is a character of its own. Lower case comes last and looks at one character at a time: JavaScript's
      // toLowerCase of a whole word would turn a Greek sigma at its end into another letter.
      const characters = [...clean.normalize("NFD").replace(/\p{Mn}/gu, "")];
      return characters.map(c => c.toLowerCase()).join("").replace(PUNCTUATION, " $& ").match(/\S+/g) ?? [];
    }

    // "unquantized" -> ["un", "##quan", "##ti", "##zed"], always the longest piece that fits; one that nothing fits is [UNK].
    wordPieces(word) {
      const characters = [...word];
      if (characters.length > LONGEST_WORD) return ["[UNK]"];
      const found = [];
      for (let start = 0, end; start < characters.length; start = end) {
        let piece;
        for (end = characters.length; end > start; end--) {
          piece = (start ? "##" : "") + characters.slice(start, end).join("");
          if (this.ids.has(piece)) break;
        }
        if (end === start) return ["[UNK]"];
        found.push(piece);
      }
      return found;
    }
  }

  // -------------------------------------------------------------------------------------------------------- the arithmetic
  // y = x W^T + b: each row of x times each row of W.
  function linear(x, { rows: outputs, columns: inputs, values }, bias) {
    const rows = x.length / inputs, y = new Float32Array(rows * outputs);
    for (let o = 0; o < outputs; o++) { // the outer loop, so that a row of W stays near while all rows of x meet it
      for (let r = 0; r < rows; r++) y[r * outputs + o] = bias[o] + dot(values, o * inputs, x, r * inputs, inputs);
    }
    return y;
  }

  // Nine tenths of the time go by in here: four sums grow side by side, where one would wait for itself. All lengths are multiples of 4.
  function dot(a, i, b, j, length) {
    let s = 0, t = 0, u = 0, v = 0;
    for (const end = i + length; i < end; i += 4, j += 4) {
      s += a[i] * b[j];
      t += a[i + 1] * b[j + 1];
      u += a[i + 2] * b[j + 2];
      v += a[i + 3] * b[j + 3];
    }
    return s + t + u + v;
  }

  // Each row shifted and stretched to mean 0 and variance 1, then by what was learned. Works in place.
  function layerNorm(x, { values: gain }, bias, epsilon) {
    const width = gain.length;
    for (let start = 0; start < x.length; start += width) {
      const row = x.subarray(start, start + width), mean = sum(row) / width, variance = sum(row.map(v => (v - mean) ** 2)) / width;
      row.forEach((v, i) => (row[i] = ((v - mean) / Math.sqrt(variance + epsilon)) * gain[i] + bias[i]));
    }
    return x;
  }

  const add = (x, y) => x.map((v, i) => v + y[i]);

  // x times the share of a normal distribution that lies below x: BERT's exact GELU, not the approximation by tanh.
  const gelu = x => x.map(v => v * 0.5 * (1 + erf(v * Math.SQRT1_2)));

  // JavaScript has no erf. Formula 7.1.26 of Abramowitz and Stegun is wrong by at most 1.5e-7, about what float32 rounds away.
  function erf(x) {
    const t = 1 / (1 + 0.3275911 * Math.abs(x));
    const series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    return Math.sign(x) * (1 - series * Math.exp(-x * x));
  }

  // Every token asks (query) and every token answers (key, value), in `heads` groups of columns that do not see each other.
  // Into `seen` go the shares, a row for each head and token: how much of each token it takes.
  function attention(query, key, value, { heads, width }, seen) {
    const length = query.length / width, size = width / heads, context = new Float32Array(query.length);
    for (let start = 0; start < width; start += size) {
      for (let i = 0; i < length; i++) {
        const shares = softmax(range(length, j => dot(query, i * width + start, key, j * width + start, size) / Math.sqrt(size)));
        seen.push(shares);
        shares.forEach((share, j) => {
          for (let d = start; d < start + size; d++) context[i * width + d] += share * value[j * width + d];
        });
      }
    }
    return context;
  }

  // -------------------------------------------------------------------------------------------------------------- the model
  // Matrices travel as bytes, with one scale a row: a weight is scale * byte. They are made into floats once, here; the arithmetic
  // is then that of any float32 model, and what the rounding to bytes cost has been paid when they were packed.
  function unpack({ data, tensors }) {
    const { buffer } = bytes(data);
    return Object.fromEntries(Object.entries(tensors).map(([name, { kind, start, rows, columns }]) => {
      const size = rows * columns, float32 = kind === "float32", floats = new Float32Array(buffer, start, float32 ? size : rows);
      const values = float32 ? floats : new Float32Array(new Int8Array(buffer, start + 4 * rows, size)).map((byte, i) => floats[Math.floor(i / columns)] * byte);
      return [name, { rows, columns, values }];
    }));
  }

  class Model {
    constructor(packed) {
      this.config = packed.config;
      this.tokenizer = new Tokenizer(packed.vocabulary);
      this.tensors = unpack(packed);
    }

    // What is called so: weight and bias of a linear layer, or of a norm.
    part(name) {
      return [this.tensors[`${name}.weight`], this.tensors[`${name}.bias`].values];
    }

    linear(x, name) {
      return linear(x, ...this.part(name));
    }

    norm(x, name) {
      return layerNorm(x, ...this.part(name), this.config.epsilon);
    }

    // A row a token: the vector of its word plus that of its place.
    embed(ids) {
      const { width } = this.config, x = new Float32Array(ids.length * width);
      const [words, places] = ["word", "position"].map(kind => this.tensors[`embeddings.${kind}_embeddings.weight`].values);
      ids.forEach((id, place) => x.set(words.subarray(id * width, (id + 1) * width), place * width));
      return this.norm(add(x, places), "embeddings.LayerNorm");
    }

    // One layer: tokens look at each other, then each is worked on alone; both times the result is added to what was there.
    layer(x, name, seen) {
      const [query, key, value] = ["q_lin", "k_lin", "v_lin"].map(part => this.linear(x, `${name}.attention.${part}`));
      const context = attention(query, key, value, this.config, seen);
      x = this.norm(add(this.linear(context, `${name}.attention.out_lin`), x), `${name}.sa_layer_norm`);
      const inner = gelu(this.linear(x, `${name}.ffn.lin1`));
      return this.norm(add(this.linear(inner, `${name}.ffn.lin2`), x), `${name}.output_layer_norm`);
    }

    // The score of every word of the vocabulary at one place: the head runs for the blank alone, not for the other tokens.
    // `layers`: only these run, in this order. Into `seen` goes what the heads look at, layer by layer.
    logits(ids, place, { layers = Array(this.config.layers).keys(), seen = [] } = {}) {
      const { width } = this.config;
      let x = this.embed(ids);
      for (const n of layers) x = this.layer(x, `transformer.layer.${n}`, seen);
      const state = this.norm(gelu(this.linear(x.slice(place * width, (place + 1) * width), "vocab_transform")), "vocab_layer_norm");
      // The matrix that reads words in reads words out, too.
      return linear(state, this.tensors["embeddings.word_embeddings.weight"], this.tensors["vocab_projector.bias"].values);
    }

    // The ids of a text and the place of its blank, which it needs. Throws a RangeError with a sentence for the reader.
    read(text, needed = true) {
      const ids = this.tokenizer.encode(text), mask = this.tokenizer.ids.get("[MASK]"), blanks = ids.filter(id => id === mask).length;
      if (!blanks && needed) throw new RangeError("There is no blank: write [MASK] where a word is missing.");
      if (blanks > 1) throw new RangeError(`There are ${blanks} blanks: leave one [MASK] and fill the others in.`);
      if (ids.length > this.config.positions) {
        throw new RangeError(`The text is too long: ${ids.length} tokens, where the models read at most ${this.config.positions}.`);
      }
      return { ids, place: ids.indexOf(mask) };
    }
  }

  return { Tokenizer, Model };
})(Figures);
