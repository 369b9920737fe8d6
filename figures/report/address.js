"use strict";
// The address keeps what was chosen in the explorers: #averaging,d=371,ratio=7. First the section used last, then what is not as at the start.

function controls() {
  return new Map(Array.from(document.querySelectorAll(".explorer input, .explorer select"), (one) => [one.id.replace("slider-", ""), one]));
}
function atStart(control) {
  if (!control.options) return control.defaultValue;
  const options = Array.from(control.options);
  return (options.find((option) => option.defaultSelected) || options[0]).value;
}
/** Write what was chosen behind the section; empty: the address if nothing was. */
function keep(section, empty = location.pathname + location.search) {
  const chosen = Array.from(controls()).filter(([, one]) => one.value !== atStart(one)).map(([name, one]) => `${name}=${one.value}`);
  history.replaceState(null, "", chosen.length ? `#${[section, ...chosen].join(",")}` : empty);
}
/** The button `id` puts the controls of its section back to the start, and leaves the others. */
function resetBy(id, section, update) {
  const button = document.getElementById(id);
  button.addEventListener("click", () => {
    button.closest("section").querySelectorAll("input, select").forEach((one) => { one.value = atStart(one); });
    update();
    keep(section);
  });
}
/** The parts of the address: a section, then what was chosen. Links that others wrote may have %2C for a comma, or no code behind a %. */
function parts() {
  try { return decodeURIComponent(location.hash.slice(1)).split(","); } catch { return location.hash.slice(1).split(","); }
}
/** Set the controls by the address; what it does not name is as at the start. An address without values changes nothing. */
function restore() {
  const [section, ...chosen] = parts();
  if (!chosen.some((part) => part.includes("="))) return;
  const known = controls();
  known.forEach((one) => { one.value = atStart(one); });
  for (const [name, value] of chosen.map((part) => part.split("="))) {
    const one = known.get(name);
    if (!one || !/^\d+$/.test(value || "")) continue;
    if (!one.options || Number(value) < one.options.length) one.value = value;
  }
  const there = document.getElementById(section);
  if (there) there.scrollIntoView();
}
