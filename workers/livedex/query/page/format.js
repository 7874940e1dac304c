// Figures for people. All of it is plain text.

const NUMBER = new Intl.NumberFormat("en");
const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const MOMENT = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const UNITS = [[86400, "d"], [3600, "h"], [60, "min"]];

export const number = (value) => NUMBER.format(value);
export const compact = (value) => (value < 10000 ? NUMBER.format(value) : COMPACT.format(value));
export const clock = (seconds) => CLOCK.format(new Date(seconds * 1000));
export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

/** Seconds as [figure, unit]: 0.42 s, 3.1 s, 48 s, 12 min, 3 h, 4 d. */
export function duration(seconds) {
  if (seconds < 0.0005) return ["0", "s"];
  if (seconds < 1) return [`${Math.max(1, Math.round(seconds * 1000))}`, "ms"];
  if (seconds < 9.95) return [seconds.toFixed(1), "s"];
  if (seconds < 99.5) return [seconds.toFixed(0), "s"];
  const [size, unit] = UNITS.find(([each]) => seconds >= each * 1.5) ?? [60, "min"];
  const count = seconds / size;
  return [count < 10 ? count.toFixed(1).replace(/\.0$/, "") : count.toFixed(0), unit];
}

export const seconds = (value) => duration(value).join(" ");

/** How long ago a moment was. */
export function ago(moment, now = Date.now()) {
  const past = (now - new Date(moment).getTime()) / 1000;
  if (!Number.isFinite(past)) return "unknown";
  if (past < -5) return "in the future";
  return past < 5 ? "just now" : `${seconds(Math.round(past))} ago`;
}

/** A moment in full, in the zone of the reader. */
export function moment(value) {
  const date = new Date(value);
  return Number.isNaN(date.getTime()) ? String(value) : MOMENT.format(date);
}

/** 1st, 2nd, 3rd, 4th, 11th. */
export function ordinal(place) {
  const last = place % 100 >= 11 && place % 100 <= 13 ? 0 : place % 10;
  return `${number(place)}${{ 1: "st", 2: "nd", 3: "rd" }[last] ?? "th"}`;
}

/** A score with as many digits as tell rows apart. */
export const score = (value) => (Math.abs(value) >= 100 ? value.toFixed(1) : value.toPrecision(3));
