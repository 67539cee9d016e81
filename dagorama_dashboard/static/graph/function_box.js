// The box of a function, or of several that call one another: its name, its states and its times.

import { el, setText, svg } from "./dom.js";
import { compact, counted, duration, whole } from "./format.js";
import { isLoop } from "./groups.js";
import { FAILED, LOOKS, RUNNING, byLook } from "./states.js";

/** @typedef {import("./store.js").FunctionShape} FunctionShape @typedef {import("./groups.js").Group} Group */

export const BOX_WIDTH = 272;
const MEMBER_HEIGHT = 90, LOOP_HEIGHT = 24, MOST_MEMBERS = 6, MORE_HEIGHT = 24;

/** A bar whose parts are as long as there are nodes in each state. */
export class StateBar {
  #parts = LOOKS.map((look) => el("span", { class: `g-part g-fill-${look.kind}`, hidden: true }));
  element = el("span", { class: "g-bar", "aria-hidden": "true" }, ...this.#parts);

  /** @param {number[]} counts by look */
  update(counts) {
    counts.forEach((count, look) => {
      this.#parts[look].hidden = !count;
      this.#parts[look].style.flexGrow = String(count);
    });
  }
}

/** One function in a box: a link to its nodes in the table. */
class Member {
  #label = el("span", { class: "g-label" });
  #count = el("span", { class: "g-total" });
  #bar = new StateBar();
  #states = el("span", { class: "g-states" });
  #times = el("span", { class: "g-times" });
  #pulse = el("span", { class: "g-pulse", "aria-hidden": "true" });
  #parts = LOOKS.map((look) => el("span", { class: `g-state g-is-${look.kind}`, title: look.word, hidden: true },
    el("span", { class: "g-glyph", "aria-hidden": "true" }, look.glyph), el("b", {}),
    el("span", { class: "g-hidden" }, ` ${look.word}`)));

  /** @param {string} href */
  constructor(href) {
    this.#states.append(...this.#parts);
    this.element = el("a", { class: "g-member", href, draggable: "false" },
      el("span", { class: "g-head" }, this.#pulse, this.#label, this.#count),
      this.#bar.element, this.#states, this.#times);
  }

  /** @param {FunctionShape} told */
  update(told) {
    const counts = byLook(told.nodes);
    const total = counts.reduce((a, b) => a + b, 0);
    setText(this.#label, told.label);
    setText(this.#count, whole(total));
    this.#bar.update(counts);
    counts.forEach((count, look) => {
      this.#parts[look].hidden = !count;
      setText(this.#parts[look].children[1], compact(count));
    });
    setText(this.#times, timesOf(told));
    this.element.title = told.name;
    this.element.classList.toggle("g-runs", counts[1] > 0);
    this.element.classList.toggle("g-has-failed", counts[6] > 0);
  }
}

/** @param {FunctionShape} told */
function timesOf(told) {
  if (!told.timed) return "not run yet";
  return `mean ${duration((told.seconds / told.timed) * 1000)} · longest ${duration(told.longest * 1000)}`;
}

/** The box of one group. */
export class FunctionBox {
  x = 0;
  y = 0;
  width = BOX_WIDTH;
  /** @type {[number, Member][]} */ #members = [];
  #loops = el("span", {});
  #more = el("span", {});
  runs = false;

  /** @param {Group} group @param {(name: string) => string} linkTo @param {FunctionShape[]} functions */
  constructor(group, linkTo, functions) {
    this.element = el("div", { class: "g-box" });
    this.looped = isLoop(group);
    this.group = group.members.join();
    const shown = group.members.slice(0, MOST_MEMBERS), more = group.members.length - shown.length;
    if (this.looped) this.element.append(el("div", { class: "g-loop" }, loopMark(), this.#loops));
    for (const index of shown) {
      const member = new Member(linkTo(functions[index].name));
      this.#members.push([index, member]);
      this.element.append(member.element);
    }
    if (more) this.element.append(el("div", { class: "g-more" }, this.#more));
    this.height = heightOf(group);
  }

  /** @param {FunctionShape[]} functions @param {Group} group */
  update(functions, group) {
    for (const [index, member] of this.#members) member.update(functions[index]);
    const { created, value } = group.loops;
    const loop = created ? `recursive · ${counted(created, "call")}` : `chained · ${counted(value, "value")}`;
    setText(this.#loops, loop);
    const all = sumOf(group.members.map((index) => functions[index])), left = group.members.slice(MOST_MEMBERS);
    const failed = sumOf(left.map((index) => functions[index]))[FAILED];
    const loud = failed ? ` · ✕ ${whole(failed)} failed` : "";
    setText(this.#more, `and ${counted(left.length, "function")} more${loud}`);
    this.runs = all[RUNNING] > 0;
    this.element.classList.toggle("g-runs", this.runs);
    this.element.classList.toggle("g-has-failed", all[FAILED] > 0);
  }

  /** Say whether the box can go on to stand for a group. @param {Group} group */
  isOf(group) {
    return this.group === group.members.join() && this.looped === isLoop(group);
  }
}

/** @param {Group} group */
export function heightOf(group) {
  const shown = Math.min(group.members.length, MOST_MEMBERS);
  const more = group.members.length > MOST_MEMBERS ? MORE_HEIGHT : 0;
  return shown * MEMBER_HEIGHT + more + (isLoop(group) ? LOOP_HEIGHT : 0);
}

/** Add the counts of functions up by state. @param {FunctionShape[]} functions */
function sumOf(functions) {
  const sums = new Array(8).fill(0);
  for (const { nodes } of functions) nodes.forEach((count, state) => (sums[state] += count));
  return sums;
}

/** An arrow in a circle. */
function loopMark() {
  return svg("svg", { class: "g-loop-mark", viewBox: "0 0 16 16", "aria-hidden": "true" },
    svg("path", { d: "M13.5 8a5.5 5.5 0 1 1-1.8-4.07" }), svg("path", { d: "M12 1v3.2H8.8" }));
}
