// Spend by one tag or column: a bar each, which leads to its calls.

import { question } from "./api.js";
import { narrowed } from "./address.js";
import { bar, element } from "./element.js";
import { count, decimal, percent, pico, share, usd } from "./exact.js";
import { nothing, panel } from "./panel.js";
import { shortened } from "./table.js";

/** Rows that are shown at once. */
const ROWS_MAX = 8;

/** A panel by that dimension, which may depend on the view. */
export function breakdown(id, title, dimension) {
  return panel({
    id,
    title,
    choices: id === "by-tag" ? tagField : undefined,
    questions: ({ view, filters, spanPairs, within }) => [
      question("/api/v1/spend", [["by", dimension(view)], ...spanPairs, ...filters, ["within", within]]),
    ],
    draw: ([answer], context) => {
      const by = dimension(context.view);
      const rows = answer.items.map((item) => ({ item, cost: pico(item.cost_usd) }));
      if (rows.length === 0) return nothing("No calls in this span.");
      return shortened(title, columns(by, rows, context), rows, ROWS_MAX);
    },
  });
}

function columns(by, rows, context) {
  const whole = rows.reduce((sum, { cost }) => sum + cost, 0n);
  const most = rows.reduce((max, { cost }) => (cost > max ? cost : max), 0n);
  return [
    {
      name: by,
      cell: ({ item, cost }) => {
        const value = item[by];
        const text = value ?? `no ${by}`;
        const link = context.link(narrowed(context.view, by, value), text, { class: value === null ? "none" : "" }, "calls");
        link.append(bar(share(cost, most)));
        return link;
      },
    },
    { name: "Spend", number: true, cell: ({ item, cost }) => spend(item, cost) },
    { name: "Share", number: true, cell: ({ cost }) => percent(share(cost, whole)) },
    { name: "Requests", number: true, minor: true, cell: ({ item }) => count(item.requests) },
  ];
}

/** What it cost; calls without a price are not in it, and are told. */
function spend(item, cost) {
  if (item.unpriced_requests === item.requests) return element("span", { class: "warn" }, "unpriced");
  const shown = element("span", { title: `$${decimal(cost)}` }, usd(cost));
  if (item.unpriced_requests === 0) return shown;
  const lacking = `+ ${count(item.unpriced_requests)} unpriced`;
  return element("span", {}, shown, element("span", { class: "warn block" }, lacking));
}

function tagField({ view, go }) {
  const field = element("input", {
    id: "tag",
    name: "tag",
    list: "names",
    value: view.tag,
    "aria-label": "Tag or column",
    required: true,
  });
  const form = element("form", { class: "by" }, field, element("button", { type: "submit" }, "Show"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    go({ ...view, tag: field.value.trim() });
  });
  return form;
}
