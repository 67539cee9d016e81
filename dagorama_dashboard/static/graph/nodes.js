// The nodes of the instance as columns: one array for each property, by ordinal - 1.

import { whole } from "./format.js";
import { bytesOf } from "./net.js";

/** The nodes that are known. All times are milliseconds since the instance was created. */
export class Nodes {
  count = 0;
  /** Nodes of the instance, which may be more than are known. */
  total = 0;
  /** When the instance was created, in milliseconds since 1970. */
  created = 0;
  /** Names and labels of functions. @type {{name: string, label: string}[]} */ functions = [];
  /** @type {string[]} */ workers = [];
  state = new Uint8Array(0);
  function = new Uint32Array(0);
  /** 1 + index in `workers`, or 0. */
  worker = new Uint32Array(0);
  attempts = new Uint32Array(0);
  ended = new Float64Array(0);
  /** How long the last attempt took, in microseconds. */
  run = new Float64Array(0);
  /** Ordinal of the node that created each, or 0. */
  creator = new Uint32Array(0);
  /** The sources of node i are those from sourceStart[i] to sourceStart[i + 1] in `sources`. */
  sourceStart = new Uint32Array(1);
  sources = new Uint32Array(0);
  /** @type {Map<number, number>} ordinal of a running node: its start */
  running = new Map();
  /** Grows when nodes are added or replaced; what is derived of sources and creators is then stale. */
  version = 0;

  /** Take an answer of `map`: everything, or the nodes after those that are known. @param {any} map */
  take(map) {
    const from = map.after;
    if (from > this.count) throw new Error(`a map after ${from} does not follow ${this.count} nodes`);
    this.created = map.created * 1000;
    this.total = Math.max(this.total, map.nodes);
    const labels = /** @type {string[]} */ (map.functions);
    this.functions = labels.map((label, at) => ({ name: map.function_names[at], label }));
    this.workers = map.workers;
    this.#columns(map, from);
    this.#creators(map, from);
    this.#sources(map, from);
    if (!from) this.running.clear();
    for (const [ordinal, start] of map.running) this.running.set(ordinal, start);
    this.version++;
  }

  /** @param {any} map @param {number} from */
  #columns(map, from) {
    this.count = from + map.count;
    this.state = grown(this.state, from, this.count);
    this.function = grown(this.function, from, this.count);
    this.worker = grown(this.worker, from, this.count);
    this.attempts = grown(this.attempts, from, this.count);
    this.ended = grown(this.ended, from, this.count);
    this.run = grown(this.run, from, this.count);
    this.creator = grown(this.creator, from, this.count);
    this.state.set(bytesOf(map.state), from);
    this.function.set(map.function, from);
    this.worker.set(map.worker, from);
    this.attempts.set(map.attempts, from);
    this.ended.set(map.ended, from);
    this.run.set(map.run, from);
  }

  /** @param {any} map @param {number} from */
  #creators(map, from) {
    for (const [first, size, creator] of map.blocks) {
      this.creator.fill(creator, Math.max(first - 1, from), first - 1 + size);
    }
  }

  /** @param {any} map @param {number} from */
  #sources(map, from) {
    const before = this.sourceStart[from];
    this.sourceStart = grown(this.sourceStart, from + 1, this.count + 1);
    this.sources = grown(this.sources, before, before + map.sources.ordinal.length);
    this.sources.set(map.sources.ordinal, before);
    for (let at = 0, end = before; at < map.count; at++) {
      end += map.sources.count[at];
      this.sourceStart[from + at + 1] = end;
    }
  }

  /**
   * Take changed states, and return the indices that have changed.
   * @param {ArrayLike<number>} ordinals @param {Uint8Array} states
   */
  change(ordinals, states) {
    const changed = [];
    for (let at = 0; at < ordinals.length; at++) {
      const index = ordinals[at] - 1;
      if (index < this.count && this.state[index] !== states[at]) {
        this.state[index] = states[at];
        changed.push(index);
      }
    }
    return changed;
  }

  /** @returns {number[]} by state */
  counts() {
    const counts = new Array(8).fill(0);
    for (let at = 0; at < this.count; at++) counts[this.state[at]]++;
    return counts;
  }

  /** @param {number} index */
  sourcesOf(index) {
    return this.sources.subarray(this.sourceStart[index], this.sourceStart[index + 1]);
  }

  /** Say that only the first nodes are known, if it is so. */
  get notice() {
    return this.total > this.count ? `The first ${whole(this.count)} of ${whole(this.total)} nodes.` : "";
  }

  /** @param {number} index */
  functionOf(index) {
    return this.functions[this.function[index]];
  }

  /** When the last attempt began and ended, as far as known. @param {number} index @param {number} now */
  spanOf(index, now) {
    const started = this.running.get(index + 1);
    if (started !== undefined) return { start: started, end: Math.max(now, started), open: true };
    if (!this.ended[index] || !this.run[index]) return null;
    return { start: this.ended[index] - this.run[index] / 1000, end: this.ended[index], open: false };
  }
}

/**
 * Return an array of `size` places with the first `kept` items of `old`, with room to grow behind it.
 * @template {Uint8Array | Uint32Array | Float64Array} T
 * @param {T} old @param {number} kept @param {number} size
 * @returns {T}
 */
function grown(old, kept, size) {
  const room = old.buffer.byteLength / old.BYTES_PER_ELEMENT;
  const kind = /** @type {any} */ (old.constructor);
  if (room >= size) return new kind(old.buffer, 0, size);
  const made = new kind(new ArrayBuffer(Math.ceil(size * 1.5) * old.BYTES_PER_ELEMENT), 0, size);
  made.set(old.subarray(0, kept));
  return made;
}
