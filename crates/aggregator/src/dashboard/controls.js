// What people choose with: the span of time, conditions, refresh, sign-out.

import { hasToken, keepToken } from "./api.js";
import { RANGES } from "./address.js";
import { element } from "./element.js";

/** What calls can be told apart by without a tag. */
const COLUMNS = [
  "model",
  "provider",
  "namespace",
  "workload",
  "service_account",
  "outcome",
  "api",
  "host",
  "model_requested",
  "service_tier",
  "usage_source",
  "cost_status",
  "pod",
  "node",
  "cluster",
];

/** Tags that most people set. */
const TAGS = ["team", "feature", "environment", "user", "cost_center", "workflow", "session_id"];

/** Shows the controls of a view. */
export function showControls(place, view, go) {
  const names = [...TAGS, ...COLUMNS].map((name) => element("option", { value: name }));
  place.replaceChildren(
    element("datalist", { id: "names" }, names),
    element("div", { class: "row" }, rangeOf(view, go), spanOf(view, go), buttons(view, go)),
    element("div", { class: "row" }, chips(view, go), adding(view, go)),
  );
}

function rangeOf(view, go) {
  const options = [...RANGES].map(([key, { name }]) =>
    element("option", { value: key, selected: !view.from && view.range === key }, name),
  );
  if (view.from) options.push(element("option", { value: "", selected: true }, "own span"));
  const choose = element("select", { id: "range", "aria-label": "Span of time" }, options);
  choose.addEventListener("change", () => {
    if (choose.value) go({ ...view, range: choose.value, from: null, to: null });
  });
  return choose;
}

function spanOf(view, go) {
  const at = (name, value) =>
    element("input", { type: "datetime-local", name, value: minutes(value), "aria-label": `${name} (UTC)` });
  const from = at("from", view.from);
  const to = at("to", view.to);
  const form = element(
    "form",
    { class: "span" },
    from,
    element("span", { "aria-hidden": "true" }, "–"),
    to,
    element("button", { type: "submit" }, "Show"),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (from.value) go({ ...view, from: `${from.value}Z`, to: to.value ? `${to.value}Z` : null });
  });
  const closed = element("details", { open: Boolean(view.from) }, element("summary", {}, "From, to"), form);
  return closed;
}

/** An instant as the field has it, without zone and seconds. */
function minutes(text) {
  const ms = Date.parse(text ?? "");
  return Number.isNaN(ms) ? "" : new Date(ms).toISOString().slice(0, 16);
}

function buttons(view, go) {
  const refresh = element("button", { type: "button", id: "refresh", click: () => go(view) }, "Refresh");
  if (!hasToken()) return [refresh];
  const forget = () => {
    keepToken(null);
    go(view);
  };
  return [refresh, element("button", { type: "button", id: "sign-out", click: forget }, "Sign out")];
}

function chips(view, go) {
  return view.where.map(([name, value], n) => {
    const shown = value === "" ? `no ${name}` : `${name}: ${value}`;
    const remove = () => go({ ...view, where: view.where.filter((_, other) => other !== n) });
    return element(
      "button",
      { type: "button", class: "chip", click: remove, "aria-label": `Remove the condition ${shown}` },
      shown,
      element("span", { "aria-hidden": "true" }, " ×"),
    );
  });
}

function adding(view, go) {
  const name = element("input", {
    name: "name",
    list: "names",
    placeholder: "tag or column",
    "aria-label": "Tag or column",
    required: true,
    pattern: "[^:]+",
  });
  const value = element("input", {
    name: "value",
    placeholder: "value; empty: without",
    "aria-label": "Value; empty for calls without it",
  });
  const add = element("button", { type: "submit" }, "Filter");
  const form = element("form", { id: "filter", class: "filter" }, name, value, add);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    go({ ...view, where: [...view.where, [name.value.trim(), value.value]] });
  });
  return form;
}
