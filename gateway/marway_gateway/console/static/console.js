"use strict";
// The console's own script. Pages are whole without it; it sends what buttons and forms change to the admin routes.
//
//   <button data-method="POST" data-path="pods/a/drain" data-confirm="What will happen" data-body='{"note": "x"}'>
//   <form data-method="PUT" data-path="models/intent/labels/{label}" data-confirm="{label} will point at {version}">
//
// Paths are relative to the port's root. A form's fields become the JSON body, those named in the path are part of it
// instead; numbers and checkboxes become numbers and booleans, empty fields are left out. `data-query` on a field puts
// it behind the path. The answer's problem is shown in the next <output>; after a success the page's #live part is
// fetched again, or the page of `data-then` is opened.
(() => {
  const root = new URL(document.body.dataset.root, location.href);
  const mark = { "X-Marway-Console": "1" };

  async function send(method, path, body) {
    const url = new URL(path, root);
    if (url.origin !== root.origin) throw new Error("not of this port: " + path);
    const headers = body === undefined ? { ...mark } : { ...mark, "Content-Type": "application/json" };
    let answer;
    try {
      answer = await fetch(url, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    } catch {
      throw new Error("The gateway does not answer: is it running?");
    }
    if (answer.ok) return answer;
    if (answer.status === 401 && !path.startsWith("console/login")) {
      location.assign(new URL("console/login?next=" + encodeURIComponent(here()), root));
    }
    const text = await answer.text();
    let detail = text.slice(0, 500);
    try { detail = JSON.parse(text).detail ?? detail; } catch { /* no problem document: its text says it */ }
    throw new Error(detail || `It was answered with status ${answer.status}.`);
  }

  const here = () => location.href.slice(root.href.length);

  // A dialog that says what will happen; resolves to whether it shall.
  function confirmed(title, text, danger) {
    const dialog = document.getElementById("confirm");
    dialog.querySelector("h2").textContent = title;
    dialog.querySelector("p").textContent = text;
    const yes = dialog.querySelector("[value=yes]");
    yes.textContent = title;
    yes.className = danger ? "danger" : "primary";
    return new Promise((resolve) => {
      // The event of a dialog that was closed may come when it is open again, for another question.
      dialog.onclose = () => dialog.open || resolve(dialog.returnValue === "yes");
      dialog.returnValue = "no";
      dialog.showModal();
    });
  }

  document.addEventListener("click", (event) => {
    const choice = event.target.closest("dialog#confirm button");
    if (choice) choice.closest("dialog").close(choice.value);
  });

  function outcome(element, text, bad) {
    const scope = element.closest(".action") ?? element.closest("form") ?? element.parentElement;
    const shown = scope.querySelector("output.outcome");
    if (!shown) return;
    shown.textContent = text;
    shown.classList.toggle("bad", bad);
  }

  async function refresh() {
    if (!document.getElementById("live")) return location.reload();
    const { show } = window.marwayConsole; // live.js: what differs is changed in place
    if (show) return show(await (await fetch(location.href, { headers: { Accept: "text/html" } })).text());
    return window.htmx.ajax("GET", location.href, { select: "#live", target: "#live", swap: "outerHTML" });
  }

  const filled = (text, values) => text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);

  // What a form's fields hold: the values by name, the body, and the path with its parts and query filled in.
  function read(form) {
    const values = {}, body = {}, query = new URLSearchParams();
    for (const field of form.elements) {
      if (!field.name || field.disabled || (field.type === "radio" && !field.checked)) continue;
      let value = field.value;
      if (field.type === "checkbox") value = field.checked;
      else if (value === "") continue;
      else if (field.type === "number" || field.dataset.type === "number") value = Number(value);
      else if (field.dataset.type === "json") value = JSON.parse(value);
      values[field.name] = value;
      if (form.dataset.path.includes(`{${field.name}}`)) continue;
      if ("query" in field.dataset) query.set(field.name, value);
      else body[field.name] = value;
    }
    let path = form.dataset.path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(values[name] ?? ""));
    if (query.size) path += "?" + query;
    return { values, path, body: Object.keys(body).length ? body : undefined };
  }

  async function act(element, title, path, body, values) {
    const { method, confirm, then, done } = element.dataset;
    const danger = element.classList.contains("danger") || !!element.querySelector?.("button.danger");
    if (confirm && !(await confirmed(title, filled(confirm, values), danger))) return;
    const buttons = element.matches("form") ? element.querySelectorAll("button") : [element];
    buttons.forEach((each) => each.setAttribute("aria-busy", "true"));
    outcome(element, "…", false);
    try {
      await send(method, path, body);
      outcome(element, done ?? "Done.", false);
      if (then) location.assign(new URL(then, root));
      else await refresh();
    } catch (error) {
      outcome(element, error.message, true);
    } finally {
      buttons.forEach((each) => each.removeAttribute("aria-busy"));
    }
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button");
    if (!button || button.getAttribute("aria-busy")) return;
    if ("signOut" in button.dataset) {
      await send("POST", "console/logout?path=" + encodeURIComponent(root.pathname)).catch(() => {});
      location.assign(new URL("console/login", root));
    } else if (button.dataset.method) {
      const body = button.dataset.body ? JSON.parse(button.dataset.body) : undefined;
      act(button, button.textContent.trim(), button.dataset.path, body, {});
    }
  });

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if ("signIn" in form.dataset) {
      event.preventDefault();
      signIn(form);
    } else if (form.dataset.method) {
      event.preventDefault();
      if (form.querySelector("[aria-busy]")) return;
      try {
        const { values, path, body } = read(form);
        act(form, (event.submitter ?? form.querySelector("button")).textContent.trim(), path, body, values);
      } catch (error) {
        outcome(form, error.message, true);
      }
    }
  });

  async function signIn(form) {
    try {
      await send("POST", "console/login", { token: form.elements.token.value.trim(), path: root.pathname });
      // Only within this port: whatever the address says, it is taken as a path below the root.
      const next = new URL(new URLSearchParams(location.search).get("next") ?? "", root);
      const within = next.origin === root.origin && next.pathname.startsWith(root.pathname);
      location.assign(within && next.href !== root.href ? next : new URL("console/models", root));
    } catch (error) {
      outcome(form, error.message, true);
      form.elements.token.select();
    }
  }

  // How figures are measured: one at a time, within the window, closed by Escape and by a click elsewhere.
  const opened = () => document.querySelectorAll("details.measured[open]");
  document.addEventListener("toggle", (event) => {
    const details = event.target;
    if (!details.matches?.("details.measured") || !details.open) return;
    opened().forEach((each) => { if (each !== details) each.open = false; });
    const how = details.querySelector(".how");
    how.style.left = "";
    const { left, right } = how.getBoundingClientRect();
    const edge = document.documentElement.clientWidth - 12;
    if (right > edge) how.style.left = Math.max(12, left - (right - edge)) + "px";
  }, true);
  document.addEventListener("click", (event) => {
    opened().forEach((each) => { if (!each.contains(event.target)) each.open = false; });
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") opened().forEach((each) => { each.open = false; each.querySelector("summary").focus(); });
  });

  // Times in the reader's own zone, on demand.
  document.addEventListener("pointerover", (event) => {
    const time = event.target.closest?.("time[datetime]");
    if (time) time.title = new Date(time.dateTime).toLocaleString(undefined, { timeStyle: "long", dateStyle: "medium" });
  });

  // For the pages' own scripts.
  window.marwayConsole = { root, send, refresh, confirmed };
})();
