// From functions and edges to boxes and links: functions that call one another in a circle are one box.

/** @typedef {import("./store.js").Shape} Shape @typedef {import("./store.js").Edge} Edge */

/** More boxes are not laid out; the table has all functions. */
export const MOST_BOXES = 150;

/**
 * @typedef {{id: string, members: number[], loops: {created: number, value: number}}} Group
 *   members: indices of functions; loops: edges between these, or from one of them to itself
 * @typedef {{id: string, from: string, to: string, count: number, kind: "value" | "created"}} GroupLink
 */

/**
 * Group the functions of an instance.
 * @param {Shape} shape
 * @returns {{groups: Group[], links: GroupLink[], left: number}} left: groups that are left out
 */
export function groupsOf(shape) {
  const all = components(shape.functions.length, shape.edges);
  const size = (/** @type {number[]} */ members) =>
    members.reduce((sum, member) => sum + shape.functions[member].nodes.reduce((a, b) => a + b, 0), 0);
  const kept = all.length > MOST_BOXES ? all.sort((a, b) => size(b) - size(a)).slice(0, MOST_BOXES) : all;
  for (const members of kept) members.sort((a, b) => a - b);
  const groups = kept.map((members) => ({ id: `f${members[0]}`, members, loops: { created: 0, value: 0 } }));
  groups.sort((a, b) => a.members[0] - b.members[0]);
  return { groups, links: linksOf(groups, shape.edges), left: all.length - kept.length };
}

/** Say whether a group is a loop. @param {Group} group */
export const isLoop = ({ loops }) => loops.created + loops.value > 0;

/** Add up edges between groups, and edges within a group as its loops. @param {Group[]} groups @param {Edge[]} edges */
function linksOf(groups, edges) {
  const groupOf = new Map(groups.flatMap((group) => group.members.map((member) => [member, group])));
  /** @type {Map<string, GroupLink>} */
  const links = new Map();
  for (const { from, to, count, kind } of edges) {
    const source = groupOf.get(from), target = groupOf.get(to);
    if (!source || !target) continue;
    if (source === target) source.loops[kind] += count;
    else {
      const id = `${source.id}-${target.id}-${kind}`;
      const link = links.get(id) ?? { id, from: source.id, to: target.id, count: 0, kind };
      link.count += count;
      links.set(id, link);
    }
  }
  return [...links.values()];
}

/**
 * Find the links of creators that other links imply: what a node creates and then needs is joined to it anyway.
 * @param {GroupLink[]} links @returns {Set<GroupLink>}
 */
export function implied(links) {
  /** @type {Map<string, GroupLink[]>} */
  const from = new Map();
  for (const link of links) from.set(link.from, [...(from.get(link.from) ?? []), link]);
  const found = new Set();
  for (const link of links) {
    const seen = new Set([link.from]), open = [link.from];
    while (link.kind === "created" && open.length) {
      for (const next of from.get(/** @type {string} */ (open.pop())) ?? []) {
        if (next === link || seen.has(next.to)) continue;
        if (next.to === link.to) found.add(link);
        seen.add(next.to);
        open.push(next.to);
      }
    }
  }
  return found;
}

/**
 * Find the strongly connected components of a graph, as Tarjan does.
 * @param {number} size @param {{from: number, to: number}[]} edges
 * @returns {number[][]}
 */
export function components(size, edges) {
  const next = Array.from({ length: size }, () => /** @type {number[]} */ ([]));
  for (const { from, to } of edges) next[from].push(to);
  const order = new Array(size).fill(-1), low = new Array(size).fill(0), onStack = new Set();
  /** @type {number[]} */ const stack = [];
  /** @type {number[][]} */ const found = [];
  let count = 0;
  const visit = (/** @type {number} */ at) => {
    order[at] = low[at] = count++;
    stack.push(at);
    onStack.add(at);
    for (const to of next[at]) {
      if (order[to] < 0) visit(to);
      if (onStack.has(to)) low[at] = Math.min(low[at], low[to]);
    }
    if (low[at] !== order[at]) return;
    const members = stack.splice(stack.indexOf(at));
    for (const member of members) onStack.delete(member);
    found.push(members);
  };
  for (let at = 0; at < size; at++) if (order[at] < 0) visit(at);
  return found;
}
