// The frame of a panel: its heading, its questions, its CSV, and what it says while it waits.

import { ask, askCsv, Refused } from "./api.js";
import { element } from "./element.js";
import { count } from "./exact.js";

/** How long rows are looked at, where only they can answer; whoever has more time says so. */
const WITHIN = "800ms";

/**
 * Makes a panel. `choices(context)` are controls of its own, which stay whatever is answered;
 * `questions(context)` names what to ask; `draw(answers, context)` makes its content of the answers,
 * or null where there is nothing to show and the panel is to be hidden. A `late` panel asks when it
 * is about to be seen: its question reads many calls of the span. `context.within` is for questions
 * that rows answer: what was not looked at in that time is told, and can be asked for.
 */
export function panel({ id, title, note, wide, late, choices, questions, draw }) {
  const heading = element("h2", { id: `${id}-title`, tabindex: "-1" }, title);
  const save = element("button", { type: "button", class: "csv", click: () => saved() }, "CSV");
  const status = element("p", { class: "status", role: "status" });
  const tools = element("div");
  const body = element("div", { class: "body" });
  const head = element("div", { class: "head" }, heading, save);
  const about = note ? element("p", { class: "quiet note" }, note) : null;
  const node = element(
    "section",
    { id, class: wide ? "panel wide" : "panel", "aria-labelledby": heading.id },
    head,
    about,
    tools,
    status,
    body,
  );
  let asked = [];

  async function saved() {
    try {
      download(await askCsv(asked[0]), `tollmesh-${id}.csv`);
    } catch (error) {
      status.textContent = words(error);
    }
  }

  async function load(context) {
    if (!late) return loadNow(context);
    body.replaceChildren();
    // Whoever waits for the page need not wait for this; a token that is missing others tell of.
    whenNear(node, context.signal, () => loadNow(context).catch(() => {}));
  }

  async function loadNow(seen, within = WITHIN) {
    const context = { ...seen, within };
    asked = questions(context);
    tools.replaceChildren(choices?.(context) ?? "");
    node.setAttribute("aria-busy", "true");
    try {
      const answers = await Promise.all(asked.map((one) => askOnce(one, context)));
      const drawn = draw(answers, context);
      node.hidden = drawn === null;
      body.replaceChildren(drawn ?? "");
      performance.mark(`drawn ${id}`);
      const cut = answers.find((answer) => answer?.looked_at);
      status.replaceChildren(cut ? lookedAt(cut.looked_at, () => loadNow(seen, null).catch(() => {})) : "");
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error instanceof Refused && error.status === 401) throw error;
      node.hidden = false;
      body.replaceChildren();
      status.textContent = words(error);
    }
    node.removeAttribute("aria-busy");
  }

  return { id, node, load };
}

/** Panels that ask the same share the answer. */
function askOnce(asked, { answers, signal }) {
  const key = JSON.stringify(asked);
  if (!answers.has(key)) answers.set(key, ask(asked, signal));
  return answers.get(key);
}

/** How far below the window a panel may be to be as good as seen. */
const NEAR = "300px";

function whenNear(node, signal, then) {
  const observer = new IntersectionObserver(
    (entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      then();
    },
    { rootMargin: NEAR },
  );
  observer.observe(node);
  signal.addEventListener("abort", () => observer.disconnect());
}

/** Says of which hours an answer is, and has all of them looked at on request. */
function lookedAt({ hours, of_hours, from }, lookAtAll) {
  const which = from ? `calls since ${from.slice(0, 16).replace("T", " ")}` : "the hours with the highest calls";
  const words = `Of ${which}: ${count(hours)} of ${count(of_hours)} hours were looked at. `;
  const all = element("button", { type: "button", class: "link", click: lookAtAll }, "Look at all");
  return element("span", { class: "looked-at" }, words, all);
}

/** Says that there is nothing. */
export function nothing(what) {
  return element("p", { class: "quiet" }, what);
}

function words(error) {
  return error instanceof Refused ? error.message : `no answer: ${error.message}`;
}

function download(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = element("a", { href: url, download: name });
  link.click();
  // The download has its own hold of the bytes once it has begun.
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
