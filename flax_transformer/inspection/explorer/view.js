// What is shown, and how it changes. Positions are those of rows and columns of the attention.

const view = {
  sentence: null, // as describe_sentence returns it
  attention: {}, // its weights, unpacked, by kind
  kind: null,
  layer: 0,
  head: MEAN,
  weights: null, // of that head
  chosen: null, // {side, position}, by click or by key
  pointed: null, // likewise, by the mouse, for as long as it stays
  word: null, // index of the target token whose candidates are listed
  hypothesis: 0,
  node: null, // the box of the tree that was clicked or stepped to
};

function show(sentence) {
  Object.assign(view, {sentence, chosen: null, pointed: null, word: null, hypothesis: 0});
  view.attention = unpackAttention(sentence.attention ?? {});
  byId("shown").hidden = false;
  drawLines();
  drawHypotheses();
  drawTree();
  drawCandidates();
  const kinds = Object.keys(view.attention);
  drawKinds(kinds);
  byId("attention-parts").hidden = kinds.length === 0;
  explainMissing(kinds);
  if (kinds.length) setKind(kinds.includes(view.kind) ? view.kind : kinds.at(-1));
}

function explainMissing(kinds) {
  const note = byId("attention-note");
  note.hidden = kinds.length === 3;
  note.textContent = kinds.length
    ? "This model is recurrent: it has no self-attention, and looks only from the words that it " +
      "writes to those that it reads."
    : "This model has no attention: it hands the whole sentence on as one vector. What its " +
      "search has found is shown below.";
}

function drawLines() {
  const {source, target, translation, text} = view.sentence;
  const fixed = countFixed();
  drawTokens(byId("line-source"), source, (index) => view.kind && placeOf("source", index));
  drawTokens(byId("line-target"), target, (index) => view.kind && placeOf("target", index), {
    fixed,
  });
  byId("translation").replaceChildren(
    make("bdi", {}, text),
    make("span", {class: "arrow", "aria-label": "becomes"}, " → "),
    make("bdi", {}, translation),
  );
}

function drawKinds(kinds) {
  const legend = byId("kinds").firstElementChild;
  const choices = kinds.map((kind) => {
    const radio = make("input", {type: "radio", name: "kind", value: kind});
    radio.addEventListener("change", () => setKind(kind));
    return make(
      "label",
      {},
      radio,
      make("span", {}, KINDS[kind].name, make("small", {}, KINDS[kind].detail)),
    );
  });
  byId("kinds").replaceChildren(legend, ...choices);
}

function setKind(kind) {
  const token = view.chosen && tokenAt(view.chosen.side, view.chosen.position);
  const side = view.chosen?.side;
  view.kind = kind;
  view.pointed = null;
  view.chosen = token && placeOf(token.line, token.index, side);
  const {layers, heads} = view.attention[kind];
  view.layer = Math.min(view.layer ?? layers - 1, layers - 1);
  if (heads === 1) view.head = 0;
  else if (view.head !== MEAN) view.head = Math.min(view.head, heads - 1);
  for (const radio of byId("kinds").querySelectorAll("input")) radio.checked = radio.value === kind;
  drawChoices(layers, heads);
  const names = {
    encoder: ["looks", "is looked at"],
    decoder: ["looks", "is looked at"],
    cross: ["is written", "is looked at"],
  };
  byId("name-rows").textContent = names[kind][0];
  byId("name-columns").textContent = names[kind][1];
  for (const at of ["rows", "columns"]) {
    byId(at).setAttribute(
      "aria-label",
      `Words of the ${KINDS[kind][at]}, each of which ${byId(`name-${at}`).textContent}`,
    );
    drawTokens(byId(at), piecesOf(at), (position) => ({side: at, position}), {vertical: true});
  }
  view.weights = headWeights(kind, view.layer, view.head);
  drawHeads();
  refresh();
  drawTable();
}

function drawChoices(layers, heads) {
  const option = (value, name) => make("option", {value}, name);
  byId("layer").replaceChildren(
    ...Array.from({length: layers}, (_, each) => option(each, String(each + 1))),
  );
  const single = Array.from({length: heads}, (_, each) => option(each, String(each + 1)));
  byId("head").replaceChildren(...(heads > 1 ? [option(MEAN, "mean")] : []), ...single);
  byId("layer").value = String(view.layer);
  byId("head").value = String(view.head);
}

function setHead(layer, head) {
  Object.assign(view, {layer, head, weights: headWeights(view.kind, layer, head)});
  byId("layer").value = String(layer);
  byId("head").value = String(head);
  markHead();
  refresh();
  drawTable();
}

function point(place) {
  view.pointed = place;
  refresh();
}

// Chooses a token; `again` lets go of one that is chosen already. `line` says which token of a line
// it is, for one that the attention shown does not have: another is shown then.
function choose(place, {again = false, line = null} = {}) {
  if (!place && line) {
    const kind = ["cross", "encoder"].find(
      (each) => view.attention[each] && Object.values(KINDS[each]).includes(line.line),
    );
    if (kind && kind !== view.kind) {
      setKind(kind);
      place = placeOf(line.line, line.index);
    }
  }
  const token = line ?? (place && tokenAt(place.side, place.position));
  const word = token?.line === "target" && token.index >= 0 ? token.index : null;
  const isSame =
    again &&
    view.word === word &&
    view.chosen?.side === place?.side &&
    view.chosen?.position === place?.position;
  view.chosen = isSame ? null : place;
  view.word = isSame ? null : word;
  drawCandidates();
  refresh();
}

// Draws what depends on the token that is pointed at or chosen.
function refresh() {
  if (!view.kind || !view.attention[view.kind]) return markWord();
  const active = view.pointed ?? view.chosen;
  shadeTokens(active);
  drawBands(active);
  byId("readout").textContent = describeActive(active);
  markWord();
}

function markWord() {
  [...byId("line-target").children].forEach((item, index) => {
    item.classList.toggle("word", index === view.word);
    if (!view.kind) item.setAttribute("aria-selected", String(index === view.word));
  });
}
