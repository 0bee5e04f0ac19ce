// This period against the one before, group by group, the largest change first.

import { question } from "./api.js";
import { narrowed } from "./address.js";
import { bar, element } from "./element.js";
import { count, decimal, percent, pico, share, signed, usd } from "./exact.js";
import { nothing, panel } from "./panel.js";
import { shortened } from "./table.js";

const ROWS_MAX = 10;

export const comparison = panel({
  id: "comparison",
  title: "Against the period before",
  note: "The same length of time, just before. Grouped as the chart on top is.",
  wide: true,
  questions: ({ view, filters, spanPairs }) => [
    question("/api/v1/spend", [["by", view.by], ...spanPairs, ...filters, ["compare", "previous"]]),
  ],
  draw: ([answer], context) => {
    const size = ({ difference }) => (difference < 0n ? -difference : difference);
    const rows = answer.items.map(read).sort((a, b) => (size(a) < size(b) ? 1 : -1));
    if (rows.length === 0) return nothing("No calls in either period.");
    const most = rows.reduce((max, row) => (size(row) > max ? size(row) : max), 0n);
    return shortened("Spend against the period before", columns(most, size, context), rows, ROWS_MAX);
  },
});

function read(item) {
  return {
    item,
    before: pico(item.cost_before_usd),
    after: pico(item.cost_after_usd),
    difference: pico(item.difference_usd),
  };
}

function columns(most, size, context) {
  const by = context.view.by;
  const amount = (value, text) => element("span", { title: `$${decimal(value)}` }, text);
  return [
    {
      name: by,
      cell: (row) => {
        const value = row.item[by];
        const link = context.link(narrowed(context.view, by, value), value ?? `no ${by}`, {}, "calls");
        link.append(bar(share(size(row), most), row.difference < 0n ? "less" : "more"));
        return link;
      },
    },
    { name: "Before", number: true, minor: true, cell: ({ before }) => amount(before, usd(before)) },
    { name: "Now", number: true, cell: ({ after }) => amount(after, usd(after)) },
    { name: "Change", number: true, cell: ({ difference }) => amount(difference, signed(difference)) },
    { name: "%", number: true, cell: ({ before, difference }) => (before === 0n ? "new" : percent(share(difference, before))) },
    { name: "Requests", number: true, minor: true, cell: ({ item }) => `${count(item.requests_before)} → ${count(item.requests_after)}` },
  ];
}
