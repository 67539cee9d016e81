// What is said about one node: in a tooltip, and in a sentence for screen readers.

import { el } from "./dom.js";
import { clock, duration, whole } from "./format.js";
import { lookOf, wordOf } from "./states.js";

/** @typedef {import("./store.js").Store} Store */

/** Describe a node. @param {Store} store @param {number} index @returns {{title: string, rows: [string, string][]}} */
export function describe(store, index) {
  const { nodes } = store;
  const state = nodes.state[index], span = nodes.spanOf(index, store.now());
  /** @type {[string, string][]} */
  const rows = [["State", `${lookOf(state).glyph} ${wordOf(state)}`]];
  if (nodes.attempts[index]) rows.push(["Failed attempts", whole(nodes.attempts[index])]);
  if (span?.open) rows.push(["Has run for", duration(span.end - span.start)]);
  else if (nodes.run[index]) rows.push(["Run time", duration(nodes.run[index] / 1000)]);
  if (span) rows.push(["Started", clock(nodes.created + span.start)]);
  if (nodes.worker[index]) rows.push(["Worker", nodes.workers[nodes.worker[index] - 1]]);
  return { title: `${index + 1} · ${store.nodes.functionOf(index).label}`, rows };
}

/** Say the same in a sentence. @param {Store} store @param {number} index */
export function sentence(store, index) {
  const { title, rows } = describe(store, index);
  const told = rows.map(([name, value]) => `${name}: ${value.replace(/^\W /, "")}`);
  return `Node ${title.replace(" · ", ", ")}. ${told.join(", ")}.`;
}

/** A tooltip over a drawing, which never takes the pointer. */
export class Tip {
  element = el("div", { class: "g-tip", role: "tooltip", hidden: true });

  /**
   * @param {{title: string, rows: [string, string][]}} told
   * @param {{x: number, y: number, height: number}} anchor in pixels of the drawing that the tooltip lies in
   * @param {HTMLElement} drawing
   */
  show({ title, rows }, anchor, drawing) {
    const list = rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
    this.element.replaceChildren(el("strong", {}, title), el("dl", {}, ...list));
    this.element.hidden = false;
    const { offsetWidth, offsetHeight } = this.element;
    const below = anchor.y + anchor.height + 10, above = anchor.y - offsetHeight - 10;
    const x = Math.max(8, Math.min(anchor.x + 8, drawing.clientWidth - offsetWidth - 8));
    const y = below + offsetHeight < drawing.clientHeight ? below : Math.max(8, above);
    this.element.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`;
  }

  hide() {
    this.element.hidden = true;
  }
}
