// The frame of a panel: its heading, its questions, its CSV, and what it says while it waits.

import { ask, askCsv, Refused } from "./api.js";
import { element } from "./element.js";

/**
 * Makes a panel. `questions(context)` names what to ask; `draw(answers, context)` makes its content
 * of the answers, or null where there is nothing to show and the panel is to be hidden.
 */
export function panel({ id, title, note, wide, questions, draw }) {
  const heading = element("h2", { id: `${id}-title`, tabindex: "-1" }, title);
  const save = element("button", { type: "button", class: "csv", click: () => saved() }, "CSV");
  const status = element("p", { class: "status", role: "status" });
  const body = element("div", { class: "body" });
  const head = element("div", { class: "head" }, heading, save);
  const about = note ? element("p", { class: "quiet note" }, note) : null;
  const node = element(
    "section",
    { id, class: wide ? "panel wide" : "panel", "aria-labelledby": heading.id },
    head,
    about,
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
    asked = questions(context);
    node.setAttribute("aria-busy", "true");
    try {
      const answers = await Promise.all(asked.map((one) => ask(one, context.signal)));
      const drawn = draw(answers, context);
      node.hidden = drawn === null;
      body.replaceChildren(drawn ?? "");
      performance.mark(`drawn ${id}`);
      status.textContent = "";
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
