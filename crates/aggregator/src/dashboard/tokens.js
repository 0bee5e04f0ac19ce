// Tokens by bucket, and how much of the input came from a cache.

import { question } from "./api.js";
import { chart } from "./chart.js";
import { bar, element } from "./element.js";
import { compact, count, percent } from "./exact.js";
import { nothing, panel } from "./panel.js";
import { table } from "./table.js";

export const tokens = panel({
  id: "tokens",
  title: "Tokens by bucket",
  note: "Every token is in one bucket. The hit rate is the share of the input that was read from a cache.",
  wide: true,
  questions: ({ span, filters, spanPairs, within }) => [
    question("/api/v1/spend", [["interval", span.interval], ...spanPairs, ...filters, ["within", within]]),
  ],
  draw: ([answer]) => {
    const sums = new Map();
    for (const item of answer.items) {
      for (const [bucket, n] of Object.entries(item.buckets)) sums.set(bucket, (sums.get(bucket) ?? 0) + n);
    }
    if (sums.size === 0) return nothing("No tokens in this span.");
    return element("div", { class: "halves" }, buckets(sums), hitRate(answer.items));
  },
});

function buckets(sums) {
  const rows = [...sums].map(([name, n]) => ({ name, n })).sort((a, b) => b.n - a.n);
  const whole = rows.reduce((sum, { n }) => sum + n, 0);
  const most = rows[0].n;
  return table(
    "Tokens by bucket",
    [
      { name: "Bucket", cell: ({ name, n }) => element("span", { class: "named" }, name, bar(n / most)) },
      { name: "Tokens", number: true, cell: ({ n }) => element("span", { title: count(n) }, compact(n)) },
      { name: "Share", number: true, cell: ({ n }) => percent(n / whole) },
    ],
    rows,
  );
}

function hitRate(items) {
  const known = items.filter((item) => item.input_tokens > 0);
  const sum = (name) => known.reduce((total, item) => total + item[name], 0);
  const input = sum("input_tokens");
  const rate = input === 0 ? 0 : sum("cache_read_tokens") / input;
  const line = chart({
    label: `Cache hit rate over time; ${percent(rate)} in all`,
    starts: known.map((item) => Date.parse(item.start)),
    series: [{ values: known.map((item) => item.cache_read_tokens / item.input_tokens) }],
    kind: "line",
    written: (tick) => `${Math.round(tick * 100)} %`,
  });
  const figure = element("span", { class: "figure" }, percent(rate));
  return element("div", {}, element("p", {}, "Cache hit rate ", figure), known.length > 1 ? line : null);
}
