// The dashboard: reads the URL, shows the controls, and has every panel ask and draw.

import { read, span, written } from "./address.js";
import { hasToken, keepToken, Refused } from "./api.js";
import { breakdown } from "./breakdown.js";
import { budgets } from "./budgets.js";
import { calls } from "./calls.js";
import { comparison } from "./comparison.js";
import { showControls } from "./controls.js";
import { coverage } from "./coverage.js";
import { element } from "./element.js";
import { outcomes } from "./outcomes.js";
import { showSignIn } from "./signin.js";
import { summary } from "./summary.js";
import { tokens } from "./tokens.js";
import { trend } from "./trend.js";

const PANELS = [
  summary,
  trend,
  budgets,
  breakdown("by-feature", "By feature", () => "feature"),
  breakdown("by-model", "By model", () => "model"),
  breakdown("by-team", "By team", () => "team"),
  breakdown("by-environment", "By environment", () => "environment"),
  breakdown("by-tag", "By any tag or column", (view) => view.tag),
  coverage,
  calls,
  comparison,
  tokens,
  outcomes,
];

const controls = document.getElementById("controls");
const panels = document.getElementById("panels");
const signIn = document.getElementById("sign-in");
let running = new AbortController();

/** Goes to a view; `focus` is the id of what to look at there. */
function go(view, focus) {
  const search = written(view);
  if (search !== location.search && !(search === "?" && location.search === "")) {
    history.pushState(null, "", search);
  }
  show(focus);
}

/** A link to a view. It is a real one: it can be copied, and opened elsewhere. */
function link(view, text, attributes = {}, focus = undefined) {
  const follow = (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    go(view, focus);
  };
  return element("a", { href: written(view), click: follow, ...attributes }, text);
}

async function show(focus) {
  running.abort();
  running = new AbortController();
  const view = read(location.search);
  const before = named(document.activeElement);
  const context = {
    view,
    span: span(view, Date.now()),
    filters: view.where.map(([name, value]) => ["where", `${name}:${value}`]),
    signal: running.signal,
    answers: new Map(),
    go,
    link,
    toCalls: (narrower) => go({ ...narrower, list: "requests" }, "calls"),
  };
  showControls(controls, view, go);
  if (context.span === null) {
    panels.replaceChildren(element("p", { class: "status", role: "alert" }, "The span in the URL has no length, or is none."));
    return;
  }
  context.spanPairs = [["from", context.span.from], ["to", context.span.to]];
  if (panels.firstElementChild !== PANELS[0].node) panels.replaceChildren(...PANELS.map(({ node }) => node));
  panels.hidden = false;
  signIn.replaceChildren();
  try {
    await loaded(context, focus, before);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    askForToken();
  }
}

/** Has every panel ask and draw; `before` names what had the keyboard's focus. */
async function loaded(context, focus, before) {
  document.body.dataset.state = "loading";
  const loads = PANELS.map((one) => one.load(context));
  if (focus) looked(focus);
  else refocused(before);
  await Promise.all(loads);
  if (context.signal.aborted) return;
  document.body.dataset.state = "ready";
  performance.mark("drawn");
  // What came in above it has moved it; whoever went elsewhere meanwhile is left there.
  if (focus && document.activeElement?.id.startsWith(focus)) looked(focus);
}

function looked(focus) {
  const heading = document.getElementById(`${focus}-title`) ?? document.getElementById(focus);
  heading?.focus({ preventScroll: true });
  heading?.scrollIntoView({ block: "start" });
}

/** What tells a control from the others, also once it is made anew. */
function named(node) {
  if (!node || node === document.body) return null;
  const text = node.matches("a, button") ? node.textContent : "";
  return [node.closest("[id]:not(a, button, input, select)")?.id, node.tagName, node.id, node.name, text].join("|");
}

/** Whoever works by keyboard stays where they were. */
function refocused(before) {
  if (before === null || named(document.activeElement) === before) return;
  const all = [...document.querySelectorAll("a, button, input, select")];
  all.find((node) => named(node) === before)?.focus({ preventScroll: true });
}

function askForToken() {
  running.abort();
  const refused = hasToken();
  keepToken(null);
  panels.hidden = true;
  controls.replaceChildren();
  document.body.dataset.state = "signed-out";
  showSignIn(signIn, refused, () => show());
}

addEventListener("popstate", () => show());
show();
