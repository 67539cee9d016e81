// The graph section of an instance's page: its views as tabs, what they share, and the address.

import { button, el, setText } from "./dom.js";
import { clock } from "./format.js";
import { FocusView } from "./focus_view.js";
import { Legend } from "./legend.js";
import { LoadError } from "./net.js";
import { QuiltView } from "./quilt_view.js";
import { ShapeView } from "./shape_view.js";
import { Store } from "./store.js";
import { TimelineView } from "./timeline_view.js";

/**
 * @typedef {import("./store.js").Change} Change
 * @typedef {{store: Store, notice: (text: string) => void, say: (text: string) => void,
 *   tableOf: (name: string, state?: string) => string, pageOf: (ordinal: number) => string,
 *   select: (ordinal: number) => void, focus: (ordinal: number) => void,
 *   attempt: (draw: () => unknown) => void}} Context
 * @typedef {{needs: "shape" | "map", element: HTMLElement, tools: HTMLElement[], edges: boolean,
 *   show: () => unknown, hide: () => void, update: (change: Change) => unknown, table: () => HTMLElement}} View
 */

const VIEWS = /** @type {const} */ ({ shape: "Shape", quilt: "Quilt", focus: "Focus", timeline: "Timeline" });
/** @typedef {keyof typeof VIEWS} ViewName */
const MAKERS = { shape: ShapeView, quilt: QuiltView, focus: FocusView, timeline: TimelineView };
/** Milliseconds between two versions of the table for screen readers. */
const TABLE_PAUSE = 2000;
const LIVE_WORDS = {
  off: "", live: "live", paused: "paused", hidden: "paused", connecting: "connecting …", ended: "",
};

class Graph {
  /** @type {Partial<Record<ViewName, View>>} */ #views = {};
  /** The one that is shown. @type {View | null} */ view = null;
  /** It has been drawn, and follows changes from now on. */ #drawn = false;
  /** @type {ViewName} */ #name = "shape";
  /** Milliseconds of script that the last update took. */
  lastUpdate = 0;
  #tableTimer = 0;
  #tabs = el("div", { role: "tablist", "aria-label": "Views of the instance" });
  #tools = el("div", { class: "g-tools", role: "group", "aria-label": "Tools of the view" });
  #status = el("span", { class: "g-status", role: "status" });
  #notice = el("p", { class: "g-notice", hidden: true });
  #error = el("div", { class: "g-error", role: "alert", hidden: true });
  #panel = el("div", { class: "g-panel", role: "tabpanel", id: "g-panel", "aria-labelledby": "g-tab-shape" });
  #hiddenTable = el("div", { class: "g-hidden" });
  #saying = el("div", { class: "g-hidden", "aria-live": "polite" });
  #legend = new Legend();

  /** @param {HTMLElement} section */
  constructor(section) {
    const { base = "", page = "", view, node } = section.dataset;
    this.page = page;
    this.store = new Store(base, (change) => this.#changed(change));
    this.store.selected = Number(node) || 0;
    for (const name of /** @type {ViewName[]} */ (Object.keys(VIEWS))) this.#tabs.append(this.#tab(name));
    const link = el("a", { class: "g-tab", href: `${page}?view=table` }, "Table");
    this.#tabs.addEventListener("keydown", (event) => this.#walk(event));
    section.replaceChildren(
      el("div", { class: "g-top" }, el("div", { class: "g-tabs" }, this.#tabs, link), this.#tools, this.#status),
      this.#error, this.#notice, this.#panel, this.#legend.element, this.#hiddenTable, this.#saying);
    section.classList.add("g-graph");
    this.#show(view && view in VIEWS ? /** @type {ViewName} */ (view) : "shape");
    this.#watchTheme();
  }

  /** @type {Context} what views may use of the section */
  get context() {
    const query = (/** @type {Record<string, string>} */ fields) => `${this.page}?${new URLSearchParams(fields)}`;
    return {
      store: this.store,
      notice: (text) => {
        setText(this.#notice, text);
        this.#notice.hidden = !text;
      },
      say: (text) => setText(this.#saying, text),
      tableOf: (name, state) => query({ view: "table", function: name, ...(state ? { state } : {}) }),
      pageOf: (ordinal) => `${this.page}/${ordinal}`,
      select: (ordinal) => this.#select(ordinal),
      focus: (ordinal) => {
        this.#select(ordinal);
        this.#show("focus");
      },
      attempt: (draw) => void this.#attempt(draw),
    };
  }

  /** @param {number} ordinal */
  #select(ordinal) {
    this.store.selected = ordinal;
    this.#writeAddress();
  }

  /** @param {ViewName} name */
  #tab(name) {
    return button(VIEWS[name], () => this.#show(name), {
      class: "g-tab", role: "tab", id: `g-tab-${name}`, "aria-controls": "g-panel",
    });
  }

  /** Arrow keys walk through the tabs. @param {KeyboardEvent} event */
  #walk(event) {
    const tabs = /** @type {HTMLElement[]} */ ([...this.#tabs.children]);
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = tabs[(tabs.indexOf(/** @type {HTMLElement} */ (event.target)) + step + tabs.length) % tabs.length];
    next.focus();
    next.click();
  }

  /** @param {ViewName} name */
  async #show(name) {
    this.view?.hide();
    this.#drawn = false;
    this.#name = name;
    this.context.notice("");
    const view = (this.view = this.#views[name] ??= new MAKERS[name](this.context));
    for (const tab of this.#tabs.children) {
      const chosen = tab.id === `g-tab-${name}`;
      tab.setAttribute("aria-selected", String(chosen));
      /** @type {HTMLElement} */ (tab).tabIndex = chosen ? 0 : -1;
    }
    this.#panel.setAttribute("aria-labelledby", `g-tab-${name}`);
    this.#panel.replaceChildren(view.element);
    this.#tools.replaceChildren(...view.tools);
    this.#legend.showEdges(view.edges);
    this.#writeAddress();
    this.#panel.classList.add("g-loading");
    await this.store.need(view.needs);
    if (view.needs === "map") void this.store.need("shape");
    if (this.view !== view) return;
    if (this.store.has(view.needs)) {
      this.#drawn = true;
      await this.#attempt(() => view.show());
      this.#writeTable();
    }
    this.#panel.classList.remove("g-loading");
  }

  #writeAddress() {
    const address = new URL(location.href);
    address.searchParams.set("view", this.#name);
    if (this.store.selected) address.searchParams.set("node", String(this.store.selected));
    if (address.href !== location.href) history.replaceState(history.state, "", address);
  }

  /** @param {Change} change */
  #changed(change) {
    const started = performance.now();
    if (change.kind === "live") return this.#showStatus();
    if (change.kind === "error") return this.#showError([...this.store.errors.values()][0]);
    this.#legend.update(this.store);
    this.#showStatus();
    if (this.view && this.#drawn && (change.kind === "shape" || this.view.needs === "map")) {
      void this.#attempt(() => this.view?.update(change));
    }
    this.lastUpdate = performance.now() - started;
  }

  /** Draw; what goes wrong is shown in the section. @param {() => unknown} draw */
  async #attempt(draw) {
    try {
      await draw();
      this.#tableTimer ||= setTimeout(() => this.#writeTable(), TABLE_PAUSE);
    } catch (error) {
      this.#showError(/** @type {Error} */ (error));
      console.error(error);
    }
  }

  #writeTable() {
    clearTimeout(this.#tableTimer);
    this.#tableTimer = 0;
    if (this.view) this.#hiddenTable.replaceChildren(this.view.table());
  }

  #showStatus() {
    const { live, ended, shape } = this.store;
    const why = live.problem ? `: ${live.problem}` : "";
    setText(this.#status, ended ? "" : LIVE_WORDS[live.status] + why);
    this.#status.dataset.status = ended || !shape ? "off" : live.status;
  }

  /** @param {Error | undefined} error undefined: all is well again */
  #showError(error) {
    this.#error.hidden = !error;
    this.#panel.hidden = Boolean(error) && this.view !== null && !this.store.has(this.view.needs);
    if (!error) return this.#error.replaceChildren();
    const known = this.#panel.hidden ? "" : ` What is drawn is as of ${clock(Date.now())}.`;
    const advice = error instanceof LoadError ? error.advice : "Load the page again; please report it if it stays so.";
    const login = `/login?next=${encodeURIComponent(this.page)}`;
    const act = error instanceof LoadError && error.login ? el("a", { class: "g-button", href: login }, "Sign in")
      : button("Try again", () => this.#retry());
    this.#error.replaceChildren(el("strong", {}, error.message), el("span", {}, advice + known), act);
  }

  async #retry() {
    this.#error.hidden = true;
    this.#panel.hidden = false;
    await this.store.reload();
    await this.#show(this.#name);
  }

  #watchTheme() {
    const again = () => this.#drawn && this.#attempt(() => this.view?.show());
    document.addEventListener("dagorama:theme", again);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  }
}

const section = document.getElementById("graph");
if (section) Object.assign(section, { graph: new Graph(section) });
