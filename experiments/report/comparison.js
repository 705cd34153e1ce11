// The report of a comparison: a chart of each kind for each domain, of the values that are chosen.
"use strict";
const SYMBOLS = ["circle", "square", "diamond", "triangle", "star", "cross", "wye"];
const COSTS = {
  seconds: ["seconds of training", ""], flops: ["FLOPs of training", ""], peak_memory: ["peak memory", "B"],
  tokens_per_second: ["tokens per second", ""], parameters: ["parameters", ""],
};
const shown = new Set(data.values);
const colour = ({ value }) => `var(--v${data.values.indexOf(value) % SYMBOLS.length})`;
const symbol = ({ value }) => SYMBOLS[data.values.indexOf(value) % SYMBOLS.length];
const chosen = (things) => things.filter((thing) => shown.has(thing.value));
const cut = (text, most = 14) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const figure = (x) => (x === null ? "unknown" : Number(x.toPrecision(4)).toString());
const signed = (x) => `${x > 0 ? "+" : ""}${Number(x.toPrecision(3))}`;
const fill = { value: colour, scale: null };

// Rows for values, and what all charts have in common.
function frame(box, label) {
  return {
    width: Math.max(200, box.clientWidth), marginBottom: 40, marginRight: 14, marginTop: 8,
    style: { background: "none", color: "inherit", fontSize: "12px", overflow: "visible" }, ariaLabel: label,
  };
}
function rows(values) {
  const left = 16 + 7 * d3.max(values, (value) => Math.min(14, value.length));
  return { height: 52 + 30 * values.length, marginLeft: left, y: { domain: values, label: null, tickFormat: (v) => cut(v), tickSize: 0 } };
}
const tip = (things, options) => Plot.tip(things, Plot.pointer({ ...options, fill: "var(--page)" }));

const CHARTS = {
  scores(domain, box) {
    const means = chosen(domain.means), runs = chosen(domain.runs);
    if (!means.length) return "";
    return Plot.plot({
      ...frame(box, domain.descriptions.scores), ...rows(means.map((m) => m.value)),
      x: { label: domain.metric, labelAnchor: "center", labelArrow: "none", labelOffset: 36, ticks: 4, tickFormat: figure, nice: true, grid: true },
      marks: [
        Plot.ruleY(means, { y: "value", x1: "low", x2: "high", stroke: fill, strokeWidth: 1.5 }),
        Plot.tickX(means, { y: "value", x: "mean", stroke: fill, strokeWidth: 3, inset: 6 }),
        Plot.dot(runs, { y: "value", x: "score", fill, fillOpacity: 0.65, symbol, r: 4 }),
        tip(runs, { y: "value", x: "score", title: (r) => `${r.value}, seed ${r.seed}: ${figure(r.score)}` }),
      ],
    });
  },

  effects(domain, box) {
    const unit = $("unit").value, effects = chosen(domain.effects).filter((e) => e[unit]);
    if (!effects.length) return "";
    const per = ({ value }) => scale(domain.effects.find((e) => e.value === value), unit);
    const dots = effects.flatMap((e) => e.differences.map(({ seed, d }) => ({ value: e.value, seed, d })));
    const across = { domain: $("common").checked ? extent(data.domains.flatMap((d) => chosen(d.effects))) : extent(effects), clamp: true };
    const mark = (name) => (e) => per(e) * e[name];
    return Plot.plot({
      ...frame(box, domain.descriptions.effects), ...rows(effects.map((e) => e.value)),
      x: { ...across, label: unit === "size" ? "percent better →" : "deviations better →", labelAnchor: "center", labelArrow: "none", labelOffset: 36, ticks: 4, tickFormat: signed, grid: true },
      marks: [
        Plot.ruleX([0], { stroke: "currentColor" }),
        Plot.ruleY(effects.filter((e) => e.student[0] !== null), { y: "value", x1: (e) => per(e) * e.student[0], x2: (e) => per(e) * e.student[1], stroke: fill, strokeWidth: 1.2 }),
        Plot.ruleY(effects.filter((e) => e.low !== null), { y: "value", x1: mark("low"), x2: mark("high"), stroke: fill, strokeWidth: 7, strokeOpacity: 0.4 }),
        Plot.dot(dots, { y: "value", x: mark("d"), fill, r: 2, dy: 9 }),
        Plot.dot(effects, { y: "value", x: mark("change"), stroke: fill, fill: { value: (e) => (e.sure ? colour(e) : "var(--page)"), scale: null }, symbol, r: 5, strokeWidth: 2 }),
        tip(effects, { y: "value", x: mark("change"), title: (e) => `${e.value}: ${formatEffect(e, unit)}${e.sure ? "" : ", not sure"}${e.other_size ? "\nother size" : ""}` }),
      ],
    });
  },

  costs(domain, box) {
    const cost = $("cost").value, [name, unit] = COSTS[cost], means = chosen(domain.means), runs = chosen(domain.runs);
    if (!runs.length) return "";
    return Plot.plot({
      ...frame(box, `${name}: ${domain.descriptions.costs}`), height: 210, marginLeft: 60, grid: true,
      x: { label: name, labelAnchor: "center", labelArrow: "none", labelOffset: 36, ticks: 4, tickFormat: (x) => `${d3.format("~s")(x)}${unit}`, nice: true },
      y: { label: domain.metric, labelAnchor: "center", labelArrow: "none", labelOffset: 54, ticks: 4, tickFormat: figure, nice: true },
      marks: [
        Plot.dot(runs, { x: cost, y: "score", fill, fillOpacity: 0.5, symbol, r: 3 }),
        Plot.dot(means, { x: cost, y: "mean", fill, stroke: "var(--page)", symbol, r: 7 }),
        tip(runs, { x: cost, y: "score", title: (r) => `${r.value}, seed ${r.seed}: ${figure(r.score)}\n${d3.format(".3s")(r[cost])}${unit} ${name}` }),
      ],
    });
  },

  curves(domain, box) {
    const runs = chosen(domain.runs).filter((run) => run.curve.length);
    const points = runs.flatMap(({ value, seed, curve }) => curve.map(([step, loss]) => ({ value, seed, step, loss, run: `${value} ${seed}` })));
    if (!points.length) return "";
    const single = points.filter((p) => points.filter((q) => q.run === p.run).length === 1);
    return Plot.plot({
      ...frame(box, domain.descriptions.curves), height: 210, marginLeft: 48, grid: true,
      x: { label: "step", labelAnchor: "center", labelArrow: "none", labelOffset: 36, ticks: 4, tickFormat: "~s" },
      y: { label: "training loss", labelAnchor: "center", labelArrow: "none", labelOffset: 42, ticks: 4, nice: true },
      marks: [
        Plot.line(points, { x: "step", y: "loss", z: "run", stroke: fill, strokeWidth: 1.2, strokeOpacity: 0.75 }),
        Plot.dot(single, { x: "step", y: "loss", fill, symbol, r: 3 }),
        tip(points, { x: "step", y: "loss", title: (p) => `${p.value}, seed ${p.seed}, step ${p.step}: ${figure(p.loss)}` }),
      ],
    });
  },
};

// What is beside or instead of a chart, in words.
const NOTES = {
  scores: () => "",
  effects(domain) {
    const first = data.values[0], unit = $("unit").value, other = chosen(domain.means).filter((m) => m.value !== first);
    if (!domain.means.some((m) => m.value === first)) return `No effect: ${first} has no finished run here.`;
    if (!other.length) return `Nothing is drawn beside ${first} here.`;
    const without = other.filter((m) => !domain.effects.some((e) => e.value === m.value));
    const unknown = chosen(domain.effects).filter((e) => !e[unit]);
    const why = unit === "size" ? `${first}'s mean is 0` : `${first} has one seed, or all its seeds score the same`;
    return [
      unknown.length ? `Not known in this unit for ${unknown.map((e) => e.value).join(", ")}: ${why}.` : "",
      without.length ? `No seed in common with ${first}: ${without.map((m) => m.value).join(", ")}.` : "",
      chosen(domain.effects).some((e) => e.differences.length === 1) ? "A single seed has no interval." : "",
    ].join(" ").trim();
  },
  costs: () => "",
  curves: (domain) => (domain.runs.some((run) => run.curve.length) ? "" : "Nothing was logged: these runs are shorter than trainer.log_every_n_steps."),
};

const scale = (effect, unit) => (unit === "size" ? 100 : 1) / effect[unit];
const formatEffect = (effect, unit) => {
  const [change, low, high] = [effect.change, effect.low, effect.high].map((x) => (x === null ? "unknown" : signed(scale(effect, unit) * x)));
  return `${change} (${low} to ${high}) ${unit === "size" ? "percent" : "deviations"}`;
};

// From what the differences and bootstrap intervals need; Student's may add as much again, beyond that they are cut.
function extent(effects) {
  const unit = $("unit").value, known = effects.filter((e) => e[unit]);
  const least = d3.extent([0, ...known.flatMap((e) => [e.low, e.high, ...e.differences.map((x) => x.d)].map((x) => (x ?? 0) * scale(e, unit)))]);
  const most = d3.extent([0, ...known.flatMap((e) => e.student.map((x) => (x ?? 0) * scale(e, unit)))]);
  const room = least[1] - least[0] || 1;
  return [Math.max(least[0] - room, Math.min(least[0] - room / 20, most[0])), Math.min(least[1] + room, Math.max(least[1] + room / 20, most[1]))];
}

function draw(kinds = Object.keys(CHARTS)) {
  for (const box of document.querySelectorAll("[data-chart]")) {
    const kind = box.dataset.chart, domain = drawn[box.dataset.domain];
    if (!kinds.includes(kind)) continue;
    const chart = CHARTS[kind](domain, box);
    if (chart) chart.setAttribute("role", "img");
    box.replaceChildren(chart);
    box.parentNode.querySelector(".note").textContent = NOTES[kind](domain);
  }
}

function legend() {
  for (const value of data.values) {
    const label = document.createElement("label"), box = document.createElement("input");
    Object.assign(box, { type: "checkbox", checked: true, value });
    box.addEventListener("change", () => { shown[box.checked ? "add" : "delete"](value); draw(); });
    const path = d3.symbol(d3[`symbol${symbol({ value }).replace(/^./, (c) => c.toUpperCase())}`], 80)();
    const svg = d3.create("svg").attr("width", 16).attr("height", 16).attr("viewBox", "-8 -8 16 16").attr("aria-hidden", "true");
    svg.append("path").attr("d", path).attr("fill", colour({ value }));
    label.append(box, svg.node(), value);
    $("values").append(label);
  }
}

const drawn = data.domains.filter((domain) => domain.metric);
legend();
for (const [value, [textContent]] of Object.entries(COSTS)) $("cost").append(Object.assign(document.createElement("option"), { value, textContent }));
for (const id of ["unit", "common"]) $(id).addEventListener("change", () => draw(["effects"]));
$("cost").addEventListener("change", () => draw(["costs"]));
for (const link of document.querySelectorAll('a[href="#runs"]')) link.addEventListener("click", () => { $("runs").open = true; });
addEventListener("resize", () => draw());
draw();
