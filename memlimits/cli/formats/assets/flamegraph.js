const HEIGHT = 22;
const SMALLEST = 0.0005; // of the width
const root = data.tree;
let shown = root;
let focused = root;
let wanted = "";
const cells = new Map();

(function link(node, above, depth) {
  node.above = above;
  node.depth = depth;
  node.below.forEach((one) => link(one, node, depth + 1));
})(root, null, 0);

const share = (node) => `${(100 * node.size / root.size).toFixed(1)} %`;
const label = (node) => [node.name, node.place].filter(Boolean).join(", ");
const describe = (node) =>
  `${label(node)}: ${size(node.size)} (${share(node)}), ${plural(node.blocks, "block")}`;
const isHit = (node) => wanted !== "" && label(node).toLowerCase().includes(wanted);
const isAbove = (node, other) => {
  for (let one = other; one; one = one.above) if (one === node) return true;
  return false;
};

function kind(node) {
  if (node.depth === 0) return "root";
  if (node.depth === 1) return "process";
  // One file, one colour: it says nothing more.
  const file = node.place.replace(/:\d+$/, "");
  let hash = 0;
  for (const char of file) hash = (hash * 31 + char.codePointAt(0)) % 9973;
  return ["one", "two", "three"][hash % 3];
}

function draw() {
  const graph = find("graph");
  graph.replaceChildren();
  cells.clear();
  let deepest = 0;
  const place = (node, left, width) => {
    if (width < SMALLEST) return;
    deepest = Math.max(deepest, node.depth);
    const classes = ["cell", kind(node)];
    if (node !== shown && isAbove(node, shown)) classes.push("outside");
    if (isHit(node)) classes.push("hit");
    if (width < 0.015) classes.push("narrow");
    const cell = make("div", {
      class: classes.join(" "), role: "treeitem", "aria-level": node.depth + 1,
      "aria-label": describe(node), title: describe(node), tabindex: node === focused ? 0 : -1,
      "aria-expanded": node.below.length ? "true" : null,
      onclick: () => { focused = node; show(node); },
      onfocus: () => { focused = node; find("chosen").textContent = describe(node); },
      onmouseenter: () => { find("chosen").textContent = describe(node); },
    }, width < 0.015 ? "" : node.depth === 1 ? label(node) : node.name);
    cell.style.left = `${100 * left}%`;
    cell.style.width = `${100 * width}%`;
    cell.style.top = `${HEIGHT * node.depth}px`;
    graph.append(cell);
    cells.set(node, cell);
    if (node !== shown && isAbove(node, shown)) {
      place(node.below.find((one) => isAbove(one, shown)), 0, 1);
      return;
    }
    let at = left;
    for (const one of node.below) {
      const part = width * one.size / node.size;
      place(one, at, part);
      at += part;
    }
  };
  place(root, 0, 1);
  graph.style.height = `${HEIGHT * (deepest + 1) + 2}px`;
  if (!cells.has(focused)) {
    focused = shown;
    cells.get(focused).tabIndex = 0;
  }
  find("reset").disabled = shown === root;
}

function show(node) {
  shown = node;
  draw();
  cells.get(focused).focus();
}

function move(node) {
  if (!node || !cells.has(node)) return;
  cells.get(focused).tabIndex = -1;
  focused = node;
  cells.get(node).tabIndex = 0;
  cells.get(node).focus();
}

function search(text) {
  wanted = text.trim().toLowerCase();
  // What lies above another that was found has its bytes already.
  const sum = (node) => isHit(node) ? node.size : node.below.reduce((all, one) => all + sum(one), 0);
  const held = sum(root);
  find("matched").textContent = wanted === "" ? ""
    : `${size(held)} found (${(100 * held / root.size).toFixed(1)} %)`;
  draw();
}

find("graph").addEventListener("keydown", (event) => {
  const beside = focused.above ? focused.above.below : [focused];
  const at = beside.indexOf(focused);
  const steps = {
    ArrowDown: () => move(focused.below[0]),
    ArrowUp: () => move(focused.above),
    ArrowLeft: () => move(beside[at - 1]),
    ArrowRight: () => move(beside[at + 1]),
    Home: () => move(root),
    Enter: () => show(focused),
    " ": () => show(focused),
    Escape: () => { focused = shown; show(shown.above || root); },
  };
  if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in steps)) return;
  steps[event.key]();
  event.preventDefault();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target === find("search")) return;
  find("search").focus();
  event.preventDefault();
});
find("search").addEventListener("input", (event) => search(event.target.value));
find("reset").addEventListener("click", () => { focused = root; show(root); });

find("title").textContent = `Who holds the memory: ${data.title}`;
find("about").textContent = `${size(root.size)} in ${plural(root.blocks, "block")}, ` +
  `${seconds(data.time)} after the recording began (${data.clock})`;
showNotes(find("notes"));
draw();
