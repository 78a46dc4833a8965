"use strict";
// The try-it form: makes a request of what was filled in, sends it to the console's own predict route, and shows the
// answer by its content type; one that comes in pieces is shown as they come.
(() => {
  const { root } = window.marwayConsole;
  const id = (name) => document.getElementById(name);
  const form = id("try");
  const out = form.querySelector("output");
  const examples = JSON.parse(id("examples").textContent);
  const TEXT_MAX = 256 * 1024;
  let fetched = null; // a golden example that is a file: { blob, type }
  let running = null;
  let links = [];

  const way = () => form.elements.way.value;
  const object = (blob) => { const url = URL.createObjectURL(blob); links.push(url); return url; };

  function say(text, bad = false) {
    out.textContent = text;
    out.classList.toggle("bad", bad);
  }

  function make(tag, properties = {}) {
    return Object.assign(document.createElement(tag), properties);
  }

  function showWay() {
    for (const each of form.querySelectorAll(".way")) each.hidden = each.dataset.way !== way();
  }

  // A picture, a sound, or what a file is called.
  function media(type, url, name, alt) {
    if (type.startsWith("image/")) {
      const picture = make("img", { className: "shown", src: url, alt });
      picture.addEventListener("load", () => picture.classList.toggle("small", picture.naturalWidth < 96));
      return picture;
    }
    if (type.startsWith("audio/")) return make("audio", { controls: true, src: url });
    if (type.startsWith("video/")) return make("video", { controls: true, src: url, className: "shown" });
    return make("p", { textContent: name });
  }

  function preview() {
    const file = id("file").files[0];
    const blob = file ?? fetched?.blob;
    id("preview").replaceChildren();
    if (!blob) return;
    const type = id("kind").value || blob.type;
    const size = blob.size < 1024 ? `${blob.size} B` : `${(blob.size / 1024).toFixed(1)} KiB`;
    id("preview").append(media(type, object(blob), `${file?.name ?? "golden example"}, ${size}`, "What will be sent"));
  }

  async function fill(number) {
    const example = examples.find((each) => each.number === number);
    if (!example) return;
    form.elements.way.value = example.way;
    showWay();
    if (example.text !== null) {
      id(example.way).value = example.text;
      return;
    }
    id("file").value = "";
    id("kind").value = example.content_type ?? "";
    try {
      const answer = await fetch(new URL(form.dataset.examples + number, root));
      if (!answer.ok) throw new Error(`the example was answered with status ${answer.status}`);
      fetched = { blob: new Blob([await answer.arrayBuffer()], { type: example.content_type ?? "" }) };
      preview();
    } catch (error) {
      say(`The golden example cannot be fetched: ${error.message}`, true);
    }
  }

  // The shape of lists within lists, and their values one after the other; all lists of one depth are equally long.
  function tensor(name, datatype, text) {
    let value;
    try {
      value = JSON.parse(text);
    } catch (error) {
      throw new Error(`${name}: it is no JSON: ${error.message}`);
    }
    const shape = [];
    for (let at = value; Array.isArray(at); at = at[0]) shape.push(at.length);
    const data = [];
    (function walk(at, depth) {
      if (depth === shape.length) {
        if (Array.isArray(at)) throw new Error(`${name}: some lists are deeper than others`);
        data.push(at);
      } else if (!Array.isArray(at) || at.length !== shape[depth]) {
        throw new Error(`${name}: its lists are not equally long`);
      } else {
        at.forEach((each) => walk(each, depth + 1));
      }
    })(value, 0);
    return { name, datatype, shape, data };
  }

  // What is sent: path, content type and body.
  function request() {
    const path = form.dataset.try;
    if (way() === "text") return { path, type: "text/plain; charset=utf-8", body: id("text").value };
    if (way() === "json") {
      try {
        JSON.parse(id("json").value);
      } catch (error) {
        throw new Error(`It is no JSON: ${error.message}`);
      }
      return { path, type: "application/json", body: id("json").value };
    }
    if (way() === "tensors") {
      const inputs = [...form.querySelectorAll("textarea.tensor")].map((each) => tensor(each.dataset.name, each.dataset.datatype, each.value));
      return { path: `${path}/infer`, type: "application/json", body: JSON.stringify({ inputs }) };
    }
    const blob = id("file").files[0] ?? fetched?.blob;
    if (!blob) throw new Error("Choose a file first.");
    return { path, type: id("kind").value || blob.type || "application/octet-stream", body: blob };
  }

  const mime = (type) => type.split(";")[0].trim().toLowerCase();
  const isJson = (type) => type === "application/json" || type.endsWith("+json");
  const isText = (type) => type.startsWith("text/") || isJson(type) || type === "application/x-ndjson";

  // Text as it comes; its beginning only where it is long.
  async function showText(answer, type, began) {
    const shown = make("pre", { tabIndex: 0 });
    id("body").replaceChildren(shown);
    const reader = answer.body.getReader();
    const decoder = new TextDecoder();
    let text = "", bytes = 0, pieces = 0, first = null;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      first ??= performance.now() - began;
      pieces += 1;
      bytes += value.length;
      if (text.length < TEXT_MAX) {
        text += decoder.decode(value, { stream: true });
        shown.textContent = text;
        shown.scrollTop = shown.scrollHeight;
      }
      say(`${bytes} bytes so far…`);
    }
    if (isJson(type) && text.length < TEXT_MAX) {
      try { shown.textContent = JSON.stringify(JSON.parse(text), null, 2); } catch { /* as it came */ }
      shown.scrollTop = 0;
    }
    if (!text) id("body").replaceChildren(make("p", { className: "hint", textContent: "The answer has no body." }));
    if (text.length >= TEXT_MAX) id("body").append(make("p", { className: "hint", textContent: "Only its beginning is shown." }));
    return { bytes, pieces, first };
  }

  async function showBytes(answer, type) {
    const blob = new Blob([await answer.arrayBuffer()], { type });
    const url = object(blob);
    const save = make("a", { href: url, download: "answer", textContent: `Save it (${blob.size} bytes, ${type || "no content type"})` });
    id("body").replaceChildren(media(type, url, "", "The picture that the model answered"), save);
    return { bytes: blob.size, pieces: 1, first: null };
  }

  function head(answer) {
    const status = id("status");
    status.textContent = `${answer.status}${answer.statusText ? " " + answer.statusText : ""}`;
    status.className = `badge ${answer.ok ? "good" : "bad"}`;
    const get = (name) => answer.headers.get(name) ?? "";
    id("by").textContent = [get("x-model-name"), get("x-model-version")].filter(Boolean).join(" ") || "none answered";
    const traffic = get("x-marway-traffic");
    if (traffic) id("by").textContent += ` (${traffic} of a rollout)`;
    const prediction = get("x-prediction-id");
    id("prediction").textContent = prediction;
    id("prediction").href = new URL(`console/requests/${prediction}?model=${encodeURIComponent(get("x-model-name"))}`, root);
    id("later").textContent = prediction ? "to look up once it is written, some seconds from now" : "none";
    id("timing").textContent = get("server-timing").replaceAll(";dur=", " ").replaceAll(",", " ms,") + (get("server-timing") ? " ms" : "not said");
    id("headers").textContent = [...answer.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
  }

  async function predict() {
    links.forEach((each) => URL.revokeObjectURL(each));
    links = [];
    const { path, type, body } = request();
    const headers = { "X-Marway-Console": "1", "Content-Type": type };
    if (id("events")?.checked) headers.Accept = "text/event-stream";
    running = new AbortController();
    const began = performance.now();
    const answer = await fetch(new URL(path, root), { method: "POST", headers, body, signal: running.signal });
    if (answer.status === 401) location.assign(new URL("console/login", root));
    id("no-answer").hidden = true;
    id("answered").hidden = false;
    id("took").textContent = "";
    head(answer);
    const kind = mime(answer.headers.get("content-type") ?? "");
    const sniffed = kind === "" || isText(kind);
    const { bytes, pieces, first } = sniffed ? await showText(answer, kind, began) : await showBytes(answer, kind);
    const took = performance.now() - began;
    id("round-trip").textContent = `${took.toFixed(1)} ms, ${bytes} bytes` + (pieces > 1 ? ` in ${pieces} pieces, the first after ${first.toFixed(1)} ms` : "");
    id("took").textContent = kind;
    say("Answered.");
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (running) return;
    const button = form.querySelector("button.primary");
    button.setAttribute("aria-busy", "true");
    id("stop").hidden = false;
    say("Asking…");
    try {
      await predict();
    } catch (error) {
      say(error.name === "AbortError" ? "Stopped: the gateway cancels what still runs." : error instanceof TypeError ? "The gateway does not answer, or the answer broke off." : error.message, error.name !== "AbortError");
    } finally {
      running = null;
      id("stop").hidden = true;
      button.removeAttribute("aria-busy");
      if (id("file").files.length || fetched) preview();
    }
  });

  id("stop").addEventListener("click", () => running?.abort());
  form.addEventListener("change", (event) => {
    if (event.target.name === "way") showWay();
    else if (event.target.id === "example") fill(Number(event.target.value));
    else if (event.target.id === "selector") location.assign(new URL(event.target.dataset.page + encodeURIComponent(event.target.value), root));
    else if (event.target.id === "file") {
      fetched = null;
      id("kind").value = id("file").files[0]?.type ?? "";
      preview();
    } else if (event.target.id === "kind") preview();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });

  if (way() === "file" && id("example")?.value) fill(Number(id("example").value));
})();
