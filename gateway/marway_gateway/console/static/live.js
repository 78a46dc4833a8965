"use strict";
// Keeps a page's #live part as it is on the server: events of console/live/PAGE carry it whole, and what differs is
// changed in place, so that focus, open details, scrolled tables and what was typed stay. Pages say so by `data-live` on
// #live; elements with an id or a `data-key` are found again wherever they went. A tab that nobody sees has no connection.
(() => {
  const { root } = window.marwayConsole;
  const part = () => document.getElementById("live");
  if (!part() || !("live" in part().dataset)) return;
  const path = location.pathname.slice(root.pathname.length).replace(/^console\//, "");
  let source = null, again = 0, pause = 1000, asOf = new Date();

  const TYPED = new Set(["INPUT", "TEXTAREA", "SELECT"]);
  const keyOf = (node) => node.nodeType === 1 ? node.id || node.dataset.key || "" : "";

  function morph(from, to) {
    if (from.nodeType !== to.nodeType || from.nodeName !== to.nodeName || keyOf(from) !== keyOf(to)) {
      from.replaceWith(to);
      return;
    }
    if (from.nodeType !== 1) {
      if (from.data !== to.data) from.data = to.data;
      return;
    }
    for (const { name } of [...from.attributes]) {
      const kept = (name === "open" && from.nodeName === "DETAILS") || name === "aria-busy";
      if (!to.hasAttribute(name) && !kept) from.removeAttribute(name);
    }
    for (const { name, value } of to.attributes) {
      if (from.getAttribute(name) !== value && !(TYPED.has(from.nodeName) && name === "value")) from.setAttribute(name, value);
    }
    // What was typed, what a button came to, and what a page fetched by itself.
    if (from.nodeName === "TEXTAREA" || from.matches("output.outcome, [data-keep]")) return;
    children(from, to);
  }

  function children(from, to) {
    const keyed = new Map([...from.children].filter(keyOf).map((each) => [keyOf(each), each]));
    let old = from.firstChild;
    for (const fresh of [...to.childNodes]) {
      const known = keyOf(fresh) && keyed.get(keyOf(fresh));
      if (known && known !== old) from.insertBefore(known, old);
      const match = known || (old && !keyOf(old) && !keyOf(fresh) ? old : null);
      if (match) {
        if (match === old) old = old.nextSibling;
        morph(match, fresh);
      } else {
        from.insertBefore(fresh, old);
      }
    }
    while (old) {
      const next = old.nextSibling;
      old.remove();
      old = next;
    }
  }

  function show(html) {
    const fresh = new DOMParser().parseFromString(html, "text/html").getElementById("live");
    if (fresh) morph(part(), fresh);
    asOf = new Date();
    pause = 1000;
    trouble("");
    ages();
  }

  function trouble(text) {
    let shown = document.getElementById("live-trouble");
    if (!shown) {
      shown = document.createElement("output");
      shown.id = "live-trouble";
      shown.className = "notice warn";
      part().before(shown);
    }
    shown.hidden = !text;
    if (shown.textContent !== text) shown.textContent = text;
  }

  function open() {
    clearTimeout(again);
    if (source || document.hidden) return;
    source = new EventSource(new URL("console/live/" + path + location.search, root));
    source.addEventListener("part", (event) => show(event.data));
    source.addEventListener("gone", () => location.reload());
    source.onerror = () => {
      // One that merely ended is opened again by the browser; one that was refused is not.
      if (source?.readyState !== EventSource.CLOSED) return;
      close();
      trouble(`This page does not follow what happens just now; it shows what was at ${asOf.toLocaleTimeString()}. It tries again by itself.`);
      again = setTimeout(open, pause);
      pause = Math.min(30000, 2 * pause);
    };
  }

  function close() {
    clearTimeout(again);
    source?.close();
    source = null;
  }

  // How long ago things were counts on without the server.
  const UNITS = [[120, 1, "s"], [7200, 60, "min"], [172800, 3600, "h"], [Infinity, 86400, "days"]];
  function ages() {
    for (const time of document.querySelectorAll("time[datetime]")) {
      const age = (Date.now() - Date.parse(time.dateTime)) / 1000;
      if (!(age >= 1)) continue;
      const [, size, unit] = UNITS.find(([until]) => age < until);
      const text = `${Number((age / size).toPrecision(age / size >= 100 ? 3 : 2))} ${unit} ago`;
      if (time.textContent !== text) time.textContent = text;
    }
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", open);
  // A page that was fetched beside the stream: the stream begins anew, as it does not know what is shown now.
  window.marwayConsole.show = (html) => {
    show(html);
    close();
    open();
  };
  setInterval(ages, 5000);
  open();
})();
