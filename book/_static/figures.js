// Figures to drag: what all of them share. A figure is a file of its own, figure_NAME.js, which says
//
//     Figures.all.temperature = (figure, { make, format }) => {
//       figure.slider("T", "Temperature T", { min: 0.25, max: 64, value: 1, log: true });
//       figure.draw(({ T }) => { ... write into elements that figure.add(...) has put there ... });
//     };
//
// `distil_lib.pages.figures` puts an element of the class "drag" into a page, with a static picture in it; the live figure takes the
// picture's place. Whatever changes, changes `figure.state` by figure.set({ T: 2 }); controls and drawings follow in the next frame. The
// state is in the page's address, #drag-NAME?T=4, from the first change on; a link to it opens the figure there.
"use strict";

const Figures = (() => {
  const HERE = document.currentScript.src; // empty in a notebook, where scripts are written into the page
  const KIND = HERE.endsWith(".min.js") ? ".min.js" : ".js"; // of our own scripts; the book's pages load the short ones
  const all = {}, live = {}, loaded = {}, MODELS = ["teacher", "student"];
  const reduced = matchMedia("(prefers-reduced-motion: reduce)");
  const SVG = /^(svg|g|rect|path|circle|text|title)$/;

  // An element with attributes and children. An attribute that is a function listens: onclick. One that is false is not there, unless
  // it is for screen readers: aria-pressed.
  function make(name, attributes = {}, ...children) {
    const element = document.createElementNS(`http://www.w3.org/${SVG.test(name) ? "2000/svg" : "1999/xhtml"}`, name);
    set(element, attributes);
    element.append(...children.flat(Infinity));
    return element;
  }
  function set(element, attributes) {
    for (const [key, value] of Object.entries(attributes)) {
      if (typeof value === "function") element[key] = value;
      else if ((value ?? false) === false && !key.startsWith("aria")) element.removeAttribute(key);
      else element.setAttribute(key, value);
    }
  }
  const button = (label, onclick, more) => make("button", { onclick, ...more }, label),
    box = (style, ...children) => make("div", { class: `drag-${style}` }, ...children),
    row = (label, ...children) => make("div", { class: "drag-stack", role: "group", "aria-label": label }, ...children);
  // Of a drawing. `style`: names of classes (figures.css): colours of lines ("teacher") and areas ("of-teacher"), "wide", "dashed", "end".
  const text = (x, y, said, style) => make("text", { x, y, class: style }, said),
    // Along lines as SVG writes them, or straight through these points.
    path = (d, style) => make("path", { d: d.map ? `M${d.map(point => point.map(v => +v.toFixed(2)).join(" ")).join("L")}` : d, class: style }),
    axis = d => path(d, "axis"),
    circle = (cx, cy, r, style) => make("circle", { cx, cy, r, class: style }),
    rect = (x, y, width, height, style) => make("rect", { x, y, width, height, class: style });
  // The axes of two scales, with numbers at these places of them, and a line below.
  const frame = (x, y, across, up, said = "") => {
    const [left, right] = x.ends, [bottom, top] = y.ends;
    return [axis(`M${left} ${top}V${bottom}H${right}`), across.map(v => text(x(v), bottom + 17, format(v), "middle")), up.map(v => text(left - 4, y(v) + 4, format(v), "end")), text((left + right) / 2, bottom + 34, said, "middle")];
  };
  const move = (element, x, y) => set(element, { transform: `translate(${x} ${y})` }),
    // Puts what is dragged along a scale to its value there.
    place = (element, x, value, y = 0) => move(Object.assign(element, { from: x.back }), x(value), y);
  // Rows of a table.
  const th = (scope, name) => make("th", { scope }, name),
    head = (...names) => make("tr", {}, names.map(name => th("col", name))),
    tr = (name, ...cells) => make("tr", {}, th("row", name), cells.map(cell => make("td", {}, cell)));

  // -------------------------------------------------------------------------------------------------- what figures compute with
  const sum = values => values.reduce((a, b) => a + b, 0),
    range = (n, value) => Array.from({ length: n }, (_, i) => value(i)),
    least = (list, of) => list.reduce((a, b) => (of(b) < of(a) ? b : a));
  const softmax = (logits, T = 1) => {
    const top = logits.reduce((a, b) => Math.max(a, b), -Infinity);
    const powers = Array.from(logits, z => Math.exp((z - top) / T)), total = sum(powers);
    return powers.map(p => p / total);
  };
  // In nats; 0 log 0 is 0.
  const crossEntropy = (p, q) => sum(p.map((x, i) => (x > 0 ? -x * Math.log(q[i]) : 0))),
    entropy = p => crossEntropy(p, p),
    kl = (p, q) => crossEntropy(p, q) - entropy(p);
  // A generator of numbers in [0, 1) that is the same in each browser (mulberry32), for a seed that a test can give.
  const random = seed => () => {
    let t = (seed = (seed + 0x6d2b79f5) | 0);
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const clamp = (x, min, max) => Math.min(max, Math.max(min, x));
  // From a range of values to a range of pixels, logarithmic if asked; `back` is the way back.
  const scale = ([a, b], ends, log) => {
    const [from, to] = ends, [f, g] = log ? [Math.log, Math.exp] : [Number, Number], unit = (to - from) / (f(b) - f(a));
    return Object.assign(x => from + (f(x) - f(a)) * unit, { ends, back: x => g(f(a) + (x - from) / unit) });
  };
  // The first places of several lists of scores, from each in turn, until there are so many; in the order of the first list.
  function leading(lists, count) {
    const orders = lists.map(list => [...list.keys()].sort((a, b) => list[b] - list[a])), found = new Set();
    for (let n = 0; found.size < count; n++) for (const order of orders) if (found.size < count) found.add(order[n]);
    return [...found].sort((a, b) => lists[0][b] - lists[0][a]);
  }
  // Numbers that Python has packed, as text: the bytes of typed arrays.
  const bytes = packed => {
    const characters = atob(packed), found = new Uint8Array(characters.length);
    for (let i = 0; i < found.length; i++) found[i] = characters.charCodeAt(i);
    return found;
  };

  // ------------------------------------------------------------------------------------------------------------ numbers as words
  const format = (value, digits = 3) => value.toLocaleString("en", { maximumSignificantDigits: digits }),
    whole = x => Math.round(x).toLocaleString("en"),
    count = (n, name) => `${whole(n)} ${name}${n === 1 ? "" : "s"}`,
    percent = p => (p > 0 && p < 0.001 ? "< 0.1%" : p < 0.0995 ? exactly(p) : points(p)),
    exactly = p => `${(100 * p).toFixed(1)}%`,
    points = x => `${Math.round(100 * x)}%`;

  // ------------------------------------------------------------------------------------------------------------------ one figure
  class Figure {
    state = {}; ranges = {}; drawing = [];
    controls = box("controls"); body = box("body"); status = make("p", { role: "status", class: "drag-status" });

    constructor(name) {
      this.name = name;
    }

    // A value in the address, else the given one. Which values are allowed is the control's to say: `read` gives null for others.
    start(key, value, read) {
      const given = addressed(this.name)?.get(key);
      this.state[key] = (given ? read(given) : null) ?? value;
    }
    // The same for a number of a range, perhaps in steps. It may be dragged (`handle`). `text`: how it is read out.
    number(key, { label, min = 0, max, value = 0, step, text = format }) {
      const fit = x => clamp(+(step ? (Math.round(x / step) * step).toPrecision(9) : x.toPrecision(4)), min, max);
      // A link may lie between small steps.
      this.start(key, value, given => (isFinite(given) ? (step < 1 ? clamp(+given, min, max) : fit(+given)) : null));
      this.ranges[key] = { label, min, max, step, text, get: () => this.state[key], set: x => this.set({ [key]: fit(x) }) };
    }

    // New values: kept, written into the address, drawn in the next frame.
    set(values) {
      Object.assign(this.state, values);
      try {
        history.replaceState(null, "", `#drag-${this.name}?${new URLSearchParams(this.state)}`);
      } catch {} // a browser may refuse where the page is a notebook's own frame
      this.redraw();
    }

    add(...elements) {
      this.body.append(...elements);
    }

    draw(function_) {
      this.drawing.push(function_);
    }

    redraw() {
      this.pending ??= requestAnimationFrame(() => {
        this.pending = null;
        for (const each of this.drawing) each(this.state);
      });
    }

    // Dims what is still shown of the question before.
    busy(yes) {
      set(this.body, { "aria-busy": !!yes });
    }

    // While there is a note (models load, a sentence has no blank), it is said instead.
    say(said) {
      said = this.note || said;
      if (this.status.textContent !== said) this.status.textContent = said;
    }

    // ------------------------------------------------------------------------------------------------- controls, each with a label
    // A control in its label; `show` puts a new value into it, wherever that comes from.
    control(kind, key, label, show, input, ...more) {
      input.dataset.key = key;
      this.controls.append(make("label", { class: `drag-${kind}` }, make("span", {}, label), input, ...more));
      let shown;
      this.draw(state => state[key] !== shown && show((shown = state[key])));
    }

    // A slider with its value beside it. `log`: equal ways are equal ratios.
    slider(key, label, { log, ...more }) {
      this.number(key, { label, ...more });
      const { min, max, step, text, set: change } = this.ranges[key], range = [min, max], ends = step ? range : [0, 480], place = scale(range, ends, log);
      const output = make("output"), input = make("input", { type: "range", min: ends[0], max: ends[1], step, "aria-label": label, oninput: () => change(place.back(input.value)) });
      this.control("slider", key, label, x => {
        input.value = place(x);
        set(input, { "aria-valuetext": (output.textContent = text(x)) });
      }, input, output);
    }

    // One of several: options are [value, label]; the first is chosen.
    choice(key, label, options, value = options[0][0]) {
      this.start(key, value, given => options.find(([option]) => `${option}` === given)?.[0]);
      const select = make("select", { onchange: () => this.set({ [key]: options[select.selectedIndex][0] }) }, options.map(([value, name]) => make("option", { value }, name)));
      this.control("choice", key, label, x => (select.value = x), select);
    }

    // A line of text, taken over when the reader presses Enter or leaves it.
    text(key, label, value) {
      this.start(key, value, String);
      const input = make("input", { type: "text", autocomplete: "off", autocapitalize: "off", spellcheck: "false", onchange: () => this.set({ [key]: input.value }) });
      this.control("text", key, label, x => (input.value = x), input);
      return input;
    }

    button(label, function_) {
      this.controls.append(button(label, function_));
    }

    // A sentence for the models, with a blank unless it is `blank: false`. `compute` gives what the figure draws, as `figure.answer`, from
    // both models, the tokens' `ids`, the blank's `place` and the vocabulary's `pieces`. For the sentences in `known`, [sentence, answer], no
    // model is needed. Gives back a function that asks the models in any case.
    sentence({ label = "A sentence with one blank: [MASK] or three underscores", known, blank, compute }) {
      let [[asked, answer]] = known, latest = 0;
      this.answer = answer;
      const input = this.text("text", label, asked);
      const ask = async (text, live = true) => {
        const mine = ++latest, newest = () => mine === latest, old = new Map(known).get(text);
        let found = old, error;
        asked = text;
        this.busy(!old);
        try {
          const models = (live || !old) && (await this.models()), { teacher } = models;
          if (models && newest()) found = await compute({ ...models, ...teacher.read(text.replace(/\[mask\]|_{3,}/gi, "[MASK]"), blank), pieces: teacher.tokenizer.pieces, newest });
        } catch (problem) {
          error = problem;
        }
        if (!newest()) return;
        this.answer = found || this.answer;
        this.note = error?.message;
        set(input, { "aria-invalid": error instanceof RangeError });
        this.busy(error && !old);
        this.redraw();
      };
      this.draw(({ text }) => text !== asked && ask(text, false));
      return ask;
    }

    // ------------------------------------------------------------------------------------------------------------ what is drawn
    // A table with a bar for each number; the function that this gives back fills it. A row is a name and, for each further column,
    // a share, of teacher and student in turn, or a list of bars: `of` whom, from where to where on the track (0 to 1), perhaps a mark
    // for what it was, and the number as text if it is no share.
    bars(columns, label, into = this.body, models = MODELS) {
      const body = make("tbody");
      into.append(make("table", { class: "drag-bars", "aria-label": label }, make("thead", {}, head(...columns)), body));
      const bar = ({ of, from = 0, to, mark, text = percent(to) }) => box(`bar of-${of}`,
        make("div", { class: "drag-track", "aria-hidden": "true" },
          make("i", { style: `left:${100 * from}%;width:${100 * (to - from)}%` }), mark === undefined ? [] : make("b", { style: `left:${100 * mark}%` })),
        make("span", {}, text));
      return rows => body.replaceChildren(...rows.map(([name, ...cells]) => tr(name, ...cells.map((cell, i) => (cell.map ? cell : [{ of: models[i], to: cell }]).map(bar)))));
    }

    // A drawing in the page's own pixels, so that its letters stay as large as the page's. `draw(state, width, wide)`, wide from 560
    // pixels on, gives its height and what lies below the elements that were given, which are to be dragged. `label`: what it shows.
    chart(label, draw, ...above) {
      const below = make("g"), svg = make("svg", { role: "group", "aria-label": label }, below, ...above);
      this.add(svg);
      this.draw(state => {
        const width = clamp(svg.clientWidth, 240, 760), [height, ...drawn] = draw(state, width, width > 559);
        set(svg, { viewBox: `0 0 ${width} ${height}` });
        below.replaceChildren(...drawn.flat(Infinity).filter(Boolean));
      });
      new ResizeObserver(() => this.redraw()).observe(svg);
      return svg;
    }

    // Lets an element of a drawing be dragged: by pointer, by arrow keys (Page Up and Down: ten steps), by screen readers. `key`: it
    // moves this number of the state. `from`: from a place in the drawing to a value, if it is not put there by `place`.
    handle(element, { key, from = x => element.from(x), vertical, ...own }) {
      const { label, min, max, step, text, get, set: change } = { ...this.ranges[key], ...own };
      const put = x => change(clamp(x, min, max));
      const move = event => {
        const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(element.ownerSVGElement.getScreenCTM().inverse());
        put(from(vertical ? place.y : place.x));
      };
      set(element, {
        role: "slider", tabindex: 0, "aria-label": label, "aria-valuemin": min, "aria-valuemax": max, "aria-orientation": vertical ? "vertical" : "horizontal",
        onkeydown: event => {
          const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10, Home: -Infinity, End: Infinity }[event.key];
          if (!steps) return;
          put(get() + steps * step);
          event.preventDefault();
        },
        onpointerdown: event => {
          element.setPointerCapture(event.pointerId);
          element.focus({ preventScroll: true });
          event.preventDefault();
          move(event);
        },
        onpointermove: event => element.hasPointerCapture(event.pointerId) && move(event),
      });
      this.draw(() => set(element, { "aria-valuenow": get(), "aria-valuetext": text(get()) }));
    }

    // Teacher and student, fetched once for all figures of a page.
    async models() {
      this.note = "Loading both models (16 MB), once …";
      this.redraw();
      if (!HERE && !packed.student) await askOthers();
      const [teacher, student] = await Promise.all(MODELS.map(name => loadModel(name, this.name)));
      return { teacher, student };
    }
  }

  // ------------------------------------------------------------------------------------------------------------------ loading
  // What is fetched once; after a failure another try is possible.
  const once = (name, fetch) => (loaded[name] ??= fetch().catch(error => {
    delete loaded[name];
    throw error;
  }));
  // A <script> element, because pages opened from a disk may not fetch() files.
  const loadScript = file => once(file, () => new Promise((onload, reject) => {
    const onerror = () => reject(Error(`${file} could not be loaded. Build the book again, or load the page once more.`));
    document.head.append(make("script", { src: new URL(file, HERE), onload, onerror }));
  }));

  // In a notebook an output may be a window of its own: a figure asks the others for the models, which one of them may have brought.
  const packed = (globalThis.FILL_MASK_MODELS ??= {}), WAIT = 3000, COMING = "they come";
  let others;
  function meetOthers() {
    others = new BroadcastChannel("distil_lib"); // refused where a browser keeps nothing for a frame of another host
    others.onmessage = ({ data }) => {
      if (data.student) Object.assign(packed, data);
      if (data !== "models?" || !packed.student) return;
      others.postMessage(COMING); // at once; 16 MB take their time
      others.postMessage(packed);
    };
  }
  const askOthers = () => new Promise(done => {
    const nobody = setTimeout(done, WAIT);
    others?.addEventListener("message", ({ data }) => (data.student ? done() : data === COMING && clearTimeout(nobody)));
    others?.postMessage("models?");
  });

  const loadModel = (name, figure) => once(name, async () => {
    if (!HERE && !packed[name]) {
      throw Error(`This output has only recorded answers. For a sentence of your own run drag("${figure}", models=True): it adds both models, 16 MB, for all figures of the notebook.`);
    }
    if (!globalThis.FillMask) await loadScript(`fill_mask${KIND}`);
    if (!packed[name]) await loadScript(`fill_mask_${name}.js`);
    return new FillMask.Model(packed[name]);
  });

  // What the address says of a figure, if it is about this one.
  const addressed = name => (location.hash.startsWith(`#drag-${name}?`) ? new URLSearchParams(location.hash.split("?")[1]) : null);

  async function mount(element) {
    const { name, recorded } = element.dataset, scroll = () => addressed(name) && element.scrollIntoView();
    try {
      if (!all[name]) await loadScript(`figure_${name}${KIND}`);
      if (recorded && !Figures.data[name]) await loadScript(`figure_${name}_data.js`);
      const figure = new Figure(name);
      element.append(box("live", figure.controls, figure.body, figure.status));
      all[name](figure, { ...Figures, data: Figures.data[name] });
      element.querySelector(".drag-static").hidden = true;
      live[name] = figure;
      figure.redraw();
      scroll();
      window.MathJax?.startup?.promise?.then(scroll); // formulas above it that are set later would push it out of sight
    } catch (error) {
      element.append(make("p", { role: "alert" }, `This figure does not move here: ${error.message}`));
      throw error;
    }
  }

  // In a notebook's frame: as dark as the text around it is light, and as high as the figure.
  function fitFrame() {
    const root = document.documentElement, frame = frameElement; // null if the notebook is of another origin
    if (frame ? getComputedStyle(frame).color.match(/\d+/) > 127 : matchMedia("(prefers-color-scheme: dark)").matches) root.dataset.theme = "dark";
    if (frame) new ResizeObserver(() => (frame.style.height = `${root.offsetHeight}px`)).observe(root);
  }

  // Figures become alive when they come near the window, so that a page is readable at once.
  function start() {
    const near = new IntersectionObserver(entries => entries.filter(e => e.isIntersecting).forEach(e => {
      near.unobserve(e.target);
      mount(e.target);
    }), { rootMargin: "800px" });
    // The one in the address is wanted, however far down it stands.
    document.querySelectorAll(".drag").forEach(e => (addressed(e.dataset.name) ? mount(e) : near.observe(e)));
    if (HERE) return;
    fitFrame();
    meetOthers();
  }

  addEventListener("DOMContentLoaded", start);
  return { all, data: {}, loaded, live, MODELS, make, set, button, box, row, text, path, axis, circle, rect, frame, move, place, head, tr, sum, range, least, softmax, entropy, crossEntropy, kl, random, clamp, scale, leading, bytes,
    format, whole, count, percent, exactly, points, reduced };
})();
