// What the page begins with.

const data = JSON.parse(byId("data").textContent);

function startSaved(sentences) {
  const choice = byId("choice");
  choice.replaceChildren(
    ...sentences.map(({text}, index) => make("option", {value: index}, text || "(no text)")),
  );
  choice.addEventListener("change", () => show(sentences[Number(choice.value)]));
  byId("saved").hidden = sentences.length < 2;
  if (sentences.length) show(sentences[0]);
}

function letGo() {
  choose(null);
  holdNode(null);
}

function start() {
  byId("about").textContent = data.about;
  view.layer = null; // the last one
  byId("layer").addEventListener("change", (event) =>
    setHead(Number(event.target.value), view.head),
  );
  byId("head").addEventListener("change", ({target}) =>
    setHead(view.layer, target.value === MEAN ? MEAN : Number(target.value)),
  );
  byId("numbers").addEventListener("toggle", drawTable);
  byId("show-pruned").addEventListener("change", redrawTree);
  document.addEventListener(
    "keydown",
    (event) => event.key === "Escape" && view.sentence && letGo(),
  );
  const again = (draw) => () => view.sentence && draw();
  const repaint = again(() => view.kind && view.attention[view.kind] && paintHeads());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  matchMedia("print").addEventListener("change", repaint);
  matchMedia("(max-width: 46rem), print").addEventListener("change", again(redrawTree));
  if (data.live) startLive();
  else startSaved(data.sentences);
}

start();
