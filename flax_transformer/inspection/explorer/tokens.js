// The tokens of both lines and of both sides of the bands: pointing, choosing, shading.

// Draws a list of tokens. `place(index)` says where a token stands in the attention that is shown.
function drawTokens(list, pieces, place, {fixed = 0, vertical = false} = {}) {
  const items = pieces.map((piece, index) => {
    const item = make(
      "li",
      {role: "option", class: "token", title: piece, "aria-label": nameToken(piece, index < fixed)},
      make("span", {class: "piece"}, ...drawPiece(piece)),
      ...(vertical ? [makeStrip(), make("span", {class: "weight", "aria-hidden": "true"})] : []),
    );
    if (index < fixed) item.classList.add("fixed");
    item.addEventListener(
      "pointerenter",
      (event) => event.pointerType === "mouse" && point(place(index)),
    );
    item.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && point(null));
    item.addEventListener("click", () =>
      choose(place(index), {again: true, line: tokenOfItem(item)}),
    );
    item.addEventListener(
      "focus",
      () => item.matches(":focus-visible") && choose(place(index), {line: tokenOfItem(item)}),
    );
    item.addEventListener("keydown", (event) => walkTokens(event, items, index, vertical));
    return item;
  });
  rove(items, 0);
  list.replaceChildren(...items);
}

// A cell for each head, which is dark where that head's weight is great; none where all are small.
function makeStrip() {
  const {heads} = view.attention[view.kind];
  const cells = heads > 1 ? Array.from({length: heads}, () => make("span")) : [];
  const strip = make("span", {class: "strip", hidden: true, "aria-hidden": "true"}, ...cells);
  strip.style.setProperty("--heads", heads);
  return strip;
}

function drawStrip(strip, side, position, active) {
  const [row, column] =
    side === "columns" ? [active?.position, position] : [position, active?.position];
  const isOpposite = Boolean(active) && active.side !== side;
  const weights = [...strip.children].map((_, head) =>
    isOpposite ? weightOfHead(head, row, column) : 0,
  );
  strip.hidden = !isOpposite || Math.max(...weights) < LEAST;
  weights.forEach((weight, head) => {
    strip.children[head].style.setProperty("--weight", weight.toFixed(3));
  });
}

function nameToken(piece, isFixed) {
  return (
    (isSpecial(piece) ? NAMES[piece] : textOf([piece]) || "space") + (isFixed ? ", fixed" : "")
  );
}

// What a token in one of the two lines is, whatever attention is shown.
function tokenOfItem(item) {
  const list = item.parentElement;
  const line = {"line-source": "source", "line-target": "target"}[list.id];
  return line ? {line, index: [...list.children].indexOf(item)} : null;
}

function walkTokens(event, items, index, vertical) {
  const steps = vertical
    ? {ArrowUp: -1, ArrowDown: 1}
    : {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1};
  const ends = {Home: 0, End: items.length - 1};
  let next = items[event.key in ends ? ends[event.key] : index + (steps[event.key] ?? NaN)];
  if (vertical && ["ArrowLeft", "ArrowRight"].includes(event.key)) {
    next = acrossTheBands(event.key === "ArrowLeft" ? "rows" : "columns");
  }
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    items[index].click();
  }
  if (!next) return;
  event.preventDefault();
  rove(items, items.indexOf(next));
  next.focus();
}

// The token on the given side that the chosen one has most to do with.
function acrossTheBands(side) {
  if (!view.chosen || view.chosen.side === side) return null;
  const weights = weightsOf(view.chosen.side, view.chosen.position);
  const items = [...byId(side).children];
  const next = items[weights.indexOf(Math.max(...weights))];
  rove(items, items.indexOf(next));
  return next;
}

// Marks the active token and shades those it looks at, or that look at it.
function shadeTokens(active) {
  const weights = active ? weightsOf(active.side, active.position) : null;
  for (const side of ["rows", "columns"]) {
    [...byId(side).children].forEach((item, position) => {
      const isActive = active?.side === side && active.position === position;
      const weight = active && active.side !== side ? weights[position] : null;
      shade(item, isActive, weight, active);
      drawStrip(item.children[1], side, position, active);
      item.lastChild.textContent = weight >= 0.005 ? percent(weight) : "";
    });
  }
  for (const line of ["source", "target"]) {
    [...byId(`line-${line}`).children].forEach((item, index) => {
      const looked = active && placeOf(line, index, opposite(active.side));
      const weight = looked && looked.side !== active.side ? weights[looked.position] : null;
      const token = active && tokenAt(active.side, active.position);
      shade(item, token?.line === line && token.index === index, weight, active);
    });
  }
}

function shade(item, isActive, weight, active) {
  item.classList.toggle("active", Boolean(isActive));
  item.classList.toggle("incoming", active?.side === "columns");
  item.setAttribute("aria-selected", String(Boolean(isActive)));
  item.style.setProperty("--weight", weight ? weight.toFixed(3) : "0");
}
