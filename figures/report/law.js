"use strict";
// T4 in the page: the exact mean robust accuracy of averaging n samples of synthetic classes N(+-c mu~, sigma^2 I), ||mu~|| = ||mu||, at an
// angle to the real mean mu. With kappa = c ||mu|| sqrt(n) / sigma, R = ||mu|| / sigma, e = eps / sigma, and T the cosine to mu,
//   E[A] = E Phi(R T - e) = Phi(-R - e) + int phi(R sin u - e) R cos u  E Phi(kappa cos(angle) - rho tan u) du,  u in (-pi/2, pi/2),
// because T >= sin u just when kappa cos(angle) + z >= rho tan u; rho^2 = (kappa sin(angle) + z2)^2 + chi^2 with d - 2 degrees of freedom.

/** Nodes and weights of Gauss and Legendre on [-1, 1], by Newton's method. */
function gaussLegendre(n) {
  const nodes = new Float64Array(n), weights = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    let x = Math.cos(Math.PI * (i + 0.75) / (n + 0.5)), slope = 1;
    for (let step = 0; step < 50; step++) {
      let before = 1, now = x;
      for (let k = 2; k <= n; k++) [before, now] = [now, ((2 * k - 1) * x * now - (k - 1) * before) / k];
      slope = n * (x * now - before) / (x * x - 1);
      const move = now / slope;
      x -= move;
      if (Math.abs(move) < 1e-15) break;
    }
    nodes[i] = x;
    weights[i] = 2 / ((1 - x * x) * slope * slope);
  }
  return { nodes, weights };
}

/** The standard normal cdf, by the continued fraction and the series; about 1e-9 and better. */
function normalCdf(x) {
  if (x < -8) return 0;
  if (x > 8) return 1;
  const a = Math.abs(x);
  const density = Math.exp(-a * a / 2) / Math.sqrt(2 * Math.PI);
  let upper;
  if (a > 3) {
    let fraction = a;
    for (let k = 24; k >= 1; k--) fraction = a + k / fraction;
    upper = density / fraction;
  } else {
    let term = a, sum = a;
    for (let k = 3; k < 80 && term > 1e-12 * sum; k += 2) {
      term *= a * a / k;
      sum += term;
    }
    upper = 0.5 - density * sum;
  }
  return x > 0 ? 1 - upper : upper;
}

const CDF_END = 8, CDF_STEP = 1 / 256;
const CDF = Float64Array.from({ length: 2 * CDF_END / CDF_STEP + 2 }, (_, i) => normalCdf(i * CDF_STEP - CDF_END));

/** The same from a table by linear interpolation: within 1e-6, and fast. */
function fastCdf(x) {
  if (x <= -CDF_END) return 0;
  if (x >= CDF_END) return 1;
  const place = (x + CDF_END) / CDF_STEP, i = Math.floor(place);
  return CDF[i] + (place - i) * (CDF[i + 1] - CDF[i]);
}

const OUTER = gaussLegendre(32), ACROSS = gaussLegendre(20), RADIAL = gaussLegendre(20), FINE = gaussLegendre(60);
const LINE = gaussLegendre(200), CENTRAL = gaussLegendre(32);

/** Nodes and normalised weights of a standard normal. */
function normalNodes(rule) {
  const end = 5.5;
  const nodes = rule.nodes.map((t) => end * t);
  return { nodes, weights: normalised(rule.weights.map((w, i) => w * Math.exp(-nodes[i] * nodes[i] / 2))) };
}

/** Nodes and normalised weights of chi with k degrees of freedom; of 0 where k = 0. */
function chiNodes(rule, k) {
  if (k === 0) return { nodes: new Float64Array([0]), weights: new Float64Array([1]) };
  const mode = Math.sqrt(Math.max(k - 1, 0)), low = Math.max(0, mode - 5), high = mode + 5.5;
  const nodes = rule.nodes.map((t) => low + (high - low) * (t + 1) / 2);
  const log = (r) => (k - 1) * Math.log(r) - r * r / 2;
  const peak = mode > 0 ? log(mode) : 0;
  return { nodes, weights: normalised(rule.weights.map((w, i) => w * Math.exp(log(nodes[i]) - peak))) };
}

function normalised(weights) {
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / sum);
}

/** rho and its weights: the length of what a sample mean has across mu, in units of its noise. */
function acrossNodes(d, push) {
  if (push === 0) return chiNodes(CENTRAL, d - 1);
  const z = normalNodes(d === 2 ? LINE : d <= 4 ? FINE : ACROSS), chi = chiNodes(d <= 4 ? FINE : RADIAL, d - 2);
  const nodes = [], weights = [];
  z.nodes.forEach((a, i) => chi.nodes.forEach((b, j) => {
    nodes.push(Math.hypot(push + a, b));
    weights.push(z.weights[i] * chi.weights[j]);
  }));
  return { nodes: Float64Array.from(nodes), weights: Float64Array.from(weights) };
}

/** E[A] for d >= 2, angle in degrees. */
function meanRobustAccuracy({ d, norm, sigma, eps, c, n, angle }) {
  const kappa = c * norm * Math.sqrt(n) / sigma, R = norm / sigma, e = eps / sigma;
  const turn = angle * Math.PI / 180, along = kappa * Math.cos(turn);
  const rho = acrossNodes(d, angle === 0 ? 0 : kappa * Math.sin(turn));
  // the integrand is concentrated where the noise of a test point is, R sin u - e within +-8 ...
  const low = Math.asin(Math.max(-1, (e - 8) / R)), high = Math.asin(Math.max(-1, Math.min(1, (e + 8) / R)));
  let total = normalCdf(-R - e);
  if (high <= low) return total;
  // ... and steps down where kappa cos(angle) + z meets rho tan u: pieces end beside that step
  const mean = Math.sqrt(Math.pow(kappa * Math.sin(turn), 2) + d - 1), step = Math.atan2(along, mean);
  const width = 7 * Math.pow(Math.cos(step), 2) * (1 / mean + Math.abs(along) * Math.min(1, 0.8 / mean) / mean);
  const ends = [low, step - width, step, step + width, high].map((u) => Math.min(Math.max(u, low), high));
  for (let piece = 0; piece + 1 < ends.length; piece++) {
    const half = (ends[piece + 1] - ends[piece]) / 2;
    if (half <= 0) continue;
    OUTER.nodes.forEach((t, i) => {
      const u = ends[piece] + half * (t + 1), offset = R * Math.sin(u) - e, slope = Math.tan(u);
      let inside = 0;
      for (let j = 0; j < rho.nodes.length; j++) inside += rho.weights[j] * fastCdf(along - rho.nodes[j] * slope);
      total += OUTER.weights[i] * half * Math.exp(-offset * offset / 2) / Math.sqrt(2 * Math.PI) * R * Math.cos(u) * inside;
    });
  }
  return total;
}

/** T3: what no number of samples lifts. */
function ceilingAccuracy({ norm, sigma, eps, angle }) {
  return normalCdf((norm * Math.cos(angle * Math.PI / 180) - eps) / sigma);
}
