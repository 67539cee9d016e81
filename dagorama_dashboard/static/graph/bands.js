// What ran when: a band for each function, with its attempts in rows, or as a density if there are too many.

import { FAILED } from "./states.js";

/** Bars that are drawn at most, and rows of a band that has bars. */
export const MOST_BARS = 2000;
const MOST_ROWS = 40;

/** @typedef {import("./nodes.js").Nodes} Nodes */

/** The last attempts of the nodes of one function, by start. */
export class Band {
  /** @type {number[]} indices of nodes */ nodes = [];
  /** @type {number[]} */ starts = [];
  /** @type {number[]} */ ends = [];
  /** @type {boolean[]} */ open = [];
  /** @type {number[]} */ rows = [];
  /** Rows of all bars; with more than `MOST_ROWS` it has no bars. */
  depth = 0;

  /** @param {number} name index of the function */
  constructor(name) {
    this.name = name;
  }

  /** Put each bar into the first row that is free. */
  pack() {
    const free = /** @type {number[]} */ ([]);
    for (let at = 0; at < this.starts.length; at++) {
      let row = free.findIndex((end) => end <= this.starts[at]);
      if (row < 0) row = free.length;
      if (row > MOST_ROWS) break;
      free[row] = this.open[at] ? Infinity : this.ends[at];
      this.rows[at] = row;
    }
    this.depth = free.length;
  }

  /** Let what runs end now. @param {number} now */
  grow(now) {
    for (let at = 0; at < this.open.length; at++) if (this.open[at]) this.ends[at] = Math.max(this.starts[at], now);
  }

  get deep() {
    return this.depth > MOST_ROWS;
  }

  /** @param {number} from @param {number} to */
  countIn(from, to) {
    let count = 0;
    for (let at = 0; at < this.starts.length && this.starts[at] < to; at++) if (this.ends[at] > from) count++;
    return count;
  }
}

/** Sort the last attempts into bands, the earliest first. @param {Nodes} nodes @param {number} now @returns {Band[]} */
export function bandsOf(nodes, now) {
  const spans = [];
  for (let index = 0; index < nodes.count; index++) {
    const span = nodes.spanOf(index, now);
    if (span) spans.push({ index, ...span });
  }
  spans.sort((a, b) => a.start - b.start);
  /** @type {Map<number, Band>} */ const bands = new Map();
  for (const { index, start, end, open } of spans) {
    const name = nodes.function[index], band = bands.get(name) ?? new Band(name);
    bands.set(name, band);
    band.nodes.push(index);
    band.starts.push(start);
    band.ends.push(end);
    band.open.push(open);
  }
  for (const band of bands.values()) band.pack();
  return [...bands.values()];
}

/**
 * Count how many attempts run in each of many equal parts of a time, on average, and where attempts failed.
 * @param {Band} band @param {Uint8Array} states @param {number} from @param {number} to @param {number} parts
 */
export function densityOf(band, states, from, to, parts) {
  const ended = new Float64Array(parts + 1), running = new Float64Array(parts + 1), failed = new Uint32Array(parts);
  const scale = parts / (to - from);
  for (let at = 0; at < band.starts.length && band.starts[at] < to; at++) {
    if (band.ends[at] <= from) continue;
    spread(band.open[at] ? running : ended, (band.starts[at] - from) * scale, (band.ends[at] - from) * scale, parts);
    const part = Math.floor((band.ends[at] - from) * scale);
    if (states[band.nodes[at]] === FAILED && part < parts) failed[part]++;
  }
  let most = 0;
  for (let part = 0; part < parts; part++) most = Math.max(most, ended[part] + running[part]);
  return { ended, running, failed, most };
}

/**
 * Add one to all parts between two places, and to the parts at its ends as much as it covers of them.
 * @param {Float64Array} sums @param {number} start @param {number} end @param {number} parts
 */
function spread(sums, start, end, parts) {
  const from = Math.max(0, start), to = Math.min(parts, end);
  for (let part = Math.floor(from); part < to; part++) sums[part] += Math.min(to, part + 1) - Math.max(from, part);
}
