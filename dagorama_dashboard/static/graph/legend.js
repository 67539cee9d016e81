// What colours, glyphs and lines mean, with the number of nodes in each state.

import { el, setText, svg } from "./dom.js";
import { whole } from "./format.js";
import { LOOKS, byLook } from "./states.js";

export class Legend {
  #counts = LOOKS.map(() => el("b", {}));
  #edges = el("span", { class: "g-edge-legend" }, line("value"), "value", line("created"), "created");

  constructor() {
    const states = LOOKS.map((look, at) => el("li", { class: `g-state g-is-${look.kind}` },
      el("span", { class: `g-swatch g-fill-${look.kind}`, "aria-hidden": "true" }),
      el("span", { class: "g-glyph", "aria-hidden": "true" }, look.glyph), look.word, this.#counts[at]));
    this.element = el("div", { class: "g-legend" }, el("ul", { "aria-label": "States" }, ...states), this.#edges);
  }

  /** @param {boolean} shown */
  showEdges(shown) {
    this.#edges.hidden = !shown;
  }

  /** Count by the map if it has all nodes, otherwise by the shape. @param {import("./store.js").Store} store */
  update({ shape, nodes }) {
    const counts = LOOKS.map(() => 0);
    const complete = nodes.version && nodes.total === nodes.count;
    const told = complete ? [nodes.counts()] : (shape?.functions ?? []).map((each) => each.nodes);
    for (const states of told) byLook(states).forEach((count, look) => (counts[look] += count));
    counts.forEach((count, look) => {
      setText(this.#counts[look], whole(count));
      /** @type {HTMLElement} */ (this.#counts[look].parentElement).classList.toggle("g-none", !count);
    });
  }
}

/** @param {"value" | "created"} kind */
function line(kind) {
  return svg("svg", { width: 30, height: 10, "aria-hidden": "true" },
    svg("path", { class: `g-edge g-${kind}`, d: "M1,5H29" }));
}
