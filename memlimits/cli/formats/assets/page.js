"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);

// Whatever is shown of the data is a text node or an attribute's value: never parsed as HTML.
function make(name, attributes = {}, ...inside) {
  const svg = ["svg", "path", "line", "text", "g", "rect", "defs", "pattern", "title", "clipPath"];
  const node = svg.includes(name)
    ? document.createElementNS("http://www.w3.org/2000/svg", name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...inside.filter((one) => one !== null));
  return node;
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
function size(bytes) {
  let power = 0;
  while (power < 6 && Math.round(bytes / 1024 ** power * 100) / 100 >= 1024) power += 1;
  return `${+(bytes / 1024 ** power).toFixed(power ? 2 : 0)} ${UNITS[power]}`;
}

function seconds(value) {
  if (value < 60) return `${+value.toFixed(value < 10 ? 3 : 2)} s`;
  const whole = Math.floor(value);
  const two = (number) => String(number).padStart(2, "0");
  const clock = `${Math.floor(whole / 60) % 60}:${two(whole % 60)}`;
  return whole < 3600 ? `${clock} min`
    : `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)} h`;
}

function plural(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

function showNotes(place) {
  for (const note of data.notes) place.append(make("p", { class: "note" }, `Note: ${note}.`));
}
