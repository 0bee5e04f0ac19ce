// Budgets: spent and reserved against the limit, the tier in force, and where the window will end.

import { question } from "./api.js";
import { bar, element } from "./element.js";
import { decimal, grouped, pico, share, usd } from "./exact.js";
import { panel } from "./panel.js";
import { shortened } from "./table.js";

/** Rows that are shown at once: a budget can have a row for each user. */
const ROWS_MAX = 12;

export const budgets = panel({
  id: "budgets",
  title: "Budgets",
  wide: true,
  questions: () => [question("/api/v1/budgets", [])],
  // An aggregator without budgets answers an empty list, one without enforcement nothing at all.
  draw: ([answer]) =>
    answer?.items.length ? shortened("Budgets", COLUMNS, answer.items.map(read), ROWS_MAX) : null,
});

const COLUMNS = [
  { name: "Budget", cell: named },
  { name: "Spent", number: true, cell: ({ item, spent }) => amount(item, spent) },
  { name: "Reserved", number: true, minor: true, cell: ({ item, reserved }) => amount(item, reserved) },
  { name: "Limit", number: true, cell: ({ item, limit }) => amount(item, limit) },
  { name: "At the end", number: true, cell: projected },
  { name: "In force", cell: inForce },
  { name: "Denied", number: true, minor: true, cell: ({ item }) => grouped(item.denied ?? 0) },
];

function read(item) {
  const of = (text) => (text === null || text === undefined ? null : pico(text));
  return { item, spent: of(item.spent), reserved: of(item.reserved), limit: of(item.limit), projected: of(item.projected) };
}

function named({ item, spent, reserved, limit }) {
  const key = Object.entries(item.key ?? {}).map(([name, value]) => `${name}: ${value ?? "none"}`).join(", ");
  const used = limit === null ? 0 : share((spent ?? 0n) + (reserved ?? 0n), limit);
  const kind = used >= 1 ? "over" : used >= 0.85 ? "warning" : "";
  return element(
    "span",
    { class: "named" },
    element("strong", {}, item.budget),
    key ? element("span", { class: "quiet" }, ` ${key}`) : null,
    window(item.window),
    bar(used, kind),
  );
}

function window(span) {
  if (!span) return null;
  const day = (text) => String(text ?? "").slice(0, 16).replace("T", " ");
  return element("span", { class: "quiet block" }, `${day(span.start)} – ${day(span.end)}`);
}

function amount(item, value) {
  if (value === null) return "–";
  const isMoney = String(item.unit).toUpperCase() === "USD";
  const text = isMoney ? usd(value) : `${grouped(decimal(value))} ${item.unit}`;
  return element("span", { title: isMoney ? `$${decimal(value)}` : text }, text);
}

function projected(row) {
  const shown = amount(row.item, row.projected);
  const exceeds = row.projected !== null && row.limit !== null && row.projected > row.limit;
  return exceeds ? element("span", { class: "over" }, shown) : shown;
}

function inForce({ item }) {
  const words = [item.tier, item.action].filter((word) => word !== null && word !== undefined && word !== "");
  const waits = item.granting_from ? ` from ${item.granting_from}` : "";
  return `${words.join(" ") || "–"}${waits}`;
}
