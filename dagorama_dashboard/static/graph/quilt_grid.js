// Where the cells of a quilt are: as large as possible, until they would be too small to see and the quilt scrolls.

/** Sizes in CSS pixels. */
const LARGEST = 30, SMALLEST = 4, MARGIN = 14, HEADING = 30;

/**
 * @typedef {{name: number, from: number, count: number, y: number}} Section  name: index of the function, or -1
 * @typedef {import("./nodes.js").Nodes} Nodes
 */

export class QuiltGrid {
  /** Indices of nodes in the order of their cells, and the other way round. @type {Uint32Array | null} */
  order = null;
  /** @type {Uint32Array | null} */ #cellOf = null;
  /** @type {Section[]} */ sections = [];
  /** Pixels from cell to cell. */ pitch = 1;
  columns = 1;
  height = 0;

  /**
   * @param {Nodes} nodes
   * @param {{width: number, height: number, ratio: number}} view in pixels of the canvas
   * @param {boolean} grouped
   */
  constructor(nodes, view, grouped) {
    this.count = nodes.count;
    this.margin = MARGIN * view.ratio;
    this.heading = grouped ? HEADING * view.ratio : 0;
    if (grouped) this.#group(nodes);
    else this.sections = [{ name: -1, from: 0, count: nodes.count, y: 0 }];
    const least = Math.ceil(SMALLEST * view.ratio);
    for (this.pitch = Math.round(LARGEST * view.ratio); this.pitch > least; this.pitch--) {
      if (this.#heightFor(view.width) <= view.height) break;
    }
    this.height = this.#heightFor(view.width);
    this.gap = Math.max(1, Math.round(this.pitch < 9 * view.ratio ? view.ratio : this.pitch / 8));
    this.cell = this.pitch - this.gap;
  }

  /** Sort the cells by function; within a function the order stays that of creation. @param {Nodes} nodes */
  #group(nodes) {
    const counts = nodes.functions.map(() => 0);
    for (let at = 0; at < nodes.count; at++) counts[nodes.function[at]]++;
    let from = 0;
    const next = counts.map((count, name) => {
      if (count) this.sections.push({ name, from, count, y: 0 });
      return (from += count) - count;
    });
    this.order = new Uint32Array(nodes.count);
    this.#cellOf = new Uint32Array(nodes.count);
    for (let at = 0; at < nodes.count; at++) this.order[(this.#cellOf[at] = next[nodes.function[at]]++)] = at;
  }

  /** Lay the sections out for the present pitch, and return the height of all. @param {number} width */
  #heightFor(width) {
    this.columns = Math.max(1, Math.floor((width - 2 * this.margin) / this.pitch));
    let y = this.margin;
    for (const section of this.sections) {
      section.y = y + this.heading;
      y = section.y + Math.ceil(section.count / this.columns) * this.pitch;
    }
    return y + this.margin;
  }

  /** Return the node of a cell. @param {number} cell */
  nodeAt(cell) {
    return this.order ? this.order[cell] : cell;
  }

  /** @param {number} index of a node @returns {number} */
  cellOf(index) {
    return this.#cellOf ? this.#cellOf[index] : index;
  }

  /** Return the place of a node. @param {number} index @returns {{x: number, y: number}} */
  placeOf(index) {
    const cell = this.cellOf(index);
    const section = /** @type {Section} */ (this.sections.findLast((each) => each.from <= cell));
    const offset = cell - section.from;
    return {
      x: this.margin + (offset % this.columns) * this.pitch,
      y: section.y + Math.floor(offset / this.columns) * this.pitch,
    };
  }

  /** Return the node at a point, or -1. @param {{x: number, y: number}} point */
  at({ x, y }) {
    const section = this.sections.findLast((each) => each.y <= y);
    const column = Math.floor((x - this.margin) / this.pitch);
    if (!section || column < 0 || column >= this.columns) return -1;
    const offset = Math.floor((y - section.y) / this.pitch) * this.columns + column;
    return offset < section.count ? this.nodeAt(section.from + offset) : -1;
  }

  /** Find cells between two heights. @param {Section} section @param {number} top @param {number} bottom */
  cellsIn(section, top, bottom) {
    const row = (/** @type {number} */ y) => Math.floor((y - section.y) / this.pitch);
    return {
      from: section.from + Math.min(section.count, Math.max(0, row(top)) * this.columns),
      to: section.from + Math.min(section.count, Math.max(0, row(bottom) + 1) * this.columns),
    };
  }

  /** Return the node that a key leads to. @param {number} index @param {string} key @param {number} rows of a page */
  step(index, key, rows) {
    const steps = /** @type {Record<string, number>} */ ({
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns,
      PageUp: -rows * this.columns, PageDown: rows * this.columns, Home: -Infinity, End: Infinity,
    });
    if (!(key in steps)) return undefined;
    const cell = index < 0 ? 0 : this.cellOf(index) + steps[key];
    return this.nodeAt(Math.max(0, Math.min(this.count - 1, cell)));
  }
}
