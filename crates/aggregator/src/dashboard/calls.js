// Outliers: the highest-cost requests, sessions and traces, page by page.

import { ask, question } from "./api.js";
import { iso, LISTS, narrowed } from "./address.js";
import { showDetail } from "./detail.js";
import { element } from "./element.js";
import { compact, count, pico, usd } from "./exact.js";
import { nothing, panel } from "./panel.js";
import { table } from "./table.js";

/** Rows on a page. */
const PAGE_ROWS = 25;

const SORTS = {
  requests: ["cost", "time", "duration", "tokens"],
  sessions: ["cost", "requests", "tokens", "retries", "span", "time"],
  traces: ["cost", "requests", "tokens", "retries", "span", "time"],
};

export const calls = panel({
  id: "calls",
  title: "Outliers",
  wide: true,
  choices,
  questions: (context) => [listed(context, null)],
  draw: ([answer], context) => {
    if (answer.items.length === 0) return nothing(lacking(context.view));
    const place = element("div", { class: "pages" });
    append(place, answer, context);
    return place;
  },
});

function listed({ view, filters, spanPairs, within }, cursor) {
  const tag = view.list === "sessions" ? view.session : null;
  const order = [["sort", sortOf(view)], ["limit", PAGE_ROWS], ["tag", tag]];
  const pairs = [...order, ["cursor", cursor], ["within", within]];
  return question(`/api/v1/${view.list}`, [...pairs, ...spanPairs, ...filters]);
}

/** What does not fit the list is its first order: the cost. */
function sortOf({ list, sort }) {
  return SORTS[list].includes(sort) ? sort : "cost";
}

function append(place, answer, context) {
  const columns = context.view.list === "requests" ? ofRequests(context) : ofUnits(context);
  place.append(table(`Outliers: ${context.view.list}`, columns, answer.items));
  if (answer.next_cursor === null) return;
  const more = element("button", { type: "button", class: "more" }, "More");
  more.addEventListener("click", async () => {
    const next = await ask(listed(context, answer.next_cursor), context.signal).catch(() => null);
    if (next === null) return;
    more.remove();
    append(place, next, context);
  });
  place.append(more);
}

function choices(context) {
  const { view } = context;
  const lists = LISTS.map((list) =>
    context.link({ ...view, list }, list, { "aria-current": view.list === list ? "true" : null }, "calls"),
  );
  const options = SORTS[view.list].map((sort) =>
    element("option", { value: sort, selected: sort === sortOf(view) }, sort),
  );
  const sort = element("select", { id: "sort", "aria-label": "Highest first by" }, options);
  sort.addEventListener("change", () => context.go({ ...view, sort: sort.value }, "sort"));
  const tag = view.list === "sessions" ? sessionTag(context) : null;
  return element("nav", { class: "choices", "aria-label": "Outliers" }, lists, " highest ", sort, tag);
}

function sessionTag({ view, go }) {
  const field = element("input", { name: "session", list: "names", value: view.session, "aria-label": "Tag with the session's id" });
  const form = element("form", { class: "by" }, field);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (field.value.trim()) go({ ...view, session: field.value.trim() });
  });
  return form;
}

function lacking(view) {
  if (view.list === "sessions") return `No call in this span has the tag ${view.session}.`;
  if (view.list === "traces") return "No call in this span has a trace id.";
  return "No calls in this span.";
}

function cost(text) {
  return text === null
    ? element("span", { class: "warn" }, "unpriced")
    : element("span", { title: `$${text}` }, usd(pico(text)));
}

function at(time) {
  return String(time).slice(0, 19).replace("T", " ");
}

function ofRequests() {
  const tags = (item) =>
    Object.entries(item.tags).map(([name, value]) => element("span", { class: "tag" }, `${name}: ${value}`));
  return [
    {
      name: "Time",
      cell: (item) => element("button", { type: "button", class: "link", click: () => showDetail(item) }, at(item.time)),
    },
    { name: "Cost", number: true, cell: (item) => cost(item.cost_usd) },
    { name: "Model", cell: (item) => item.model ?? item.model_requested ?? "–" },
    { name: "Tags", cell: (item) => element("span", { class: "tags" }, tags(item)) },
    { name: "In", number: true, minor: true, cell: (item) => compact(item.input_tokens) },
    { name: "Out", number: true, minor: true, cell: (item) => compact(item.output_tokens) },
    { name: "Seconds", number: true, minor: true, cell: (item) => (item.duration_ms / 1_000).toFixed(1) },
    { name: "Outcome", minor: true, cell: (item) => item.outcome_label ?? item.outcome },
  ];
}

function ofUnits(context) {
  const isTrace = context.view.list === "traces";
  const name = isTrace ? "trace_id" : context.view.session;
  const id = (item) => (isTrace ? item.trace_id : item.session);
  // A trace's calls are found by their time, which is known: no index leads to them.
  const during = (item) => ({ from: item.first, to: iso(Date.parse(item.last) + 1) });
  const requests = (item) => narrowed({ ...context.view, ...during(item), list: "requests" }, name, id(item));
  return [
    { name: isTrace ? "Trace" : "Session", cell: (item) => context.link(requests(item), id(item), { class: "id" }, "calls") },
    { name: "Cost", number: true, cell: (item) => cost(item.cost_usd) },
    { name: "Requests", number: true, cell: (item) => count(item.requests) },
    { name: "Retries", number: true, minor: true, cell: (item) => count(item.retries + item.repeated_requests) },
    { name: "Failed", number: true, minor: true, cell: (item) => count(item.failed_requests) },
    { name: "In", number: true, minor: true, cell: (item) => compact(item.input_tokens) },
    { name: "Out", number: true, minor: true, cell: (item) => compact(item.output_tokens) },
    { name: "First", minor: true, cell: (item) => at(item.first) },
    { name: "Minutes", number: true, minor: true, cell: (item) => (item.span_ms / 60_000).toFixed(1) },
  ];
}
