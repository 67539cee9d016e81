// The shape of an instance: a box for each function, and what flows between them.

import { button, el, setText, table, toggle } from "./dom.js";
import { duration, whole } from "./format.js";
import { BOX_WIDTH, FunctionBox, heightOf } from "./function_box.js";
import { MOST_BOXES, groupsOf, implied, isLoop } from "./groups.js";
import { layOut } from "./layout.js";
import { Scene } from "./scene.js";
import { LOOKS, byLook } from "./states.js";

/** @typedef {import("./groups.js").Group} Group @typedef {import("./main.js").Context} Context */

export class ShapeView {
  needs = /** @type {const} */ ("shape");
  #scene = new Scene("Drawing of the functions. Arrow keys move it, plus and minus zoom, 0 shows all of it.");
  /** @type {Map<string, FunctionBox>} */ #boxes = new Map();
  #structure = "";
  #follow = true;
  /** All edges are shown, those that others imply too. */
  #all = false;
  #more;
  #task = 0;

  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    this.element = this.#scene.element;
    const { camera } = this.#scene;
    this.tools = [
      button("−", () => camera.zoom(0.8), { "aria-label": "Zoom out" }),
      button("Fit", () => camera.fit(), { title: "Show all" }),
      button("+", () => camera.zoom(1.25), { "aria-label": "Zoom in" }),
      toggle("Follow what runs", this.#follow, (on) => {
        this.#follow = on;
        this.#track();
      }),
    ];
    this.#more = toggle("", false, (on) => {
      this.#all = on;
      void this.update();
    });
    this.#more.title = "Draw edges from creators that other edges imply, too";
    this.tools.push(this.#more);
    this.edges = true;
  }

  show() {
    return this.update();
  }

  async update() {
    const shape = this.context.store.shape;
    if (!shape) return;
    const { groups, links: found, left } = groupsOf(shape);
    const hidden = implied(found);
    const links = this.#all ? found : found.filter((link) => !hidden.has(link));
    setText(this.#more, `Implied edges: ${hidden.size}`);
    this.#more.hidden = !hidden.size;
    this.context.notice(noticeOf(shape, left));
    const boxes = groups.map((each) => [each.members, isLoop(each)]);
    const structure = JSON.stringify([boxes, links.map((link) => link.id)]);
    if (structure !== this.#structure) await this.#arrange(structure, groups, links);
    for (const group of groups) this.#boxes.get(group.id)?.update(shape.functions, group);
    this.#scene.recount(links);
    this.#track();
  }

  /** @param {string} structure @param {Group[]} groups @param {import("./groups.js").GroupLink[]} links */
  async #arrange(structure, groups, links) {
    const task = ++this.#task;
    const sizes = groups.map((group) => ({ id: group.id, width: BOX_WIDTH, height: heightOf(group) }));
    const { clientWidth: width, clientHeight: height } = this.element;
    const made = await layOut({ boxes: sizes, links: links.map((link) => ({ ...link, label: 52 })), width, height });
    if (task !== this.#task) return;
    this.#structure = structure;
    this.#boxes = new Map(groups.map((group) => [group.id, this.#boxOf(group)]));
    for (const [id, box] of this.#boxes) Object.assign(box, made.boxes[id]);
    const lines = links.map((link) => ({ ...link, down: made.down, points: made.links[link.id] }));
    for (const group of groups) this.#boxes.get(group.id)?.update(this.context.store.shape?.functions ?? [], group);
    this.#scene.place(this.#boxes, lines);
  }

  /** Keep the box of a group that is as it was. @param {Group} group */
  #boxOf(group) {
    const old = this.#boxes.get(group.id);
    if (old?.isOf(group)) return old;
    return new FunctionBox(group, this.context.tableOf, this.context.store.shape?.functions ?? []);
  }

  /** Keep in view what runs, until the reader moves the drawing. */
  #track() {
    const running = [...this.#boxes.values()].filter((box) => box.runs);
    if (!this.#follow || !running.length || this.#scene.camera.moved) return;
    const left = Math.min(...running.map((box) => box.x)), top = Math.min(...running.map((box) => box.y));
    const right = Math.max(...running.map((box) => box.x + box.width));
    const bottom = Math.max(...running.map((box) => box.y + box.height));
    this.#scene.camera.reveal({ x: left, y: top, width: right - left, height: bottom - top });
  }

  /** A table of the functions. */
  table() {
    const shape = this.context.store.shape;
    const rows = (shape?.functions ?? []).map((told) => {
      const counts = byLook(told.nodes);
      const mean = told.timed ? duration((told.seconds / told.timed) * 1000) : "none";
      const all = counts.reduce((a, b) => a + b, 0), longest = told.timed ? duration(told.longest * 1000) : "none";
      return [told.label, whole(all), ...counts.map(whole), mean, longest];
    });
    const edges = (shape?.edges ?? []).map((edge) => [shape?.functions[edge.from].label ?? "",
      shape?.functions[edge.to].label ?? "", edge.kind, whole(edge.count)]);
    return el("div", {},
      table("Functions", ["Function", "Nodes", ...LOOKS.map(({ word }) => word), "Mean time", "Longest time"], rows),
      table("Edges", ["From", "To", "Kind", "Count"], edges));
  }

  hide() {}
}

/** @param {import("./store.js").Shape} shape @param {number} left boxes that are left out */
function noticeOf(shape, left) {
  if (!shape.nodes) return "This instance has no nodes yet. They are drawn here as soon as there are some.";
  const parts = [];
  if (left) parts.push(`The ${MOST_BOXES} functions with the most nodes; the table has ${whole(left)} more.`);
  if (shape.counted < shape.nodes) {
    parts.push(`Edges of the first ${whole(shape.counted)} of ${whole(shape.nodes)} nodes.`);
  }
  return parts.join(" ");
}
