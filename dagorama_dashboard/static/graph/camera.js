// Pan and zoom of a drawing, with mouse, touch and keys.

import { tween } from "./motion.js";

const LEAST = 0.15, MOST = 2.5, STEP = 60, EDGE = 28;
/** A fitted drawing is neither larger nor smaller than this. */
const FIT_MOST = 1.1, FIT_LEAST = 0.6;

export class Camera {
  x = 0;
  y = 0;
  scale = 1;
  /** The reader has moved it: it does not fit by itself any more. */
  moved = false;
  /** @typedef {{x: number, y: number, width: number, height: number}} Rectangle */
  /** Where the drawing is. @type {Rectangle} */ bounds = { x: 0, y: 0, width: 1, height: 1 };
  /** What is seen first if there is no room for all. @type {Rectangle | undefined} */ home;
  /** @type {Map<number, PointerEvent>} */ #pointers = new Map();
  #dragged = false;
  #stop = () => {};

  /** @param {HTMLElement} view what is looked through @param {() => void} apply called when it has moved */
  constructor(view, apply) {
    this.view = view;
    this.apply = apply;
    view.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    view.addEventListener("keydown", (event) => this.#key(event));
    view.addEventListener("pointerdown", (event) => this.#down(event));
    view.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of /** @type {const} */ (["pointerup", "pointercancel"])) {
      view.addEventListener(end, (event) => this.#pointers.delete(event.pointerId));
    }
    view.addEventListener("click", (event) => this.#click(event), { capture: true });
  }

  /** Whether a button is pressed, or a finger touches the drawing. */
  get pressed() {
    return this.#pointers.size > 0;
  }

  /** Show all of the drawing, if it can be read then; otherwise its beginning. @param {boolean} [at_once] */
  fit(at_once = false) {
    this.moved = false;
    const { clientWidth, clientHeight } = this.view, { bounds, home } = this;
    const all = Math.min((clientWidth - 2 * EDGE) / bounds.width, (clientHeight - 2 * EDGE) / bounds.height);
    const scale = Math.min(FIT_MOST, Math.max(FIT_LEAST, all));
    const x = placed([bounds.x, bounds.width], home && [home.x, home.width], clientWidth, scale);
    const y = placed([bounds.y, bounds.height], home && [home.y, home.height], clientHeight, scale);
    this.#go(x, y, scale, at_once);
  }

  /** Zoom around a point of the view. @param {number} factor @param {number} [x] @param {number} [y] */
  zoom(factor, x = this.view.clientWidth / 2, y = this.view.clientHeight / 2) {
    const scale = Math.min(MOST, Math.max(LEAST, this.scale * factor));
    const ratio = scale / this.scale;
    this.moved = true;
    this.#set(x - (x - this.x) * ratio, y - (y - this.y) * ratio, scale);
  }

  /** Move so that a part of the drawing is seen. @param {{x: number, y: number, width: number, height: number}} part */
  reveal(part) {
    const { clientWidth, clientHeight } = this.view;
    const x = inside(this.x, part.x * this.scale, part.width * this.scale, clientWidth);
    const y = inside(this.y, part.y * this.scale, part.height * this.scale, clientHeight);
    if (x !== this.x || y !== this.y) this.#go(x, y, this.scale, false);
  }

  /** @param {number} x @param {number} y @param {number} scale @param {boolean} at_once */
  #go(x, y, scale, at_once) {
    this.#stop();
    const from = [this.x, this.y, this.scale];
    if (at_once) return this.#set(x, y, scale);
    this.#stop = tween(260, (part) =>
      this.#set(mix(from[0], x, part), mix(from[1], y, part), mix(from[2], scale, part)));
  }

  /** @param {number} x @param {number} y @param {number} scale */
  #set(x, y, scale) {
    Object.assign(this, { x, y, scale });
    this.apply();
  }

  /** @param {number} dx @param {number} dy */
  #pan(dx, dy) {
    this.#stop();
    this.moved = true;
    this.#set(this.x + dx, this.y + dy, this.scale);
  }

  /** Zoom with Ctrl or a pinch; otherwise move if there is more to see, and leave the page its scrolling if not. */
  #wheel(/** @type {WheelEvent} */ event) {
    const { bounds: { width, height }, view: { clientWidth, clientHeight } } = this;
    const larger = width * this.scale > clientWidth || height * this.scale > clientHeight;
    const zooms = event.ctrlKey || event.metaKey;
    if (!zooms && !larger) return;
    event.preventDefault();
    this.#stop();
    const { left, top } = this.view.getBoundingClientRect();
    if (zooms) this.zoom(Math.exp(-event.deltaY * 0.004), event.clientX - left, event.clientY - top);
    else if (event.shiftKey) this.#pan(-event.deltaY, 0);
    else this.#pan(-event.deltaX, -event.deltaY);
  }

  #key(/** @type {KeyboardEvent} */ event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = /** @type {Record<string, () => void>} */ ({
      ArrowLeft: () => this.#pan(STEP, 0), ArrowRight: () => this.#pan(-STEP, 0),
      ArrowUp: () => this.#pan(0, STEP), ArrowDown: () => this.#pan(0, -STEP),
      "+": () => this.zoom(1.25), "=": () => this.zoom(1.25), "-": () => this.zoom(0.8), 0: () => this.fit(),
    })[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  #down(/** @type {PointerEvent} */ event) {
    if (event.button) return;
    if (!this.#pointers.size) this.#dragged = false;
    this.#pointers.set(event.pointerId, event);
  }

  #move(/** @type {PointerEvent} */ event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before) return;
    const dx = event.clientX - before.clientX, dy = event.clientY - before.clientY;
    if (!this.#dragged && Math.hypot(dx, dy) < 4) return;
    if (!this.#dragged) this.view.setPointerCapture(event.pointerId);
    this.#dragged = true;
    const other = [...this.#pointers.values()].find((each) => each.pointerId !== event.pointerId);
    this.#pointers.set(event.pointerId, event);
    if (other) this.#pinch(before, event, other);
    else this.#pan(dx, dy);
  }

  #pinch(/** @type {PointerEvent} */ before, /** @type {PointerEvent} */ now, /** @type {PointerEvent} */ other) {
    const { left, top } = this.view.getBoundingClientRect();
    const apart = (/** @type {PointerEvent} */ one) =>
      Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
    this.#pan((now.clientX - before.clientX) / 2, (now.clientY - before.clientY) / 2);
    this.zoom(apart(now) / Math.max(1, apart(before)), (now.clientX + other.clientX) / 2 - left,
      (now.clientY + other.clientY) / 2 - top);
  }

  /** The click that ends a drag follows no link. */
  #click(/** @type {MouseEvent} */ event) {
    if (!this.#dragged) return;
    this.#dragged = false;
    event.preventDefault();
    event.stopPropagation();
  }
}

/** @param {number} from @param {number} to @param {number} part */
const mix = (from, to, part) => from + (to - from) * part;

/**
 * Return where a drawing begins along one axis: in the middle, or with `home` there if there is no room for all.
 * @param {[number, number]} bounds start and size @param {[number, number] | undefined} home start and size
 * @param {number} room @param {number} scale
 */
function placed([first, size], home, room, scale) {
  const spare = room - size * scale, start = EDGE - first * scale;
  if (spare >= 2 * EDGE) return spare / 2 - first * scale;
  if (!home) return start;
  const centred = room / 2 - (home[0] + home[1] / 2) * scale;
  return Math.min(start, Math.max(start + spare - 2 * EDGE, centred));
}

/**
 * Return where the drawing begins so that a part lies in the view.
 * @param {number} at where it begins now @param {number} start @param {number} size @param {number} room
 */
function inside(at, start, size, room) {
  if (at + start < EDGE || size > room - 2 * EDGE) return EDGE - start;
  return at + start + size > room - EDGE ? room - EDGE - start - size : at;
}
