// What is looked at, as the URL says it: span of time, conditions, groupings, list.

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** The spans that can be chosen by name: their length, and the interval of their bars. */
export const RANGES = new Map([
  ["1h", { ms: HOUR, interval: "5m", name: "last hour" }],
  ["24h", { ms: DAY, interval: "1h", name: "last 24 hours" }],
  ["7d", { ms: 7 * DAY, interval: "6h", name: "last 7 days" }],
  ["30d", { ms: 30 * DAY, interval: "1d", name: "last 30 days" }],
  ["90d", { ms: 90 * DAY, interval: "1d", name: "last 90 days" }],
]);

const INTERVALS = new Map([
  ["1m", MINUTE],
  ["5m", 5 * MINUTE],
  ["1h", HOUR],
  ["6h", 6 * HOUR],
  ["1d", DAY],
  ["7d", 7 * DAY],
]);

/** Bars in a chart at most. */
const BARS_MAX = 120;

export const LISTS = ["requests", "sessions", "traces"];

const RANGE_DEFAULT = "24h";
const BY_DEFAULT = "model";
const SESSION_DEFAULT = "session_id";
const TAG_DEFAULT = "user";

/** What a URL's query asks for. */
export function read(search) {
  const query = new URLSearchParams(search);
  const where = query.getAll("where").map((condition) => {
    const at = condition.indexOf(":");
    return at < 0 ? [condition, ""] : [condition.slice(0, at), condition.slice(at + 1)];
  });
  const range = query.get("range");
  const list = query.get("list");
  return {
    range: RANGES.has(range) ? range : RANGE_DEFAULT,
    from: query.get("from"),
    to: query.get("to"),
    where: where.filter(([name]) => name),
    by: query.get("by") || BY_DEFAULT,
    tag: query.get("tag") || TAG_DEFAULT,
    list: LISTS.includes(list) ? list : LISTS[0],
    sort: query.get("sort") || "cost",
    session: query.get("session") || SESSION_DEFAULT,
  };
}

/** The URL's query for it; what is the default is left out. */
export function written(view) {
  const query = new URLSearchParams();
  if (view.from) {
    query.set("from", view.from);
    if (view.to) query.set("to", view.to);
  } else if (view.range !== RANGE_DEFAULT) {
    query.set("range", view.range);
  }
  for (const [name, value] of view.where) query.append("where", `${name}:${value}`);
  for (const [key, normal] of [
    ["by", BY_DEFAULT],
    ["tag", TAG_DEFAULT],
    ["list", LISTS[0]],
    ["sort", "cost"],
    ["session", SESSION_DEFAULT],
  ]) {
    if (view[key] !== normal) query.set(key, view[key]);
  }
  const text = query.toString();
  return text ? `?${text}` : "?";
}

/** The same view with one more condition; another one on the same name gives way. */
export function narrowed(view, name, value) {
  const others = view.where.filter(([other]) => other !== name);
  return { ...view, where: [...others, [name, value ?? ""]] };
}

/** The span as instants; `now` is the browser's clock. Named spans begin with a whole interval. */
export function span(view, now) {
  if (view.from) {
    const from = Date.parse(view.from);
    const to = view.to ? Date.parse(view.to) : null;
    if (Number.isNaN(from) || Number.isNaN(to) || (to !== null && to <= from)) return null;
    const length = (to ?? now) - from;
    const fits = ([, ms]) => length / ms <= BARS_MAX;
    const [interval, intervalMs] = [...INTERVALS].find(fits) ?? ["7d", 7 * DAY];
    return { from: iso(from), to: to === null ? null : iso(to), interval, intervalMs };
  }
  const { ms, interval } = RANGES.get(view.range);
  const intervalMs = INTERVALS.get(interval);
  const from = Math.floor((now - ms) / intervalMs) * intervalMs;
  return { from: iso(from), to: null, interval, intervalMs };
}

/** An instant as the API writes it, without the fraction that is none. */
export function iso(ms) {
  return new Date(ms).toISOString().replace(".000Z", "Z");
}
