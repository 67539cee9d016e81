// The controls of all pages: theme, pace of the updates, keys. What pages show comes from the server.

const root = document.documentElement;
const YEAR = 365 * 24 * 3600;
const PACES = ["live", "5", "paused"];
const PLACES = { o: "/", i: "/instances", w: "/workers", q: "/queues", s: "/schedules", f: "/failures", a: "/actions" };

/** Keep a setting of this browser for a year. */
function remember(name, value) {
  document.cookie = `dagorama-${name}=${value}; path=/; max-age=${YEAR}; samesite=strict`;
}

// --- theme ---

const isDark = matchMedia("(prefers-color-scheme: dark)");

document.getElementById("theme")?.addEventListener("click", () => {
  const theme = root.dataset.theme ?? (isDark.matches ? "dark" : "light");
  root.dataset.theme = theme === "dark" ? "light" : "dark";
  remember("theme", root.dataset.theme);
  document.dispatchEvent(new CustomEvent("dagorama:theme"));
});

// --- pace ---

const pace = document.getElementById("pace");

function nextPace() {
  remember("live", PACES[(PACES.indexOf(root.dataset.live) + 1) % PACES.length]);
  if (document.activeElement === pace) sessionStorage.setItem("dagorama-focus", "pace");
  location.reload(); // the server updates the page at this pace, or not at all
}

pace?.addEventListener("click", nextPace);
document.getElementById(sessionStorage.getItem("dagorama-focus"))?.focus();
sessionStorage.removeItem("dagorama-focus");

// --- pages that load themselves again ---

const reload = document.querySelector("[data-reload]");
if (reload) setTimeout(() => location.reload(), 1000 * Number(reload.dataset.reload));

// --- updates ---

const content = document.getElementById("content");
const trouble = document.getElementById("trouble");

/** Say why the page is not updated; without a text, that it is again. */
function tell(text) {
  trouble.textContent = text;
  trouble.hidden = !text;
}

content.addEventListener("trouble", (event) => tell(event.detail.data));
document.addEventListener("htmx:sse:error", (event) => {
  if (event.detail?.status === 401) location.reload(); // a page that needs a token says so when it is loaded
  else if (event.target === content) tell("The dashboard does not answer. This page tries again.");
});

document.addEventListener("htmx:sse:after:message", (event) => {
  if (event.target !== content || event.detail.message.event) return;
  tell("");
  openLogs();
});

// --- logs ---

const logs = new Map(); // the streams that are open, by element
const AT_END = 40; // pixels

/** Open the stream of each log on the page, and close those of logs that are gone. */
function openLogs() {
  for (const log of logs.keys()) if (!log.isConnected) closeLog(log);
  for (const log of document.querySelectorAll("[data-log]")) {
    if (!logs.has(log) && !document.hidden) openLog(log);
  }
}

function openLog(log) {
  const stream = new EventSource(`${log.dataset.log}?after=${log.dataset.last ?? 0}`);
  logs.set(log, stream);
  stream.addEventListener("message", (event) => {
    const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < AT_END;
    log.insertAdjacentHTML("beforeend", event.data); // the server has escaped what users have written
    if (event.lastEventId) log.dataset.last = event.lastEventId;
    if (isAtEnd) log.scrollTop = log.scrollHeight;
  });
  stream.addEventListener("over", () => {
    closeLog(log);
    log.removeAttribute("data-log"); // it is complete
  });
}

function closeLog(log) {
  logs.get(log).close();
  logs.delete(log);
}

// Browsers open few connections to one host: hidden pages must not hold them.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) [...logs.keys()].forEach(closeLog);
  else openLogs();
});
openLogs();

// --- rows ---

document.addEventListener("change", (event) => {
  if (event.target.id !== "choose-all") return;
  for (const box of document.querySelectorAll("input[name=id]")) box.checked = event.target.checked;
});

/** Move the cursor by some rows; it survives updates because rows have ids. */
function move(step) {
  const rows = [...document.querySelectorAll("[data-href]")];
  if (!rows.length) return;
  const at = rows.findIndex((row) => "cursor" in row.dataset);
  rows[at]?.removeAttribute("data-cursor");
  const row = rows[Math.min(Math.max(at + step, 0), rows.length - 1)];
  row.dataset.cursor = "";
  row.querySelector(`a[href="${row.dataset.href}"]`)?.focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}

// On a narrow screen the entry of this page may be out of sight.
document.querySelector(".top nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

// --- keys ---

const GOING = 1500; // milliseconds from `g` to the next key
let goingUntil = 0;

const KEYS = {
  "/": () => document.getElementById("search")?.select(),
  "?": () => document.getElementById("keys")?.showModal(),
  j: () => move(1),
  k: () => move(-1),
  n: () => document.querySelector("a[rel=next]")?.click(),
  p: () => pace && nextPace(),
  x: () => document.querySelector("[data-cursor] input[type=checkbox]")?.click(),
};

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input:not([type=checkbox]), select, textarea, dialog");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const { key } = event;
  if (event.timeStamp < goingUntil && PLACES[key]) return location.assign(PLACES[key]);
  goingUntil = key === "g" ? event.timeStamp + GOING : 0;
  const inGraph = event.target.closest?.("#graph"); // the drawing has keys of its own
  if (inGraph && key !== "/" && key !== "?") return;
  const marked = document.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (!marked && !Object.hasOwn(KEYS, key)) return;
  event.preventDefault();
  if (marked) marked.click();
  else KEYS[key]();
});
