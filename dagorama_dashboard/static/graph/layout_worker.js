// The layout of boxes and edges by dagre, in a worker, so that the page answers meanwhile.

import { Graph, layout } from "../vendor/dagre.esm.js";

/**
 * @typedef {{id: string, width: number, height: number}} Size
 * @typedef {{id: string, from: string, to: string, label: number}} Link  label: width of its label, or 0
 * @typedef {{boxes: Size[], links: Link[], width: number, height: number, direction?: "TB" | "LR"}} Task
 * @typedef {{x: number, y: number}} Point
 * @typedef {{width: number, height: number, down: boolean, boxes: Record<string, Point>,
 *   links: Record<string, Point[]>}} Layout  points of boxes are their top left corners
 */

/** @param {Task} task @param {"TB" | "LR"} rankdir @returns {Layout} */
function lay(task, rankdir) {
  const graph = new Graph({ multigraph: true });
  const across = rankdir === "LR";
  graph.setGraph({ rankdir, nodesep: across ? 26 : 40, ranksep: across ? 50 : 26, edgesep: 18 });
  for (const { id, width, height } of task.boxes) graph.setNode(id, { width, height });
  for (const { id, from, to, label } of task.links) {
    graph.setEdge(from, to, { width: label, height: label ? 18 : 0, labelpos: "c" }, id);
  }
  layout(graph);
  const boxes = /** @type {Record<string, Point>} */ ({}), links = /** @type {Record<string, Point[]>} */ ({});
  for (const { id, width, height } of task.boxes) {
    const { x, y } = graph.node(id);
    boxes[id] = { x: x - width / 2, y: y - height / 2 };
  }
  for (const { id, from, to } of task.links) links[id] = graph.edge(from, to, id).points;
  straighten(Object.values(links), task.boxes.map(({ id, width, height }) =>
    (across ? { middle: graph.node(id).x, size: width } : { middle: graph.node(id).y, size: height })), !across);
  for (const box of task.boxes) {
    for (const end of /** @type {const} */ (["from", "to"])) {
      const lines = task.links.filter((link) => link[end] === box.id).map(({ id }) => links[id]);
      attach(lines, boxes[box.id], box, !across, end === "from");
    }
  }
  const { width = 0, height = 0 } = graph.graph();
  return { width, height, down: !across, boxes, links };
}

/**
 * Let lines pass ranks of boxes straight, and bend in the space between two ranks only.
 * @param {Point[][]} lines @param {{middle: number, size: number}[]} boxes along the ranks @param {boolean} down
 */
function straighten(lines, boxes, down) {
  const key = down ? "y" : "x";
  /** @type {Map<number, number>} */ const sizes = new Map();
  for (const { middle, size } of boxes) {
    sizes.set(Math.round(middle), Math.max(size, sizes.get(Math.round(middle)) ?? 0));
  }
  for (const line of lines) {
    const passed = line.slice(1, -1).flatMap((point) => {
      const size = sizes.get(Math.round(point[key]));
      return size ? [{ ...point, [key]: point[key] - size / 2 }, { ...point, [key]: point[key] + size / 2 }] : [];
    });
    line.splice(1, line.length - 2, ...passed);
  }
}

/**
 * Let the lines of a box begin or end next to one another, in the middle of its side.
 * @param {Point[][]} lines @param {Point} corner @param {Size} size @param {boolean} down @param {boolean} begin
 */
function attach(lines, corner, size, down, begin) {
  const side = down ? "x" : "y", middle = corner[side] + (down ? size.width : size.height) / 2;
  const far = down ? { y: corner.y + (begin ? size.height : 0) } : { x: corner.x + (begin ? size.width : 0) };
  const gap = Math.min(40, ((down ? size.width : size.height) * 0.6) / Math.max(1, lines.length - 1));
  const next = (/** @type {Point[]} */ line) => line[begin ? 1 : line.length - 2];
  lines.sort((a, b) => next(a)[side] - next(b)[side]);
  lines.forEach((line, at) => {
    Object.assign(line[begin ? 0 : line.length - 1], far, { [side]: middle + (at - (lines.length - 1) / 2) * gap });
  });
}

/** Return how large the layout would be shown. @param {Layout} made @param {Task} task */
const fitOf = (made, task) => Math.min(1, task.width / made.width, task.height / made.height);

addEventListener("message", ({ data: { number, task } }) => {
  const down = lay(task, task.direction ?? "TB");
  const across = task.direction ? down : lay(task, "LR");
  postMessage({ number, made: fitOf(across, task) > fitOf(down, task) * 1.05 ? across : down });
});
