// Figures to drag: what all of them share. A figure is a file of its own, figure_NAME.js, which says
//
//     Figures.define("temperature", (figure) => {
//       const T = figure.slider({ key: "T", label: "Temperature T", min: 0.25, max: 64, value: 1, log: true });
//       figure.draw(() => { ... read figure.state.T, write into elements of figure.body ... });
//     });
//
// `distil_lib.pages.figures` puts an element of the class "drag" into a page, with a static picture in it; the live figure takes the
// picture's place. The state is in the page's address, #drag-NAME?T=4, from the first change on; a link to it opens the figure there.
"use strict";

const Figures = (() => {
  const HERE = document.currentScript.src; // empty in a notebook, where scripts are written into the page
  const KIND = HERE.endsWith(".min.js") ? ".min.js" : ".js"; // of our own scripts; the book's pages load the short ones
  const defined = {}, elements = {}, loading = {};
  const reduced = matchMedia("(prefers-reduced-motion: reduce)");
  const SVG = new Set(["svg", "g", "rect", "line", "path", "circle", "text", "title"]);

  // An element with attributes and children. An attribute that is a function listens: onclick.
  function make(name, attributes = {}, ...children) {
    const element = SVG.has(name) ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    set(element, attributes);
    element.append(...children.flat());
    return element;
  }
  function set(element, attributes) {
    for (const [key, value] of Object.entries(attributes)) {
      if (typeof value === "function") element.addEventListener(key.slice(2), value);
      else if ((value ?? false) === false) element.removeAttribute(key);
      else element.setAttribute(key, value);
    }
  }
  const button = (label, onclick, more) => make("button", { type: "button", onclick, ...more }, label);
  const row = (label, ...children) => make("div", { class: "drag-stack", role: "group", "aria-label": label }, ...children);
  // Of a drawing. `style`: names of classes (figures.css): colours of lines ("teacher") and areas ("of-teacher"), "wide", "dashed", "end".
  const text = (x, y, said, style) => make("text", { x, y, class: style }, String(said));
  const path = (d, style) => make("path", { d, class: style });
  const axis = (d) => path(d, "axis");
  const circle = (cx, cy, r, style) => make("circle", { cx, cy, r, class: style });
  const rect = (x, y, width, height, style) => make("rect", { x, y, width, height, class: style });
  const move = (element, x, y) => set(element, { transform: `translate(${x} ${y})` });
  const line = (points) => `M${points.map((point) => point.map((v) => +v.toFixed(2)).join(" ")).join("L")}`; // the path through points

  // -------------------------------------------------------------------------------------------------- what figures compute with
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const softmax = (logits, T = 1) => {
    const top = logits.reduce((a, b) => Math.max(a, b), -Infinity);
    const powers = Array.from(logits, (z) => Math.exp((z - top) / T)), total = sum(powers);
    return powers.map((p) => p / total);
  };
  // In nats; 0 log 0 is 0.
  const crossEntropy = (p, q) => sum(p.map((x, i) => (x > 0 ? -x * Math.log(q[i]) : 0)));
  const entropy = (p) => crossEntropy(p, p);
  const kl = (p, q) => crossEntropy(p, q) - entropy(p);
  // A generator of numbers in [0, 1) that is the same in each browser (mulberry32), for a seed that a test can give.
  const random = (seed) => () => {
    let t = (seed = (seed + 0x6d2b79f5) | 0);
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const clamp = (x, min, max) => Math.min(max, Math.max(min, x));
  // From a range of values to a range of pixels, logarithmic if asked; `back` is the way back.
  const scale = ([a, b], [from, to], log = false) => {
    const [f, g] = log ? [Math.log, Math.exp] : [Number, Number];
    return Object.assign((x) => from + ((f(x) - f(a)) / (f(b) - f(a))) * (to - from), { back: (x) => g(f(a) + ((x - from) / (to - from)) * (f(b) - f(a))) });
  };
  // The first places of several lists of scores, from each in turn, until there are so many; in the order of the first list.
  function leading(lists, count) {
    const orders = lists.map((list) => [...list.keys()].sort((a, b) => list[b] - list[a])), found = new Set();
    for (let n = 0; found.size < count; n++) for (const order of orders) if (found.size < count) found.add(order[n]);
    return [...found].sort((a, b) => lists[0][b] - lists[0][a]);
  }
  // Numbers that Python has packed (distil_lib/pages/answers.py): of one `Kind` of typed array.
  const unpack = (packed, Kind) => new Kind(Uint8Array.from(atob(packed), (c) => c.charCodeAt(0)).buffer);

  // ------------------------------------------------------------------------------------------------------------ numbers as words
  const format = (value, digits = 3) => Number(value.toPrecision(digits)).toLocaleString("en", { maximumSignificantDigits: digits });
  const whole = (x) => Math.round(x).toLocaleString("en");
  const count = (n, name) => `${whole(n)} ${name}${n === 1 ? "" : "s"}`;
  const percent = (p) => (p > 0 && p < 0.001 ? "< 0.1%" : `${(100 * p).toFixed(p < 0.0995 ? 1 : 0)}%`);
  const points = (x) => `${Math.round(100 * x)}%`;

  // ------------------------------------------------------------------------------------------------------------------ one figure
  class Figure {
    constructor(name, element, data) {
      Object.assign(this, { name, element, data, state: {}, sliders: {}, drawing: [], pending: false });
      this.controls = make("div", { class: "drag-controls" });
      this.body = make("div", { class: "drag-body" });
      this.status = make("p", { role: "status", class: "drag-status" });
    }

    // A value in the address, else the given one. Which values are allowed is the control's to say: `read` gives undefined for others.
    start(key, value, read) {
      const given = addressed(this.name).get(key), found = given === null ? undefined : read(given);
      return (this.state[key] = found === undefined ? value : found);
    }
    // The same for a number of a range, a whole one or one in steps.
    number(key, value, min, max, step = 1) {
      return this.start(key, value, (given) => (given >= min && given <= max ? Number((Math.round(given / step) * step).toPrecision(9)) : undefined));
    }

    // A new value: kept, written into the address, drawn in the next frame.
    set(key, value) {
      this.state[key] = value;
      try {
        history.replaceState(null, "", `#drag-${this.name}?${new URLSearchParams(this.state)}`);
      } catch {} // a browser may refuse where the page is a notebook's own frame
      this.redraw();
    }

    draw(function_) {
      this.drawing.push(function_);
    }

    redraw() {
      if (this.pending) return;
      this.pending = true;
      requestAnimationFrame(() => {
        this.pending = false;
        for (const each of this.drawing) each(this.state);
      });
    }

    // Dims what is still shown of the question before.
    busy(yes) {
      set(this.body, { "aria-busy": String(Boolean(yes)) });
    }

    // While there is a note (models load, a sentence has no blank), it is said instead.
    say(said) {
      said = this.note || said;
      if (this.status.textContent !== said) this.status.textContent = said;
    }

    // ------------------------------------------------------------------------------------------------- controls, each with a label
    // A control in its label. All give back a function that sets them from elsewhere.
    control(kind, label, ...elements) {
      this.controls.append(make("label", { class: `drag-${kind}` }, make("span", {}, label), ...elements));
    }

    // A slider with its value beside it. `log`: equal ways are equal ratios. `text`: how the value is read out.
    slider({ key, label, min, max, value, step, log = false, text = format }) {
      const [f, back] = log ? [Math.log, Math.exp] : [Number, Number];
      const first = this.start(key, value, (given) => (Number.isFinite(+given) ? clamp(+given, min, max) : undefined));
      const output = make("output");
      const input = make("input", { type: "range", min: f(min), max: f(max), step: step ?? (f(max) - f(min)) / 480, value: f(first), "aria-label": label, "data-key": key,
        oninput: () => this.set(key, show(clamp(Number(back(input.value).toPrecision(4)), min, max))) });
      const show = (x) => {
        set(input, { "aria-valuetext": (output.textContent = text(x)) });
        return x;
      };
      this.control("slider", label, input, output);
      show(first);
      const put = (x) => {
        x = clamp(x, min, max);
        input.value = f(x);
        this.set(key, show(x));
      };
      this.sliders[key] = { label, min, max, step, text, get: () => this.state[key], set: put };
      return put;
    }

    // One of several: options are [value, label]; the first is chosen.
    choice({ key, label, options, value = options[0][0] }) {
      const allowed = options.map(([option]) => String(option));
      const first = this.start(key, value, (given) => options[allowed.indexOf(given)]?.[0]);
      const select = make("select", { "data-key": key, onchange: () => this.set(key, options[select.selectedIndex][0]) },
        options.map(([option, name]) => make("option", { value: option, selected: option === first }, name)));
      this.control("choice", label, select);
      return (x) => {
        select.selectedIndex = allowed.indexOf(String(x));
        this.set(key, x);
      };
    }

    // A line of text, taken over when the reader presses Enter or leaves it.
    text({ key, label, value }) {
      const first = this.start(key, value, String);
      const input = make("input", { type: "text", value: first, "data-key": key, autocomplete: "off", autocapitalize: "off", spellcheck: "false", onchange: () => this.set(key, input.value) });
      this.control("text", label, input);
      return (x) => {
        input.value = x;
        this.set(key, x);
      };
    }

    button(label, function_) {
      this.controls.append(button(label, function_));
    }

    // A sentence for the models. `compute(models, text)` gives what the figure draws, as `figure.answer`; where `recorded(text)` is one,
    // no model is needed. Gives back two functions: one puts a sentence there, the other asks the models in any case.
    sentence({ label = "A sentence with one blank: [MASK] or three underscores", value, recorded, compute }) {
      let asked = value, latest = 0;
      this.answer = recorded(value);
      const put = this.text({ key: "text", label, value }), input = this.controls.querySelector("[data-key=text]");
      const ask = async (text, live = true) => {
        const mine = ++latest, newest = () => mine === latest, known = recorded(text);
        let wrong = false;
        asked = text;
        this.busy(!known);
        try {
          const models = (live || !known) && (await this.models());
          if (!newest()) return;
          const answer = models ? await compute(models, text.replace(/\[mask\]|_{3,}/gi, "[MASK]"), newest) : known;
          if (!newest()) return;
          [this.answer, this.note] = [answer, ""];
        } catch (error) {
          if (!newest()) return;
          wrong = error instanceof RangeError;
          [this.answer, this.note] = [known || this.answer, error.message];
        }
        set(input, { "aria-invalid": String(wrong) });
        this.busy(this.note && !known);
        this.redraw();
      };
      this.draw(({ text }) => text !== asked && ask(text, false));
      return [put, ask];
    }

    // ------------------------------------------------------------------------------------------------------------ what is drawn
    // A table with a bar for each number; the function that this gives back fills it. A row is a name and, for each further column,
    // its bars: `of` whom, from where to where on the track (0 to 1), perhaps a mark for what it was, and the number as text.
    bars(columns, label, into = this.body) {
      const body = make("tbody");
      into.append(make("table", { class: "drag-bars", "aria-label": label },
        make("thead", {}, make("tr", {}, columns.map((name) => make("th", { scope: "col" }, name)))), body));
      const bar = ({ of, from = 0, to, mark, text }) => make("div", { class: `drag-bar of-${of}` },
        make("div", { class: "drag-track", "aria-hidden": "true" },
          make("i", { style: `left:${100 * from}%;width:${100 * (to - from)}%` }),
          mark === undefined ? [] : make("b", { style: `left:${100 * mark}%` })),
        make("span", {}, text));
      return (rows) => body.replaceChildren(...rows.map(([name, ...cells]) =>
        make("tr", {}, make("th", { scope: "row" }, name), cells.map((bars) => make("td", {}, bars.map(bar))))));
    }

    // A drawing, at most a little larger than it was made. `label`: what it shows, for screen readers.
    svg(width, height, label, ...children) {
      const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label, style: `max-width:${1.25 * width}px` }, ...children);
      this.body.append(svg);
      return svg;
    }

    // A drawing in the page's own pixels, so that its letters stay as large as the page's. `height(wide)`: wide is from 560 pixels on.
    // `draw(width, wide, state)` gives what lies below the elements that were given, which are to be dragged.
    chart(label, height, draw, ...above) {
      const below = make("g"), svg = this.svg(760, height(true), label, below, ...above);
      this.draw((state) => {
        const width = clamp(svg.clientWidth, 300, 760), wide = width > 559;
        svg.setAttribute("viewBox", `0 0 ${width} ${height(wide)}`);
        below.replaceChildren(...draw(width, wide, state));
      });
      new ResizeObserver(() => this.redraw()).observe(svg);
      return svg;
    }

    // Lets an element of a drawing be dragged: by pointer, by arrow keys (Page Up and Down: ten steps), by screen readers. `key`: it
    // moves this slider. `from`: from a place in the drawing to a value.
    handle(element, { key, from, vertical = false, ...own }) {
      const { label, min, max, step, text = format, get, set: change } = { ...this.sliders[key], ...own };
      const put = (x) => change(clamp(x, min, max));
      set(element, { role: "slider", tabindex: 0, "aria-label": label, "aria-valuemin": min, "aria-valuemax": max, "aria-orientation": vertical ? "vertical" : "horizontal" });
      element.classList.add("drag-handle");
      element.addEventListener("keydown", (event) => {
        const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10 }[event.key];
        if (steps) put(get() + steps * step);
        else if (event.key === "Home") put(min);
        else if (event.key === "End") put(max);
        else return;
        event.preventDefault();
      });
      const move = (event) => {
        const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(element.ownerSVGElement.getScreenCTM().inverse());
        put(from(vertical ? place.y : place.x));
      };
      element.addEventListener("pointerdown", (event) => {
        element.setPointerCapture(event.pointerId);
        element.focus({ preventScroll: true });
        event.preventDefault();
        move(event);
      });
      element.addEventListener("pointermove", (event) => element.hasPointerCapture(event.pointerId) && move(event));
      this.draw(() => set(element, { "aria-valuenow": get(), "aria-valuetext": text(get()) }));
    }

    // Teacher and student, fetched once for all figures of a page.
    async models() {
      this.note = "Loading both models (16 MB), once …";
      this.redraw();
      const [teacher, student] = await Promise.all(["teacher", "student"].map((name) => loadModel(name, this.name)));
      return { teacher, student };
    }
  }

  // ------------------------------------------------------------------------------------------------------------------ loading
  // A <script> element, because pages opened from a disk may not fetch() files.
  function loadScript(file) {
    loading[file] ??= new Promise((resolve, reject) => {
      const script = make("script", { src: new URL(file, HERE).href, onload: resolve, onerror: () => {
        delete loading[file]; // so that another try is possible
        reject(new Error(`${file} could not be loaded. Build the book again, or load the page once more.`));
      } });
      document.head.append(script);
    });
    return loading[file];
  }

  // The models as they are packed: this page's, or in a notebook those that another figure has brought into the same window.
  function packedModels() {
    const mine = globalThis.FILL_MASK_MODELS;
    try {
      return Object.assign((parent.FILL_MASK_MODELS ??= {}), mine);
    } catch {
      return mine ?? {}; // a frame whose window is of another origin
    }
  }

  async function loadModel(name, figure) {
    Figures.loaded[name] ??= (async () => {
      if (!HERE && !packedModels()[name]) {
        throw new Error(`This output has only recorded answers. For a sentence of your own run drag("${figure}", models=True): it adds both models, 16 MB.`);
      }
      if (typeof FillMask === "undefined") await loadScript(`fill_mask${KIND}`);
      if (!packedModels()[name]) await loadScript(`fill_mask_${name}.js`);
      return new FillMask.Model(packedModels()[name]);
    })().catch((error) => {
      delete Figures.loaded[name];
      throw error;
    });
    return Figures.loaded[name];
  }

  function addressed(name) {
    const [target, parameters] = location.hash.split("?");
    return new URLSearchParams(target === `#drag-${name}` ? parameters : "");
  }

  async function mount(element) {
    const { name } = element.dataset, live = make("div", { class: "drag-live" });
    try {
      if (!defined[name]) await loadScript(`figure_${name}${KIND}`);
      if (element.dataset.recorded && !Figures.data[name]) await loadScript(`figure_${name}_data.js`);
      const figure = new Figure(name, live, Figures.data[name]);
      live.append(figure.controls, figure.body, figure.status);
      defined[name](figure);
      element.querySelector(".drag-static").hidden = true;
      element.append(live);
      elements[name] = figure;
      figure.redraw();
      if (location.hash.startsWith(`#drag-${name}?`)) {
        element.scrollIntoView();
        // Formulas above it that are set later would push it out of sight.
        if (window.MathJax) MathJax.startup?.promise?.then(() => element.scrollIntoView());
      }
    } catch (error) {
      element.append(make("p", { role: "alert" }, `This figure does not move here: ${error.message}`));
      throw error;
    }
  }

  // Figures become alive when they come near the window, so that a page is readable at once.
  function start() {
    if (!HERE) packedModels(); // for the figures of other outputs
    const near = new IntersectionObserver((entries) => entries.filter((e) => e.isIntersecting).forEach((e) => {
      near.unobserve(e.target);
      mount(e.target);
    }), { rootMargin: "800px" });
    // The one in the address is wanted, however far down it stands.
    document.querySelectorAll(".drag").forEach((e) => (location.hash.startsWith(`#drag-${e.dataset.name}?`) ? mount(e) : near.observe(e)));
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();

  return {
    define: (name, function_) => { defined[name] = function_; },
    make, set, button, row, text, path, axis, circle, rect, move, line, sum, softmax, entropy, crossEntropy, kl, random, clamp, scale, leading, unpack,
    format, whole, count, percent, points, reduced, data: {}, loaded: {}, live: elements,
  };
})();
