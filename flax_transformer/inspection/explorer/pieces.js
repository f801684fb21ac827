// Pieces of the vocabulary: as they are shown, as they are called, and the text that they spell.

const SPACE = "\u2581";
const NAMES = {"<s>": "beginning", "</s>": "end", "<pad>": "padding", "<unk>": "unknown"};

function isSpecial(piece) {
  return piece in NAMES;
}

// The content of a token. The mark of a space is faint, and special symbols are slanted.
function drawPiece(piece) {
  if (isSpecial(piece)) return [make("i", {class: "special"}, piece)];
  if (piece === SPACE || !piece.startsWith(SPACE)) return [make("bdi", {}, piece)];
  return [
    make("span", {class: "mark", "aria-hidden": "true"}, SPACE),
    make("bdi", {}, piece.slice(1)),
  ];
}

// What a piece is called in a sentence, in quotes.
function quote(piece) {
  return isSpecial(piece)
    ? `the ${NAMES[piece]} (${piece})`
    : `“${piece.replaceAll(SPACE, "") || "space"}”`;
}

// The text that pieces spell. Bytes, written <0xE2>, are read together as UTF-8.
function textOf(pieces) {
  let text = "";
  let bytes = [];
  const flush = () => {
    if (bytes.length) text += new TextDecoder().decode(new Uint8Array(bytes));
    bytes = [];
  };
  for (const piece of pieces) {
    const byte = /^<0x([0-9A-F]{2})>$/.exec(piece);
    if (byte) {
      bytes.push(parseInt(byte[1], 16));
    } else if (!isSpecial(piece)) {
      flush();
      text += piece.replaceAll(SPACE, " ");
    }
  }
  flush();
  return text.trim();
}
