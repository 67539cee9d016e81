// How the timeline looks: an axis, and bands of bars or of densities.

import { whole } from "./format.js";
import { densityOf } from "./bands.js";
import { FAILED, LOOKS, LOOK_OF } from "./states.js";

/** @typedef {import("./canvas_pane.js").CanvasPane} CanvasPane @typedef {import("./time_axis.js").TimeAxis} TimeAxis */
/**
 * @typedef {{band: import("./bands.js").Band, label: string, y: number, height: number, row: number,
 *   dense: boolean}} Track  y, height: of its bars, in pixels of the canvas; row: height of one row
 */

/** Sizes in CSS pixels. */
export const AXIS = 30, HEAD = 24, SIDE = 16, DENSITY = 56;
const TICK_ROOM = 96;
const RUNNING_LOOK = LOOKS.findIndex(({ kind }) => kind === "running"), DONE_LOOK = 0, FAILED_LOOK = LOOKS.length - 1;

/** Return where the bars are, from left to right, in pixels of the canvas. @param {CanvasPane} pane */
export const field = ({ ratio, width }) => ({ left: SIDE * ratio, width: width - 2 * SIDE * ratio });

/**
 * @param {CanvasPane} pane @param {TimeAxis} axis @param {Track[]} tracks @param {Uint8Array} states
 */
export function paintBands(pane, axis, tracks, states) {
  const { base, top, width, height, ratio, palette } = pane;
  base.clearRect(0, 0, width, height);
  const ticks = axis.ticks(field(pane).width / (TICK_ROOM * ratio));
  base.fillStyle = palette.line;
  for (const [time] of ticks) base.fillRect(Math.round(placeOf(pane, axis, time)), AXIS * ratio, 1, height);
  for (const track of tracks) {
    if (track.y + track.height < top || track.y - HEAD * ratio > top + height) continue;
    paintHead(pane, track);
    if (track.dense) paintDensity(pane, axis, track, states);
    else paintBars(pane, axis, track, states);
  }
  paintAxis(pane, axis, ticks);
}

/** @param {CanvasPane} pane @param {TimeAxis} axis @param {number} time */
export function placeOf(pane, axis, time) {
  const { left, width } = field(pane);
  return left + axis.x(time, width);
}

/** @param {CanvasPane} pane @param {Track} track */
function paintHead({ base, ratio, top, palette, width }, { band, label, y }) {
  const line = y - top - 8 * ratio;
  base.font = `600 ${13 * ratio}px ${palette.font}`;
  base.fillStyle = palette.text;
  const room = width - 140 * ratio, size = Math.min(room, base.measureText(label).width);
  base.fillText(label, SIDE * ratio, line, room);
  base.font = `400 ${12 * ratio}px ${palette.font}`;
  base.fillStyle = palette.muted;
  base.fillText(whole(band.nodes.length), SIDE * ratio + size + 9 * ratio, line);
}

/** @param {CanvasPane} pane @param {TimeAxis} axis @param {Track} track @param {Uint8Array} states */
function paintBars(pane, axis, { band, y, row }, states) {
  const { base, palette, ratio, top } = pane, gap = Math.max(1, row * 0.18), size = row - gap;
  for (let at = 0; at < band.starts.length; at++) {
    if (band.ends[at] < axis.from || band.starts[at] > axis.to) continue;
    const look = LOOK_OF[states[band.nodes[at]]], x = placeOf(pane, axis, band.starts[at]);
    const length = Math.max(2 * ratio, placeOf(pane, axis, band.ends[at]) - x), line = y - top + band.rows[at] * row;
    base.fillStyle = band.open[at] ? palette.states[RUNNING_LOOK] : palette.states[look];
    base.globalAlpha = look === DONE_LOOK ? 0.62 : 1;
    bar(base, x, line, length, size, band.open[at]);
    base.globalAlpha = 1;
    if (states[band.nodes[at]] !== FAILED) continue;
    base.strokeStyle = palette.text;
    base.lineWidth = 1.5 * ratio;
    base.strokeRect(x, line, length, size);
  }
}

/**
 * Fill a bar, whose right end is open if it runs.
 * @param {CanvasRenderingContext2D} base
 * @param {number} x @param {number} y @param {number} length @param {number} size @param {boolean} open
 */
function bar(base, x, y, length, size, open) {
  const round = Math.min(size / 3, length / 2);
  base.beginPath();
  base.roundRect(x, y, length, size, open ? [round, 0, 0, round] : round);
  base.fill();
  if (!open) return;
  base.beginPath();
  base.moveTo(x + length, y);
  base.lineTo(x + length + size * 0.6, y + size / 2);
  base.lineTo(x + length, y + size);
  base.fill();
}

/** @param {CanvasPane} pane @param {TimeAxis} axis @param {Track} track @param {Uint8Array} states */
function paintDensity(pane, axis, track, states) {
  const { base, palette, ratio, top } = pane, { left, width } = field(pane);
  const step = 2 * ratio, parts = Math.max(1, Math.floor(width / step)), size = track.height;
  const { ended, running, failed, most } = densityOf(track.band, states, axis.from, axis.to, parts);
  const bottom = track.y - top + size, high = (/** @type {number} */ count) => (most ? (count / most) * size : 0);
  base.fillStyle = palette.states[DONE_LOOK];
  base.globalAlpha = 0.5;
  for (let at = 0; at < parts; at++) base.fillRect(left + at * step, bottom - high(ended[at]), step, high(ended[at]));
  base.globalAlpha = 1;
  base.fillStyle = palette.states[RUNNING_LOOK];
  for (let at = 0; at < parts; at++) {
    const all = high(ended[at] + running[at]);
    if (running[at]) base.fillRect(left + at * step, bottom - all, step, all - high(ended[at]));
  }
  for (let at = 0; at < parts; at++) {
    if (!failed[at]) continue;
    base.fillStyle = palette.text;
    base.fillRect(left + at * step - ratio, bottom - size - ratio, step + 2 * ratio, size + 2 * ratio);
    base.fillStyle = palette.states[FAILED_LOOK];
    base.fillRect(left + at * step, bottom - size, step, size);
  }
  base.fillStyle = palette.line;
  base.fillRect(left, bottom, width, ratio);
  // Bars show means, and nodes are whole: a mean of 9.2 was 10 at some moment.
  const text = `up to ${Math.ceil(most - 0.01)} at once`;
  base.font = `400 ${11 * ratio}px ${palette.font}`;
  base.fillStyle = palette.muted;
  base.textAlign = "right";
  base.fillText(text, left + width, track.y - top - 8 * ratio);
  base.textAlign = "left";
}

/** @param {CanvasPane} pane @param {TimeAxis} axis @param {[number, string][]} ticks */
function paintAxis(pane, axis, ticks) {
  const { base, width, ratio, palette } = pane;
  base.fillStyle = palette.surface;
  base.fillRect(0, 0, width, AXIS * ratio);
  base.fillStyle = palette.line;
  base.fillRect(0, AXIS * ratio - 1, width, 1);
  base.font = `500 ${11.5 * ratio}px ${palette.font}`;
  base.fillStyle = palette.muted;
  for (const [time, text] of ticks) {
    const x = placeOf(pane, axis, time), room = base.measureText(text).width;
    base.fillText(text, Math.min(Math.max(2 * ratio, x - room / 2), width - room - 4 * ratio), 19 * ratio);
  }
}

/**
 * Paint the cursor, and a line with the time under the pointer.
 * @param {CanvasPane} pane @param {TimeAxis} axis
 * @param {{bar: {start: number, end: number, y: number, height: number} | null, x: number, time: string}} what
 *   x: in pixels of the canvas; -1: the pointer is elsewhere
 */
export function paintMarks(pane, axis, { bar: marked, x, time }) {
  const { over, width, height, ratio, palette, top } = pane;
  over.clearRect(0, 0, width, height);
  if (x >= 0) {
    over.fillStyle = palette.muted;
    over.fillRect(Math.round(x), AXIS * ratio, Math.max(1, ratio / 1.5), height);
    over.font = `600 ${11.5 * ratio}px ${palette.font}`;
    const size = over.measureText(time).width + 14 * ratio, left = Math.min(Math.max(0, x - size / 2), width - size);
    over.fillStyle = palette.text;
    over.beginPath();
    over.roundRect(left, 4 * ratio, size, 21 * ratio, 6 * ratio);
    over.fill();
    over.fillStyle = palette.surface;
    over.fillText(time, left + 7 * ratio, 19 * ratio);
  }
  if (!marked) return;
  const start = placeOf(pane, axis, marked.start), away = 2 * ratio;
  const length = Math.max(2 * ratio, placeOf(pane, axis, marked.end) - start);
  over.strokeStyle = palette.focus;
  over.lineWidth = 2.5 * ratio;
  over.beginPath();
  over.roundRect(start - away, marked.y - top - away, length + 2 * away, marked.height + 2 * away, 4 * ratio);
  over.stroke();
}
