// Boxes and edges that are looked at through a camera; when the layout changes, they move to their new places.

import { Camera } from "./camera.js";
import { el, setAll, setText, svg } from "./dom.js";
import { compact } from "./format.js";
import { prepareLayout } from "./layout.js";
import { tween } from "./motion.js";

/**
 * @typedef {{x: number, y: number}} Point
 * @typedef {{id: string, from: string, to: string, count: number, kind: "value" | "created", down: boolean,
 *   points: Point[]}} Line
 * @typedef {{element: HTMLElement, width: number, height: number, x: number, y: number}} Box
 * @typedef {{group: SVGGElement, path: SVGPathElement, label: SVGTextElement, plate: SVGRectElement, line: Line,
 *   shown: Point[]}} Edge
 */

/** Points by which an edge is drawn while it moves. */
const SAMPLES = 24;

export class Scene {
  /** @type {Map<string, Box>} */ boxes = new Map();
  /** Where the boxes were put last. @type {Map<string, Point & {element: HTMLElement}>} */ #places = new Map();
  /** @type {Map<string, Edge>} */ #edges = new Map();
  #edgeLayer = svg("g");
  #boxLayer = el("div", { class: "g-boxes" });
  #world = el("div", { class: "g-world" });
  #stop = () => {};
  /** What is drawn after a click. @type {Map<string, () => void>} */ #waiting = new Map();

  /** @param {string} label for screen readers */
  constructor(label) {
    prepareLayout();
    const drawing = svg("svg", { class: "g-edges", "aria-hidden": "true" }, arrows(), this.#edgeLayer);
    this.#world.append(drawing, this.#boxLayer);
    this.element = el("div", { class: "g-scene", tabindex: 0, role: "group", "aria-label": label }, this.#world);
    this.camera = new Camera(this.element, () => this.#look());
    this.element.addEventListener("focusin", ({ target }) => this.#reveal(/** @type {Node} */ (target)));
    this.element.addEventListener("pointerover", ({ target }) => this.#near(/** @type {Element} */ (target)));
    new ResizeObserver(() => this.#whenReleased("fit", () => this.camera.moved || this.camera.fit(true)))
      .observe(this.element);
    for (const end of ["pointerup", "pointercancel"]) {
      this.element.addEventListener(end, () => setTimeout(this.#resume));
    }
  }

  /**
   * Act at once, or after the click if a button is pressed: a click counts only if it ends on the box where it began.
   * @param {string} name what a later act of the same name replaces @param {() => void} act
   */
  #whenReleased(name, act) {
    if (this.camera.pressed) this.#waiting.set(name, act);
    else act();
  }

  #resume = () => {
    if (this.camera.pressed) return;
    for (const act of this.#waiting.values()) act();
    this.#waiting.clear();
  };

  /**
   * Put boxes and lines to their places: those that were there move, others appear.
   * @param {Map<string, Box>} boxes @param {Line[]} lines
   * @param {Box} [home] what is seen first if there is no room for all
   */
  place(boxes, lines, home) {
    this.#whenReleased("place", () => this.#place(boxes, lines, home));
  }

  /** @param {Map<string, Box>} boxes @param {Line[]} lines @param {Box} [home] */
  #place(boxes, lines, home) {
    this.#stop();
    const from = this.#places, first = !from.size;
    this.boxes = boxes;
    this.#places = new Map([...boxes].map(([id, { element, x, y }]) => [id, { element, x, y }]));
    this.camera.bounds = boundsOf([...boxes.values()]);
    this.camera.home = home;
    for (const [id, { element }] of from) if (boxes.get(id)?.element !== element) element.remove();
    const elements = [...boxes.values()].map((box) => box.element);
    if (elements.some((element, at) => this.#boxLayer.children[at] !== element)) this.#boxLayer.append(...elements);
    this.#keep(lines);
    const moves = [...this.#places].map(([id, box]) => ({ box, old: from.get(id) ?? box }));
    const bends = [...this.#edges.values()].map((edge) =>
      ({ edge, old: edge.shown.length ? edge.shown : sampled(edge.line) }));
    const step = (/** @type {number} */ part) => {
      for (const { box, old } of moves) box.element.style.transform = at(between(old, box, part));
      for (const { edge, old } of bends) bend(edge, old, part);
    };
    if (first) step(1);
    else this.#stop = tween(320, step);
    if (!this.camera.moved) this.camera.fit(first);
  }

  /** Show the counts of edges without moving anything. @param {{id: string, count: number}[]} lines */
  recount(lines) {
    for (const { id, count } of lines) {
      const edge = this.#edges.get(id);
      if (edge && edge.line.count !== count) showCount(edge, (edge.line.count = count));
    }
  }

  /** Make and remove edges so that there is one for each line. @param {Line[]} lines */
  #keep(lines) {
    const ids = new Set(lines.map((line) => line.id));
    for (const [id, edge] of this.#edges) {
      if (ids.has(id)) continue;
      edge.group.remove();
      this.#edges.delete(id);
    }
    for (const line of lines) {
      const edge = this.#edges.get(line.id) ?? this.#draw(line);
      edge.line = line;
      showCount(edge, line.count);
    }
  }

  /** @param {Line} line @returns {Edge} */
  #draw(line) {
    const path = svg("path", { class: `g-edge g-${line.kind}`, "marker-end": `url(#g-arrow-${line.kind})` });
    const plate = svg("rect", { class: "g-plate", rx: 8, height: 16 }), label = svg("text", { class: "g-count" });
    const group = svg("g", { class: "g-link" }, path, plate, label);
    this.#edgeLayer.append(group);
    const edge = { group, path, plate, label, line, shown: [] };
    this.#edges.set(line.id, edge);
    return edge;
  }

  #look() {
    const { x, y, scale } = this.camera;
    this.#world.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    this.element.style.backgroundPosition = `${x}px ${y}px`;
    this.element.style.backgroundSize = `${24 * scale}px ${24 * scale}px`;
  }

  /** Bring a box that gets the focus of the keyboard into view. @param {Node} target */
  #reveal(target) {
    const box = [...this.boxes.values()].find(({ element }) => element.contains(target));
    if (box && document.activeElement?.matches(":focus-visible")) this.camera.reveal(box);
  }

  /** Let the edges of the box under the pointer stand out. @param {Element} target */
  #near(target) {
    const id = [...this.boxes].find(([, { element }]) => element.contains(target))?.[0];
    this.element.classList.toggle("g-near", id !== undefined);
    for (const { group, line } of this.#edges.values()) {
      group.classList.toggle("g-of-near", line.from === id || line.to === id);
    }
  }
}

/** @param {Box[]} boxes */
function boundsOf(boxes) {
  const x = Math.min(...boxes.map((box) => box.x)), y = Math.min(...boxes.map((box) => box.y));
  const width = Math.max(...boxes.map((box) => box.x + box.width)) - x;
  return { x, y, width, height: Math.max(...boxes.map((box) => box.y + box.height)) - y };
}

/** Draw an edge on its way to where it belongs. @param {Edge} edge @param {Point[]} old @param {number} part */
function bend(edge, old, part) {
  const goal = sampled(edge.line);
  edge.shown = goal.map((point, index) => between(old[index], point, part));
  const moving = `M${edge.shown.map(({ x, y }) => `${x},${y}`).join("L")}`;
  edge.path.setAttribute("d", part < 1 ? moving : smooth(edge.line));
  const { x, y } = edge.shown[SAMPLES / 2];
  const width = edge.label.textContent ? edge.label.textContent.length * 6.6 + 12 : 0;
  setAll(edge.plate, { x: x - width / 2, y: y - 8, width });
  setAll(edge.label, { x, y: y + 4 });
}

/** @param {Edge} edge @param {number} count */
function showCount(edge, count) {
  setText(edge.label, count > 1 ? `×${compact(count)}` : "");
  edge.path.style.strokeWidth = String(1.25 + Math.min(1.75, Math.log10(Math.max(1, count)) * 0.4));
}

/** Return evenly spaced points of the curve of a line. @param {Line} line @returns {Point[]} */
function sampled({ points, down }) {
  const last = points.length - 1;
  return Array.from({ length: SAMPLES + 1 }, (_, index) => {
    const place = (index / SAMPLES) * last, before = Math.min(last - 1, Math.floor(place)), t = place - before;
    const a = points[before], b = points[before + 1], eased = t * t * (3 - 2 * t);
    const even = 1.5 * t * (1 - t) + t ** 3;
    return { x: mix(a.x, b.x, down ? eased : even), y: mix(a.y, b.y, down ? even : eased) };
  });
}

/** Return the path of the same curve: it leaves and enters boxes straight. @param {Line} line */
function smooth({ points, down }) {
  let path = `M${points[0].x},${points[0].y}`;
  for (let index = 1; index < points.length; index++) {
    const a = points[index - 1], b = points[index], x = (a.x + b.x) / 2, y = (a.y + b.y) / 2;
    path += down ? `C${a.x},${y} ${b.x},${y} ${b.x},${b.y}` : `C${x},${a.y} ${x},${b.y} ${b.x},${b.y}`;
  }
  return path;
}

function arrows() {
  return svg("defs", {}, ...["value", "created"].map((kind) =>
    svg("marker", {
      id: `g-arrow-${kind}`, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8,
      orient: "auto", markerUnits: "userSpaceOnUse",
    }, svg("path", { d: "M0.5,0.5L7,4L0.5,7.5Z", class: `g-arrow-${kind}` }))));
}

/** @param {number} a @param {number} b @param {number} part */
const mix = (a, b, part) => a + (b - a) * part;

/** @param {Point} a @param {Point} b @param {number} part */
const between = (a, b, part) => ({ x: mix(a.x, b.x, part), y: mix(a.y, b.y, part) });

/** @param {Point} point */
const at = ({ x, y }) => `translate(${x}px, ${y}px)`;
