// The live page: asks the server that it came from, and shows the answer.

let live = null; // what the page can ask, or null in a saved file

function startLive() {
  const form = byId("ask");
  const [source, prefix, beam] = ["ask-source", "ask-prefix", "ask-beam"].map(byId);
  let asked = null;

  async function ask() {
    asked?.abort();
    const own = (asked = new AbortController());
    report("Translating …");
    const question = {source: source.value, prefix: prefix.value};
    if (beam.value) question.beam_size = Number(beam.value);
    const answer = await post("explore", question, own.signal);
    if (own !== asked) return; // a later question is on its way
    report("", answer.error);
    if (!answer.error) show(answer);
  }

  live = {
    fix(text) {
      prefix.value = text;
      source.value = view.sentence.text ?? source.value;
      ask();
    },
  };
  form.hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  source.addEventListener("input", () => (prefix.value = ""));
  source.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  byId("ask-free").addEventListener("click", () => live.fix(""));
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
