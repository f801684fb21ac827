// All heads of an attention as small maps, one of which is chosen; and the chosen one as a table.

// The colours of the weights 0 to 1. The root makes small weights visible.
function heatColours() {
  const style = getComputedStyle(document.documentElement);
  const stops = ["--heat-0", "--heat-1", "--heat-2"].map((name) => {
    const hex = style.getPropertyValue(name).trim().slice(1);
    return [0, 2, 4].map((start) => parseInt(hex.slice(start, start + 2), 16));
  });
  return Array.from({length: 256}, (_, level) => {
    const place = 2 * Math.sqrt(level / 255);
    const [low, high, share] =
      place < 1 ? [stops[0], stops[1], place] : [stops[1], stops[2], place - 1];
    return low.map((from, channel) => Math.round(from + (high[channel] - from) * share));
  });
}

function drawMap(canvas, weights, rows, columns, colours) {
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  weights.forEach((weight, i) =>
    image.data.set([...colours[Math.round(weight * 255)], 255], 4 * i),
  );
  context.putImageData(image, 0, 0);
}

function drawHeads() {
  const {layers, heads} = view.attention[view.kind];
  const grid = byId("heads");
  grid.style.setProperty("--heads", heads + (heads > 1 ? 1 : 0));
  const columns = [...Array(heads).keys(), ...(heads > 1 ? [MEAN] : [])];
  const cells = [make("span", {class: "corner", "aria-hidden": "true"})];
  for (const head of columns) {
    cells.push(
      make(
        "span",
        {class: "head-name", "aria-hidden": "true"},
        head === MEAN ? "mean" : String(head + 1),
      ),
    );
  }
  const maps = [];
  for (let layer = 0; layer < layers; layer++) {
    cells.push(
      make(
        "span",
        {class: "layer-name", "aria-hidden": "true"},
        make("span", {}, "Layer "),
        String(layer + 1),
      ),
    );
    for (const head of columns) maps.push(makeHead(layer, head));
    cells.push(...maps.slice(-columns.length));
  }
  grid.replaceChildren(...cells);
  maps.forEach((map, index) => {
    map.addEventListener("keydown", (event) => walkMaps(event, maps, index, columns.length));
  });
  paintHeads();
  markHead();
}

function makeHead(layer, head) {
  const entropy =
    head === MEAN ? null : (view.sentence.entropy?.[view.kind]?.[layer]?.[head] ?? null);
  const name = `Layer ${layer + 1}, ${head === MEAN ? "mean of all heads" : `head ${head + 1}`}`;
  const map = make(
    "button",
    {
      type: "button",
      role: "radio",
      class: "map",
      "data-layer": layer,
      "data-head": head,
      "aria-label": entropy === null ? name : `${name}, entropy ${decimal(entropy, 2)}`,
      title: name,
    },
    make("canvas", {"aria-hidden": "true"}),
  );
  if (head !== MEAN) {
    const bar = make("span", {class: "bar", "aria-hidden": "true"});
    bar.style.setProperty("--share", entropy ?? 0);
    map.append(bar, make("span", {class: "entropy", "aria-hidden": "true"}, decimal(entropy, 2)));
  }
  map.addEventListener("click", () => setHead(layer, head));
  return map;
}

function paintHeads() {
  const colours = heatColours();
  for (const map of byId("heads").querySelectorAll(".map")) {
    const {rows, columns} = view.attention[view.kind];
    const head = map.dataset.head === MEAN ? MEAN : Number(map.dataset.head);
    drawMap(
      map.firstChild,
      headWeights(view.kind, Number(map.dataset.layer), head),
      rows,
      columns,
      colours,
    );
  }
  byId("heat-legend").replaceChildren(
    ...[0, 0.1, 0.25, 0.5, 1].map((weight) => {
      const swatch = make("span", {class: "swatch"});
      swatch.style.backgroundColor = `rgb(${colours[Math.round(weight * 255)].join(" ")})`;
      return make("span", {}, swatch, percent(weight));
    }),
  );
}

function markHead() {
  const maps = [...byId("heads").querySelectorAll(".map")];
  maps.forEach((map) => {
    const isChosen =
      map.dataset.layer === String(view.layer) && map.dataset.head === String(view.head);
    map.setAttribute("aria-checked", String(isChosen));
  });
  rove(
    maps,
    maps.findIndex((map) => map.getAttribute("aria-checked") === "true"),
  );
}

function walkMaps(event, maps, index, width) {
  const steps = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -width, ArrowDown: width};
  const next = maps[index + (steps[event.key] ?? NaN)];
  if (!next) return;
  event.preventDefault();
  next.click();
  next.focus();
}

// The same weights for those who read them by ear, or want the numbers.
function drawTable() {
  if (!byId("numbers").open) return;
  const {rows, columns} = view.attention[view.kind];
  const cell = (weight) => {
    const made = make("td", {}, weight < 0.005 ? "" : String(Math.round(weight * 100)));
    made.style.setProperty("--weight", weight.toFixed(3));
    return made;
  };
  const head = piecesOf("columns").map((piece) =>
    make("th", {scope: "col"}, make("span", {}, ...drawPiece(piece))),
  );
  const body = piecesOf("rows").map((piece, row) =>
    make(
      "tr",
      {},
      make("th", {scope: "row"}, ...drawPiece(piece)),
      ...Array.from({length: columns}, (_, column) => cell(view.weights[row * columns + column])),
    ),
  );
  byId("table").replaceChildren(
    make(
      "caption",
      {},
      `Layer ${view.layer + 1}, ${nameHead()}: ${rows} rows that look, ` +
        `${columns} columns that are looked at`,
    ),
    make("thead", {}, make("tr", {}, make("td"), ...head)),
    make("tbody", {}, ...body),
  );
}
