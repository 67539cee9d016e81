// The visible part of a time, how it is zoomed and moved, and the times that stand at its axis.

import { clock } from "./format.js";

const SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
const STEPS = [
  ...[1, 2, 5, 10, 15, 30].map((count) => count * SECOND), ...[1, 2, 5, 10, 15, 30].map((count) => count * MINUTE),
  ...[1, 2, 3, 6, 12].map((count) => count * HOUR), ...[1, 2, 7, 14, 30, 90, 365].map((count) => count * DAY),
];
/** The least time that can be seen at once, in milliseconds. */
const LEAST = 0.05;

/** All times are milliseconds since the instance was created. */
export class TimeAxis {
  from = 0;
  to = 1;
  /** The whole time. */ end = 1;
  /** All of it is seen, also when it grows. */
  whole = true;

  /** @param {number} end */
  extend(end) {
    this.end = Math.max(end * 1.01, LEAST);
    if (this.whole) Object.assign(this, { from: 0, to: this.end });
  }

  /** @param {number} time @param {number} width */
  x(time, width) {
    return ((time - this.from) / (this.to - this.from)) * width;
  }

  /** @param {number} x @param {number} width */
  time(x, width) {
    return this.from + (x / width) * (this.to - this.from);
  }

  /** Zoom around a time; a factor above 1 zooms in. @param {number} factor @param {number} time */
  zoom(factor, time = (this.from + this.to) / 2) {
    const span = Math.max(LEAST, Math.min(this.end, (this.to - this.from) / factor));
    const part = (time - this.from) / (this.to - this.from);
    this.#set(time - span * part, span);
  }

  /** @param {number} time by which the visible part moves */
  pan(time) {
    this.#set(this.from + time, this.to - this.from);
  }

  /** @param {number} start @param {number} end */
  reveal(start, end) {
    if (start >= this.from && end <= this.to) return;
    const span = Math.max(this.to - this.from, (end - start) * 1.5);
    this.#set((start + end - span) / 2, span);
  }

  all() {
    this.whole = true;
    this.extend(this.end / 1.01);
  }

  /** @param {number} from @param {number} span */
  #set(from, span) {
    this.from = Math.max(0, Math.min(this.end - span, from));
    this.to = this.from + span;
    this.whole = span >= this.end * 0.999;
  }

  /** Return times with labels, so that there is room for each. @param {number} most @returns {[number, string][]} */
  ticks(most) {
    const step = stepFor((this.to - this.from) / Math.max(1, most));
    const first = Math.ceil(this.from / step);
    const count = Math.max(0, Math.floor(this.to / step) - first + 1);
    const times = Array.from({ length: count }, (_, at) => (first + at) * step);
    return times.map((time) => [time, label(time, step)]);
  }
}

/** Return a round step of at least this many milliseconds. @param {number} least */
function stepFor(least) {
  if (least > SECOND / 2) return STEPS.find((step) => step >= least) ?? 365 * DAY;
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((count) => count * power).find((step) => step >= least * 0.999) ?? power;
}

/** Write a time so exactly that labels which are a step apart differ. @param {number} time @param {number} step */
export function label(time, step) {
  const digits = Math.max(0, Math.min(6, -Math.floor(Math.log10(step / SECOND) + 1e-9)));
  const days = Math.floor(time / DAY), hours = Math.floor(time / HOUR) % 24, minutes = Math.floor(time / MINUTE) % 60;
  if (time < MINUTE) return time === 0 ? "0" : `${(time / SECOND).toFixed(digits)} s`;
  const seconds = ((time % MINUTE) / SECOND).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
  const two = (/** @type {number} */ number) => String(number).padStart(2, "0");
  if (time < HOUR) return `${minutes}:${seconds} min`;
  if (step >= DAY) return `${days} d`;
  const short = `${hours}:${two(minutes)}${step < MINUTE ? `:${seconds}` : ""}`;
  return days ? `${days} d ${short}` : `${short} h`;
}

/** Say which time of day it is. @param {number} created @param {number} time */
export const timeOfDay = (created, time) => clock(created + time);
