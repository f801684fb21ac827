// The bands between the two sides of an attention, and the sentence that says the same in words.

const LEAST = 0.01;

// A band from row `row` to column `column`, as wide as its weight at either end, in a drawing that
// is 100 wide and 1 high per token.
function band(row, column, weight) {
  const half = 0.04 + 0.36 * weight;
  const [left, right] = [row + 0.5, column + 0.5];
  const there = `M0 ${left - half}C50 ${left - half} 50 ${right - half} 100 ${right - half}`;
  return `${there}V${right + half}C50 ${right + half} 50 ${left + half} 0 ${left + half}Z`;
}

function drawBands(active) {
  const {rows, columns} = view.attention[view.kind];
  const bands = byId("bands");
  const tokens = Math.max(rows, columns);
  bands.setAttribute("viewBox", `0 0 100 ${tokens}`);
  bands.style.setProperty("--tokens", tokens);
  bands.classList.toggle("incoming", active?.side === "columns");
  const paths = [];
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const weight = view.weights[row * columns + column];
      const isShown = !active || active.position === (active.side === "rows" ? row : column);
      if (!isShown || weight < LEAST) continue;
      const opacity = (active ? 0.25 : 0.08) + (active ? 0.65 : 0.5) * weight;
      paths.push(
        makeSvg("path", {d: band(row, column, weight), "fill-opacity": opacity.toFixed(3)}),
      );
    }
  }
  bands.replaceChildren(bands.firstElementChild, ...paths);
  byId("bands-title").textContent = describeActive(active);
}

function nameHead() {
  return view.head === MEAN ? "the mean of all heads" : `head ${view.head + 1}`;
}

// In words what the bands show.
function describeActive(active) {
  const where = `Layer ${view.layer + 1}, ${nameHead()}`;
  if (!active) return `${where}: all weights. Choose a word to see its own.`;
  const own = quote(piecesOf(active.side)[active.position]);
  const others = piecesOf(opposite(active.side));
  const ranked = [...weightsOf(active.side, active.position)]
    .map((weight, position) => ({weight, position}))
    .filter(({weight}) => weight >= LEAST)
    .sort((a, b) => b.weight - a.weight)
    .slice(0, 4)
    .map(({weight, position}) => `${quote(others[position])} ${percent(weight)}`);
  const list = ranked.join(", ") || "nothing in particular";
  if (active.side === "columns") return `${where}: ${own} is looked at by ${list}.`;
  const entropy = `Entropy ${decimal(rowEntropy(active.position), 2)}`;
  return `${where}: ${opening(own, active.position)} ${list}. ${entropy}.`;
}

function opening(own, position) {
  if (view.kind === "cross") return `writing ${own}, it looks at`;
  if (view.kind === "encoder") return `${own} looks at`;
  return `after ${own}, before writing ${quote(view.sentence.target[position])}, it looks at`;
}
