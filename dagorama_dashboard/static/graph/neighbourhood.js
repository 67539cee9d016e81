// The nodes around one node: sources up, dependents down, children right, the creator left.

/** @typedef {import("./nodes.js").Nodes} Nodes @typedef {"centre" | "up" | "down" | "right" | "left"} Side */

/**
 * @typedef {{id: string, side: Side, anchor: string, members: number[], stack: boolean}} Card
 *   anchor: id of the card from which it was found; members: indices of nodes, one if it is no stack
 * @typedef {{id: string, from: string, to: string, count: number, kind: "value" | "created"}} CardLink
 */

/** Cards at most, and siblings from which a stack is made. */
export const MOST_CARDS = 150;
const STACKED = 4;

/** Who needs whom, and who created whom, the other way round than the columns say it. */
export class Relations {
  /** @param {Nodes} nodes */
  constructor(nodes) {
    this.nodes = nodes;
    this.version = nodes.version;
    const { count, sources, sourceStart, creator } = nodes;
    this.#dependents = inverted(count, (take) => {
      for (let at = 0; at < count; at++) {
        for (let source = sourceStart[at]; source < sourceStart[at + 1]; source++) take(sources[source] - 1, at);
      }
    });
    this.#children = inverted(count, (take) => {
      for (let at = 0; at < count; at++) if (creator[at]) take(creator[at] - 1, at);
    });
  }

  #dependents;
  #children;

  /** Find the nodes on one side. @param {number} index @param {Side} side @returns {ArrayLike<number>} indices */
  on(index, side) {
    if (side === "up") return this.nodes.sourcesOf(index).map((ordinal) => ordinal - 1);
    if (side === "left") return this.nodes.creator[index] ? [this.nodes.creator[index] - 1] : [];
    return (side === "down" ? this.#dependents : this.#children)(index);
  }
}

/**
 * Turn pairs around: return a function that gives the second items by the first.
 * @param {number} count @param {(take: (key: number, item: number) => void) => void} each gives all pairs to `take`
 */
function inverted(count, each) {
  // Nodes that are not known are counted too, behind the others.
  const starts = new Uint32Array(count + 2);
  each((key) => starts[Math.min(key, count) + 1]++);
  for (let at = 0; at <= count; at++) starts[at + 1] += starts[at];
  const items = new Uint32Array(starts[count + 1]), next = starts.slice();
  each((key, item) => (items[next[Math.min(key, count)]++] = item));
  return (/** @type {number} */ index) => items.subarray(starts[index], starts[index + 1]);
}

/**
 * Collect cards around a node, the nearest first; siblings of one function in one state become a stack.
 * @param {Relations} relations @param {number} centre an index
 */
export function around(relations, centre) {
  const { nodes } = relations;
  /** @type {Map<number, Card>} */ const cardOf = new Map();
  /** @type {Card[]} */ const cards = [];
  let cut = false;
  const add = (/** @type {Card} */ card) => {
    if (cards.length >= MOST_CARDS) return void (cut = true);
    cards.push(card);
    for (const member of card.members) cardOf.set(member, card);
  };
  add({ id: `n${centre + 1}`, side: "centre", anchor: "", members: [centre], stack: false });
  for (let at = 0; at < cards.length; at++) {
    const card = cards[at];
    for (const side of card.stack ? [] : sidesOf(card)) {
      const near = new Set(Array.from(relations.on(card.members[0], side)));
      const fresh = [...near].filter((node) => node < nodes.count && !cardOf.has(node));
      for (const members of alike(nodes, fresh)) {
        const stack = members.length >= STACKED, [first] = members;
        const id = `s${card.id}${side}${nodes.function[first]}-${nodes.state[first]}`;
        if (stack) add({ id, side, anchor: card.id, members, stack });
        else for (const node of members) add({ id: `n${node + 1}`, side, anchor: card.id, members: [node], stack });
      }
    }
  }
  return { cards, links: linksOf(relations.nodes, cardOf), cut };
}

/** @param {Card} card @returns {Side[]} */
function sidesOf({ side }) {
  return side === "centre" ? ["up", "down", "right", "left"] : [side];
}

/** Sort nodes by function and state. @param {Nodes} nodes @param {number[]} indices */
function alike(nodes, indices) {
  /** @type {Map<number, number[]>} */ const groups = new Map();
  for (const index of indices) {
    const key = nodes.function[index] * 16 + nodes.state[index], group = groups.get(key);
    if (group) group.push(index);
    else groups.set(key, [index]);
  }
  return groups.values();
}

/** @param {Nodes} nodes @param {Map<number, Card>} cardOf */
function linksOf(nodes, cardOf) {
  /** @type {Map<string, CardLink>} */ const links = new Map();
  /** @param {Card | undefined} from @param {Card} to @param {"value" | "created"} kind */
  const add = (from, to, kind) => {
    if (!from || from === to) return;
    const id = `${from.id}-${to.id}-${kind}`, link = links.get(id);
    if (link) link.count++;
    else links.set(id, { id, from: from.id, to: to.id, count: 1, kind });
  };
  for (const [index, card] of cardOf) {
    for (const source of nodes.sourcesOf(index)) add(cardOf.get(source - 1), card, "value");
    const creator = cardOf.get(nodes.creator[index] - 1);
    // Sources and dependents often have the same creator, which would be joined to all of them.
    if (card.side !== "up" && card.side !== "down") add(creator, card, "created");
  }
  return [...links.values()];
}
