// A drawing on two canvases, one above the other, that scrolls if it is higher than the panel.

import { el } from "./dom.js";
import { oncePerFrame } from "./motion.js";
import { readPalette } from "./states.js";

/** What does not move is on the lower canvas; the cursor and what moves are on the upper one. */
export class CanvasPane {
  ratio = 1;
  /** @type {import("./states.js").Palette | null} */ #palette = null;
  #lower = el("canvas", { "aria-hidden": "true" });
  #upper = el("canvas", { "aria-hidden": "true" });
  #spacer = el("div");
  base = /** @type {CanvasRenderingContext2D} */ (this.#lower.getContext("2d"));
  over = /** @type {CanvasRenderingContext2D} */ (this.#upper.getContext("2d"));

  /**
   * @param {string} label for screen readers
   * @param {Node} tip
   * @param {{resize: () => void, paint: () => void}} hooks resize: lay out again; paint: draw what is in view
   */
  constructor(label, tip, hooks) {
    this.scroller = el("div", { class: "g-canvas-view", tabindex: 0, role: "application", "aria-label": label },
      el("div", { class: "g-sticky" }, this.#lower, this.#upper), this.#spacer);
    this.element = el("div", { class: "g-pane" }, this.scroller, tip);
    const resized = oncePerFrame(() => {
      if (!this.scroller.clientWidth) return;
      this.#fitCanvases();
      hooks.resize();
    });
    new ResizeObserver(resized).observe(this.scroller);
    this.scroller.addEventListener("scroll", oncePerFrame(hooks.paint), { passive: true });
  }

  /** Width and height of the view, in pixels of the canvas. */
  get width() {
    return this.#lower.width;
  }

  get height() {
    return this.#lower.height;
  }

  /** How far it is scrolled, in pixels of the canvas. */
  get top() {
    return Math.round(this.scroller.scrollTop * this.ratio);
  }

  get palette() {
    return (this.#palette ??= readPalette(this.scroller));
  }

  /** Read the colours and the size again before it is shown. */
  prepare() {
    this.#palette = null;
    this.#fitCanvases();
  }

  /** Let the drawing be so high. @param {number} height in pixels of the canvas */
  setHeight(height) {
    this.#spacer.style.height = `${height / this.ratio}px`;
  }

  /** Scroll so that a part is in view. @param {number} y @param {number} height in pixels of the canvas */
  reveal(y, height) {
    const margin = 24 * this.ratio;
    if (y - margin < this.top) this.scroller.scrollTop = (y - margin) / this.ratio;
    else if (y + height + margin > this.top + this.height) {
      this.scroller.scrollTop = (y + height + margin - this.height) / this.ratio;
    }
  }

  /** Return where an event is, in pixels of the canvas from the beginning of the drawing. @param {MouseEvent} event */
  pointOf(event) {
    const { left, top } = this.scroller.getBoundingClientRect();
    return { x: (event.clientX - left) * this.ratio, y: (event.clientY - top) * this.ratio + this.top };
  }

  #fitCanvases() {
    this.ratio = window.devicePixelRatio || 1;
    const { clientWidth, clientHeight } = this.scroller;
    const width = Math.round(clientWidth * this.ratio), height = Math.round(clientHeight * this.ratio);
    for (const canvas of [this.#lower, this.#upper]) {
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
      canvas.style.width = `${clientWidth}px`;
      canvas.style.height = `${clientHeight}px`;
    }
  }
}
