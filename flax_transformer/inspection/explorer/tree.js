// The beam search as a tree: a column for each step (on a narrow page and on paper a row), and in
// it the candidates, the most probable first.

const FATES = {live: "goes on", finished: "a whole translation", pruned: "given up"};
const END = "</s>";

// The nodes from the first step to this one, as indices.
function pathTo(step, index) {
  const path = [];
  for (let at = index; step >= 0 && at !== null; step--) {
    path.unshift(at);
    at = view.sentence.search.steps[step][at].parent;
  }
  return path;
}

function piecesOn(path) {
  return path.map((index, step) => view.sentence.search.steps[step][index].piece);
}

function chosenPath() {
  return view.sentence.hypotheses[view.hypothesis]?.path;
}

// The probability of a node's piece after those before it.
function stepProbability(step, node) {
  const before =
    step && node.parent !== null
      ? view.sentence.search.steps[step - 1][node.parent].log_probability
      : 0;
  return Math.exp(node.log_probability - before);
}

function isUpright() {
  return matchMedia("(max-width: 46rem), print").matches;
}

function drawTree() {
  const {search} = view.sentence;
  const isThere = Boolean(search?.steps.length);
  byId("search-parts").hidden = !isThere;
  byId("search-note").hidden = isThere;
  byId("search-note").textContent = search
    ? "There was nothing to translate."
    : "The search of this sentence was not recorded.";
  view.node = null;
  byId("tree-readout").textContent = "Point at a box to read what it stands for.";
  if (!isThere) return;
  const tree = byId("tree");
  const places = placeNodes(search.steps);
  const nodes = search.steps.map((step, at) =>
    step.map((node, index) => places[at][index] && makeNode(node, at, index)),
  );
  const widest =
    Math.max(
      ...places
        .flat()
        .filter(Boolean)
        .map(({rank}) => rank),
    ) + 1;
  tree.classList.toggle("upright", isUpright());
  tree.style.setProperty("--steps", search.steps.length);
  tree.style.setProperty("--ranks", widest);
  const edges = makeSvg("svg", {
    class: "edges",
    "aria-hidden": "true",
    preserveAspectRatio: "none",
  });
  const names = search.steps.map((_, at) => {
    const name = make(
      "span",
      {class: "step-name", "aria-hidden": "true"},
      at < search.prefix_length ? "fixed" : String(at + 1),
    );
    name.style.setProperty("--step", at);
    return name;
  });
  tree.replaceChildren(edges, ...names, ...nodes.flat().filter(Boolean));
  nodes
    .flat()
    .filter(Boolean)
    .forEach((node) => {
      const {step, rank} = places[node.dataset.step][node.dataset.index];
      node.style.setProperty("--step", step);
      node.style.setProperty("--rank", rank);
    });
  drawEdges(edges, places, widest);
  markPath();
  rove(nodes.flat().filter(Boolean), 0);
}

// Draws the tree of the same sentence otherwise, and keeps to the node that was held.
function redrawTree() {
  const held = view.node;
  const hadFocus = document.activeElement === held;
  drawTree();
  const node = held && nodeAt(held.dataset.step, held.dataset.index);
  holdNode(node);
  if (node && hadFocus) node.focus({preventScroll: true});
}

// The step and the rank of each node, or null for one that is hidden.
function placeNodes(steps) {
  const shown = byId("show-pruned").checked;
  return steps.map((nodes, step) => {
    let rank = 0;
    return nodes.map((node) => (shown || node.fate !== "pruned" ? {step, rank: rank++} : null));
  });
}

function makeNode(node, step, index) {
  const text = textOf(piecesOn(pathTo(step, index))) || "nothing";
  const name = `${text}, score ${decimal(node.score, 2)}, ${FATES[node.fate]}`;
  const made = make(
    "button",
    {
      type: "button",
      class: `node ${node.fate}`,
      "data-step": step,
      "data-index": index,
      "aria-label": name,
    },
    make("span", {class: "piece"}, ...drawPiece(node.piece)),
    make("span", {class: "score"}, decimal(node.score, 2)),
  );
  made.addEventListener("click", () => holdNode(made));
  made.addEventListener("focus", () => holdNode(made));
  made.addEventListener(
    "pointerenter",
    (event) => event.pointerType === "mouse" && !view.node && describeNode(step, index),
  );
  made.addEventListener("keydown", (event) => walkTree(event, step, index));
  return made;
}

// Edges are drawn in units of steps and ranks, which the style sheet stretches to the boxes.
function drawEdges(edges, places, widest) {
  const {steps} = view.sentence.search;
  const upright = isUpright();
  const size = [steps.length, widest];
  edges.setAttribute("viewBox", `0 0 ${upright ? `${size[1]} ${size[0]}` : size.join(" ")}`);
  const draw = (a, b) => (upright ? `${b} ${a}` : `${a} ${b}`);
  steps.forEach((nodes, step) =>
    nodes.forEach((node, index) => {
      const to = places[step][index];
      const from = step && node.parent !== null ? places[step - 1][node.parent] : null;
      if (!to || !from) return;
      const [start, end] = [step - 0.5, step + 0.5];
      const [low, high] = [from.rank + 0.5, to.rank + 0.5];
      const bend = `C${draw(step, low)} ${draw(step, high)} ${draw(end, high)}`;
      edges.append(
        makeSvg("path", {
          d: `M${draw(start, low)}${bend}`,
          class: `edge ${node.fate}`,
          "data-step": step,
          "data-index": index,
        }),
      );
    }),
  );
}

// Marks the way of the chosen alternative.
function markPath() {
  const path = view.sentence.search && chosenPath();
  for (const element of byId("tree").querySelectorAll("[data-step]")) {
    element.classList.toggle(
      "path",
      path?.[element.dataset.step] === Number(element.dataset.index),
    );
  }
}

// Keeps to a node, whatever the mouse passes over; to none if it is null.
function holdNode(node) {
  view.node?.classList.remove("held");
  view.node = node;
  node?.classList.add("held");
  if (node) describeNode(Number(node.dataset.step), Number(node.dataset.index));
}

function describeNode(step, index) {
  const node = view.sentence.search.steps[step][index];
  const text = textOf(piecesOn(pathTo(step, index)));
  const fate = step < view.sentence.search.prefix_length ? "fixed" : FATES[node.fate];
  const words =
    ` — step ${step + 1}, ${fate}. ${quote(node.piece)} has probability ` +
    `${percent(stepProbability(step, node))} here; log probability so far ` +
    `${decimal(node.log_probability, 3)}, score ${decimal(node.score, 3)}.`;
  const readout = byId("tree-readout");
  readout.replaceChildren(make("bdi", {class: "so-far"}, text || "nothing"), words);
  if (live && node.fate !== "finished") {
    const go = make("button", {type: "button"}, "Translate on from here");
    go.addEventListener("click", () => live.fix(beginningWith(piecesOn(pathTo(step, index)))));
    readout.append(" ", go);
  }
}

function walkTree(event, step, index) {
  const {steps} = view.sentence.search;
  const along = isUpright() ? {ArrowUp: -1, ArrowDown: 1} : {ArrowLeft: -1, ArrowRight: 1};
  const beside = isUpright() ? {ArrowLeft: -1, ArrowRight: 1} : {ArrowUp: -1, ArrowDown: 1};
  let next = null;
  if (event.key in beside) next = nodeBeside(step, index, beside[event.key]);
  else if (along[event.key] === -1 && step) next = nodeAt(step - 1, steps[step][index].parent);
  else if (along[event.key] === 1 && step + 1 < steps.length) {
    const children = steps[step + 1]
      .map((node, at) => ({node, at}))
      .filter(({node}) => node.parent === index);
    const onPath = children.find(({at}) => nodeAt(step + 1, at)?.classList.contains("path"));
    next = nodeAt(step + 1, (onPath ?? children[0])?.at);
  }
  if (!next) return;
  event.preventDefault();
  const all = [...byId("tree").querySelectorAll(".node")];
  rove(all, all.indexOf(next));
  next.focus();
}

function nodeAt(step, index) {
  return byId("tree").querySelector(
    `.node[data-step="${Number(step)}"][data-index="${Number(index)}"]`,
  );
}

function nodeBeside(step, index, by) {
  const nodes = [...byId("tree").querySelectorAll(`.node[data-step="${Number(step)}"]`)];
  return nodes[nodes.indexOf(nodeAt(step, index)) + by] ?? null;
}
