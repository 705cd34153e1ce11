// The report of a transfer: for each mode a matrix, where cores come from by where they go.
"use strict";
const MOST = 0.6; // opacity of the strongest colour: text on it can be read, on a light page and on a dark one
const cells = data.matrices.flatMap((matrix) => matrix.cells);
const colour = ({ percent }) => (percent < 0 ? "var(--orange)" : "var(--blue)");
const strength = (percent, top) => MOST * Math.sqrt(Math.abs(percent ?? 0) / (top || 1));
const most = (things) => d3.max(things, (cell) => Math.abs(cell.percent ?? 0)) || 0;
const style = { background: "none", color: "inherit", fontSize: "12px", overflow: "visible" };

function matrix({ mode, cells: own }, box, top) {
  const cores = [...new Set(own.map((cell) => cell.core))], width = Math.max(240, box.clientWidth);
  const left = 12 + 7 * d3.max(cells, (cell) => cell.core.length), each = (width - left) / data.domains.length;
  const narrow = cells.some((cell) => 6.5 * cell.interval.length > each); // an interval then takes two lines
  const text = (cell) => [cell.effect + (cell.sure ? " *" : ""), ...(narrow ? cell.interval.split(/ (?=…)/) : [cell.interval])].filter(Boolean).join("\n");
  return Plot.plot({
    width, height: 26 + 58 * cores.length, marginLeft: left, marginRight: 0, marginTop: 24, marginBottom: 2, style,
    ariaLabel: `${mode}: ${own.map((cell) => `${cell.core} to ${cell.domain} ${text(cell).replaceAll("\n", " ")}`).join("; ")}`,
    x: { domain: data.domains, axis: "top", label: null, tickSize: 0, padding: 0 },
    y: { domain: cores, label: null, tickSize: 0, padding: 0 },
    marks: [
      Plot.cell(own, { x: "domain", y: "core", inset: 2, fill: colour, fillOpacity: (c) => strength(c.percent, top(c)), stroke: "var(--line)" }),
      Plot.cell(own.filter((c) => c.sure), { x: "domain", y: "core", inset: 3, fill: "none", stroke: "currentColor", strokeWidth: 2 }),
      Plot.text(own, { x: "domain", y: "core", text, lineHeight: 1.25, fontSize: narrow ? 11 : 13, fill: "currentColor", fontWeight: (c) => (c.sure ? 600 : 400) }),
    ],
  });
}

function key(top) {
  const steps = [-1, -0.5, -0.1, 0, 0.1, 0.5, 1].map((part) => ({ percent: part, name: top ? `${part > 0 ? "+" : ""}${Number((part * top).toPrecision(2))} %` : `${100 * part}` }));
  return Plot.plot({
    width: $("key").clientWidth, height: 46, marginLeft: 0, marginRight: 0, marginTop: 2, marginBottom: 24, style,
    ariaLabel: top ? `from ${-top.toFixed(1)} percent, orange, to ${top.toFixed(1)} percent, blue` : "in percent of the strongest effect of the column",
    x: { domain: steps.map((s) => s.name), label: null, tickSize: 0, padding: 0 },
    marks: [Plot.cell(steps, { x: "name", fill: colour, fillOpacity: (s) => strength(s.percent, 1), stroke: "var(--line)" })],
  });
}

function draw() {
  const common = $("common").checked, all = most(cells);
  const columns = new Map(data.domains.map((domain) => [domain, most(cells.filter((cell) => cell.domain === domain))]));
  const put = (box, chart) => { chart.setAttribute("role", "img"); box.replaceChildren(chart); };
  for (const box of document.querySelectorAll("[data-matrix]")) put(box, matrix(data.matrices[box.dataset.matrix], box, (cell) => (common ? all : columns.get(cell.domain))));
  put($("key"), key(common ? all : 0));
}

$("common").addEventListener("change", draw);
for (const link of document.querySelectorAll('a[href="#runs"]')) link.addEventListener("click", () => { $("runs").open = true; });
addEventListener("resize", draw);
draw();
