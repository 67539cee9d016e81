// The timeline: when the last attempt of each node ran, in a band for each function.

import { CanvasPane } from "./canvas_pane.js";
import { button, table } from "./dom.js";
import { counted, duration, whole } from "./format.js";
import { MOST_BARS, bandsOf } from "./bands.js";
import { oncePerFrame } from "./motion.js";
import { FAILED, RUNNING } from "./states.js";
import { TimeAxis, label, timeOfDay } from "./time_axis.js";
import { TimeGestures } from "./time_gestures.js";
import { AXIS, DENSITY, HEAD, field, paintBands, paintMarks } from "./timeline_paint.js";
import { Tip, describe, sentence } from "./tip.js";

/** @typedef {import("./main.js").Context} Context @typedef {import("./main.js").Change} Change */
/** @typedef {import("./timeline_paint.js").Track} Track @typedef {{track: Track, at: number}} Bar */

const LABEL = "Timeline of the last attempts. Left and right walk through a band, up and down change it, "
  + "f goes to the next failed node, r to the next running node, Enter opens a node, plus and minus zoom, 0 shows all.";
const REFRESH = 2000, TICK = 250;

export class TimelineView {
  needs = /** @type {const} */ ("map");
  edges = false;
  axis = new TimeAxis();
  /** @type {Track[]} */ tracks = [];
  /** @type {import("./bands.js").Band[]} */ bands = [];
  #shown = false;
  #timer = 0;
  #clock = 0;
  /** The bar under the cursor. @type {Bar | null} */ cursor = null;
  /** Where the pointer is, in pixels of the canvas. @type {{x: number, y: number} | null} */ #pointer = null;
  #gestures;
  #tip = new Tip();
  #pane = new CanvasPane(LABEL, this.#tip.element, { resize: () => this.#lay(), paint: () => this.#paint() });
  #laySoon = oncePerFrame(() => this.#lay());
  #markSoon = oncePerFrame(() => this.#mark());

  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    this.element = this.#pane.element;
    this.tools = [
      button("−", () => this.#zoom(0.6), { "aria-label": "Zoom out" }),
      button("All", () => this.#zoom(0), { title: "Show all of the time" }),
      button("+", () => this.#zoom(1.7), { "aria-label": "Zoom in" }),
    ];
    const { scroller } = this.#pane;
    scroller.classList.add("g-timeline");
    scroller.addEventListener("keydown", (event) => this.#key(event));
    this.#gestures = new TimeGestures(scroller, {
      zoom: (factor, event) => this.#zoom(factor, this.#timeAt(this.#pane.pointOf(event).x)),
      pan: (pixels) => this.#pan(pixels * this.#pane.ratio),
      point: (event) => {
        this.#pointer = event && this.#pane.pointOf(event);
        this.#markSoon();
      },
    });
    scroller.addEventListener("click", (event) => this.#click(event));
  }

  show() {
    this.#shown = true;
    this.#pane.prepare();
    this.context.store.refreshDetails();
    this.#load();
  }

  hide() {
    this.#shown = false;
    this.#tip.hide();
    clearTimeout(this.#timer);
    clearTimeout(this.#clock);
    this.#timer = this.#clock = 0;
  }

  /** @param {Change} change */
  update(change) {
    if (change.kind === "map") this.#load();
    else if (change.kind === "nodes") this.#timer ||= setTimeout(() => this.#refresh(), REFRESH);
  }

  #refresh() {
    this.#timer = 0;
    this.context.store.refreshDetails();
    if (this.context.store.stale.size) this.#timer = setTimeout(() => this.#refresh(), REFRESH);
  }

  /** Take the nodes of the map. */
  #load() {
    const { nodes } = this.context.store;
    const marked = this.cursor ? this.cursor.track.band.nodes[this.cursor.at] : this.context.store.selected - 1;
    this.bands = bandsOf(nodes, this.context.store.now());
    this.#extend();
    this.#lay();
    this.cursor = this.#barOf(marked);
    this.context.notice([nodes.notice, this.bands.length ? "" : "Nothing has run yet."].filter(Boolean).join(" "));
    this.#tickSoon();
  }

  #extend() {
    let end = 1;
    for (const band of this.bands) for (const each of band.ends) end = Math.max(end, each);
    this.axis.extend(end);
  }

  /** Let what runs grow, a few times a second. */
  #tickSoon() {
    const runs = this.bands.some((band) => band.open.includes(true));
    if (runs && this.#shown && !this.context.store.ended) this.#clock ||= setTimeout(() => this.#tick(), TICK);
  }

  #tick() {
    this.#clock = 0;
    const now = this.context.store.now();
    for (const band of this.bands) band.grow(now);
    this.#extend();
    this.#laySoon();
    this.#tickSoon();
  }

  /** Give each band its place, with bars or as a density. */
  #lay() {
    if (!this.#shown) return;
    const { ratio } = this.#pane, { store } = this.context;
    const seen = this.bands.reduce((sum, band) => sum + band.countIn(this.axis.from, this.axis.to), 0);
    const marked = this.cursor && this.cursor.track.band.nodes[this.cursor.at];
    const spare = this.#pane.height / ratio / Math.max(1, this.bands.length) - HEAD - 16;
    const density = Math.max(DENSITY, Math.min(2.5 * DENSITY, spare)) * ratio;
    let y = (AXIS + 6) * ratio;
    this.tracks = this.bands.map((band) => {
      const dense = seen > MOST_BARS || band.deep, row = (band.depth > 16 ? 8 : band.depth > 6 ? 11 : 15) * ratio;
      const height = dense ? density : band.depth * row;
      const { label: title } = store.nodes.functions[band.name];
      const track = { band, label: title, y: y + HEAD * ratio, height, row, dense };
      y = track.y + height + 10 * ratio;
      return track;
    });
    if (marked !== null) this.cursor = this.#barOf(marked);
    this.#pane.setHeight(y + 6 * ratio);
    this.#paint();
  }

  #paint() {
    if (!this.#shown) return;
    paintBands(this.#pane, this.axis, this.tracks, this.context.store.nodes.state);
    this.#mark();
  }

  #mark() {
    const { pointer, bar } = { pointer: this.#pointer, bar: this.#pointed() ?? this.cursor };
    const time = pointer ? this.#timeAt(pointer.x) : 0, { nodes } = this.context.store;
    const text = `${label(time, (this.axis.to - this.axis.from) / 500)} · ${timeOfDay(nodes.created, time)}`;
    paintMarks(this.#pane, this.axis, { bar: bar && placeOfBar(bar), x: pointer ? pointer.x : -1, time: text });
    this.#tell(bar);
  }

  /** @param {Bar | null} bar */
  #tell(bar) {
    const { ratio, top, scroller } = this.#pane, focused = document.activeElement === scroller;
    const track = this.#trackAt();
    const anchored = (/** @type {number} */ x, /** @type {number} */ y, /** @type {number} */ height) =>
      ({ x: x / ratio, y: (y - top) / ratio, height: height / ratio });
    if (bar && (this.#pointer || focused)) {
      const { start, y, height } = placeOfBar(bar), { left, width } = field(this.#pane);
      const x = this.#pointer ? this.#pointer.x : Math.max(left, left + this.axis.x(start, width));
      this.#tip.show(describe(this.context.store, bar.track.band.nodes[bar.at]), anchored(x, y, height), scroller);
    } else if (track?.dense && this.#pointer) {
      const time = this.#timeAt(this.#pointer.x), count = track.band.countIn(time, time + 1e-6);
      this.#tip.show({ title: track.label, rows: [["Running then", whole(count)], ["Click", "to zoom in"]] },
        anchored(this.#pointer.x, track.y, track.height), scroller);
    } else this.#tip.hide();
  }

  /** @param {number} x */
  #timeAt(x) {
    const { left, width } = field(this.#pane);
    return Math.max(0, this.axis.time(x - left, width));
  }

  #trackAt() {
    const y = this.#pointer?.y ?? -1;
    return this.tracks.find((track) => y >= track.y && y < track.y + track.height);
  }

  /** Return the bar under the pointer, a few pixels around it count too. @returns {Bar | null} */
  #pointed() {
    const track = this.#trackAt();
    if (!track || track.dense || !this.#pointer) return null;
    const { band, y, row } = track, wanted = Math.floor((this.#pointer.y - y) / row), slack = 3 * this.#pane.ratio;
    const from = this.#timeAt(this.#pointer.x - slack), to = this.#timeAt(this.#pointer.x + slack);
    const at = band.rows.findIndex((each, bar) => each === wanted && band.starts[bar] <= to && band.ends[bar] >= from);
    return at < 0 ? null : { track, at };
  }

  /** @param {number} index of a node @returns {Bar | null} */
  #barOf(index) {
    const track = this.tracks.find(({ band }) => band.nodes.includes(index));
    return track ? { track, at: track.band.nodes.indexOf(index) } : null;
  }

  /** @param {number} factor 0: show all @param {number} [time] */
  #zoom(factor, time) {
    if (factor) this.axis.zoom(factor, time);
    else this.axis.all();
    this.#laySoon();
  }

  /** @param {number} pixels */
  #pan(pixels) {
    this.axis.pan((-pixels / field(this.#pane).width) * (this.axis.to - this.axis.from));
    this.#laySoon();
  }

  /** @param {MouseEvent} event */
  #click(event) {
    if (this.#gestures.dragged) return;
    this.#pointer = this.#pane.pointOf(event);
    const bar = this.#pointed(), touched = event instanceof PointerEvent && event.pointerType === "touch";
    if (!bar) return this.#trackAt()?.dense && this.#zoom(4, this.#timeAt(this.#pointer.x));
    if (touched && this.cursor?.at !== bar.at) return this.#go(bar);
    const page = this.context.pageOf(bar.track.band.nodes[bar.at] + 1);
    if (event.ctrlKey || event.metaKey) window.open(page, "_blank", "noopener");
    else location.assign(page);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.tracks.length) return;
    const act = /** @type {Record<string, () => void>} */ ({
      ArrowRight: () => this.#step(1), ArrowLeft: () => this.#step(-1), Home: () => this.#step(-Infinity),
      End: () => this.#step(Infinity), ArrowDown: () => this.#change(1), ArrowUp: () => this.#change(-1),
      f: () => this.#find(FAILED), r: () => this.#find(RUNNING), Enter: () => this.#open(),
      "+": () => this.#zoom(1.7), "=": () => this.#zoom(1.7), "-": () => this.#zoom(0.6), 0: () => this.#zoom(0),
    })[event.key];
    if (!act) return;
    event.preventDefault();
    this.#pointer = null;
    act();
  }

  #open() {
    if (this.cursor) location.assign(this.context.pageOf(this.cursor.track.band.nodes[this.cursor.at] + 1));
  }

  /** @param {number} by bars of the band */
  #step(by) {
    const { track, at } = this.cursor ?? { track: this.tracks[0], at: -1 };
    this.#go({ track, at: Math.max(0, Math.min(track.band.nodes.length - 1, at + by)) });
  }

  /** Go to the bar of another band that is nearest in time. @param {1 | -1} by */
  #change(by) {
    if (!this.cursor) return this.#step(1);
    const { track, at } = this.cursor, next = this.tracks[this.tracks.indexOf(track) + by];
    if (!next) return;
    const later = next.band.starts.findIndex((start) => start >= track.band.starts[at]);
    this.#go({ track: next, at: later < 0 ? next.band.starts.length - 1 : later });
  }

  /** Go to the next bar in a state, around the end. @param {number} state */
  #find(state) {
    const bars = this.tracks.flatMap((track) => track.band.nodes.map((node, at) => ({ track, at, node })));
    const now = this.cursor, from = bars.findIndex((bar) => bar.track === now?.track && bar.at === now.at);
    const order = [...bars.slice(from + 1), ...bars.slice(0, from + 1)];
    const found = order.find(({ node }) => this.context.store.nodes.state[node] === state);
    if (found) this.#go(found);
    else this.context.say(state === FAILED ? "No node has failed." : "No node is running.");
  }

  /** @param {Bar} bar */
  #go(bar) {
    this.cursor = bar;
    const { band, y, height } = bar.track, index = band.nodes[bar.at];
    this.context.select(index + 1);
    this.axis.reveal(band.starts[bar.at], band.ends[bar.at]);
    this.#pane.reveal(y - (AXIS + HEAD) * this.#pane.ratio, Math.min(height, this.#pane.height / 2));
    this.#laySoon();
    this.context.say(sentence(this.context.store, index));
  }

  /** A table of the bands. */
  table() {
    const { store } = this.context;
    const rows = this.bands.map(({ name, nodes, starts, ends, open }) => [
      store.nodes.functions[name].label, whole(nodes.length), duration(starts[0]),
      duration(ends.reduce((most, end) => Math.max(most, end), 0)), whole(open.filter(Boolean).length),
    ]);
    return table(`Timeline of ${counted(this.bands.length, "function")}`,
      ["Function", "Attempts", "First start after", "Last end after", "Running"], rows);
  }
}

/** Return where a bar is drawn; in a density it stands for all of the height. @param {Bar} bar */
function placeOfBar({ track: { band, y, row, height, dense }, at }) {
  const top = dense ? y : y + band.rows[at] * row;
  return { start: band.starts[at], end: band.ends[at], y: top, height: dense ? height : row * 0.82 };
}
