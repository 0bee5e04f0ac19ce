// Tables: columns with a heading and a cell each, numbers to the right.

import { element } from "./element.js";

/**
 * A table with that caption. A column is `{ name, cell(row), number, minor }`; a minor one is left
 * out on narrow screens.
 */
export function table(caption, columns, rows) {
  const classes = ({ number, minor }) => [number && "n", minor && "minor"].filter(Boolean).join(" ");
  const head = columns.map((column) =>
    element("th", { scope: "col", class: classes(column) || null }, column.name),
  );
  const lines = rows.map((row) =>
    element(
      "tr",
      {},
      columns.map((column) => element("td", { class: classes(column) || null }, column.cell(row))),
    ),
  );
  return element(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    element(
      "table",
      {},
      element("caption", { class: "hidden" }, caption),
      element("thead", {}, element("tr", {}, head)),
      element("tbody", {}, lines),
    ),
  );
}

/** The first rows at once, and all of them on demand. */
export function shortened(caption, columns, rows, most) {
  if (rows.length <= most) return table(caption, columns, rows);
  const place = element("div", {}, table(caption, columns, rows.slice(0, most)));
  const more = element("button", { type: "button", class: "more" }, `All ${rows.length}`);
  more.addEventListener("click", () => {
    const whole = table(caption, columns, rows);
    place.replaceChildren(whole);
    whole.focus();
  });
  place.append(more);
  return place;
}
