// Numbers, durations and times in the form in which people read them.

const WHOLE = new Intl.NumberFormat("en");
const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** @param {number} number */
export const whole = (number) => WHOLE.format(number);

/** Shorten a number to at most four digits: 20,002 becomes 20K. @param {number} number */
export const compact = (number) => (number < 10_000 ? WHOLE.format(number) : COMPACT.format(number));

/** @param {number} count @param {string} noun with a plural in s */
export const counted = (count, noun) => `${whole(count)} ${noun}${count === 1 ? "" : "s"}`;

/** Tell the time of day. @param {number} milliseconds since 1970 */
export const clock = (milliseconds) => CLOCK.format(new Date(milliseconds));

/** Say how long something takes, with two or three digits. @param {number} milliseconds */
export function duration(milliseconds) {
  if (milliseconds < 1) return `${Math.round(milliseconds * 1000)} µs`;
  if (milliseconds < 1000) return `${digits(milliseconds)} ms`;
  const seconds = milliseconds / 1000;
  if (seconds < 60) return `${digits(seconds)} s`;
  if (seconds < 3600) return parts(seconds, 60, "min", "s");
  if (seconds < 86_400) return parts(seconds / 60, 60, "h", "min");
  return parts(seconds / 3600, 24, "d", "h");
}

/** @param {number} number */
const digits = (number) => (number < 10 ? number.toFixed(1).replace(/\.0$/, "") : String(Math.round(number)));

/** @param {number} small @param {number} base @param {string} big @param {string} unit */
function parts(small, base, big, unit) {
  const all = Math.round(small);
  return all % base ? `${Math.floor(all / base)} ${big} ${all % base} ${unit}` : `${all / base} ${big}`;
}
