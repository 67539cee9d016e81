// What is known of the instance: loads it, follows it, and tells the view that is shown what has changed.

import { Live } from "./live.js";
import { bytesOf, getJson } from "./net.js";
import { Nodes } from "./nodes.js";

/**
 * @typedef {{name: string, label: string, nodes: number[], timed: number, seconds: number,
 *   longest: number}} FunctionShape
 * @typedef {{from: number, to: number, count: number, kind: "value" | "created"}} Edge
 * @typedef {{definition: string, created: number, ended: number | null, failed: boolean, nodes: number,
 *   states: string[], functions: FunctionShape[], edges: Edge[], counted: number}} Shape
 * @typedef {{kind: "shape" | "map" | "error" | "live"} | {kind: "nodes", indices: number[]}} Change
 */

/** Milliseconds between two requests for the edges of a growing instance, and for the times of changed nodes. */
const SHAPE_PAUSE = 3000, DETAILS_PAUSE = 2000;
/** Nodes that the dashboard tells at most. */
const MOST_NODES = 200_000;

export class Store {
  /** @type {Shape | null} */ shape = null;
  nodes = new Nodes();
  /** The node that all views select: an ordinal, or 0. */
  selected = 0;
  /** How far the server's clock is ahead, in milliseconds. */
  clock = 0;
  /** Indices of nodes that have changed since their times and workers were loaded. @type {Set<number>} */
  stale = new Set();
  /** What could not be loaded when it was asked for last. @type {Map<string, Error>} */ errors = new Map();
  #shapeAt = 0;
  /** Nodes of the instance when the edges were counted. */
  #shapeNodes = 0;
  #detailsAt = 0;
  #shapeTimer = 0;
  /** @type {Map<string, Promise<void>>} requests that run */ #loading = new Map();
  /** @type {[ArrayLike<number>, Uint8Array][]} what has changed while a map was on its way */ #meanwhile = [];

  /** @param {string} base @param {(change: Change) => void} tell */
  constructor(base, tell) {
    this.base = base;
    this.tell = tell;
    this.live = new Live(`${base}/live`, {
      nodes: (data) => this.#changed(data),
      progress: (shape) => this.#progressed(shape),
      again: () => this.reload(),
      status: () => this.tell({ kind: "live" }),
    });
  }

  /** The time now, in milliseconds since the instance was created. */
  now() {
    return Date.now() + this.clock - this.nodes.created;
  }

  /** @param {"shape" | "map"} what */
  has(what) {
    return what === "shape" ? this.shape !== null : this.nodes.version > 0;
  }

  /** Load what a view needs, unless it is there. @param {"shape" | "map"} what */
  need(what) {
    return this.has(what) ? Promise.resolve() : what === "shape" ? this.loadShape() : this.loadMap(0);
  }

  /** Load again all that was loaded. */
  async reload() {
    await Promise.all([this.loadShape(), this.nodes.version ? this.loadMap(0) : null]);
  }

  loadShape() {
    return this.#once("shape", async () => {
      this.shape = (await getJson(`${this.base}/shape`)).data;
      this.#shapeAt = performance.now();
      clearTimeout(this.#shapeTimer);
      this.#shapeTimer = 0;
      this.#shapeNodes = this.shape?.nodes ?? 0;
      if (!this.ended) this.live.start();
      return { kind: "shape" };
    });
  }

  /** @param {number} after 0: everything */
  loadMap(after) {
    return this.#once("map", async () => {
      const asked = performance.now(), before = this.nodes.count;
      const { data, clock } = await getJson(`${this.base}/map?after=${after}`);
      this.nodes.take(data);
      this.clock = clock;
      if (!after) {
        this.stale.clear();
        this.#detailsAt = performance.now() + 5 * (performance.now() - asked);
      }
      for (const [ordinals, states] of this.#meanwhile) {
        for (const index of this.nodes.change(ordinals, states)) this.stale.add(index);
      }
      // Nodes that were created while the map was on its way.
      if (this.nodes.count > before && this.lacks) setTimeout(() => this.loadMap(this.nodes.count));
      return { kind: "map" };
    });
  }

  get ended() {
    return this.shape !== null && this.shape.ended !== null;
  }

  /** There are nodes that are not known yet, and would be told. */
  get lacks() {
    return this.nodes.count < Math.min(this.nodes.total, MOST_NODES);
  }

  /**
   * Load times and workers again if one of some nodes has changed: every two seconds at most, less often if it is slow.
   * @param {number[]} [indices] absent: any node
   */
  refreshDetails(indices) {
    const needed = indices ? indices.some((index) => this.stale.has(index)) : this.stale.size > 0;
    if (needed && performance.now() > this.#detailsAt + DETAILS_PAUSE) void this.loadMap(0);
  }

  /**
   * Run one request of a kind at a time, and tell its outcome.
   * @param {string} what @param {() => Promise<Change>} load
   */
  #once(what, load) {
    const running = this.#loading.get(what) ?? this.#run(what, load).finally(() => {
      this.#loading.delete(what);
      if (what === "map") this.#meanwhile = [];
    });
    this.#loading.set(what, running);
    return running;
  }

  /** @param {string} what @param {() => Promise<Change>} load */
  async #run(what, load) {
    try {
      const change = await load();
      if (this.errors.delete(what)) this.tell({ kind: "error" });
      this.tell(change);
    } catch (error) {
      this.errors.set(what, /** @type {Error} */ (error));
      this.tell({ kind: "error" });
    }
  }

  /** @param {{o: number[], s: string, nodes: number, all?: boolean}} data */
  #changed(data) {
    if (!this.nodes.version) return;
    if (data.all) return void this.loadMap(0);
    const states = bytesOf(data.s);
    if (this.#loading.has("map")) this.#meanwhile.push([data.o, states]);
    const indices = this.nodes.change(data.o, states);
    this.nodes.total = data.nodes;
    for (const index of indices) this.stale.add(index);
    if (indices.length) this.tell({ kind: "nodes", indices });
    if (this.lacks) void this.loadMap(this.nodes.count);
  }

  /** @param {Shape} counts a shape without edges */
  #progressed(counts) {
    const known = this.shape;
    if (!known) return;
    const added = counts.functions.length > known.functions.length;
    const early = this.#shapeAt + SHAPE_PAUSE - performance.now();
    this.shape = { ...known, ...counts, edges: known.edges, counted: known.counted };
    this.tell({ kind: "shape" });
    if (added) void this.loadShape();
    else if (counts.nodes > this.#shapeNodes) this.#shapeTimer ||= setTimeout(() => this.loadShape(), early);
  }
}
