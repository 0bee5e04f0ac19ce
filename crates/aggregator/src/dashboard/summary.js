// The figures on top: spend against the period before, requests, tokens, and what is not known.

import { question } from "./api.js";
import { element } from "./element.js";
import { compact, count, decimal, percent, pico, share, signed, usd } from "./exact.js";
import { nothing, panel } from "./panel.js";

export const summary = panel({
  id: "summary",
  title: "In all",
  wide: true,
  questions: ({ filters, spanPairs }) => [
    question("/api/v1/spend", [...spanPairs, ...filters, ["compare", "previous"]]),
    question("/api/v1/coverage", [...spanPairs, ...filters]),
  ],
  draw: ([compared, coverage]) => {
    const row = compared.items[0];
    if (!row || row.requests_after === 0) return nothing("No calls in this span.");
    const known = coverage.items[0];
    return element("dl", { class: "tiles" }, [
      spend(row),
      tile("Requests", compact(row.requests_after), count(row.requests_after), before(row, "requests")),
      mean(row),
      tile("Tokens in", compact(row.input_tokens_after), count(row.input_tokens_after), before(row, "input_tokens")),
      tile("Tokens out", compact(row.output_tokens_after), count(row.output_tokens_after), before(row, "output_tokens")),
      cached(row),
      unknown("Unpriced", known.unpriced_requests, known.requests),
      unknown("Estimated", known.estimated_requests, known.requests),
      ...Object.entries(known.untagged_requests).map(([tag, n]) => unknown(`No ${tag}`, n, known.requests)),
    ]);
  },
});

function spend(row) {
  const [before, after] = [pico(row.cost_before_usd), pico(row.cost_after_usd)];
  const change = before === 0n ? "nothing before" : `${signed(after - before)} (${percentOf(after - before, before)})`;
  return tile("Spend", usd(after), `$${decimal(after)}`, change);
}

function percentOf(part, whole) {
  const ratio = share(part, whole);
  return `${ratio > 0 ? "+" : ""}${percent(ratio)}`;
}

function before(row, name) {
  const n = row[`${name}_before`];
  if (n === 0) return "none before";
  const ratio = row[`${name}_difference`] / n;
  return `${ratio > 0 ? "+" : ""}${percent(ratio)}`;
}

function mean(row) {
  const each = pico(row.cost_after_usd) / BigInt(row.requests_after);
  return tile("Per request", usd(each), `$${decimal(each)}`, "mean");
}

function cached(row) {
  const rate = (read, all) => (all === 0 ? 0 : read / all);
  const now = rate(row.cache_read_tokens_after, row.input_tokens_after);
  const then = rate(row.cache_read_tokens_before, row.input_tokens_before);
  return tile("Cache hit rate", percent(now), `${count(row.cache_read_tokens_after)} tokens`, `${percent(then)} before`);
}

function unknown(name, n, all) {
  return tile(name, percent(all === 0 ? 0 : n / all), `${count(n)} of ${count(all)} requests`, `${count(n)} requests`);
}

function tile(name, value, whole, note) {
  return element(
    "div",
    { class: "tile" },
    element("dt", {}, name),
    element("dd", { class: "figure", title: whole }, value),
    element("dd", { class: "quiet" }, note),
  );
}
