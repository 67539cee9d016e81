// What ran when: a lane for each function, with its attempts in rows, or as a density if there are too many.

import { FAILED } from "./states.js";

/** Bars that are drawn at most, and rows of a lane that has bars. */
export const MOST_BARS = 2000;
const MOST_ROWS = 40;

/** @typedef {import("./nodes.js").Nodes} Nodes */

/** The last attempts of the nodes of one function, by start. */
export class Lane {
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

/** Sort the last attempts into lanes, the earliest lane first. @param {Nodes} nodes @param {number} now @returns {Lane[]} */
export function lanesOf(nodes, now) {
  const spans = [];
  for (let index = 0; index < nodes.count; index++) {
    const span = nodes.spanOf(index, now);
    if (span) spans.push({ index, ...span });
  }
  spans.sort((a, b) => a.start - b.start);
  /** @type {Map<number, Lane>} */ const lanes = new Map();
  for (const { index, start, end, open } of spans) {
    const name = nodes.function[index], lane = lanes.get(name) ?? new Lane(name);
    lanes.set(name, lane);
    lane.nodes.push(index);
    lane.starts.push(start);
    lane.ends.push(end);
    lane.open.push(open);
  }
  for (const lane of lanes.values()) lane.pack();
  return [...lanes.values()];
}

/**
 * Count how many attempts run in each of many equal parts of a time, on average, and where attempts failed.
 * @param {Lane} lane @param {Uint8Array} states @param {number} from @param {number} to @param {number} parts
 */
export function densityOf(lane, states, from, to, parts) {
  const ended = new Float64Array(parts + 1), running = new Float64Array(parts + 1), failed = new Uint32Array(parts);
  const scale = parts / (to - from);
  for (let at = 0; at < lane.starts.length && lane.starts[at] < to; at++) {
    if (lane.ends[at] <= from) continue;
    spread(lane.open[at] ? running : ended, (lane.starts[at] - from) * scale, (lane.ends[at] - from) * scale, parts);
    const part = Math.floor((lane.ends[at] - from) * scale);
    if (states[lane.nodes[at]] === FAILED && part < parts) failed[part]++;
  }
  let most = 0;
  for (let part = 0; part < parts; part++) most = Math.max(most, ended[part] + running[part]);
  return { ended, running, failed, most };
}

/** Add one to all parts between two places, and to the parts at its ends as much as it covers of them. */
function spread(/** @type {Float64Array} */ sums, /** @type {number} */ start, /** @type {number} */ end, /** @type {number} */ parts) {
  const from = Math.max(0, start), to = Math.min(parts, end);
  for (let part = Math.floor(from); part < to; part++) sums[part] += Math.min(to, part + 1) - Math.max(from, part);
}
