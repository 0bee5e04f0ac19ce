// Spend over time, stacked by what people choose.

import { question } from "./api.js";
import { iso, narrowed } from "./address.js";
import { chart, colour } from "./chart.js";
import { element } from "./element.js";
import { decimal, percent, pico, roughly, share, usd } from "./exact.js";
import { nothing, panel } from "./panel.js";
import { shortened } from "./table.js";

/** Groups with a colour of their own; the others are one. */
const GROUPS_MAX = 8;

/** What the stack can be made of with one click; any other tag goes into the field. */
const CHOICES = ["model", "provider", "team", "feature", "environment", "namespace"];

export const trend = panel({
  id: "trend",
  title: "Spend over time",
  wide: true,
  choices,
  questions: ({ view, span, filters, spanPairs, within }) => [
    question("/api/v1/spend", [["by", view.by], ["interval", span.interval], ...spanPairs, ...filters, ["within", within]]),
  ],
  draw: ([answer], context) => {
    const { items } = answer;
    if (items.length === 0) return nothing("No calls in this span.");
    const starts = everyStart(items, context);
    const groups = grouped(items, context.view.by, starts);
    const legend = element("ul", { class: "legend" });
    const show = (index) => legend.replaceChildren(...groups.map((group, n) => entry(group, n, index, context)));
    show(null);
    const drawn = chart({
      label: `Spend over time by ${context.view.by}, stacked bars; the same figures are in the table below`,
      starts,
      series: groups.map(({ sums }) => ({ values: sums.map(roughly) })),
      kind: "bars",
      written: (tick) => `$${Number(tick.toPrecision(6))}`,
      onHover: show,
      onPoint: (index, n) => {
        const group = n === null ? null : groups[n];
        const view = group?.isOne ? narrowed(context.view, context.view.by, group.value) : context.view;
        context.toCalls(within(view, starts[index], context.span.intervalMs));
      },
      onSpan: (from, to) => context.go({ ...context.view, from: iso(from), to: iso(to) }),
    });
    return element("div", {}, drawn, legend, figures(starts, groups, context));
  },
});

/** Each interval from the first to the last, also those without calls. */
function everyStart(items, { span }) {
  const known = items.map((item) => Date.parse(item.start));
  const [first, last] = [Math.min(...known), Math.max(...known)];
  const begin = Math.floor(Date.parse(span.from) / span.intervalMs) * span.intervalMs;
  const end = span.to ? Math.ceil(Date.parse(span.to) / span.intervalMs - 1) * span.intervalMs : last;
  const starts = [];
  for (let at = Math.min(begin, first); at <= Math.max(end, last); at += span.intervalMs) starts.push(at);
  return starts;
}

/** The dearest groups, each with its sums by interval, and the rest together. */
function grouped(items, by, starts) {
  const places = new Map(starts.map((start, n) => [start, n]));
  const empty = () => starts.map(() => 0n);
  const groups = new Map();
  for (const item of items) {
    const value = item[by];
    if (!groups.has(value)) groups.set(value, { value, isOne: true, isPriced: false, total: 0n, sums: empty() });
    const group = groups.get(value);
    const cost = pico(item.cost_usd);
    group.total += cost;
    group.isPriced ||= item.unpriced_requests < item.requests;
    group.sums[places.get(Date.parse(item.start))] += cost;
  }
  const sorted = [...groups.values()].sort((a, b) => (a.total < b.total ? 1 : -1));
  const rest = sorted.slice(GROUPS_MAX);
  const shown = sorted.slice(0, GROUPS_MAX).map((group) => ({ ...group, name: group.value ?? `no ${by}` }));
  if (rest.length === 0) return shown;
  const sums = empty().map((_, n) => rest.reduce((sum, group) => sum + group.sums[n], 0n));
  const total = rest.reduce((sum, group) => sum + group.total, 0n);
  return [...shown, { name: `${rest.length} others`, isOne: false, isPriced: true, total, sums }];
}

/** A group in the legend: what it cost in all, or in the interval that is pointed at. */
function entry(group, n, index, context) {
  const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
  swatch.style.background = colour(n);
  const cost = index === null ? group.total : group.sums[index];
  const name = group.isOne
    ? context.link(narrowed(context.view, context.view.by, group.value), group.name)
    : element("span", {}, group.name);
  const shown = group.isPriced ? usd(cost) : "unpriced";
  return element("li", {}, swatch, name, element("span", { class: "n", title: `$${decimal(cost)}` }, shown));
}

function within(view, start, intervalMs) {
  return { ...view, from: iso(start), to: iso(start + intervalMs) };
}

function choices(context) {
  const { view } = context;
  const links = CHOICES.map((by) =>
    context.link({ ...view, by }, by, { "aria-current": view.by === by ? "true" : null }),
  );
  const field = element("input", {
    name: "by",
    list: "names",
    value: CHOICES.includes(view.by) ? "" : view.by,
    placeholder: "any tag",
    "aria-label": "Stack by any tag or column",
  });
  const form = element("form", { class: "by" }, field);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (field.value.trim()) context.go({ ...view, by: field.value.trim() });
  });
  return element("nav", { class: "choices", "aria-label": "Stack by" }, "by ", links, form);
}

function figures(starts, groups, context) {
  const whole = groups.reduce((sum, group) => sum + group.total, 0n);
  const rows = starts.map((start, n) => ({
    start,
    total: groups.reduce((sum, group) => sum + group.sums[n], 0n),
  }));
  const columns = [
    {
      name: "From",
      cell: ({ start }) => {
        const view = within(context.view, start, context.span.intervalMs);
        return context.link(view, iso(start).replace("T", " ").replace(":00Z", ""), {}, "calls");
      },
    },
    { name: "Spend", number: true, cell: ({ total }) => element("span", { title: `$${decimal(total)}` }, usd(total)) },
    { name: "Share", number: true, cell: ({ total }) => percent(share(total, whole)) },
  ];
  const table = shortened("Spend by interval", columns, rows.toReversed(), 12);
  return element("details", {}, element("summary", {}, "As a table"), table);
}
