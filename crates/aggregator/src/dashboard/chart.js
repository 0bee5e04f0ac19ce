// Charts over time, drawn by uPlot in the page's colours: stacked bars, or one line.

import { element } from "./element.js";

/** How far a pointer may move and still click, in pixels. */
const CLICK_PIXELS = 4;

/** Charts that are on the page, to be drawn anew when colours or sizes change. */
const alive = new Set();

new ResizeObserver(() => redrawn((chart) => chart.resized())).observe(document.documentElement);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redrawn((chart) => chart.recoloured()));

function redrawn(act) {
  for (const chart of alive) {
    if (chart.place.isConnected) act(chart);
    else alive.delete(chart);
  }
}

/** The colour of the n-th series. */
export function colour(n) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--s${n}`).trim();
}

function ink(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

const DAY = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", day: "numeric", month: "short" });

/** A tick of the time axis: the day at midnight, otherwise the time. */
function instant(seconds) {
  const at = new Date(seconds * 1_000);
  const time = at.toISOString().slice(11, 16);
  return time === "00:00" ? DAY.format(at) : time;
}

/**
 * A chart of `series` (`{ name, values }`) over `starts` (milliseconds). `kind` is `bars`, stacked,
 * or `line`. `onPoint(index, series)` is told a click, `onSpan(fromMs, toMs)` a drag.
 */
export function chart({ label, starts, series, kind, written, onHover, onPoint, onSpan }) {
  const place = element("div", { class: "chart", role: "img", "aria-label": label });
  const seconds = starts.map((ms) => ms / 1_000);
  const heights = kind === "bars" ? stacked(series) : series.map(({ values }) => values);
  let plot = null;

  function made() {
    plot?.destroy();
    plot = new uPlot(options(), [seconds, ...heights], place);
    if (onPoint) plot.over.addEventListener("click", clicked);
  }

  function options() {
    const axis = { stroke: ink("--quiet"), grid: { stroke: ink("--line"), width: 1 }, ticks: { show: false } };
    return {
      width: Math.max(place.clientWidth, 200),
      height: 220,
      padding: [8, 8, 0, 0],
      legend: { show: false },
      tzDate: (at) => uPlot.tzDate(new Date(at * 1_000), "Etc/UTC"),
      cursor: { y: false, points: { show: kind === "line" }, drag: { x: Boolean(onSpan), y: false, setScale: false } },
      scales: { x: { range: () => bounds() }, y: { range: (_, _min, max) => [0, max > 0 ? max * 1.05 : 1] } },
      axes: [
        { ...axis, size: 34, space: 64, values: (_, ticks) => ticks.map(instant) },
        { ...axis, size: 64, values: (_, ticks) => ticks.map(written) },
      ],
      series: [{}, ...series.map((_, n) => drawnAs(n))],
      hooks: {
        setCursor: [(self) => onHover?.(self.cursor.idx ?? null)],
        setSelect: [(self) => dragged(self)],
      },
    };
  }

  function drawnAs(n) {
    const paths = kind === "bars" ? uPlot.paths.bars({ size: [0.8, 60], align: 0 }) : undefined;
    const fill = kind === "bars" ? colour(n) : undefined;
    return { stroke: colour(n), fill, width: kind === "bars" ? 0 : 2, paths, points: { show: false } };
  }

  /** Half a bar more on either side. */
  function bounds() {
    const step = seconds.length > 1 ? seconds[1] - seconds[0] : 3_600;
    return [seconds[0] - step / 2, seconds[seconds.length - 1] + step / 2];
  }

  function dragged(self) {
    if (!onSpan || self.select.width < CLICK_PIXELS) return;
    const at = (pixels) => Math.round(self.posToVal(pixels, "x") * 1_000);
    onSpan(at(self.select.left), at(self.select.left + self.select.width));
  }

  let pressedAt = 0;
  place.addEventListener("mousedown", (event) => (pressedAt = event.clientX), true);

  function clicked(event) {
    const index = plot.cursor.idx;
    if (index === null || index === undefined || Math.abs(event.clientX - pressedAt) > CLICK_PIXELS) return;
    const y = plot.posToVal(plot.cursor.top, "y");
    // The tallest stack is drawn first; the last one that reaches the pointer is seen.
    const hit = heights.findLastIndex((values) => (values[index] ?? 0) >= y);
    onPoint(index, hit < 0 ? null : hit);
  }

  const handle = {
    place,
    resized: () => plot?.setSize({ width: Math.max(place.clientWidth, 200), height: 220 }),
    recoloured: made,
  };
  // Its width is known when it stands in the page.
  queueMicrotask(() => requestAnimationFrame(() => place.isConnected && (made(), alive.add(handle))));
  return place;
}

/** Sums from each series on down to the last: the first is drawn highest, and the others over it. */
function stacked(series) {
  const sums = new Array(series[0]?.values.length ?? 0).fill(0);
  const heights = [];
  for (const { values } of [...series].reverse()) {
    values.forEach((value, n) => (sums[n] += value));
    heights.unshift([...sums]);
  }
  return heights;
}
