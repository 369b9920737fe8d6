"use strict";
// How the page is read: tables sorted and searched, folded parts opened by links, the section marked above, fingers on sliders.

// Tables: a click or Enter on a heading sorts by it, again the other way round.
function sortTable(heading) {
  const table = heading.closest("table"), body = table.tBodies[0];
  const column = Array.from(heading.parentNode.children).indexOf(heading);
  const down = heading.getAttribute("aria-sort") === "ascending";
  table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = (row) => row.children[column].dataset.key;
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)], [p, q] = [Number(x), Number(y)];
    if (x === "" || y === "") return x === y ? 0 : x === "" ? 1 : -1; // empty cells last, either way
    const order = Number.isNaN(p) || Number.isNaN(q) ? x.localeCompare(y, "en", { numeric: true }) : p - q;
    return down ? -order : order;
  };
  Array.from(body.rows).sort(compare).forEach((row) => body.append(row));
}
document.querySelectorAll("th button").forEach((button) => button.addEventListener("click", () => sortTable(button.parentNode)));

/** Show the rows of a long table that have every word of what was typed. */
function searchTable(input) {
  const rows = Array.from(document.getElementById(input.getAttribute("aria-controls")).tBodies[0].rows);
  const plain = (text) => text.toLowerCase().replaceAll("−", "-"); // the sign of a number, which no keyboard has
  const words = plain(input.value).split(/\s+/);
  rows.forEach((row) => {
    const text = plain(Array.from(row.cells, (cell) => cell.textContent).join(" "));
    row.hidden = !words.every((word) => text.includes(word));
  });
  const left = rows.filter((row) => !row.hidden).length;
  const said = left ? `${left} of ${rows.length} rows` : `none of ${rows.length} rows has all of it`;
  input.closest("label").querySelector("output").textContent = left < rows.length ? said : `${rows.length} rows`;
}
document.querySelectorAll("input[type=search]").forEach((input) => input.addEventListener("input", () => searchTable(input)));

// A link to something that is folded unfolds it.
function unfold() {
  const there = document.getElementById(parts()[0]);
  const folded = there && there.closest("details");
  if (folded) { folded.open = true; there.scrollIntoView(); }
}
document.addEventListener("click", ({ target }) => {
  const link = target.closest('a[href^="#"]'); // the address may be the same as before, which tells nobody
  if (link && link.hash === location.hash) unfold();
});

// What is wider than its place says so, and which way there is more.
const measured = new ResizeObserver((all) => all.forEach(({ target }) => {
  target.classList.toggle("scrolls", target.scrollWidth > target.clientWidth + 1);
}));
document.querySelectorAll(".wide").forEach((one) => {
  measured.observe(one);
  one.addEventListener("scroll", () => one.classList.toggle("ended", one.scrollLeft + one.clientWidth >= one.scrollWidth - 2), { passive: true });
});

/** Mark the link of the section that is being read, and keep it in sight where the links scroll sideways. */
function markSection() {
  const links = Array.from(document.querySelectorAll("nav a"));
  const below = document.querySelector("nav").getBoundingClientRect().bottom + 40;
  const passed = links.filter((link) => document.getElementById(link.hash.slice(1)).getBoundingClientRect().top <= below);
  const ended = window.innerHeight + window.scrollY >= document.documentElement.scrollHeight - 2;
  const seen = (link) => document.getElementById(link.hash.slice(1)).getBoundingClientRect().top < window.innerHeight;
  const asked = links.find((link) => link.hash === `#${parts()[0]}` && seen(link)); // at the end the last sections are all in sight
  const now = ended ? asked || links.at(-1) : passed.at(-1) || links[0];
  if (now.hasAttribute("aria-current")) return;
  links.forEach((link) => link.removeAttribute("aria-current"));
  now.setAttribute("aria-current", "location");
  const list = now.closest("ul");
  list.scrollLeft = now.offsetLeft - list.offsetLeft - 16;
}
let marking = false;
window.addEventListener("scroll", () => {
  if (marking) return;
  marking = true;
  requestAnimationFrame(() => { marking = false; markSection(); });
}, { passive: true });
markSection();

// A finger that scrolls the page may start on a slider, which then jumps there: put it back.
document.querySelectorAll("input[type=range]").forEach((slider) => {
  let before = slider.value;
  slider.addEventListener("pointerdown", () => { before = slider.value; });
  slider.addEventListener("pointercancel", () => {
    slider.value = before;
    slider.dispatchEvent(new Event("input")); // not "change": nothing was chosen, and the address stays
  });
});
