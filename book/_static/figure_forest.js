// Chapter 8: the arms of the ablation. Mean of the differences by seed, 95% interval, a dot for each seed; in a scale that the reader zooms.
"use strict";

Figures.all.forest = (figure, { make, text, path, circle, rect, move, scale, clamp, format, data: { names, groups, paper, measures } }) => {
  const choice = (key, label, from, name) => figure.choice(key, label, Object.entries(from).map(([k, value]) => [k, name(value)]));
  choice("measure", "Measure", measures, m => m.label);
  choice("arms", "Arms", groups, g => g[0]);
  choice("correction", "Correction", { holm: "Holm's, for 4 or 15 arms", none: "none" }, String);
  figure.slider("zoom", "Zoom", { min: 1, max: 500, value: 5, log: true, text: times => `${format(times, 2)} times` });
  const amount = (value, { matters, unit }) => `${format(value * matters)} ${value * matters === 1 ? unit.slice(0, -1) : unit}`;
  figure.number("limit", { label: "Smallest effect that would matter to you", min: 0.1, max: 60, value: 1, text: limit => amount(limit, measures[figure.state.measure]) }); // 1: 0.05 nats or 1 point
  const said = (x, y, words, style = "") => text(x, y, words, `halo ${style}`);
  let m, shown, effects, sure; // the measure, its arms, what is known of each
  figure.draw(({ measure, arms, correction, limit }) => {
    m = measures[measure];
    shown = groups[arms][1];
    effects = shown.map(arm => m.arms[arm]);
    sure = effects.map(e => e[correction === "holm" ? 4 : 3] <= 0.05);
    const matters = limit * m.matters, yes = effects.filter(([, low, high]) => low >= matters || high <= -matters).length;
    const no = effects.filter(([, low, high]) => low > -matters && high < matters).length;
    figure.say(`${sure.filter(Boolean).length} of ${shown.length} arms are distinguishable from zero (filled, starred). ` +
      `Is the effect ${amount(limit, m)} or more? By their intervals ${yes} say yes, ${no} no; ${shown.length - yes - no} leave it open.`);
  });

  let x; // from the measure's unit to the drawing
  const grip = make("g", {}, rect(-12, -12, 24, 24, "of-third"), path("M-4-5V5M4-5V5", "paper"));
  figure.chart("Difference of each arm from the triple loss", (state, width, wide) => {
    const [left, right] = wide ? [185, width - 140] : [8, width - 8], height = wide ? 25 : 44, end = 52 + shown.length * height;
    const reach = m.full / state.zoom, step = 10 ** Math.floor(Math.log10(reach)), ticks = [-1, -0.5, 0, 0.5, 1].map(n => n * step * (reach / step < 2 ? 1 : reach / step < 5 ? 2 : 4));
    x = scale([-reach, reach], [left, right]);
    const at = x(Math.min(state.limit * m.matters, reach));
    move(grip, at, 13);
    return [end + 26, rect(m.better > 0 ? left : x(0), 44, x(0) - left, end - 44, "of-ghost faint"), path(`M${at} 22V${end}M${2 * x(0) - at} 22V${end}`, "third dashed"), said(left, 38, m.better < 0 ? "better" : "worse"), said(right, 38, m.better < 0 ? "worse" : "better", "end"),
      ticks.map(v => [path(`M${x(v)} 44V${end}`, v ? "axis" : "ink"), said(x(v), end + 16, format(v), "middle")]),
      shown.map((arm, i) => { // beyond the edge an arrow stands for the mark
        const [mean, low, high, , , seeds] = m.arms[arm], inside = v => Math.abs(v) <= reach, near = v => x(clamp(v, -reach, reach)), y = 52 + (i + (wide ? 0.5 : 0.65)) * height;
        const name = names[arm] + (arm in paper ? ` (paper ${paper[arm].toFixed(2)})` : ""), style = sure[i] ? "teacher of-teacher" : "muted of-paper", up = wide ? y + 4 : y - 10;
        const value = `${mean < 0 ? "" : "+"}${mean.toFixed(m.digits)} ± ${((high - low) / 2).toFixed(m.digits)}${sure[i] ? "*" : ""}`;
        return make("g", { role: "img", "aria-label": `${name}: ${value} ${m.unit}, ${sure[i] ? "" : "not "}distinguishable from zero`, "data-arm": arm }, said(0, up, name), said(width, up, value, "end"),
          path(`M${near(low)} ${y}H${near(high)}${[low, high].filter(inside).map(v => "M" + x(v) + " " + (y - 5) + "v10").join("")}`, style),
          inside(mean) ? circle(x(mean), y, 5, style) : path(`M${near(mean)} ${y}l${mean < 0 ? 9 : -9}-6v12z`, style), seeds.filter(inside).map(v => circle(x(v), y + 9, 2, "of-muted")),
          m.paper && inside(paper[arm]) && path(`M${x(paper[arm]) - 5} ${y - 5}l10 10m0-10l-10 10`, "student"));
      })];
  }, grip);
  figure.handle(grip, { key: "limit", step: 0.1, from: place => x.back(place) / measures[figure.state.measure].matters });
};
