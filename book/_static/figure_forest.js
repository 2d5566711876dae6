// The arms of the ablation: mean of the differences by seed, 95% interval, a dot for each seed; in a scale that the reader zooms.
"use strict";

Figures.define("forest", (figure) => {
  const { make, scale, format } = Figures, { names, groups, paper, measures } = figure.data;
  const choice = (key, label, from, name) => figure.choice({ key, label, options: Object.keys(from).map((k) => [k, name(from[k])]), value: Object.keys(from)[0] });
  choice("measure", "Measure", measures, (m) => m.label);
  choice("arms", "Arms", groups, (g) => g[0]);
  choice("correction", "Correction", { holm: "Holm's, for 4 or 15 arms", none: "none" }, String);
  figure.slider({ key: "zoom", label: "Zoom", min: 1, max: 500, value: 5, log: true, text: (times) => `${format(times, 2)} times` });
  figure.start("limit", 1, (given) => (given >= 0.1 && given <= 60 ? Number(given) : undefined)); // in units of 0.05 nats or 1 point
  const svg = figure.svg(600, 600, "Difference of each arm from the triple loss"), rows = make("g");
  const band = make("path", { stroke: "var(--third)", "stroke-dasharray": "5 4" });
  const grip = make("g", {}, make("rect", { x: -12, y: -12, width: 24, height: 24, rx: 4, fill: "var(--third)" }), make("path", { d: "M-4-5V5M4-5V5", stroke: "var(--paper)", "stroke-width": 2 }));
  svg.append(rows, band, grip);
  const text = (x, y, said, anchor) => make("text", { x, y, "text-anchor": anchor, style: "paint-order: stroke; stroke: var(--paper); stroke-width: 4px" }, said);
  const amount = (value, { matters, unit }) => `${format(value * matters)} ${value * matters === 1 ? unit.slice(0, -1) : unit}`;
  let x; // from the measure's unit to the drawing

  figure.handle(grip, {
    label: "Smallest effect that would matter to you", min: 0.1, max: 60, step: 0.1,
    get: () => figure.state.limit, set: (limit) => figure.set("limit", Number(limit.toFixed(2))),
    from: (place) => (place - x(0)) / (x(1) - x(0)) / measures[figure.state.measure].matters,
    text: (limit) => amount(limit, measures[figure.state.measure]),
  });

  // One arm. Beyond the edge an arrow stands for its mark.
  function row(arm, m, y, width, wide, reach, sure) {
    const [mean, low, high, , , seeds] = m.arms[arm], inside = (v) => Math.abs(v) <= reach, near = (v) => x(Math.min(reach, Math.max(-reach, v)));
    const name = names[arm] + (arm in paper ? ` (paper ${paper[arm].toFixed(2)})` : ""), color = sure ? "var(--teacher)" : "var(--muted)";
    const said = `${mean < 0 ? "" : "+"}${mean.toFixed(m.digits)} ± ${((high - low) / 2).toFixed(m.digits)}${sure ? "*" : ""}`;
    const path = (d, stroke, more) => make("path", { d, stroke, "stroke-width": 2, ...more }), fill = sure ? color : "var(--paper)";
    const caps = [low, high].filter(inside).map((v) => `M${x(v)} ${y - 5}v10`).join("");
    return make("g", { role: "img", "aria-label": `${name}: ${said} ${m.unit}, ${sure ? "" : "not "}distinguishable from zero`, "data-arm": arm },
      text(0, wide ? y + 4 : y - 10, name), text(width, wide ? y + 4 : y - 10, said, "end"),
      path(`M${near(low)} ${y}H${near(high)}${caps}`, color),
      inside(mean) ? make("circle", { cx: x(mean), cy: y, r: 5, fill, stroke: color, "stroke-width": 2 }) : path(`M${near(mean)} ${y}l${mean < 0 ? 9 : -9}-6v12z`, color, { fill }),
      seeds.filter(inside).map((v) => make("circle", { cx: x(v), cy: y + 9, r: 2, fill: "var(--muted)" })),
      m.paper && inside(paper[arm]) ? path(`M${x(paper[arm]) - 5} ${y - 5}l10 10m0-10l-10 10`, "var(--student)") : []);
  }

  figure.draw(({ measure, arms, correction, zoom, limit }) => {
    const m = measures[measure], shown = groups[arms][1], effects = shown.map((arm) => m.arms[arm]), sure = effects.map((e) => e[correction === "holm" ? 4 : 3] <= 0.05);
    const width = Math.min(760, Math.max(300, svg.clientWidth)), wide = width > 559, [left, right] = wide ? [185, width - 140] : [8, width - 8];
    const reach = m.full / zoom, height = wide ? 25 : 44, bottom = 52 + shown.length * height, step = 10 ** Math.floor(Math.log10(reach)), ticks = [-1, -0.5, 0, 0.5, 1].map((n) => n * step * (reach / step < 2 ? 1 : reach / step < 5 ? 2 : 4));
    x = scale([-reach, reach], [left, right]);
    svg.setAttribute("viewBox", `0 0 ${width} ${bottom + 26}`);
    rows.replaceChildren(
      make("rect", { x: m.better > 0 ? left : x(0), y: 44, width: x(0) - left, height: bottom - 44, fill: "var(--ghost)", opacity: 0.15 }),
      text(left, 38, m.better > 0 ? "worse" : "better"), text(right, 38, m.better > 0 ? "better" : "worse", "end"),
      ...ticks.flatMap((v) => [make("path", { d: `M${x(v)} 44V${bottom}`, stroke: "var(--ink)", opacity: v ? 0.15 : 1 }), text(x(v), bottom + 16, format(v), "middle")]),
      ...shown.map((arm, i) => row(arm, m, 52 + (i + (wide ? 0.5 : 0.65)) * height, width, wide, reach, sure[i])));
    const matters = limit * m.matters, at = x(Math.min(matters, reach));
    band.setAttribute("d", `M${at} 22V${bottom}M${2 * x(0) - at} 22V${bottom}`);
    grip.setAttribute("transform", `translate(${at} 13)`);
    const yes = effects.filter(([, low, high]) => low >= matters || high <= -matters).length, no = effects.filter(([, low, high]) => low > -matters && high < matters).length;
    figure.say(`${sure.filter(Boolean).length} of ${shown.length} arms are distinguishable from zero (filled, starred). Is the effect ${amount(limit, m)} or more? By their intervals ${yes} say yes, ${no} no; ${shown.length - yes - no} leave it open.`);
  });
  new ResizeObserver(() => figure.redraw()).observe(svg);
});
