// Attention weights of the sentence that is shown, and what their rows and columns stand for.
//
// Each side of an attention is a line of tokens: "source" or "target". A position of the decoder's
// own attention holds what it was fed, which is the target behind one symbol: position 0 is that
// symbol, and position 1 the target's token 0.

const KINDS = {
  encoder: {
    name: "Encoder",
    detail: "source → source",
    rows: "source",
    columns: "source",
    shift: 0,
  },
  decoder: {
    name: "Decoder",
    detail: "target → target",
    rows: "target",
    columns: "target",
    shift: 1,
  },
  cross: {name: "Cross", detail: "target → source", rows: "target", columns: "source", shift: 0},
};
const MEAN = "mean";

function unpackAttention(attention) {
  const found = {};
  for (const kind of Object.keys(KINDS)) {
    if (!attention[kind]) continue;
    const bytes = Uint8Array.from(atob(attention[kind].weights), (each) => each.charCodeAt(0));
    found[kind] = {...attention[kind], bytes};
  }
  return found;
}

// The weights of one head, or their mean over heads, row by row, as numbers from 0 to 1.
function headWeights(kind, layer, head) {
  const {heads, rows, columns, bytes} = view.attention[kind];
  const size = rows * columns;
  const weights = new Float32Array(size);
  const chosen = head === MEAN ? [...Array(heads).keys()] : [head];
  for (const each of chosen) {
    const start = (layer * heads + each) * size;
    for (let i = 0; i < size; i++) weights[i] += bytes[start + i] / 255 / chosen.length;
  }
  return weights;
}

// What one head of the layer that is shown gives, from a row to a column.
function weightOfHead(head, row, column) {
  const {heads, rows, columns, bytes} = view.attention[view.kind];
  return bytes[((view.layer * heads + head) * rows + row) * columns + column] / 255;
}

// The weights that a row gives (side "rows") or that a column gets (side "columns").
function weightsOf(side, position) {
  const {rows, columns} = view.attention[view.kind];
  if (side === "rows") return view.weights.subarray(position * columns, (position + 1) * columns);
  return Float32Array.from({length: rows}, (_, row) => view.weights[row * columns + position]);
}

// Entropy of a row between 0, one token, and 1, evenly all that it may see.
function rowEntropy(position) {
  const row = weightsOf("rows", position);
  const visible = view.kind === "decoder" ? position + 1 : row.length;
  if (visible < 2) return 0;
  const total = row.reduce((sum, weight) => sum + weight, 0) || 1;
  const entropy = row.reduce(
    (sum, each) => (each > 0 ? sum - (each / total) * Math.log(each / total) : sum),
    0,
  );
  return entropy / Math.log(visible);
}

function piecesOf(side) {
  const {rows, columns} = KINDS[view.kind];
  if (view.kind === "decoder") return view.sentence.inputs;
  return view.sentence[side === "rows" ? rows : columns];
}

function opposite(side) {
  return side === "rows" ? "columns" : "rows";
}

// Which token of which line stands at a position of a side.
function tokenAt(side, position) {
  const {[side]: line, shift} = KINDS[view.kind];
  return {line, index: position - shift};
}

// Where a token of a line stands: as a row if it can, else as a column, else nowhere.
function placeOf(line, index, preferred = "rows") {
  const kind = KINDS[view.kind];
  for (const side of [preferred, opposite(preferred)]) {
    const position = index + kind.shift;
    if (kind[side] === line && position >= 0 && position < piecesOf(side).length)
      return {side, position};
  }
  return null;
}
