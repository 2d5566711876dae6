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
  const SVG = "http://www.w3.org/2000/svg";
  const defined = {}, elements = {}, loading = {};
  const reduced = matchMedia("(prefers-reduced-motion: reduce)");

  // An element with attributes, properties that begin with "on", and children.
  function make(name, attributes = {}, ...children) {
    const svg = make.svg.has(name);
    const element = svg ? document.createElementNS(SVG, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...children.flat());
    return element;
  }
  make.svg = new Set(["svg", "g", "rect", "line", "path", "circle", "text", "title", "polyline", "polygon"]);

  // -------------------------------------------------------------------------------------------------- what figures compute with
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const softmax = (logits, T = 1) => {
    const top = logits.reduce((a, b) => Math.max(a, b), -Infinity);
    const powers = Array.from(logits, (z) => Math.exp((z - top) / T)), total = sum(powers);
    return powers.map((p) => p / total);
  };
  // In nats; 0 log 0 is 0.
  const entropy = (p) => sum(p.map((x) => (x > 0 ? -x * Math.log(x) : 0)));
  const crossEntropy = (p, q) => sum(p.map((x, i) => (x > 0 ? -x * Math.log(q[i]) : 0)));
  const kl = (p, q) => crossEntropy(p, q) - entropy(p);
  // A generator of numbers in [0, 1) that is the same in each browser (mulberry32), for a seed that a test can give.
  const random = (seed) => () => {
    let t = (seed = (seed + 0x6d2b79f5) | 0);
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  // From a range of values to a range of pixels; logarithmic if asked.
  const scale = ([a, b], [from, to], log = false) => {
    const f = log ? Math.log : Number;
    return (x) => from + ((f(x) - f(a)) / (f(b) - f(a))) * (to - from);
  };
  const percent = (p) => (p > 0 && p < 0.001 ? "< 0.1%" : `${(100 * p).toFixed(p < 0.0995 ? 1 : 0)}%`);
  // The first places of several lists of scores, from each in turn, until there are so many; in the order of the first list.
  function leading(lists, count) {
    const orders = lists.map((list) => [...list.keys()].sort((a, b) => list[b] - list[a])), found = new Set();
    for (let n = 0; found.size < count; n++) for (const order of orders) if (found.size < count) found.add(order[n]);
    return [...found].sort((a, b) => lists[0][b] - lists[0][a]);
  }
  // Numbers that Python has packed (distil_lib/pages/answers.py): of one `Kind` of typed array.
  const unpack = (text, Kind) => new Kind(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const format = (value, digits = 3) => Number(value.toPrecision(digits)).toLocaleString("en", { maximumFractionDigits: 6, maximumSignificantDigits: digits });

  // ------------------------------------------------------------------------------------------------------------------ one figure
  class Figure {
    constructor(name, element, data) {
      Object.assign(this, { name, element, data, state: {}, keys: [], drawing: [], pending: false });
      this.controls = make("div", { class: "drag-controls" });
      this.body = make("div", { class: "drag-body" });
      this.status = make("p", { role: "status", class: "drag-status" });
    }

    // A value in the address, else the given one. Which values are allowed is the control's to say.
    start(key, value, read) {
      this.keys.push(key);
      const given = addressed(this.name).get(key), found = given === null ? undefined : read(given);
      this.state[key] = found === undefined ? value : found;
      return this.state[key];
    }

    // A new value: kept, written into the address, drawn in the next frame.
    set(key, value) {
      this.state[key] = value;
      const parameters = new URLSearchParams(this.keys.map((k) => [k, String(this.state[k])]));
      try {
        history.replaceState(null, "", `#drag-${this.name}?${parameters}`);
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

    // While there is a note (models load, a sentence has no blank), it is said instead.
    say(text) {
      text = this.note || text;
      if (this.status.textContent !== text) this.status.textContent = text;
    }

    // A slider with its value beside it. `log`: equal ways are equal ratios. `text`: how the value is read out.
    slider({ key, label, min, max, value, step = null, log = false, text = (x) => format(x) }) {
      const f = log ? Math.log : Number, back = log ? Math.exp : Number;
      const clamp = (x) => (Number.isFinite(x) ? Math.min(max, Math.max(min, x)) : undefined);
      const first = this.start(key, value, (given) => clamp(Number(given)));
      const output = make("output", {}, text(first));
      const input = make("input", {
        type: "range", min: f(min), max: f(max), step: step ?? (f(max) - f(min)) / 480, value: f(first), "aria-label": label, "aria-valuetext": text(first), "data-key": key,
        oninput: () => show(clamp(Number(back(Number(input.value)).toPrecision(4)))),
      });
      const show = (x) => {
        output.textContent = text(x);
        input.setAttribute("aria-valuetext", text(x));
        this.set(key, x);
      };
      this.controls.append(make("label", { class: "drag-slider" }, make("span", {}, label), input, output));
      return (x) => { // moves it from elsewhere
        input.value = f(clamp(x));
        show(clamp(x));
      };
    }

    // One of several: options are [value, label].
    choice({ key, label, options, value }) {
      const allowed = options.map(([option]) => String(option));
      const first = this.start(key, value, (given) => (allowed.includes(given) ? options[allowed.indexOf(given)][0] : undefined));
      const select = make("select", { "data-key": key, onchange: () => this.set(key, options[select.selectedIndex][0]) },
        options.map(([option, name]) => make("option", { value: option, selected: option === first }, name)));
      this.controls.append(make("label", { class: "drag-choice" }, make("span", {}, label), select));
      return (x) => {
        select.selectedIndex = allowed.indexOf(String(x));
        this.set(key, x);
      };
    }

    // On or off.
    toggle({ key, label, value = false, into = this.controls }) {
      const first = this.start(key, value, (given) => ({ true: true, false: false })[given]);
      const input = make("input", { type: "checkbox", "data-key": key, checked: first, onchange: () => this.set(key, input.checked) });
      into.append(make("label", { class: "drag-toggle" }, input, make("span", {}, label)));
      return (x) => {
        input.checked = x;
        this.set(key, x);
      };
    }

    // A line of text, taken over when the reader presses Enter or leaves it.
    text({ key, label, value }) {
      const first = this.start(key, value, String);
      const input = make("input", { type: "text", value: first, "data-key": key, autocomplete: "off", spellcheck: "false", onchange: () => this.set(key, input.value) });
      this.controls.append(make("label", { class: "drag-text" }, make("span", {}, label), input));
      return (x) => {
        input.value = x;
        this.set(key, x);
      };
    }

    // A sentence for the models. `compute(models, text)` gives what the figure draws, as `figure.answer`. Until the reader asks for a
    // sentence of his own it is `recorded`, the answer to the first one, and nothing is loaded.
    sentence({ label = "A sentence with one blank: [MASK] or three underscores", value, recorded, compute }) {
      let asked = value;
      this.answer = recorded;
      this.text({ key: "text", label, value });
      const ask = async (text) => {
        try {
          const models = text !== value && (await this.models());
          if (text !== asked) return; // there is a newer question
          this.answer = models ? compute(models, text.replace(/\[mask\]|_{3,}/gi, "[MASK]")) : recorded;
          this.note = "";
        } catch (error) {
          if (text === asked) this.note = error.message;
        }
        this.body.setAttribute("aria-busy", Boolean(this.note)); // dims the answer to the question before
        this.redraw();
      };
      this.draw(({ text }) => {
        if (text !== asked) ask((asked = text));
      });
    }

    // A table with a bar for each number; the function that this gives back fills it. A row is a name and, for each further column,
    // its bars: `of` whom, from where to where on the track (0 to 1), perhaps a mark for what it was, and the number as text.
    bars(columns, label) {
      const body = make("tbody");
      this.body.append(make("table", { class: "drag-bars", "aria-label": label },
        make("thead", {}, make("tr", {}, columns.map((name) => make("th", { scope: "col" }, name)))), body));
      const bar = ({ of, from = 0, to, mark, text }) => make("div", { class: `drag-bar of-${of}` },
        make("div", { class: "drag-track", "aria-hidden": "true" },
          make("i", { style: `left:${100 * from}%;width:${100 * (to - from)}%` }),
          mark === undefined ? [] : make("b", { style: `left:${100 * mark}%` })),
        make("span", {}, text));
      return (rows) => body.replaceChildren(...rows.map(([name, ...cells]) =>
        make("tr", {}, make("th", { scope: "row" }, name), cells.map((bars) => make("td", {}, bars.map(bar))))));
    }

    button(label, function_) {
      const button = make("button", { type: "button", onclick: function_ }, label);
      this.controls.append(button);
      return button;
    }

    // A drawing as wide as the figure. `label`: what it shows, for screen readers; a function gives it anew each time.
    svg(width, height, label) {
      const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label });
      this.body.append(svg);
      return svg;
    }

    // Lets an element of a drawing be dragged: by pointer, by arrow keys (Page Up and Down: ten steps), by screen readers.
    handle(element, { label, min, max, step, get, set, from, vertical = false, text = (x) => format(x) }) {
      const put = (x) => set(Math.min(max, Math.max(min, x)));
      const attributes = { role: "slider", tabindex: 0, "aria-label": label, "aria-valuemin": min, "aria-valuemax": max, "aria-orientation": vertical ? "vertical" : "horizontal" };
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
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
        const svg = element.ownerSVGElement, point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
        put(from(vertical ? point.y : point.x)); // `from`: from a place in the drawing to a value
      };
      element.addEventListener("pointerdown", (event) => {
        element.setPointerCapture(event.pointerId);
        element.focus({ preventScroll: true });
        event.preventDefault();
        move(event);
      });
      element.addEventListener("pointermove", (event) => element.hasPointerCapture(event.pointerId) && move(event));
      const tell = () => {
        element.setAttribute("aria-valuenow", get());
        element.setAttribute("aria-valuetext", text(get()));
      };
      this.draw(tell);
    }

    // Teacher and student, fetched once for all figures of a page.
    async models() {
      this.note = "Loading both models, once …";
      this.redraw();
      const found = await Promise.all(["teacher", "student"].map(loadModel));
      this.note = "";
      return { teacher: found[0], student: found[1] };
    }
  }

  // ------------------------------------------------------------------------------------------------------------------ loading
  // A <script> element, because pages opened from a disk may not fetch() files.
  function loadScript(file) {
    loading[file] ??= new Promise((resolve, reject) => {
      const script = make("script", { src: new URL(file, HERE).href, onload: resolve });
      script.addEventListener("error", () => {
        delete loading[file]; // so that another try is possible
        reject(new Error(`${file} could not be loaded. Build the book again, or load the page once more.`));
      });
      document.head.append(script);
    });
    return loading[file];
  }

  async function loadModel(name) {
    Figures.loaded[name] ??= (async () => {
      if (typeof FillMask === "undefined") await loadScript("fill_mask.js");
      if (!globalThis.FILL_MASK_MODELS?.[name]) await loadScript(`fill_mask_${name}.js`);
      return new FillMask.Model(FILL_MASK_MODELS[name]);
    })();
    return Figures.loaded[name];
  }

  function addressed(name) {
    const [target, parameters] = location.hash.split("?");
    return new URLSearchParams(target === `#drag-${name}` ? parameters : "");
  }

  async function mount(element) {
    const { name } = element.dataset, live = make("div", { class: "drag-live" });
    try {
      if (!defined[name]) await loadScript(`figure_${name}.js`);
      if (element.dataset.recorded && !(name in Figures.data)) await loadScript(`figure_${name}_data.js`);
      const figure = new Figure(name, live, Figures.data[name]);
      live.append(figure.controls, figure.body, figure.status);
      await defined[name](figure);
      element.querySelector(".drag-static").hidden = true;
      element.append(live);
      elements[name] = figure;
      figure.redraw();
      if (location.hash.startsWith(`#drag-${name}?`)) element.scrollIntoView();
    } catch (error) {
      element.append(make("p", { role: "alert" }, `This figure does not move here: ${error.message}`));
      throw error;
    }
  }

  // Figures become alive when they come near the window, so that a page is readable at once.
  function start() {
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
    make, sum, softmax, entropy, crossEntropy, kl, random, scale, format, percent, leading, unpack, reduced,
    data: {}, loaded: {}, live: elements,
  };
})();
