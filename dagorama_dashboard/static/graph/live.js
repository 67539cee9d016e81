// The stream of changes: followed while somebody looks, at the pace that the page asks for.

/**
 * @typedef {{nodes: (data: any) => void, progress: (data: any) => void, again: () => void, status: () => void}} Hooks
 * @typedef {"off" | "live" | "paused" | "hidden" | "connecting" | "ended"} Status
 */

const SLOW = 5000, RETRY = 5000;

export class Live {
  /** @type {Status} */ status = "off";
  /** What the server has said about a stream that it could not go on with. */ problem = "";
  /** @type {EventSource | null} */ #source = null;
  /** @type {any[]} nodes that wait for the next turn of the slow pace */ #nodes = [];
  /** @type {any} */ #progress = null;
  #timer = 0;
  /** Changes may have been missed since the data were loaded. */
  #missed = false;

  /** @param {string} url @param {Hooks} hooks */
  constructor(url, hooks) {
    this.url = url;
    this.hooks = hooks;
    this.adapt = this.adapt.bind(this);
  }

  /** Follow the instance from now on. */
  start() {
    if (this.status !== "off") return;
    document.addEventListener("visibilitychange", this.adapt);
    document.addEventListener("dagorama:live", this.adapt);
    addEventListener("pagehide", () => this.#close());
    addEventListener("pageshow", this.adapt);
    this.#set("connecting");
    this.adapt();
  }

  /** Open or close the stream, as the page is seen and as the reader chose. */
  adapt() {
    if (this.status === "ended") return;
    const paused = document.documentElement.dataset.live === "paused";
    if (paused || document.hidden) {
      this.#close();
      this.#set(paused ? "paused" : "hidden");
    } else if (!this.#source) {
      this.#open();
    }
  }

  #open() {
    clearTimeout(this.#timer);
    this.#set("connecting");
    const source = (this.#source = new EventSource(this.url));
    source.addEventListener("open", () => {
      if (this.#missed) this.hooks.again();
      this.#missed = false;
      this.#set("live");
    });
    source.addEventListener("error", () => this.#broken(source));
    source.addEventListener("nodes", (event) => this.#arrived(() => this.#nodes.push(JSON.parse(event.data))));
    source.addEventListener("progress", (event) => this.#arrived(() => (this.#progress = JSON.parse(event.data))));
    source.addEventListener("problem", (event) => this.#tell(JSON.parse(event.data).text));
    source.addEventListener("ended", () => this.#finish());
  }

  /** The browser connects again, but not after a refusal: a request tells the reason. @param {EventSource} source */
  #broken(source) {
    this.#missed = true;
    this.#set("connecting");
    if (source.readyState !== EventSource.CLOSED || source !== this.#source) return;
    this.#source = null;
    this.hooks.again();
    this.#timer = setTimeout(this.adapt, RETRY);
  }

  /** @param {() => void} keep */
  #arrived(keep) {
    keep();
    if (document.documentElement.dataset.live !== "5") this.#flush();
    else this.#timer ||= setTimeout(() => this.#flush(), SLOW);
  }

  #flush() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const nodes = this.#nodes.splice(0);
    const progress = this.#progress;
    this.#progress = null;
    for (const data of nodes) this.hooks.nodes(data);
    if (progress) this.hooks.progress(progress);
  }

  /** Keep why the stream is about to end; the browser opens it again. @param {string} problem */
  #tell(problem) {
    this.problem = problem;
    this.hooks.status();
  }

  #finish() {
    this.#flush();
    this.#close();
    this.#set("ended");
    this.hooks.again();
  }

  #close() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#nodes = [];
    this.#progress = null;
    this.#missed ||= this.#source !== null;
    this.#source?.close();
    this.#source = null;
  }

  /** @param {Status} status */
  #set(status) {
    if (this.status === status) return;
    this.status = status;
    if (status === "live") this.problem = "";
    this.hooks.status();
  }
}
