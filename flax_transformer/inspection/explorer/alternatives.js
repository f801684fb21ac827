// What else the search has found: whole translations, and at one place of the target other words.

function drawHypotheses() {
  const {hypotheses} = view.sentence;
  const best = hypotheses[0]?.score ?? 0;
  const items = hypotheses.map((hypothesis, index) => {
    const button = make(
      "button",
      {type: "button", class: "hypothesis", "aria-pressed": String(index === view.hypothesis)},
      make("span", {class: "score"}, decimal(hypothesis.score, 3)),
      make("span", {class: "bar", "aria-hidden": "true"}),
      make(
        "span",
        {class: "text", dir: "auto"},
        ...underlineDifference(hypotheses[0].text, hypothesis.text),
      ),
    );
    button.children[1].style.setProperty("--share", Math.exp((hypothesis.score ?? -99) - best));
    button.addEventListener("click", () => {
      view.hypothesis = index;
      drawHypotheses();
      markPath();
      byId("hypotheses").children[index].firstChild.focus();
    });
    return make("li", {}, button);
  });
  byId("hypotheses").replaceChildren(...items);
}

// The words of `text`; underlined are those between what it shares with `best` at either end.
function underlineDifference(best, text) {
  const [one, other] = [best.split(" "), text.split(" ")];
  const least = Math.min(one.length, other.length);
  let start = 0;
  while (start < least && one[start] === other[start]) start++;
  let end = 0;
  while (end < least - start && one.at(-1 - end) === other.at(-1 - end)) end++;
  const middle = other.slice(start, other.length - end).join(" ");
  const before = other
    .slice(0, start)
    .map((word) => `${word} `)
    .join("");
  const behind = other.slice(other.length - end).join(" ");
  if (best === text) return [text];
  return [before, make("u", {}, middle || "…"), behind ? " " : "", behind];
}

// What the search considered at the chosen word of the target, given what stands before it.
function drawCandidates() {
  const box = byId("candidates");
  if (view.word === null) {
    const hint = live ? " and to have another one there" : "";
    box.replaceChildren(
      make(
        "p",
        {class: "note"},
        `Choose a word of the target to see what else could stand there${hint}.`,
      ),
    );
    return;
  }
  const {target, search} = view.sentence;
  const step = view.word;
  const nodes = nodesInPlaceOf(step);
  const isFixed = step < (search?.prefix_length ?? 0);
  const heading = make("p", {}, `In the place of ${quote(target[step])} the search considered:`);
  const list = make(
    "ul",
    {class: "candidates"},
    ...nodes.map((node) => make("li", {}, makeCandidate(node, step))),
  );
  const nothing = isFixed
    ? `${quote(target[step])} was fixed: the search considered nothing else.`
    : "The search has no record of this place.";
  box.replaceChildren(
    ...(nodes.length && !isFixed ? [heading, list] : [make("p", {class: "note"}, nothing)]),
  );
  if (live) box.append(makeKeeper(step));
}

function makeCandidate(node, step) {
  const isTaken = node.piece === view.sentence.target[step];
  const content = [
    make("span", {class: "piece"}, ...drawPiece(node.piece)),
    make("span", {class: "weight"}, percent(stepProbability(step, node))),
  ];
  const attributes = {class: `candidate ${node.fate}${isTaken ? " taken" : ""}`};
  if (!live || node.piece === END) return make("span", attributes, ...content);
  const button = make("button", {type: "button", ...attributes}, ...content);
  const text = beginningWith([...view.sentence.target.slice(0, step), node.piece]);
  button.addEventListener("click", () => live.fix(text));
  return button;
}

// The candidates of a step that lengthen the same beginning as the target's own.
function nodesInPlaceOf(step) {
  const {search, path} = view.sentence;
  const parent = step ? path?.[step - 1] : null;
  return path ? (search?.steps[step] ?? []).filter((node) => node.parent === parent) : [];
}

// The text of pieces that the translation begins with, and of what stands before all pieces, such
// as a symbol that was copied from the source.
function beginningWith(pieces) {
  const {translation, target} = view.sentence;
  const start = Math.max(translation.indexOf(textOf(target.slice(0, 1))), 0);
  return translation.slice(0, start) + textOf(pieces);
}

// How many pieces of the target the prefix fixes. Of its last word the search may have been told
// the characters only, and then it does not count that word.
function countFixed() {
  const {prefix, target, search} = view.sentence;
  const text = prefix?.trim() ?? "";
  let count = 0;
  while (
    text &&
    count < target.length - 1 &&
    text.startsWith(beginningWith(target.slice(0, count + 1)))
  )
    count++;
  return Math.max(count, search?.prefix_length ?? 0);
}

// The button that keeps the translation up to the chosen word. A space after it says that the word
// is finished.
function makeKeeper(step) {
  const {target} = view.sentence;
  const text = beginningWith(target.slice(0, step + 1));
  const space = target[step + 1]?.startsWith(SPACE) ? " " : "";
  const words = ["Keep ", make("bdi", {}, `“${text}”`), " and translate on"];
  const button = make("button", {type: "button", class: "keep"}, ...words);
  button.addEventListener("click", () => live.fix(text + space));
  return button;
}
