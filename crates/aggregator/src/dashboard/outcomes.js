// What became of calls, and what one such outcome costs.

import { question } from "./api.js";
import { narrowed } from "./address.js";
import { element } from "./element.js";
import { count, pico, usd } from "./exact.js";
import { nothing, panel } from "./panel.js";
import { shortened } from "./table.js";

const ROWS_MAX = 12;

export const outcomes = panel({
  id: "outcomes",
  title: "Cost per outcome",
  late: true,
  note: "Of one outcome by itself, and of all that was spent in the feature for it, failed tries included.",
  questions: ({ filters, spanPairs, within }) => [
    question("/api/v1/outcomes", [["by", "feature"], ...spanPairs, ...filters, ["within", within]]),
  ],
  draw: ([answer], context) => {
    const told = answer.items.filter((item) => item.outcomes > 0);
    if (told.length === 0) return nothing("Nobody told an outcome in this span: POST /api/v1/outcomes.");
    return shortened("Cost per outcome", columns(context), told, ROWS_MAX);
  },
});

function columns(context) {
  const amount = (text) => (text === null ? "–" : element("span", { title: `$${text}` }, usd(pico(text))));
  return [
    {
      name: "Feature",
      cell: ({ feature }) => context.link(narrowed(context.view, "feature", feature), feature ?? "no feature", {}, "calls"),
    },
    { name: "Outcome", cell: ({ outcome_label }) => outcome_label ?? "–" },
    { name: "Number", number: true, cell: ({ outcomes }) => count(outcomes) },
    { name: "Each", number: true, cell: ({ cost_per_outcome_usd }) => amount(cost_per_outcome_usd) },
    { name: "All spend for one", number: true, cell: ({ spend_per_outcome_usd }) => amount(spend_per_outcome_usd) },
  ];
}
