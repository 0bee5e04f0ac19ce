// How well calls are known: without tag, price or counts.

import { question } from "./api.js";
import { narrowed } from "./address.js";
import { bar } from "./element.js";
import { count, percent } from "./exact.js";
import { nothing, panel } from "./panel.js";
import { table } from "./table.js";

const KINDS = [
  ["without a price", "unpriced_requests", [["cost_status", "unpriced"]]],
  ["at an assumed rate", "assumed_requests", [["cost_status", "assumed"]]],
  ["with estimated counts", "estimated_requests", [["usage_source", "estimated"]]],
  ["without counts", "absent_requests", [["usage_source", "absent"], ["cost_status", "unpriced"]]],
];

export const coverage = panel({
  id: "coverage",
  title: "How well calls are known",
  questions: ({ filters, spanPairs }) => [question("/api/v1/coverage", [...spanPairs, ...filters])],
  draw: ([answer], context) => {
    const known = answer.items[0];
    if (known.requests === 0) return nothing("No calls in this span.");
    const kinds = KINDS.map(([text, field, where]) => ({ text, n: known[field], where }));
    const tags = Object.entries(known.untagged_requests);
    const rows = [...tags.map(([tag, n]) => ({ text: `without ${tag}`, n, where: [[tag, ""]] })), ...kinds];
    const columns = [
      {
        name: "Requests",
        cell: ({ text, n, where }) => {
          const view = where.reduce((view, [name, value]) => narrowed(view, name, value), context.view);
          const link = context.link(view, text, {}, "calls");
          link.append(bar(n / known.requests, "warning"));
          return link;
        },
      },
      { name: "Number", number: true, cell: ({ n }) => count(n) },
      { name: "Share", number: true, cell: ({ n }) => percent(n / known.requests) },
    ];
    return table("How well calls are known", columns, rows);
  },
});
