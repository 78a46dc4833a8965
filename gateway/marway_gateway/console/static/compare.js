"use strict";
// Has a pod ask both versions of a page of differences, and shows what came of it.
(() => {
  const { send } = window.marwayConsole;
  const form = document.querySelector("form[data-compare]");
  if (!form) return;
  const out = form.querySelector("output");
  const button = form.querySelector("button");
  const shown = document.getElementById("compared");
  const fact = (name) => shown.querySelector(`[data-fact="${name}"]`);
  const time = (seconds) => (seconds == null ? "not measured" : seconds >= 1 ? `${seconds.toFixed(2)} s` : `${(seconds * 1000).toFixed(1)} ms`);

  function fieldLine(change) {
    const name = change.field || "the answer";
    if (change.change === "renamed") return `${name} is now ${change.to}`;
    if (change.change === "added") return `${name} (${change.after}) is new`;
    if (change.change === "removed") return change.after == null ? `${name} (${change.before}) is gone` : `${name} is not in every answer`;
    return `${name} was ${change.before} and is ${change.after}`;
  }

  function show(found) {
    if (found.not_compared != null) throw new Error(`Not compared: ${found.not_compared}`);
    fact("p50").textContent = time(found.p50_s);
    fact("base_p50").textContent = time(found.base_p50_s);
    for (const name of ["errors", "base_errors", "nonfinite", "base_nonfinite"]) fact(name).textContent = found[name];
    fact("summary").textContent = `${found.equal} of ${found.compared} answers are equal, to ${found.inputs} golden inputs of ${found.inputs_of}` +
      (found.pod ? `, asked by ${found.pod === "gateway" ? "the gateway" : "pod " + found.pod}.` : ".");
    const lines = [...found.refused.map((each) => `a release would be refused: ${each}`), ...found.fields.map(fieldLine),
      ...found.differences, ...found.failures, ...found.nonfinite_at, ...found.notes];
    fact("lines").replaceChildren(...lines.map((text) => {
      const line = document.createElement("li");
      line.textContent = text;
      return line;
    }));
    shown.hidden = false;
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.getAttribute("aria-busy")) return;
    button.setAttribute("aria-busy", "true");
    out.classList.remove("bad");
    out.textContent = "A pod loads and asks both…";
    try {
      show(await (await send("POST", form.dataset.compare)).json());
      out.textContent = "Done.";
    } catch (error) {
      out.textContent = error.message;
      out.classList.add("bad");
    } finally {
      button.removeAttribute("aria-busy");
    }
  });
})();
