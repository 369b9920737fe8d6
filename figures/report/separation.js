"use strict";
// The second explorer: T16's angle between logistic regression and mu against the class SNR of the samples, from phase_diagram.csv.
// SEPARATION: [{ name, snr: [...], curves: [{ ratio, tangent: [...], separable: [0 or 1, ...] }, ...] }, ...], one entry a way of training.

const ANGLES = { low: -3, high: 1 }; // powers of ten of tan(angle) at the ends of the axis: those around the curve
const SNRS = { low: Math.log10(0.3), high: 1 };

const spot = {
  x: (snr) => PLOT.left + (PLOT.width - PLOT.left - PLOT.right) * (Math.log10(snr) - SNRS.low) / (SNRS.high - SNRS.low),
  y: (tangent) => {
    return PLOT.top + (PLOT.height - PLOT.top - PLOT.bottom) * (ANGLES.high - Math.log10(tangent)) / (ANGLES.high - ANGLES.low);
  },
};

/** The class SNRs with the smallest angle, of all and of those with a larger angle on both sides; undefined where there is none. */
function bestSeparation(snr, tangent) {
  const order = tangent.map((_, i) => i).sort((i, j) => tangent[i] - tangent[j]);
  const inner = order.find((i) => 0 < i && i < snr.length - 1 && tangent[i] < tangent[i - 1] && tangent[i] < tangent[i + 1]);
  return { best: order[0], inner };
}

function drawSeparationAxes(svg, tangent) {
  const known = tangent.filter((one) => Number.isFinite(one) && one > 0);
  ANGLES.low = Math.floor(Math.log10(Math.min(...known)));
  ANGLES.high = Math.max(Math.ceil(Math.log10(Math.max(...known))), ANGLES.low + 1);
  const shown = (level) => Math.log10(level) > ANGLES.low - 1e-9 && Math.log10(level) < ANGLES.high + 1e-9;
  const levels = [-4, -3, -2, -1, 0, 1, 2].flatMap((power) => [10 ** power, 3 * 10 ** power]).filter(shown);
  const short = (level) => (level < 0.0099 ? level.toExponential(0) : String(Number(level.toPrecision(1)))); // fits left of the axis
  const up = levels.map((level) => [spot.y(level), short(level)]);
  const across = [0.3, 1, 3, 10].map((snr) => [spot.x(snr), String(snr)]);
  drawFrame(svg, across, up, "class SNR of one sample", "tan of the angle to μ");
}

function updateSeparation() {
  const way = SEPARATION[Number(document.getElementById("training").value)];
  const slider = document.getElementById("slider-ratio");
  const { ratio, tangent, separable } = way.curves[Number(slider.value)];
  const text = ratio.toLocaleString("en");
  document.getElementById("value-ratio").textContent = text;
  slider.setAttribute("aria-valuetext", text);
  const svg = document.getElementById("separation-plot");
  svg.querySelectorAll(":scope > :not(title):not(desc)").forEach((old) => old.remove());
  drawSeparationAxes(svg, tangent);
  const parts = [["real", (i) => separable[i]], ["synthetic", (i) => !separable[i]]];
  for (const [kind, belongs] of parts) {
    const places = tangent.map((_, i) => i).filter((i) => belongs(i) || (kind === "real" && i + 1 < separable.length && separable[i + 1]));
    const d = places.map((i, k) => `${k ? "L" : "M"}${spot.x(way.snr[i]).toFixed(2)} ${spot.y(tangent[i]).toFixed(2)}`).join(" ");
    svg.append(element("path", { d, class: `curve ${kind}` }));
  }
  const { best, inner } = bestSeparation(way.snr, tangent);
  svg.append(element("circle", { cx: spot.x(way.snr[best]), cy: spot.y(tangent[best]), r: 5, class: "here" }));
  const first = separable.indexOf(1);
  const written = {
    best: best === way.snr.length - 1 ? "10 or more" : way.snr[best].toFixed(2),
    inner: inner === undefined ? "none" : way.snr[inner].toFixed(2),
    cosine: (1 / Math.hypot(1, tangent[best])).toFixed(4),
    separable: first < 0 ? "none up to 10" : first === 0 ? "all" : `from ${way.snr[first].toFixed(2)} on`,
  };
  for (const [name, value] of Object.entries(written)) document.getElementById(`out-${name}`).textContent = value;
}

if (SEPARATION.length) {
  for (const id of ["slider-ratio", "training"]) {
    document.getElementById(id).addEventListener("input", updateSeparation);
    document.getElementById(id).addEventListener("change", () => { updateSeparation(); keep("separation"); });
  }
  resetBy("reset-separation", "separation", updateSeparation);
  updateSeparation();
  window.addEventListener("hashchange", updateSeparation);
}
