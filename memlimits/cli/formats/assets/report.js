const processes = data.processes;
const many = processes.length > 1;
const SERIES = [["footprint", "footprint"], ["active", "active"], ["cache", "cache"],
  ["resident", "resident"]];

const state = { at: data.peak, process: 0, from: 0, to: data.length || 1 };
const limit = (value) => value === null || value === undefined ? "none" : size(value);
const named = (process) => `${process.pid} ${process.command}`.trim();
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

// The last place whose time is not after that one; -1 before the first.
function placeOf(times, at) {
  let low = 0;
  let high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] <= at + 1e-9) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

function valueAt(process, name, at) {
  if (process.ending && at >= process.last - 1e-9) return 0;
  const place = placeOf(process.at, at);
  return place < 0 ? 0 : process[name][place];
}

function limitAt(process, at) {
  const place = placeOf(process.limits.map((one) => one[0]), at);
  return process.limits.length ? process.limits[Math.max(0, place)][1] : null;
}

const allTimes = [...new Set(processes.flatMap((process) => process.at))].sort((a, b) => a - b);
const times = () => many ? allTimes : processes[0].at;

// Charts. Each has its own scale of bytes; they share that of time, and the cursor.

const PAD = { left: 66, right: 12, top: 20, bottom: 24 };

function steps(low, high, number) {
  const raw = (high - low) / number || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= raw);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step / 1e6; value += step)
    found.push(value);
  return found;
}

function byteSteps(high, number) {
  let step = 1;
  while (high / step > number) step *= 2;
  const found = [];
  for (let value = 0; value <= high; value += step) found.push(value);
  return found;
}

// On paper all are drawn anew, so that their words are as large as the others.
let onPaper = false;
const widthOf = (place) => onPaper ? 680 : Math.max(280, place.clientWidth || 700);

class Chart {
  constructor(place, name, height) {
    this.place = place;
    this.name = name;
    this.tall = height;
  }

  begin(top) {
    this.width = widthOf(this.place);
    this.height = this.width < 520 ? Math.min(this.tall, 210) : this.tall;
    this.top = (top || 1) * 1.06;
    this.svg = make("svg", {
      viewBox: `0 0 ${this.width} ${this.height}`, role: "img", "aria-label": this.name,
    });
    const { from, to } = state;
    for (const value of byteSteps(this.top, this.height < 150 ? 2 : 5)) {
      const y = this.y(value);
      this.svg.append(make("path", { class: "grid", d: `M${PAD.left} ${y}H${this.width - PAD.right}` }),
        make("text", { x: PAD.left - 6, y: y + 4, "text-anchor": "end" }, size(value)));
    }
    const marks = steps(from, to, this.width < 520 ? 3 : 7);
    for (const value of marks) {
      const x = this.x(value);
      const anchor = x > this.width - 40 ? "end" : "middle";
      this.svg.append(make("path", { class: "grid", d: `M${x} ${this.height - PAD.bottom}v4` }),
        make("text", { x, y: this.height - 6, "text-anchor": anchor }, seconds(value)));
    }
    this.inside = make("g");
    this.svg.append(this.inside);
  }

  x(at) {
    const part = (at - state.from) / (state.to - state.from || 1);
    return +(PAD.left + part * (this.width - PAD.left - PAD.right)).toFixed(1);
  }

  y(value) {
    const room = this.height - PAD.top - PAD.bottom;
    return +(this.height - PAD.bottom - room * value / this.top).toFixed(1);
  }

  timeAt(x) {
    const box = this.svg.getBoundingClientRect();
    const inside = (x - box.left) * this.width / box.width;
    const part = (inside - PAD.left) / (this.width - PAD.left - PAD.right);
    return state.from + clamp(part, 0, 1) * (state.to - state.from);
  }

  // What is beside the span of time that is shown is left out, but for one point on either side.
  within(pairs) {
    const first = Math.max(0, pairs.findLastIndex((pair) => pair[0] <= state.from));
    const end = pairs.findIndex((pair) => pair[0] >= state.to);
    return pairs.slice(first, end < 0 ? undefined : end + 1)
      .map(([at, ...rest]) => [clamp(at, state.from, state.to), ...rest]);
  }

  // A value holds until the next one.
  path(pairs) {
    let text = "";
    this.within(pairs).forEach(([at, value], place) => {
      text += place ? `H${this.x(at)}V${this.y(value)}` : `M${this.x(at)} ${this.y(value)}`;
    });
    return text;
  }

  line(pairs, kind) {
    if (pairs.length) this.inside.append(make("path", { class: `line ${kind}`, d: this.path(pairs) }));
  }

  limits(changes, end, text) {
    changes.forEach(([at, value], place) => {
      if (value === null || value > this.top) return;
      const until = place + 1 < changes.length ? changes[place + 1][0] : end;
      if (until < state.from || at > state.to) return;
      const x = this.x(clamp(at, state.from, state.to));
      const y = this.y(value);
      this.inside.append(make("path",
        { class: "line limit-line", d: `M${x} ${y}H${this.x(clamp(until, state.from, state.to))}` }));
      if (place === changes.length - 1 && text)
        this.inside.append(make("text", { class: "limit", x: x + 4, y: y - 5 }, `${text} ${size(value)}`));
    });
  }

  // Refusals point down from above the line, waits are squares.
  marks(refusals, waits) {
    const shown = (at) => at >= state.from && at <= state.to;
    for (const at of waits.filter(shown))
      this.inside.append(make("path", { class: "wait", d: `M${this.x(at) - 4} 8h8v8h-8z` }));
    for (const one of refusals.filter((each) => shown(each.at)))
      this.inside.append(make("path", { class: "refusal", d: `M${this.x(one.at) - 6} 5h12l-6 12z` },
        make("title", {}, `refused ${size(one.requested)} at ${seconds(one.at)}`)));
  }

  end(cursor) {
    if (cursor) {
      this.cursor = make("path", { class: "cursor", "pointer-events": "none" });
      this.svg.append(this.cursor);
    }
    this.place.replaceChildren(this.svg);
    if (cursor) this.move();
  }

  move() {
    const seen = state.at >= state.from && state.at <= state.to;
    this.cursor.setAttribute("d", seen ? `M${this.x(state.at)} ${PAD.top - 8}V${this.height - PAD.bottom}` : "");
  }
}

const samples = (process, name) => {
  const pairs = process.at.map((at, place) => [at, process[name][place]]);
  if (pairs.length) pairs.push([process.last, pairs[pairs.length - 1][1]]);
  return pairs;
};
const endOf = (process) => process.ending ? process.last : data.length;
const refusalsOf = (which) => data.refusals.filter((one) => one.process === which);

function topOf(process) {
  const top = Math.max(1, ...SERIES.map(([name]) => process[name].reduce((a, b) => Math.max(a, b), 0)));
  // A limit far above all that was held would press the lines flat.
  const bound = Math.max(0, ...process.limits.map((one) => one[1] || 0));
  return bound && bound < 4 * top ? Math.max(top, bound) : top;
}

const together = new Chart(find("together-chart"), "Footprint of all processes over time", 300);
const single = new Chart(find("single-chart"), "", 300);

// The largest processes have areas of their own; the others share one.
const order = processes.map((_, which) => which).sort((a, b) => processes[b].peak - processes[a].peak);
const shared = data.together;
const sums = shared.at.map((_, place) => shared.heights.reduce((all, one) => all + one[place], 0));
const areaName = (number) => number < shared.of.length ? named(processes[shared.of[number]])
  : plural(shared.others, "other process", "other processes");

function drawTogether() {
  if (!many) return;
  const edges = [...shared.at, data.length];
  const last = shared.at.length - 1;
  const instants = edges.map((at, place) => [at, Math.min(place, last)]);
  const pool = data.pool.filter((one) => one[2] !== null).map((one) => [one[0], one[2]]);
  const most = Math.max(1, ...sums);
  const bound = Math.max(0, ...pool.map((one) => one[1]));
  together.begin(bound && bound < 4 * most ? Math.max(most, bound) : most);
  let below = sums.map(() => 0);
  shared.heights.forEach((heights, number) => {
    const above = below.map((value, place) => value + heights[place]);
    const down = together.within(instants.map(([at, place]) => [at, below[place]])).reverse();
    let text = together.path(instants.map(([at, place]) => [at, above[place]]));
    down.forEach(([at, value], place) => {
      text += place ? `V${together.y(value)}H${together.x(at)}` : `L${together.x(at)} ${together.y(value)}`;
    });
    together.inside.append(make("path", { class: `area c${number}`, d: `${text}Z` }));
    labelArea(number, below, above);
    below = above;
  });
  const changes = pool.filter((one, place) => !place || one[1] !== pool[place - 1][1]);
  together.limits(changes, data.length, "limit");
  together.marks(data.refusals, processes.flatMap((process) => process.waits));
  together.end(true);
}

// Where an area is high and wide enough its process is named in it, so that no colour has to tell.
function labelArea(number, below, above) {
  let best = -1;
  shared.at.forEach((at, place) => {
    if (at < state.from || at >= state.to) return;
    if (best < 0 || above[place] - below[place] > above[best] - below[best]) best = place;
  });
  if (best < 0) return;
  const tall = together.y(below[best]) - together.y(above[best]);
  const name = number < shared.of.length ? String(processes[shared.of[number]].pid) : plural(shared.others, "other");
  const x = clamp(together.x(shared.at[best]), PAD.left, together.width - PAD.right - 8 * name.length - 8);
  if (tall > 18)
    together.inside.append(make("text",
      { class: "inside", x: x + 4, y: (together.y(below[best]) + together.y(above[best])) / 2 + 4 }, name));
}

function drawSingle() {
  const process = processes[state.process];
  single.name = `Memory of process ${named(process)} over time`;
  single.begin(topOf(process));
  for (const [name, kind] of [...SERIES].reverse()) single.line(samples(process, name), kind);
  single.limits(process.limits, endOf(process), "limit");
  single.marks(refusalsOf(state.process), process.waits);
  single.end(true);
  find("single-head").textContent = `Process ${named(process)}`;
}

function drawEach() {
  if (!many) { find("each").hidden = true; return; }
  const shown = order.slice(0, 12);
  for (const which of shown) {
    const process = processes[which];
    const place = make("div", { class: "chart" });
    const facts = [`peak ${size(process.peak)}`, `limit ${limit(limitAt(process, process.last))}`,
      `refusals ${process.refused}`, process.ending || "not ended"].join(", ");
    find("each").append(make("div", { class: "mini" },
      make("h3", {}, make("button", { type: "button", onclick: () => choose(which, true) }, named(process))),
      make("p", { class: "soft" }, facts), place));
    const chart = new Chart(place, `Footprint of process ${named(process)} over time`, 110);
    minis.push([chart, which]);
  }
  if (order.length > shown.length)
    find("each").append(make("p", { class: "soft" }, `And ${order.length - shown.length} that held less.`));
}

const minis = [];
function drawMinis() {
  for (const [chart, which] of minis) {
    const process = processes[which];
    chart.begin(Math.max(...process.footprint, 1));
    chart.line(samples(process, "footprint"), "footprint");
    chart.limits(process.limits, endOf(process), "");
    chart.marks(refusalsOf(which), process.waits);
    chart.end(false);
  }
}

// Legends.

function sample(kind, text) {
  const shape = {
    refusal: { d: "M11 1h12l-6 12z" }, wait: { d: "M13 3h8v8h-8z" },
  }[kind] || { d: kind.startsWith("area") ? "M1 1h32v12h-32z" : "M1 7h32" };
  const svg = make("svg", { viewBox: "0 0 34 14", "aria-hidden": "true" },
    make("path", { class: kind.startsWith("area") || kind in { refusal: 1, wait: 1 } ? kind : `line ${kind}`, ...shape }));
  return make("span", {}, svg, make("span", { class: "word" }, text));
}

function drawLegends() {
  const marks = [sample("refusal", "refusal"), sample("wait", "wait")];
  find("single-legend").append(...SERIES.map(([name, kind]) => sample(kind, name)),
    sample("limit-line", "memory limit"), ...marks);
  if (!many) return;
  find("together-legend").append(...shared.heights.map((_, number) =>
    sample(`area c${number}`, areaName(number))));
}

// The point of time.

function nearestHolders(which, at) {
  const process = processes[which];
  if (at < process.first - 1 || at > endOf(process) + 1) return null;
  let before = null, after = null;
  for (const one of data.holders)
    if (one.process === which) {
      if (one.at <= at) before = !before || one.at > before.at ? one : before;
      else after = !after || one.at < after.at ? one : after;
    }
  if (!before || !after) return before || after;
  // What was noted is nearest that says most of what was active.
  const active = valueAt(process, "active", at);
  if (!active) return at - before.at < after.at - at ? before : after;
  return Math.abs(after.size - active) < Math.abs(before.size - active) ? after : before;
}

function notNoted(held) {
  const active = valueAt(processes[state.process], "active", state.at) || 0;
  const left = active - held.size;
  return left > Math.max(1048576, active / 10) ? ` Of ${size(left)} that were active nobody noted who held them.` : "";
}

function holdersTable(rows, whole) {
  const body = make("tbody");
  for (const [place, bytes, blocks, stack] of rows) {
    const [file, line, name] = data.frames[place];
    const calls = data.stacks[stack].map((one) => data.frames[one]);
    const bar = make("span", { class: "share" });
    bar.style.width = `${Math.max(1, 100 * bytes / (whole || 1))}%`;
    body.append(make("tr", {},
      make("td", { class: "number" }, size(bytes)),
      make("td", { class: "number wide" }, blocks.toLocaleString("en")),
      make("td", { class: "wide", style: null }, bar),
      make("td", { class: "mono" }, make("details", {},
        make("summary", {}, name, file ? make("span", { class: "soft" }, ` ${file}:${line}`) : ""),
        make("ol", { class: "stack" }, ...calls.map((call) =>
          make("li", {}, `${call[2]} ${call[0]}:${call[1]}`)))))));
  }
  return make("table", {}, make("thead", {}, make("tr", {},
    make("th", { class: "number", scope: "col" }, "Bytes"),
    make("th", { class: "number wide", scope: "col" }, "Blocks"),
    make("th", { class: "wide", scope: "col" }, "Share"),
    make("th", { scope: "col" }, "Line of the program, and the calls that led there"))), body);
}

function describePoint() {
  const process = processes[state.process];
  const value = (name) => size(valueAt(process, name, state.at));
  const text = `Process ${process.pid}: footprint ${value("footprint")}, active ${value("active")}, ` +
    `cache ${value("cache")}, resident ${value("resident")}, limit ${limit(limitAt(process, state.at))}`;
  if (!many) return text;
  return `${text}. All processes: footprint ${size(sums[Math.max(0, placeOf(shared.at, state.at))] || 0)}`;
}

function drawPoint() {
  find("point-head").textContent = `At ${seconds(state.at)}`;
  find("point").textContent = `${describePoint()}.`;
  const refusal = data.refusals.find((one) => Math.abs(one.at - state.at) < 1e-6);
  const held = nearestHolders(state.process, state.at);
  const place = find("holders");
  place.replaceChildren();
  if (refusal)
    place.append(make("p", { class: "note" }, `Process ${processes[refusal.process].pid} was refused ` +
      `${size(refusal.requested)} here, blocked by: ${refusal.blocked_by || "unknown"}.`));
  if (held && held.rows.length)
    place.append(make("p", { class: "soft" }, `Who held it, as noted at ${seconds(held.at)}:${notNoted(held)}`),
      holdersTable(held.rows, held.size));
  else
    place.append(make("p", { class: "soft" }, held ? "Nobody held anything."
      : "Nobody noted who held it: record with memlimits run --holders 1MiB."));
  for (const row of find("refusals").querySelectorAll(".refused"))
    row.classList.toggle("now", Math.abs(Number(row.dataset.at) - state.at) < 1e-6);
  const words = `${seconds(state.at)}: ${describePoint()}`;
  for (const chart of sliders) {
    chart.setAttribute("aria-valuenow", state.at);
    chart.setAttribute("aria-valuetext", words);
  }
}

function drawRefusals() {
  if (!data.refusals.length) { find("refusals").append(make("p", {}, "None.")); return; }
  const rows = data.refusals.flatMap((one) => [make("tr", { class: "refused", "data-at": one.at },
    make("td", {},
      make("button", { type: "button", class: "screen", onclick: () => { choose(one.process); go(one.at); } }, seconds(one.at)),
      make("span", { class: "paper" }, seconds(one.at))),
    make("td", {}, String(processes[one.process].pid)),
    make("td", { class: "number" }, size(one.requested)),
    make("td", { class: "number wide" }, size((one.active || 0) + (one.cache || 0) + (one.slack || 0))),
    make("td", { class: "number" }, limit(one.limit)),
    make("td", {}, one.blocked_by)),
  one.rows.length ? make("tr", {}, make("td", { class: "mono held", colspan: 6 },
    ...one.rows.slice(0, 3).map(([place, bytes]) => make("div", {},
      `held by ${data.frames[place][2]}: ${size(bytes)}`)))) : null].filter(Boolean));
  const head = (text, kind = "") => make("th", { class: kind, scope: "col" }, text);
  find("refusals").append(make("table", {}, make("thead", {}, make("tr", {}, head("At"),
    head("Process"), head("Asked for", "number"), head("In use", "number wide"), head("Limit", "number"),
    head("By"))), make("tbody", {}, ...rows)));
}

function drawHead() {
  find("title").textContent = `Memory of ${data.title}`;
  const machine = data.machine;
  const words = [`begun ${new Date(1000 * data.begun).toISOString().replace("T", " ").slice(0, 19)} UTC`,
    machine.device_name, machine.memory_size && size(machine.memory_size),
    machine.python && `Python ${machine.python}`, machine.memlimits && `memlimits ${machine.memlimits}`];
  find("about").textContent = words.filter(Boolean).join(", ");
  const sum = (name) => processes.reduce((all, one) => all + one[name], 0);
  const facts = [["length", seconds(data.length)], ["processes", processes.length],
    ["peak", size(data.highest)], ["peak at", seconds(data.peak)],
    ["refusals", Math.max(sum("refused"), data.refusals.length)], ["waits", sum("waited")]];
  for (const [name, value] of facts)
    find("facts").append(make("div", {}, make("span", { class: "soft" }, name), make("b", {}, String(value))));
  showNotes(find("notes"));
}

// Moving.

function go(at) {
  state.at = clamp(at, 0, data.length);
  if (state.at < state.from || state.at > state.to) {
    const width = state.to - state.from;
    state.from = clamp(state.at - width / 2, 0, Math.max(0, data.length - width));
    state.to = state.from + width;
    drawCharts();
  } else {
    if (many) together.move();
    single.move();
  }
  drawPoint();
}

function stepBy(number) {
  const all = times();
  const here = placeOf(all, state.at);
  const next = number > 0 ? here + number : here + number + (all[here] < state.at - 1e-9 ? 1 : 0);
  go(all[clamp(next, 0, all.length - 1)]);
}

function goToRefusal(way) {
  const found = data.refusals.filter((one) => way * (one.at - state.at) > 1e-6);
  const next = way > 0 ? found[0] : found[found.length - 1];
  if (!next) return;
  choose(next.process);
  go(next.at);
}

function zoom(factor) {
  const width = clamp((state.to - state.from) * factor, Math.min(0.01, data.length), data.length || 1);
  state.from = clamp(state.at - width / 2, 0, Math.max(0, data.length - width));
  state.to = state.from + width;
  drawCharts();
}

function choose(which, look = false) {
  if (state.process !== which) {
    state.process = which;
    find("process").value = String(which);
    drawSingle();
    drawPoint();
  }
  if (look) find("single-head").scrollIntoView();
}

function drawCharts() {
  drawTogether();
  drawSingle();
}

const sliders = many ? [find("together-chart"), find("single-chart")] : [find("single-chart")];
const KEYS = {
  ArrowRight: () => stepBy(1), ArrowLeft: () => stepBy(-1), ArrowUp: () => stepBy(1),
  ArrowDown: () => stepBy(-1), PageUp: () => stepBy(10), PageDown: () => stepBy(-10),
  Home: () => go(0), End: () => go(data.length), p: () => go(data.peak), P: () => go(data.peak),
  r: () => goToRefusal(1), R: () => goToRefusal(-1), "+": () => zoom(0.5), "-": () => zoom(2),
};

function listen() {
  for (const chart of sliders) {
    chart.tabIndex = 0;
    for (const [name, value] of Object.entries({
      role: "slider", "aria-label": "Point of time", "aria-valuemin": 0, "aria-valuemax": data.length,
      "aria-orientation": "horizontal" })) chart.setAttribute(name, value);
    const which = chart === find("single-chart") ? single : together;
    const follow = (event) => {
      const all = times();
      const at = which.timeAt(event.clientX);
      const place = placeOf(all, at);
      const near = [all[place], all[place + 1]].filter((one) => one !== undefined);
      go(near.reduce((a, b) => Math.abs(b - at) < Math.abs(a - at) ? b : a));
    };
    chart.addEventListener("pointerdown", (event) => {
      follow(event);
      chart.setPointerCapture(event.pointerId);
    });
    chart.addEventListener("pointermove", (event) => { if (event.buttons) follow(event); });
    chart.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
      KEYS[event.key]();
      event.preventDefault();
    });
  }
  find("peak").addEventListener("click", KEYS.p);
  find("before").addEventListener("click", () => goToRefusal(-1));
  find("after").addEventListener("click", () => goToRefusal(1));
  find("closer").addEventListener("click", () => zoom(0.5));
  find("wider").addEventListener("click", () => zoom(2));
  find("before").disabled = find("after").disabled = !data.refusals.length;
  find("process").addEventListener("change", (event) => choose(Number(event.target.value)));
  const redraw = () => { drawCharts(); drawMinis(); };
  for (const [name, value] of [["beforeprint", true], ["afterprint", false]])
    window.addEventListener(name, () => { onPaper = value; redraw(); });
  let width = document.body.clientWidth;
  window.addEventListener("resize", () => {
    if (document.body.clientWidth === width) return;
    width = document.body.clientWidth;
    redraw();
  });
}

drawHead();
if (processes.length && allTimes.length) {
  state.process = order[0];
  order.forEach((which) => find("process").append(make("option", { value: which },
    `${named(processes[which])} (peak ${size(processes[which].peak)})`)));
  find("process").value = String(state.process);
  find("choice").hidden = !many;
  find("together").hidden = !many;
  drawEach();
  drawLegends();
  listen();
  drawRefusals();
  drawCharts();
  drawMinis();
  go(data.peak);
} else {
  for (const part of document.querySelectorAll("section")) part.hidden = true;
  find("notes").append(make("p", {}, "There is no sample in the recording."));
}
