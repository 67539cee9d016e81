// The focus: what is around one node. Cards keep their places while the graph grows.

import { button, el, table } from "./dom.js";
import { whole } from "./format.js";
import { implied } from "./groups.js";
import { layOut } from "./layout.js";
import { MOST_CARDS, Relations, around } from "./neighbourhood.js";
import { CARD, NodeCard } from "./node_card.js";
import { Scene } from "./scene.js";
import { FAILED, RUNNING, wordOf } from "./states.js";

/** @typedef {import("./neighbourhood.js").Card} Card @typedef {import("./neighbourhood.js").CardLink} CardLink */
/** @typedef {import("./main.js").Context} Context @typedef {{x: number, y: number}} Point */

/** Milliseconds between two drawings, and pixels between cards. */
const PAUSE = 400, GAP = 28, ROW = CARD.height + 56;
const WORDS = { centre: "this node", up: "source", down: "dependent", right: "created by it", left: "created it" };

export class FocusView {
  needs = /** @type {const} */ ("map");
  edges = true;
  #scene = new Scene("Drawing of a node and what is around it. Arrow keys move it, plus and minus zoom, 0 shows all.");
  /** @type {Map<string, NodeCard>} */ #cards = new Map();
  /** @type {Card[]} */ #told = [];
  /** @type {Map<string, Point>} */ #places = new Map();
  /** @type {Relations | null} */ #relations = null;
  #centre = -1;
  #timer = 0;
  #task = 0;
  #input = el("input", { type: "number", min: 1, inputmode: "numeric" });

  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    this.element = this.#scene.element;
    const { camera } = this.#scene;
    this.#input.addEventListener("change", () => this.#choose(this.#input.valueAsNumber));
    this.tools = [
      button("−", () => camera.zoom(0.8), { "aria-label": "Zoom out" }),
      button("Fit", () => camera.fit(), { title: "Show all" }),
      button("+", () => camera.zoom(1.25), { "aria-label": "Zoom in" }),
      button("Tidy", () => {
        this.#places.clear();
        void this.#draw();
      }, { title: "Lay all cards out again" }),
      el("label", {}, "Node", this.#input),
    ];
  }

  show() {
    const { nodes, selected } = this.context.store;
    if (!nodes.count) return this.context.notice("This instance has no nodes yet.");
    if (!selected || selected > nodes.count) this.context.select(startOf(nodes) + 1);
    return this.#draw();
  }

  hide() {
    clearTimeout(this.#timer);
    this.#timer = 0;
  }

  update() {
    this.#timer ||= setTimeout(() => {
      this.#timer = 0;
      this.context.attempt(() => this.show());
    }, PAUSE);
  }

  /** @param {number} ordinal */
  #choose(ordinal) {
    const { count } = this.context.store.nodes;
    if (ordinal >= 1 && ordinal <= count) return this.context.focus(Math.floor(ordinal));
    this.context.notice(`There are nodes 1 to ${whole(count)}.`);
  }

  async #draw() {
    const { store } = this.context, centre = store.selected - 1;
    if (this.#relations?.version !== store.nodes.version) this.#relations = new Relations(store.nodes);
    const { cards, links: all, cut } = around(this.#relations, centre);
    const needless = implied(all), links = all.filter((link) => !needless.has(link));
    const task = ++this.#task;
    const bound = cut ? `The ${MOST_CARDS} boxes nearest to node ${centre + 1}. ` : "";
    this.context.notice(bound + store.nodes.notice);
    if (centre !== this.#centre) {
      this.#places.clear();
      this.#scene.camera.moved = false;
    }
    if (!this.#places.size) {
      const places = await arrange(cards, links);
      if (task !== this.#task) return;
      this.#places = places;
    }
    // What the reader types is not overwritten by an update.
    if (centre !== this.#centre || document.activeElement !== this.#input) this.#input.value = String(centre + 1);
    this.#centre = centre;
    this.#input.max = String(store.nodes.count);
    store.refreshDetails(cards.filter((card) => !card.stack).map((card) => card.members[0]));
    this.#place(cards, links);
  }

  /** @param {Card[]} cards @param {CardLink[]} links */
  #place(cards, links) {
    this.#told = cards;
    const old = this.#cards;
    settle(cards, old, this.#places);
    this.#cards = new Map(cards.map((card) => [card.id, old.get(card.id) ?? new NodeCard(this.context, card)]));
    for (const card of cards) {
      const drawn = /** @type {NodeCard} */ (this.#cards.get(card.id));
      Object.assign(drawn, this.#places.get(card.id));
      drawn.update(card);
    }
    const cardOf = (/** @type {string} */ id) => /** @type {NodeCard} */ (this.#cards.get(id));
    const lines = links.map((link) => ({ ...link, ...route(cardOf(link.from), cardOf(link.to)) }));
    this.#scene.place(this.#cards, lines, cardOf(cards[0].id));
  }

  /** A table of what is around the node. */
  table() {
    const { store } = this.context;
    const rows = this.#told.map((card) => [
      card.stack ? `${whole(card.members.length)} nodes` : `Node ${card.members[0] + 1}`, WORDS[card.side],
      store.nodes.functionOf(card.members[0]).label, wordOf(store.nodes.state[card.members[0]]),
    ]);
    return table(`Around node ${this.#centre + 1}`, ["Node", "Relation", "Function", "State"], rows);
  }
}

/**
 * Return the index of the node that is shown at first: the first that failed, or else runs, or else the first of all.
 * @param {import("./nodes.js").Nodes} nodes
 */
function startOf({ state, count }) {
  const first = (/** @type {number} */ wanted) => state.subarray(0, count).indexOf(wanted);
  return Math.max(0, first(FAILED) < 0 ? first(RUNNING) : first(FAILED));
}

/**
 * Lay out from top to bottom what is above and below, and what was created to the right of it.
 * @param {Card[]} cards @param {CardLink[]} links
 */
async function arrange(cards, links) {
  const centre = cards[0].id;
  const side = new Map(cards.map((card) => [card.id, card.side]));
  const across = (/** @type {string} */ id) => isAside(side.get(id) ?? "centre");
  const lay = (/** @type {boolean} */ beside, /** @type {"TB" | "LR"} */ direction) => {
    const has = (/** @type {string} */ id) => id === centre || across(id) === beside;
    const boxes = cards.filter(({ id }) => has(id)).map(({ id }) => ({ id, ...CARD }));
    const inner = links.filter(({ from, to }) => has(from) && has(to)).map((link) => ({ ...link, label: 0 }));
    return layOut({ boxes, links: inner, width: 1, height: 1, direction });
  };
  const [upright, aside] = await Promise.all([lay(false, "TB"), lay(true, "LR")]);
  /** @type {Map<string, Point>} */
  const places = new Map(Object.entries(upright.boxes)), { x, y } = upright.boxes[centre], start = aside.boxes[centre];
  const column = [...places.values()];
  for (const right of [true, false]) {
    const beside = Object.entries(aside.boxes).filter(([id, box]) => id !== centre && box.x > start.x === right)
      .map(([id, box]) => ({ id, x: x + box.x - start.x, y: y + box.y - start.y }));
    const top = Math.min(...beside.map((box) => box.y)) - CARD.height - GAP;
    const bottom = Math.max(...beside.map((box) => box.y)) + CARD.height + GAP;
    const near = column.filter((box) => box.y > top && box.y < bottom).map((box) => box.x - x);
    const room = right ? Math.max(0, ...near) : Math.min(0, ...near);
    for (const box of beside) places.set(box.id, { x: box.x + room, y: box.y });
  }
  return places;
}

/**
 * Leave the cards that were shown where they are, and find places for the others.
 * @param {Card[]} cards @param {Map<string, NodeCard>} shown @param {Map<string, Point>} places
 */
function settle(cards, shown, places) {
  const taken = /** @type {Point[]} */ ([]);
  const stay = (/** @type {Point} */ spot) => taken.push(spot);
  const kept = cards.filter(({ id }) => shown.has(id) && places.has(id));
  for (const { id } of kept) stay(/** @type {Point} */ (places.get(id)));
  for (const card of cards) {
    if (kept.includes(card)) continue;
    const earlier = places.get(card.id);
    const spot = earlier && isFree(earlier, taken) ? earlier : spotFor(card, places.get(card.anchor), taken);
    places.set(card.id, spot);
    stay(spot);
  }
}

/** Say whether a card would lie over no other. @param {Point} spot @param {Point[]} taken */
function isFree(spot, taken) {
  return taken.every(({ x, y }) =>
    Math.abs(x - spot.x) >= CARD.width + GAP / 2 || Math.abs(y - spot.y) >= CARD.height + GAP / 2);
}

/**
 * Find a place for a card that has come later: next to the one from which it was found, and over no other.
 * @param {Card} card @param {Point | undefined} anchor @param {Point[]} taken
 */
function spotFor(card, anchor, taken) {
  const { x, y } = anchor ?? { x: 0, y: 0 };
  const vertical = card.side === "up" || card.side === "down";
  const step = card.side === "up" || card.side === "left" ? -1 : 1;
  const spot = vertical ? { x, y: y + step * ROW } : { x: x + step * (CARD.width + 2 * GAP), y };
  while (!isFree(spot, taken)) vertical ? (spot.x += CARD.width + GAP) : (spot.y += CARD.height + GAP);
  return spot;
}

/** Return the points of a line between two cards, and whether it leads down. @param {NodeCard} a @param {NodeCard} b */
function route(a, b) {
  const down = !(isAside(b.card.side) && a.card.side !== "up" && a.card.side !== "down") && a.card.side !== "left";
  const points = down
    ? [{ x: a.x + a.width / 2, y: a.y + a.height }, { x: b.x + b.width / 2, y: b.y }]
    : [{ x: a.x + a.width, y: a.y + a.height / 2 }, { x: b.x, y: b.y + b.height / 2 }];
  return { points, down };
}

/** @param {import("./neighbourhood.js").Side} side */
const isAside = (side) => side === "right" || side === "left";
