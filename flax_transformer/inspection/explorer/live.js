// The live page: asks the server that it came from, and shows the answer.

let live = null; // what the page can ask, or null in a saved file

function startLive() {
  const form = byId("ask");
  const [source, prefix, beam, free] = ["source", "prefix", "beam", "free"].map((name) =>
    byId(`ask-${name}`),
  );
  let asked = null;

  // Returns whether the answer is shown: it is not where there is an error or a later question.
  async function ask() {
    asked?.abort();
    const own = (asked = new AbortController());
    report("Translating …");
    const question = {source: source.value, prefix: prefix.value};
    if (beam.value) question.beam_size = Number(beam.value);
    const answer = await post("explore", question, own.signal);
    if (own !== asked) return false;
    report("", answer.error);
    if (!answer.error) show(answer);
    return !answer.error;
  }

  function begin(text) {
    prefix.value = text;
    free.hidden = !text;
  }

  live = {
    async fix(text) {
      begin(text);
      source.value = view.sentence.text ?? source.value;
      if ((await ask()) && text) chooseFirstFree();
    },
  };
  form.hidden = false;
  source.focus();
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  source.addEventListener("input", () => begin(""));
  prefix.addEventListener("input", () => begin(prefix.value));
  source.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  free.addEventListener("click", () => live.fix(""));
}

// Chooses the first token that was not fixed, so that one can go on from choice to choice.
function chooseFirstFree() {
  const items = [...byId("line-target").children];
  const index = Math.min(countFixed(), items.length - 1);
  rove(items, index);
  items[index].focus({preventScroll: true});
  const place = view.kind && placeOf("target", index);
  choose(place, {line: {line: "target", index}});
}

function report(status, error = "") {
  byId("ask-status").textContent = status;
  byId("ask").setAttribute("aria-busy", String(Boolean(status)));
  byId("ask-error").textContent = error;
  byId("ask-error").hidden = !error;
}

// Returns the server's answer, or {error}.
async function post(path, question, signal) {
  let response;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: {"Content-Type": "application/json"},
      body: JSON.stringify(question),
      signal,
    });
  } catch {
    return {error: "The server cannot be reached: start it again, then translate again."};
  }
  try {
    const answer = await response.json();
    if (response.ok || answer.error) return answer;
  } catch {
    // not JSON: told below
  }
  return {
    error: `The server answered with status ${response.status}: see what it has printed.`,
  };
}
