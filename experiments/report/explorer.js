// The attention explorer. A map is L × L weights, query by query: map[i * L + j] is what element i takes from element j.
"use strict";
const START = { example: 0, layer: 0, head: "mean", element: null }; // of a run: its last layer, its middle element
const state = { run: 0, ...START };
const STATISTICS = {
  entropy: "entropy, nats", spread: "entropy, share of the most", distance: "mean distance, elements",
  rank: "effective rank", first: "share on the first element",
};
const percent = (x) => `${(100 * x).toFixed(1)} %`;
const run = () => data.runs[state.run];
const example = () => run().examples[state.example];
const found = () => example().maps.find((m) => m.layer === state.layer && m.head === state.head);
const heads = () => example().maps.filter((m) => m.entropy !== undefined);

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function weights(map) {
  map.values ??= Float32Array.from(atob(map.weights), (c) => (c.charCodeAt(0) * map.top) / 255);
  return map.values;
}

// How the elements of each form lie in a panel.
const LAYOUTS = {
  words(panel, cells) {
    for (const cell of cells) panel.append(cell, cell.textContent.includes("↵") ? make("br") : "\u200b");
  },
  residues(panel, cells) {
    for (let n = 0; n < cells.length; n += 10)
      panel.append(make("span", { className: "ten" }, make("small", { textContent: n + 1 }), make("span", {}, ...cells.slice(n, n + 10))));
  },
  trajectory(panel, cells, { elements, pictures }) {
    const steps = d3.group(cells, (_, n) => elements[n].place[0]);
    const boxes = Array.from(steps, ([step, own]) => {
      const box = make("div", { className: "step" }, make("div", {}, ...own));
      if (pictures[step]) box.prepend(make("img", { src: source(pictures[step]), alt: pictures[step].alt }));
      return box;
    });
    panel.append(make("div", { className: "steps" }, ...boxes));
  },
  image(panel, cells, { elements, pictures }) {
    const stage = make("div", { className: "stage" }, make("img", { src: source(pictures[0]), alt: pictures[0].alt }));
    cells.forEach((cell, n) => {
      const [left, top, width, height] = elements[n].place;
      if (left === undefined) return panel.append(cell); // a class token or register
      Object.assign(cell.style, { left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * width}%`, height: `${100 * height}%` });
      stage.append(cell);
    });
    panel.append(stage);
  },
};
const source = (picture) => `data:image/png;base64,${picture.png}`;

function build() {
  const { name, form, elements, answers, pictures, about } = example();
  $("name").textContent = name;
  for (const id of ["to", "by"]) {
    const panel = $(id);
    panel.replaceChildren();
    panel.className = `cells ${form}`;
    const cells = elements.map((element, n) => {
      const cell = make("span", { className: "cell", id: `${id}-${n}`, textContent: element.label });
      cell.setAttribute("role", "option");
      cell.dataset.element = n;
      return cell;
    });
    LAYOUTS[form](panel, cells, example());
  }
  $("answers").replaceChildren(...answers.map(([name, value]) => make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: value }))));
  const beside = { residues: "What the model predicts of pairs", image: "The image" }[form];
  $("contacts").hidden = !beside;
  if (beside) Object.assign($("picture"), { src: source(pictures[0]), alt: pictures[0].alt });
  $("picture-name").textContent = beside;
  $("picture-text").textContent = beside ? pictures[0].alt : "";
  for (const line of $("contacts").querySelectorAll("i")) line.hidden = form !== "residues";
  $("about").textContent = `Here: ${about}.`;
  const layers = d3.max(example().maps, (m) => m.layer);
  state.layer = Math.min(state.layer || layers, layers);
  state.element = Math.min(state.element ?? Math.floor(elements.length / 2), elements.length - 1);
  fill($("layer"), d3.range(1, layers + 1).map((n) => [n, n]), state.layer);
  const own = example().maps.filter((m) => m.layer === 1 && m.entropy !== undefined).map((m) => [m.head, m.head]);
  fill($("head"), [["mean", "mean of all"], ...own, ["rollout", "rollout up to this layer"]], state.head);
  $("table").replaceChildren(
    make("tr", {}, ...["layer", "head", ...Object.values(STATISTICS), "effect of removal"].map((t) => make("th", { textContent: t }))),
    ...heads().map((m) => make("tr", {}, ...[m.layer, m.head, ...Object.keys(STATISTICS).map((k) => m[k]), m.effect].map((t) => make("td", { textContent: t })))),
  );
}

function fill(select, options, value) {
  select.replaceChildren(...options.map(([value, textContent]) => make("option", { value, textContent })));
  select.value = value;
}

function render() {
  const { elements, effects } = example(), map = found(), values = weights(map), L = elements.length, i = state.element;
  const views = { to: values.slice(i * L, (i + 1) * L), by: Float32Array.from({ length: L }, (_, j) => values[j * L + i]) };
  for (const [id, view] of Object.entries(views)) {
    const top = d3.max(view) || 1;
    view.forEach((weight, n) => {
      const cell = $(`${id}-${n}`);
      cell.style.setProperty("--w", weight / top);
      cell.style.setProperty("--s", Math.sqrt(weight / top)); // the side of a square whose area is the weight
      cell.dataset.weight = weight.toFixed(4);
      cell.title = `${elements[n].note}: ${percent(weight)}`;
      cell.setAttribute("aria-label", cell.title);
      cell.setAttribute("aria-selected", n === i);
    });
    $(id).setAttribute("aria-activedescendant", `${id}-${i}`);
    const most = d3.sort(d3.range(L), (n) => -view[n]).slice(0, 3).filter((n) => view[n] > 0);
    $(`${id}-most`).textContent = `Most: ${most.map((n) => `${elements[n].note.split("; ")[0]}, ${percent(view[n])}`).join(" · ") || "nothing"}`;
  }
  const order = (numbers) => 1 + numbers.filter((x) => x > numbers[i]).length;
  $("chosen").replaceChildren(
    make("strong", { textContent: `${elements[i].note[0].toUpperCase()}${elements[i].note.slice(1)}.` }),
    ` It gets ${percent(map.received[i])} of the others' attention (rank ${order(map.received)} of ${L}); ` +
      `hiding it moves the predictions by ${effects[i].toPrecision(2)} (rank ${order(effects)}).`,
  );
  drawMap(values, map.top, L);
  for (const pair of document.querySelectorAll("[data-pair]")) {
    Object.assign(pair.querySelector(".across").style, { top: `${(100 * i) / L}%`, height: `${100 / L}%` });
    Object.assign(pair.querySelector(".down").style, { left: `${(100 * i) / L}%`, width: `${100 / L}%` });
  }
  charts(map);
}

function drawMap(values, top, L) {
  const canvas = $("map"), { r, g, b } = d3.rgb(getComputedStyle(document.documentElement).getPropertyValue("--blue").trim());
  canvas.width = canvas.height = L;
  const image = new ImageData(L, L);
  values.forEach((weight, n) => image.data.set([r, g, b, 255 * Math.sqrt(weight / top)], 4 * n)); // √: faint ones show, too
  canvas.getContext("2d").putImageData(image, 0, 0);
  const name = $("head").selectedOptions[0].textContent.replace(/^(?=\d)/, "head ").replace(/all$/, "all heads");
  $("map-text").textContent = `Layer ${state.layer}, ${name}: a row for each element that attends, a column for each that it attends to. The darkest is ${percent(top)}; shades go with the square root.`;
  canvas.setAttribute("aria-label", `Attention map of ${L} by ${L} elements; the chosen row and column are read out above`);
}

function charts(map) {
  const { elements, effects } = example(), ink = { background: "none", color: "inherit", fontSize: "12px", overflow: "visible" };
  const c = map.correlation;
  $("correlation").textContent = c === null
    ? "All weights or all effects are the same here: there is nothing to correlate."
    : `Here weight and effect have a rank correlation (Spearman) of ${+c.toFixed(2)} over ${elements.length} elements in the chosen map; 1 would be the same order, 0 none, −1 the reverse.`;
  const dots = elements.map((e, n) => ({ n, weight: map.received[n], effect: effects[n], note: e.note }));
  const scatter = Plot.plot({
    width: $("scatter").clientWidth, height: 270, marginLeft: 55, marginBottom: 42, style: ink, grid: true, ariaLabel: "weight received against effect of removal",
    x: { label: "weight that it gets", ticks: 5, labelOffset: 38 }, y: { label: "effect of hiding it", ticks: 5, nice: true, tickFormat: (v) => (v && Math.abs(v) < 1e-3 ? v.toExponential(0) : `${v}`) },
    marks: [
      Plot.dot(dots, { x: "weight", y: "effect", fill: "var(--blue)", fillOpacity: 0.6, r: 4 }),
      Plot.dot([dots[state.element]], { x: "weight", y: "effect", stroke: "currentColor", strokeWidth: 2, r: 7 }),
      Plot.tip(dots, Plot.pointer({ x: "weight", y: "effect", title: "note", fill: "var(--page)" })),
    ],
  });
  scatter.addEventListener("click", () => scatter.value && choose(scatter.value.n));
  $("scatter").replaceChildren(scatter);
  const layers = d3.max(heads(), (m) => m.layer), few = heads().length / layers <= 8;
  const removals = Plot.plot({
    width: $("removals").clientWidth, height: 80 + 34 * layers, marginBottom: 45, style: ink, ariaLabel: "effect of removing each head",
    x: { label: "head", type: "band", labelOffset: 38 }, y: { label: "layer", type: "band" }, opacity: { domain: [0, d3.max(heads(), (m) => m.effect)], range: [0.03, 0.9] },
    marks: [
      Plot.cell(heads(), { x: "head", y: "layer", fill: "var(--orange)", fillOpacity: { value: "effect", scale: true }, inset: 1 }),
      Plot.cell([map].filter((m) => m.effect !== undefined), { x: "head", y: "layer", stroke: "currentColor", strokeWidth: 2, inset: 1 }),
      few ? Plot.text(heads(), { x: "head", y: "layer", text: (m) => m.effect.toPrecision(2), fill: "currentColor" }) : null,
      Plot.tip(heads(), Plot.pointer({ x: "head", y: "layer", title: (m) => `layer ${m.layer}, head ${m.head}: ${m.effect}`, fill: "var(--page)" })),
    ],
  });
  removals.addEventListener("click", () => removals.value && pick(removals.value));
  $("removals").replaceChildren(removals);
  $("statistics").replaceChildren(...Object.entries(STATISTICS).map(([key, label]) => make("figure", { className: "chart" }, statistic(key, label, map, layers, ink))));
}

function statistic(key, label, map, layers, ink) {
  return Plot.plot({
    width: 210, height: 175, marginLeft: 42, marginBottom: 40, style: ink, ariaLabel: `${label}, for each layer and head`, grid: true,
    x: { domain: [0.7, layers + 0.3], ticks: d3.range(1, layers + 1, Math.ceil(layers / 6)), tickFormat: "d", label: "layer", labelOffset: 36 },
    y: { label: `↑ ${label}`, labelArrow: null, zero: true, ticks: 4, nice: true },
    marks: [
      Plot.lineY(heads(), Plot.groupX({ y: "mean" }, { x: "layer", y: key, stroke: "var(--blue)" })),
      Plot.dot(heads(), { x: "layer", y: key, stroke: "var(--blue)", r: 3, title: (m) => `layer ${m.layer}, head ${m.head}: ${m[key]}` }),
      Plot.dot([map].filter((m) => m.effect !== undefined), { x: "layer", y: key, fill: "var(--blue)", r: 5 }),
    ],
  });
}

function open(number) {
  Object.assign(state, { run: number, ...START });
  for (const part of document.querySelectorAll("[data-run]")) part.hidden = Number(part.dataset.run) !== number;
  $("input-label").hidden = run().examples.length === 1;
  fill($("example"), run().examples.map((s, n) => [n, s.name]), 0);
  build();
  render();
}

function choose(n) {
  state.element = n;
  render();
}

function pick({ layer, head }) {
  Object.assign(state, { layer, head });
  $("layer").value = layer;
  $("head").value = head;
  render();
}

// The arrows go left and right in the order of the elements, up and down to the nearest one as it lies on the screen.
function step(panel, key) {
  const L = example().elements.length, i = state.element;
  if (key === "ArrowLeft" || key === "ArrowRight") return (i + (key === "ArrowLeft" ? L - 1 : 1)) % L;
  const down = key === "ArrowDown" ? 1 : -1, box = (n) => $(`${panel.id}-${n}`).getBoundingClientRect(), from = box(i);
  const away = (n) => Math.abs(box(n).left - from.left) + 3 * Math.abs(box(n).top - from.top);
  return d3.least(d3.range(L).filter((n) => down * (box(n).top - from.top) > 2), away) ?? i;
}

for (const panel of [$("to"), $("by")]) {
  panel.addEventListener("click", (event) => {
    const cell = event.target.closest(".cell");
    if (cell) choose(Number(cell.dataset.element));
  });
  panel.addEventListener("keydown", (event) => {
    if (!event.key.startsWith("Arrow")) return;
    event.preventDefault();
    choose(step(panel, event.key));
  });
}
for (const pair of document.querySelectorAll("[data-pair]"))
  pair.addEventListener("click", (event) => {
    if (pair.querySelector("i").hidden) return; // an image, which is no map of pairs
    const { top, height } = pair.getBoundingClientRect(), L = example().elements.length;
    choose(Math.min(L - 1, Math.max(0, Math.floor((L * (event.clientY - top)) / height))));
  });
$("example").addEventListener("change", () => { state.example = Number($("example").value); build(); render(); });
for (const id of ["layer", "head"])
  $(id).addEventListener("change", () => pick({ layer: Number($("layer").value), head: $("head").value }));
for (const tab of document.querySelectorAll("#runs input")) tab.addEventListener("change", () => open(Number(tab.value)));
addEventListener("resize", () => charts(found()));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
open(0);
