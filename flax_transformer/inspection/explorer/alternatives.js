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

// The words of `text`, of which those between what it has in common with `best` at both ends are underlined.
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
  const path = findPath(textOf(target));
  const step = view.word;
  const before = step && path ? path[step - 1] : null;
  const follows = (node) => (step ? node.parent === before : true);
  const nodes = path && step < search.steps.length ? search.steps[step].filter(follows) : [];
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
  const text = textOf([...view.sentence.target.slice(0, step), node.piece]);
  button.addEventListener("click", () => live.fix(text));
  return button;
}

// The button that keeps the translation up to the chosen word.
function makeKeeper(step) {
  const text = view.sentence.beginnings?.[step] ?? textOf(view.sentence.target.slice(0, step + 1));
  const button = make(
    "button",
    {type: "button", class: "keep"},
    "Keep ",
    make("bdi", {}, `“${text}”`),
    " and translate on",
  );
  button.addEventListener("click", () => live.fix(text));
  return button;
}
