// The quilt: a cell for each node, in the order of creation.

import { CanvasPane } from "./canvas_pane.js";
import { button, el, table, toggle } from "./dom.js";
import { counted, whole } from "./format.js";
import { oncePerFrame, reducedMotion } from "./motion.js";
import { QuiltGrid } from "./quilt_grid.js";
import { paintAll, paintHeadings, paintOver, paintSome } from "./quilt_paint.js";
import { FAILED, LOOKS, RUNNING, byLook } from "./states.js";
import { Tip, describe, sentence } from "./tip.js";

/** @typedef {import("./main.js").Context} Context @typedef {import("./main.js").Change} Change */

const LABEL = "Quilt of all nodes. Arrow keys, Home and End walk, f goes to the next failed node, "
  + "r to the next running node, Enter opens a node.";
/** Milliseconds between two pictures of what moves. */
const BEAT = 40;

export class QuiltView {
  needs = /** @type {const} */ ("map");
  edges = false;
  /** @type {QuiltGrid | null} */ grid = null;
  /** Index of the node under the keyboard's cursor, or -1. */ cursor = -1;
  /** Milliseconds that the last painting of the cells took. */ lastPaint = 0;
  #hovered = -1;
  #grouped = false;
  #shown = false;
  /** @type {number[]} */ #running = [];
  /** @type {Set<number>} */ #dirty = new Set();
  #painted = 0;
  #tip = new Tip();
  #pane = new CanvasPane(LABEL, this.#tip.element, { resize: () => this.#lay(), paint: () => this.#paint(true) });
  #paintSoon = oncePerFrame(() => this.#paint(false));
  #moveSoon = oncePerFrame(() => this.#move());

  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    this.element = this.#pane.element;
    this.tools = [
      toggle("Group by function", false, (on) => {
        this.#grouped = on;
        this.#lay();
      }),
      this.#jump("Next failure", "f", FAILED), this.#jump("Next running", "r", RUNNING),
    ];
    const { scroller } = this.#pane;
    scroller.addEventListener("keydown", (event) => this.#key(event));
    scroller.addEventListener("pointermove", (event) => this.#hover(this.grid?.at(this.#pane.pointOf(event)) ?? -1));
    scroller.addEventListener("pointerleave", () => this.#hover(-1));
    scroller.addEventListener("click", (event) => this.#click(event));
  }

  show() {
    this.#shown = true;
    this.cursor = Math.min(this.context.store.selected, this.context.store.nodes.count) - 1;
    this.#pane.prepare();
    this.#lay();
    if (this.cursor >= 0 && this.grid) this.#pane.reveal(this.grid.placeOf(this.cursor).y, this.grid.pitch);
  }

  hide() {
    this.#shown = false;
    this.#tip.hide();
    this.#moveSoon.cancel();
  }

  /** @param {Change} change */
  update(change) {
    if (change.kind === "map") this.#lay();
    if (change.kind !== "nodes") return;
    for (const index of change.indices) this.#dirty.add(index);
    this.#paintSoon();
  }

  #lay() {
    if (!this.#shown) return;
    const { nodes } = this.context.store;
    this.context.notice(nodes.count ? nodes.notice : "This instance has no nodes yet.");
    this.grid = new QuiltGrid(nodes, this.#pane, this.#grouped);
    this.#pane.setHeight(this.grid.height);
    this.#paint(true);
  }

  /** Paint all cells, or those that have changed. @param {boolean} all */
  #paint(all) {
    if (!this.grid || !this.#shown) return;
    const started = performance.now(), { state } = this.context.store.nodes;
    if (all || this.#dirty.size > this.grid.count / 4) {
      paintAll(this.#pane, this.grid, state);
      paintHeadings(this.#pane, this.grid, (section) =>
        [this.context.store.nodes.functions[section.name].label, whole(section.count)]);
    } else {
      paintSome(this.#pane, this.grid, state, this.#dirty);
    }
    this.#dirty.clear();
    this.#running = [];
    for (let index = 0; index < this.grid.count; index++) if (state[index] === RUNNING) this.#running.push(index);
    this.lastPaint = performance.now() - started;
    this.#painted = 0;
    this.#move();
  }

  /** Paint the cursor and what runs, again and again while something runs and is allowed to move. */
  #move() {
    const now = performance.now();
    if (!this.grid || !this.#shown) return;
    if (now - this.#painted > BEAT) {
      const time = reducedMotion.matches ? 0.4 : now / 1000;
      paintOver(this.#pane, this.grid, { running: this.#running, cursor: this.cursor, hovered: this.#hovered, time });
      this.#painted = now;
      if (this.#hovered >= 0 || this.cursor >= 0) this.#tell();
    }
    if (this.#running.length && !reducedMotion.matches) this.#moveSoon();
  }

  #redraw() {
    this.#painted = 0;
    this.#move();
  }

  /** Show the tooltip of the node under the pointer, or else under the cursor. */
  #tell() {
    const index = this.#hovered >= 0 ? this.#hovered : this.cursor;
    const focused = document.activeElement === this.#pane.scroller;
    if (!this.grid || index < 0 || (this.#hovered < 0 && !focused)) return this.#tip.hide();
    this.context.store.refreshDetails([index]);
    const { x, y } = this.grid.placeOf(index), { ratio, top, scroller } = this.#pane;
    const anchor = { x: x / ratio, y: (y - top) / ratio, height: this.grid.pitch / ratio };
    this.#tip.show(describe(this.context.store, index), anchor, scroller);
  }

  /** @param {number} index */
  #hover(index) {
    if (index === this.#hovered) return;
    this.#hovered = index;
    this.#pane.scroller.style.cursor = index < 0 ? "" : "pointer";
    if (index < 0) this.#tip.hide();
    this.#redraw();
  }

  /** A tap shows what a node is, a second one opens it; a click opens it at once. @param {MouseEvent} event */
  #click(event) {
    const index = this.grid?.at(this.#pane.pointOf(event)) ?? -1;
    if (index < 0) return;
    const touched = event instanceof PointerEvent && event.pointerType === "touch";
    if (touched && index !== this.cursor) return this.#go(index);
    const page = this.context.pageOf(index + 1);
    if (event.ctrlKey || event.metaKey) window.open(page, "_blank", "noopener");
    else location.assign(page);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.grid?.count) return;
    const rows = Math.max(1, Math.floor(this.#pane.height / this.grid.pitch) - 1);
    const next = this.grid.step(this.cursor, event.key, rows);
    if (next !== undefined) this.#go(next);
    else if (event.key === "f" || event.key === "F") this.#find(FAILED, event.shiftKey ? -1 : 1);
    else if (event.key === "r" || event.key === "R") this.#find(RUNNING, event.shiftKey ? -1 : 1);
    else if (event.key === "Enter" && this.cursor >= 0) location.assign(this.context.pageOf(this.cursor + 1));
    else return;
    event.preventDefault();
  }

  /** @param {string} text @param {string} key @param {number} state */
  #jump(text, key, state) {
    const made = button(text, () => this.#find(state, 1), { "aria-keyshortcuts": key });
    made.append(el("kbd", { "aria-hidden": "true" }, key));
    return made;
  }

  /** Go to the next node in a state, around the end. @param {number} state @param {1 | -1} step */
  #find(state, step) {
    const grid = this.grid, count = grid?.count ?? 0;
    const from = grid && this.cursor >= 0 ? grid.cellOf(this.cursor) : step > 0 ? -1 : count;
    for (let away = 1; grid && away <= count; away++) {
      const index = grid.nodeAt((from + step * away + count * 2) % count);
      if (this.context.store.nodes.state[index] === state) return this.#go(index);
    }
    this.context.say(state === FAILED ? "No node has failed." : "No node is running.");
  }

  /** @param {number} index */
  #go(index) {
    this.cursor = index;
    this.#hovered = -1;
    this.context.select(index + 1);
    if (this.grid) this.#pane.reveal(this.grid.placeOf(index).y, this.grid.pitch);
    this.#pane.scroller.focus({ preventScroll: true });
    this.#redraw();
    this.context.say(sentence(this.context.store, index));
  }

  /** A table of the states, and the first failed nodes. */
  table() {
    const { nodes } = this.context.store;
    const states = byLook(nodes.counts()).map((count, look) => [LOOKS[look].word, whole(count)]);
    const failed = [];
    for (let at = 0; at < nodes.count && failed.length < 100; at++) if (nodes.state[at] === FAILED) failed.push(at);
    return el("div", {}, table(counted(nodes.count, "node"), ["State", "Nodes"], states),
      table("The first failed nodes", ["Node", "Function"],
        failed.map((at) => [String(at + 1), this.context.store.nodes.functionOf(at).label])));
  }
}
