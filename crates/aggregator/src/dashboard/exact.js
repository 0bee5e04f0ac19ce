// Amounts as the exact decimal strings that the API answers with: added, compared, rounded to show.

/** Decimal places of an amount: pico-dollars. */
const PLACES = 12;
const ONE = 10n ** BigInt(PLACES);

/** A decimal string as a whole number of pico-dollars; none is 0. */
export function pico(text) {
  const parts = /^(-?)(\d+)(?:\.(\d+))?$/.exec(text ?? "0");
  if (!parts) throw new Error(`no decimal amount: ${text}`);
  const [, sign, whole, fraction = ""] = parts;
  const size = BigInt(whole) * ONE + BigInt(fraction.slice(0, PLACES).padEnd(PLACES, "0"));
  return sign ? -size : size;
}

/** The decimal string of so many pico-dollars, without zeros at its end. */
export function decimal(amount) {
  const size = amount < 0n ? -amount : amount;
  const fraction = String(size % ONE).padStart(PLACES, "0").replace(/0+$/, "");
  const text = fraction ? `${size / ONE}.${fraction}` : String(size / ONE);
  return amount < 0n ? `-${text}` : text;
}

/** As a number, to place pixels with. */
export function roughly(amount) {
  return Number(amount) / Number(ONE);
}

/** The part's share of the whole, for bars and percentages. */
export function share(part, whole) {
  return whole === 0n ? 0 : Number((part * 1_000_000n) / whole) / 1_000_000;
}

/** Dollars to be read: two places, and more where the amount is small. */
export function usd(amount) {
  const size = amount < 0n ? -amount : amount;
  const sign = amount < 0n ? "−" : "";
  return `${sign}$${shown(size)}`;
}

/** A difference: with its sign. */
export function signed(amount) {
  return amount > 0n ? `+${usd(amount)}` : usd(amount);
}

/** A decimal string of any unit, with separators. */
export function grouped(text) {
  const [whole, fraction] = String(text).split(".");
  const spaced = whole.replace(/\B(?=(\d{3})+(?!\d))/g, ",");
  return fraction ? `${spaced}.${fraction}` : spaced;
}

/** A count in full. */
export function count(n) {
  return grouped(n ?? 0);
}

const COMPACT = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });

/** From here on a count is written short. */
const LONG = 100_000;

/** A count in few letters, such as 12.5M. */
export function compact(n) {
  return (n ?? 0) < LONG ? count(n) : COMPACT.format(n);
}

/** A share as a percentage with one place. */
export function percent(ratio) {
  return `${(ratio * 100).toFixed(1)} %`;
}

/** Three digits that say something, and two places at least; half goes to even. */
function shown(size) {
  let places = 2;
  while (places < PLACES && size > 0n && size * 10n ** BigInt(places) < ONE * 100n) places += 1;
  const unit = 10n ** BigInt(PLACES - places);
  const rest = size % unit;
  let units = size / unit;
  if (rest * 2n > unit || (rest * 2n === unit && units % 2n === 1n)) units += 1n;
  const scale = 10n ** BigInt(places);
  return `${grouped(String(units / scale))}.${String(units % scale).padStart(places, "0")}`;
}
