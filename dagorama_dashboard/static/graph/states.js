// The states of nodes as people see them: one kind, glyph, word and colour for each number on the wire.

/**
 * @typedef {"waiting" | "queued" | "running" | "done" | "failed" | "cancelled" | "retry"} Kind
 * @typedef {{kind: Kind, glyph: string, word: string}} Look
 */

/** In the order in which bars and legends show them. @type {readonly Look[]} */
export const LOOKS = [
  { kind: "done", glyph: "●", word: "done" },
  { kind: "running", glyph: "◐", word: "running" },
  { kind: "retry", glyph: "↻", word: "delayed" },
  { kind: "queued", glyph: "◔", word: "queued" },
  { kind: "waiting", glyph: "○", word: "waiting" },
  { kind: "cancelled", glyph: "⊘", word: "cancelled" },
  { kind: "failed", glyph: "✕", word: "failed" },
];

/** By the number of dagorama.models.state.State: a node that resolves waits for the nodes that it returned. */
const KINDS = /** @type {Kind[]} */ (
  ["waiting", "queued", "running", "waiting", "retry", "done", "failed", "cancelled"]
);

/** Positions in LOOKS by the number of the state. */
export const LOOK_OF = Uint8Array.from(KINDS, (kind) => LOOKS.findIndex((look) => look.kind === kind));
export const RUNNING = 2;
export const FAILED = 6;
const RESOLVING = 3;

/** Return the look of a state; one that this page does not know yet looks like waiting. @param {number} state */
export function lookOf(state) {
  return LOOKS[LOOK_OF[state] ?? LOOK_OF[0]];
}

/** Return the state in words, more exactly than its look. @param {number} state */
export function wordOf(state) {
  return state === RESOLVING ? "waiting for the nodes it returned" : lookOf(state).word;
}

/** Add the counts of states up by look. @param {ArrayLike<number>} counts by state @returns {number[]} */
export function byLook(counts) {
  const sums = LOOKS.map(() => 0);
  for (let state = 0; state < counts.length; state++) sums[LOOK_OF[state] ?? LOOK_OF[0]] += counts[state];
  return sums;
}

/** Read the colours of the page, which canvases cannot take from a style sheet. @param {Element} element */
export function readPalette(element) {
  const style = getComputedStyle(element);
  /** @param {string} name */
  const read = (name) => style.getPropertyValue(name).trim();
  const states = LOOKS.map((look) => read(`--state-${look.kind === "retry" ? "backoff" : look.kind}`));
  return {
    states,
    text: read("--text"), muted: read("--muted"), line: read("--line"), surface: read("--surface"),
    surface2: read("--surface-2"), accent: read("--accent"), focus: read("--focus"), font: read("--font"),
  };
}

/** @typedef {ReturnType<typeof readPalette>} Palette */
