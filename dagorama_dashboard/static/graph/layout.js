// Asks the worker for layouts.

/** @typedef {import("./layout_worker.js").Task} Task @typedef {import("./layout_worker.js").Layout} Layout */

/** @type {Worker | undefined} */
let worker;
let numbers = 0;
/** @type {Map<number, {resolve: (made: Layout) => void, reject: (error: Error) => void}>} */
const waiting = new Map();

/** Start the worker while the data are on their way. */
export function prepareLayout() {
  worker ??= start();
}

/** Lay boxes and links out. @param {Task} task @returns {Promise<Layout>} */
export function layOut(task) {
  worker ??= start();
  const number = ++numbers;
  worker.postMessage({ number, task });
  return new Promise((resolve, reject) => waiting.set(number, { resolve, reject }));
}

function start() {
  const made = new Worker(new URL("layout_worker.js", import.meta.url), { type: "module" });
  made.addEventListener("message", ({ data }) => {
    waiting.get(data.number)?.resolve(data.made);
    waiting.delete(data.number);
  });
  made.addEventListener("error", (event) => {
    event.preventDefault();
    worker = undefined;
    made.terminate();
    const error = new Error(`The drawing could not be laid out: ${event.message || "its script did not load"}.`);
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
  });
  return made;
}
