// Keeps the page up to date: when the server says that something has changed, its main part is
// asked for, and the sections that differ are exchanged. Without this, a reload does the same.
"use strict";

(() => {
  const script = document.currentScript;
  const at = (name) => new URL(name, script.src);
  const PAUSE = 500, AGAIN = 5000;
  let events = null, asking = false, again = false, timer = 0;

  const stale = (is) => { document.getElementById("stale").hidden = !is; };

  // What the reader has opened stays open, and what has been scrolled stays where it is.
  function exchange(old, fresh) {
    for (const details of fresh.querySelectorAll("details[id]")) {
      const before = document.getElementById(details.id);
      if (before && before.open) details.open = true;
    }
    const places = [...old.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
    old.replaceWith(fresh);
    fresh.querySelectorAll(".scroll").forEach((one, n) => { one.scrollLeft = places[n] || 0; });
  }

  // As it came from the server, so that what was opened does not count as a difference.
  const texts = new Map();
  for (const section of document.querySelectorAll("main > section"))
    texts.set(section.id, section.outerHTML);

  function show(text) {
    const main = new DOMParser().parseFromString(text, "text/html").querySelector("main");
    for (const fresh of main.querySelectorAll(":scope > section")) {
      const old = document.getElementById(fresh.id), html = fresh.outerHTML;
      // A section with the keyboard's focus in it is left alone until that moves on.
      if (!old || texts.get(fresh.id) === html || old.contains(document.activeElement)) continue;
      texts.set(fresh.id, html);
      exchange(old, document.adoptNode(fresh));
    }
    const summary = document.getElementById("summary");
    if (summary.textContent !== main.dataset.summary) summary.textContent = main.dataset.summary;
  }

  async function ask() {
    if (asking) { again = true; return; }
    asking = true;
    try {
      const reply = await fetch(at("main"), { cache: "no-store" });
      if (reply.status === 401) { location.reload(); return; }
      if (!reply.ok) throw new Error(reply.statusText);
      show(await reply.text());
      // An answer that was on its way when the stream was cut does not mean that more will come.
      stale(!events || events.readyState !== EventSource.OPEN);
    } catch {
      stale(true);
    } finally {
      setTimeout(() => { asking = false; if (again) { again = false; ask(); } }, PAUSE);
    }
  }

  function watch() {
    clearTimeout(timer);
    if (events || document.hidden) return;
    events = new EventSource(at("changes"));
    events.addEventListener("changed", ask);
    events.addEventListener("open", ask);
    events.addEventListener("error", () => {
      stale(true);
      if (events && events.readyState === EventSource.CLOSED) {
        leave();
        timer = setTimeout(() => { ask(); watch(); }, AGAIN);
      }
    });
  }

  function leave() {
    if (events) events.close();
    events = null;
  }

  // A browser has few connections for one host: a page that nobody sees holds none.
  document.addEventListener("visibilitychange", () => { document.hidden ? leave() : watch(); });
  addEventListener("pagehide", leave);
  addEventListener("pageshow", watch);
})();
