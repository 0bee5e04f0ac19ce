// One call, whole: where it came from, what was counted, and the lines that make up its cost.

import { element } from "./element.js";
import { grouped } from "./exact.js";
import { table } from "./table.js";

const FACTS = [
  "time", "provider", "api", "host", "model", "model_requested", "model_put", "service_tier", "status",
  "outcome",
  "outcome_label", "finish_reason", "usage_source", "estimate_basis", "cost_status", "unpriced_because",
  "original_cost_usd", "provider_cost_usd", "price_row", "pricing_version", "duration_ms", "ttft_ms",
  "attempts", "tool_calls", "trouble", "event_id", "request_id", "trace_id", "response_id",
];

/** Opens the dialog. */
export function showDetail(item) {
  const dialog = document.getElementById("detail");
  const close = element("button", { type: "button", autofocus: true, click: () => dialog.close() }, "Close");
  const title = item.cost_usd === null ? "Unpriced call" : `$${item.cost_usd}`;
  dialog.replaceChildren(
    element("div", { class: "head" }, element("h2", { id: "detail-title" }, title), close),
    lines(item),
    facts("Tags", Object.entries(item.tags)),
    facts("From the mesh", Object.entries(item.source)),
    facts("Tokens", Object.entries(item.buckets).map(([name, n]) => [name, grouped(n)])),
    facts("Call", FACTS.map((name) => [name, item[name]])),
  );
  dialog.showModal();
}

function lines(item) {
  if (!item.cost_lines?.length) return "";
  const columns = [
    { name: "What", cell: (line) => (line.assumed ? `${line.what} (assumed)` : line.what) },
    { name: "Amount", number: true, cell: (line) => grouped(line.amount) },
    { name: "Rate", number: true, cell: (line) => line.rate },
    { name: "Times", number: true, minor: true, cell: (line) => line.times },
    { name: "USD", number: true, cell: (line) => line.usd },
  ];
  return table("Lines of the cost", columns, item.cost_lines);
}

function facts(title, pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  if (known.length === 0) return "";
  const entries = known.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, String(value))]);
  return element("section", {}, element("h3", {}, title), element("dl", { class: "facts" }, entries));
}
