// Wheel, drag and pinch along one axis.

/** @typedef {{zoom: (factor: number, event: MouseEvent) => void, pan: (pixels: number) => void,
 *   point: (event: MouseEvent | null) => void}} Hooks  pixels: of the page, to the right */

export class TimeGestures {
  /** The pointer was moved while it was down, so that the click that follows is none. */
  dragged = false;
  /** @type {Map<number, PointerEvent>} pointers that are down */ #pointers = new Map();

  /** @param {HTMLElement} element @param {Hooks} hooks */
  constructor(element, hooks) {
    this.element = element;
    this.hooks = hooks;
    element.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    element.addEventListener("pointerdown", (event) => this.#down(event));
    element.addEventListener("pointermove", (event) => this.#move(event));
    element.addEventListener("pointerleave", () => hooks.point(null));
    for (const end of /** @type {const} */ (["pointerup", "pointercancel"])) {
      element.addEventListener(end, (event) => this.#pointers.delete(event.pointerId));
    }
  }

  /** Zoom with Ctrl or a pinch, move sideways; up and down is left to the page. @param {WheelEvent} event */
  #wheel(event) {
    const { deltaX, deltaY, shiftKey } = event, sideways = shiftKey ? deltaX || deltaY : deltaX;
    if (event.ctrlKey || event.metaKey) this.hooks.zoom(Math.exp(-deltaY * 0.004), event);
    else if (shiftKey || Math.abs(deltaX) > Math.abs(deltaY)) this.hooks.pan(-sideways);
    else return;
    event.preventDefault();
  }

  /** @param {PointerEvent} event */
  #down(event) {
    if (!this.#pointers.size) this.dragged = false;
    if (!event.button) this.#pointers.set(event.pointerId, event);
  }

  /** Drag with one pointer, zoom with two. @param {PointerEvent} event */
  #move(event) {
    const before = this.#pointers.get(event.pointerId);
    const other = [...this.#pointers.values()].find((each) => each.pointerId !== event.pointerId);
    if (before && (this.dragged || Math.abs(event.clientX - before.clientX) > 4)) {
      if (!this.dragged) this.element.setPointerCapture(event.pointerId);
      this.dragged = true;
      this.#pointers.set(event.pointerId, event);
      const apart = (/** @type {PointerEvent} */ one) => Math.max(8, Math.abs(one.clientX - (other?.clientX ?? 0)));
      if (other) this.hooks.zoom(apart(event) / apart(before), event);
      else this.hooks.pan(event.clientX - before.clientX);
    }
    this.hooks.point(event);
  }
}
