"use strict";
// The explorer: sliders that move the exact curves of law.js. Drawn as SVG, no library; every number is also given as text.

const SVG = "http://www.w3.org/2000/svg";
const PLOT = { width: 640, height: 380, left: 66, right: 14, top: 12, bottom: 44 };
const COUNTS = Array.from({ length: 41 }, (_, i) => Math.pow(10, i / 10)); // n = 1 .. 10,000

const SLIDERS = {
  d: (t) => Math.round(2 * Math.pow(500, t)),
  norm: (t) => 0.25 * Math.pow(16, t),
  sigma: (t) => 0.4 * Math.pow(7.5, t),
  eps: (t) => 3 * t,
  c: (t) => 0.25 * Math.pow(16, t),
  n: (t) => Math.round(Math.pow(10, 4 * t)),
  angle: (t) => 90 * t,
};
const DIGITS = { d: 0, norm: 2, sigma: 2, eps: 2, c: 2, n: 0, angle: 0 };
const UNITS = { angle: "°" };

function settings() {
  const chosen = {};
  for (const [name, scale] of Object.entries(SLIDERS)) {
    const exact = scale(Number(document.getElementById(`slider-${name}`).value) / 1000);
    chosen[name] = Number(exact.toFixed(DIGITS[name])); // what is shown is what is computed
  }
  return chosen;
}

function element(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const place = {
  x: (n) => PLOT.left + (PLOT.width - PLOT.left - PLOT.right) * Math.log10(n) / 4,
  y: (a) => PLOT.top + (PLOT.height - PLOT.top - PLOT.bottom) * (1 - a),
};

function path(values) {
  return values.map((a, i) => `${i ? "L" : "M"}${place.x(COUNTS[i]).toFixed(2)} ${place.y(a).toFixed(2)}`).join(" ");
}

/** Grid lines, their numbers and the two labels of a plot. across, up: [[place in pixels, text], ...]; the last text across ends there. */
function drawFrame(svg, across, up, below, beside) {
  for (const [y, text] of up) {
    svg.append(element("line", { x1: PLOT.left, x2: PLOT.width - PLOT.right, y1: y, y2: y, class: "grid" }));
    svg.append(element("text", { x: PLOT.left - 8, y: y + 4, class: "tick", "text-anchor": "end" }, text));
  }
  across.forEach(([x, text], i) => {
    svg.append(element("line", { x1: x, x2: x, y1: PLOT.top, y2: PLOT.height - PLOT.bottom, class: "grid" }));
    const anchor = i === across.length - 1 ? "end" : "middle";
    svg.append(element("text", { x, y: PLOT.height - PLOT.bottom + 18, class: "tick", "text-anchor": anchor }, text));
  });
  svg.append(element("text", { x: (PLOT.left + PLOT.width) / 2, y: PLOT.height - 6, class: "label", "text-anchor": "middle" }, below));
  const turned = { transform: `translate(13 ${PLOT.height / 2 - 10}) rotate(-90)`, class: "label", "text-anchor": "middle" };
  svg.append(element("text", turned, beside));
}

function drawAxes(svg) {
  const up = [0, 0.2, 0.4, 0.6, 0.8, 1].map((a) => [place.y(a), a.toFixed(1)]);
  const across = [1, 10, 100, 1000, 10000].map((n) => [place.x(n), n.toLocaleString("en")]);
  drawFrame(svg, across, up, "synthetic samples n", "mean robust accuracy");
}

function show(chosen) {
  const real = { ...chosen, c: 1, angle: 0 };
  const curves = {
    synthetic: COUNTS.map((n) => meanRobustAccuracy({ ...chosen, n })),
    real: COUNTS.map((n) => meanRobustAccuracy({ ...real, n })),
  };
  const here = meanRobustAccuracy(chosen), ceiling = ceilingAccuracy(chosen);
  const optimum = Math.max(0.5, ceilingAccuracy(real)); // a constant answer is right for one class
  const svg = document.getElementById("explorer-plot");
  svg.querySelectorAll(":scope > :not(title):not(desc)").forEach((old) => old.remove());
  drawAxes(svg);
  for (const [kind, value] of [["optimum", optimum], ["ceiling", ceiling]]) {
    const y = place.y(value);
    svg.append(element("line", { x1: PLOT.left, x2: PLOT.width - PLOT.right, y1: y, y2: y, class: `level ${kind}` }));
  }
  for (const [kind, values] of Object.entries(curves)) svg.append(element("path", { d: path(values), class: `curve ${kind}` }));
  svg.append(element("circle", { cx: place.x(chosen.n), cy: place.y(here), r: 5, class: "here" }));
  const [anchor, aside] = chosen.n < 100 ? ["start", 10] : ["end", -10];
  const number = { x: place.x(chosen.n) + aside, y: place.y(here) + (here > 0.5 ? 22 : -12), class: "label number", "text-anchor": anchor };
  svg.append(element("text", number, here.toFixed(3)));
  const kappa = chosen.c * chosen.norm * Math.sqrt(chosen.n) / chosen.sigma;
  const written = { accuracy: here, ceiling, optimum, real: meanRobustAccuracy(real), kappa };
  for (const [name, value] of Object.entries(written)) document.getElementById(`out-${name}`).textContent = value.toFixed(name === "kappa" ? 2 : 4);
  const worth = document.getElementById("out-worth");
  worth.textContent = chosen.angle === 0 ? `${(chosen.c * chosen.c).toFixed(2)} real samples` : "no fixed number: the ceiling differs";
}

let waiting = false;
function update() {
  const chosen = settings();
  for (const [name, value] of Object.entries(chosen)) {
    const digits = { minimumFractionDigits: DIGITS[name], maximumFractionDigits: DIGITS[name] };
    const text = `${value.toLocaleString("en", digits)}${UNITS[name] || ""}`;
    document.getElementById(`value-${name}`).textContent = text;
    document.getElementById(`slider-${name}`).setAttribute("aria-valuetext", text);
  }
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    show(settings());
  });
}

window.addEventListener("hashchange", () => {
  restore();
  update();
  unfold();
  const [section, ...chosen] = parts();
  if (section && !chosen.length) keep(section, location.hash); // a link leaves what was chosen
});
document.querySelectorAll("#averaging input").forEach((input) => {
  input.addEventListener("input", update);
  input.addEventListener("change", () => keep("averaging"));
});
// Arrow keys go on to the next value that is shown: at small n many positions of the slider mean the same number.
const ARROWS = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 };
document.querySelectorAll("#averaging input").forEach((input) => input.addEventListener("keydown", (event) => {
  const way = ARROWS[event.key];
  if (!way) return;
  event.preventDefault();
  const name = input.id.replace("slider-", ""), before = settings()[name];
  do input.value = Number(input.value) + way; while (settings()[name] === before && 0 < input.value && input.value < 1000);
  update();
  keep("averaging");
}));
resetBy("reset", "averaging", update);
restore();
update();
unfold();
