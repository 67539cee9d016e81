// The card of a node, or of a stack of nodes that are alike.

import { el, setText } from "./dom.js";
import { duration, whole } from "./format.js";
import { lookOf, wordOf } from "./states.js";

/** @typedef {import("./neighbourhood.js").Card} Card @typedef {import("./main.js").Context} Context */

export const CARD = { width: 228, height: 58 };

export class NodeCard {
  x = 0;
  y = 0;
  width = CARD.width;
  height = CARD.height;
  #glyph = el("span", { class: "g-glyph", "aria-hidden": "true" });
  #label = el("span", { class: "g-label" });
  #count = el("span", { class: "g-total" });
  #detail = el("span", { class: "g-times" });
  #main = el("a", { class: "g-card-main", draggable: "false" },
    el("span", { class: "g-head" }, this.#glyph, this.#label, this.#count), this.#detail);

  /** @param {Context} context @param {Card} card */
  constructor(context, card) {
    this.context = context;
    this.card = card;
    this.element = el("div", { class: "g-card" }, this.#main);
    if (card.stack) return;
    const ordinal = card.members[0] + 1;
    this.#main.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      context.focus(ordinal);
    });
    this.element.append(el("a", {
      class: "g-card-open", href: context.pageOf(ordinal), title: "Open this node",
      "aria-label": `Open node ${ordinal}`,
    }, "↗"));
  }

  /** @param {Card} card */
  update(card) {
    this.card = card;
    const { store, tableOf } = this.context;
    const [index] = card.members, state = store.nodes.state[index], look = lookOf(state);
    const { name, label } = store.nodes.functionOf(index), count = card.members.length;
    const classes = ["g-card", `g-is-${look.kind}`, card.stack && "g-stack", card.side === "centre" && "g-centre"];
    this.element.className = classes.filter(Boolean).join(" ");
    this.#main.href = card.stack ? tableOf(name, look.word) : `?view=focus&node=${index + 1}`;
    this.#main.title = name;
    setText(this.#glyph, look.glyph);
    setText(this.#label, label);
    setText(this.#count, card.stack ? `×${whole(count)}` : "");
    setText(this.#detail, card.stack ? wordOf(state) : detailOf(this.context, index));
    if (card.side === "centre") this.#main.setAttribute("aria-current", "true");
    else this.#main.removeAttribute("aria-current");
  }
}

/** @param {Context} context @param {number} index */
function detailOf({ store: { nodes } }, index) {
  const parts = [`#${index + 1}`, lookOf(nodes.state[index]).word];
  if (nodes.run[index]) parts.push(duration(nodes.run[index] / 1000));
  if (nodes.attempts[index]) parts.push(`${nodes.attempts[index]} failed`);
  return parts.join(" · ");
}
