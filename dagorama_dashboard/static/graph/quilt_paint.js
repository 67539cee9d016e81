// How the cells of a quilt look: done is quiet, what runs moves, what failed has a ring.

import { LOOKS, LOOK_OF } from "./states.js";

/** @typedef {import("./quilt_grid.js").QuiltGrid} QuiltGrid @typedef {import("./quilt_grid.js").Section} Section */
/** @typedef {import("./canvas_pane.js").CanvasPane} CanvasPane */

/** How strong the colour of each look is. */
const QUIET = /** @type {Partial<Record<string, number>>} */ ({ done: 0.42, waiting: 0.4, queued: 0.55 });
const STRENGTH = LOOKS.map(({ kind }) => QUIET[kind] ?? 1);
const FAILED_LOOK = LOOKS.findIndex(({ kind }) => kind === "failed");
const RUNNING_LOOK = LOOKS.findIndex(({ kind }) => kind === "running");

/** Paint all cells that are in view. @param {CanvasPane} pane @param {QuiltGrid} grid @param {Uint8Array} states */
export function paintAll(pane, grid, states) {
  const { base, top, height } = pane;
  base.clearRect(0, 0, pane.width, height);
  for (const section of grid.sections) {
    const { from, to } = grid.cellsIn(section, top, top + height);
    for (let look = 0; look < LOOKS.length; look++) {
      startLook(pane, look);
      for (let cell = from; cell < to; cell++) {
        const index = grid.nodeAt(cell);
        if (LOOK_OF[states[index]] !== look) continue;
        const offset = cell - section.from, column = offset % grid.columns, row = (offset - column) / grid.columns;
        paintCell(pane, grid, look, grid.margin + column * grid.pitch, section.y + row * grid.pitch - top);
      }
    }
  }
  base.globalAlpha = 1;
}

/**
 * Paint some cells again, and the rings of their neighbours.
 * @param {CanvasPane} pane @param {QuiltGrid} grid @param {Uint8Array} states @param {Iterable<number>} indices
 */
export function paintSome(pane, grid, states, indices) {
  const again = new Set();
  for (const index of indices) {
    const { x, y } = grid.placeOf(index), at = y - pane.top;
    if (at + grid.pitch < 0 || at > pane.height) continue;
    pane.base.clearRect(x - grid.gap, at - grid.gap, grid.pitch + grid.gap, grid.pitch + grid.gap);
    again.add(index);
    const cell = grid.cellOf(index);
    for (const row of [-grid.columns, 0, grid.columns]) {
      for (const near of [cell + row - 1, cell + row, cell + row + 1]) {
        const node = near >= 0 && near < grid.count ? grid.nodeAt(near) : index;
        if (LOOK_OF[states[node]] === FAILED_LOOK) again.add(node);
      }
    }
  }
  for (const index of again) {
    const { x, y } = grid.placeOf(index), look = LOOK_OF[states[index]];
    startLook(pane, look);
    paintCell(pane, grid, look, x, y - pane.top);
  }
  pane.base.globalAlpha = 1;
}

/** @param {CanvasPane} pane @param {number} look */
function startLook({ base, palette }, look) {
  base.globalAlpha = STRENGTH[look];
  base.fillStyle = palette.states[look];
}

/** @param {CanvasPane} pane @param {QuiltGrid} grid @param {number} look @param {number} x @param {number} y */
function paintCell(pane, grid, look, x, y) {
  const { base, palette, ratio } = pane;
  const { cell, gap } = grid;
  if (look === FAILED_LOOK) {
    base.fillStyle = palette.text;
    square(base, x - gap, y - gap, cell + 2 * gap, ratio);
    base.fillStyle = palette.states[look];
    // Between ring and colour there is a gap if there is room for it.
    if (cell >= 9 * ratio) {
      base.fillStyle = palette.surface;
      square(base, x, y, cell, ratio);
      base.fillStyle = palette.states[look];
      return square(base, x + gap, y + gap, cell - 2 * gap, ratio);
    }
  }
  square(base, x, y, cell, ratio);
}

/**
 * Fill a square, with round corners if it is large.
 * @param {CanvasRenderingContext2D} base @param {number} x @param {number} y @param {number} size @param {number} ratio
 */
function square(base, x, y, size, ratio) {
  if (size < 7 * ratio) return base.fillRect(x, y, size, size);
  base.beginPath();
  base.roundRect(x, y, size, size, size / 4.5);
  base.fill();
}

/**
 * Paint the headings of sections.
 * @param {CanvasPane} pane @param {QuiltGrid} grid @param {(section: Section) => [string, string]} titleOf
 */
export function paintHeadings({ base, palette, ratio, top, width }, grid, titleOf) {
  if (!grid.heading) return;
  base.textBaseline = "alphabetic";
  for (const section of grid.sections) {
    const [name, count] = titleOf(section), y = section.y - top - 9 * ratio;
    base.font = `600 ${13 * ratio}px ${palette.font}`;
    base.fillStyle = palette.text;
    base.fillText(name, grid.margin, y, width - 110 * ratio);
    const room = Math.min(base.measureText(name).width, width - 110 * ratio);
    base.font = `400 ${12 * ratio}px ${palette.font}`;
    base.fillStyle = palette.muted;
    base.fillText(count, grid.margin + room + 9 * ratio, y);
  }
}

/**
 * Paint what moves: nodes that run, and the cursor.
 * @param {CanvasPane} pane @param {QuiltGrid} grid
 * @param {{running: number[], cursor: number, hovered: number, time: number}} what time: seconds
 */
export function paintOver(pane, grid, { running, cursor, hovered, time }) {
  const { over, palette, ratio, top, width, height } = pane;
  const { cell, gap } = grid;
  over.clearRect(0, 0, width, height);
  for (const index of running) {
    const { x, y } = grid.placeOf(index);
    if (y + cell < top || y > top + height) continue;
    const beat = 0.5 + 0.5 * Math.sin(time * 4 - index * 0.35);
    over.globalAlpha = beat;
    over.fillStyle = palette.states[RUNNING_LOOK];
    square(over, x - gap, y - top - gap, cell + 2 * gap, ratio);
    over.globalAlpha = 0.45 * (1 - beat);
    over.fillStyle = palette.surface;
    square(over, x, y - top, cell, ratio);
  }
  over.globalAlpha = 1;
  if (hovered >= 0) frame(pane, grid, hovered, palette.text, 1.5 * ratio);
  if (cursor >= 0) frame(pane, grid, cursor, palette.focus, 2.5 * ratio);
}

/**
 * Draw a frame around a cell.
 * @param {CanvasPane} pane @param {QuiltGrid} grid @param {number} index @param {string} colour @param {number} thick
 */
function frame({ over, ratio, top }, grid, index, colour, thick) {
  const { x, y } = grid.placeOf(index), away = 2.5 * ratio, size = grid.cell + 2 * away;
  over.lineWidth = thick;
  over.strokeStyle = colour;
  over.beginPath();
  over.roundRect(x - away, y - top - away, size, size, Math.max(away, grid.cell / 4));
  over.stroke();
}
