// The controls of all pages: theme, pace of the updates, keys. What pages show comes from the server.

const root = document.documentElement;
const YEAR = 365 * 24 * 3600;
const PACES = ["live", "5", "paused"];
const PLACES = { o: "/", i: "/instances", w: "/workers", q: "/queues", f: "/failures", a: "/actions" };

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

function nextPace() {
  remember("live", PACES[(PACES.indexOf(root.dataset.live) + 1) % PACES.length]);
  document.dispatchEvent(new CustomEvent("dagorama:live"));
  location.reload(); // the server updates the page at this pace, or not at all
}

document.getElementById("pace")?.addEventListener("click", nextPace);

// --- pages that load themselves again ---

const reload = document.querySelector("[data-reload]");
if (reload) setTimeout(() => location.reload(), 1000 * Number(reload.dataset.reload));

// A stream that ends while the page is open is opened again; a page that needs a token says so only when it is loaded.
document.addEventListener("htmx:sse:error", (event) => {
  if (event.detail?.status === 401) location.reload();
});

// --- logs: stay at the end, unless the reader has scrolled up ---

let isAtEnd = true;
document.addEventListener("htmx:sse:before:message", (event) => {
  const log = event.target;
  if (log.id === "log") isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
});
document.addEventListener("htmx:sse:after:message", (event) => {
  const log = event.target;
  if (log.id === "log" && isAtEnd) log.scrollTop = log.scrollHeight;
});

// --- rows ---

document.addEventListener("change", (event) => {
  if (event.target.id !== "choose-all") return;
  for (const box of document.querySelectorAll("input[name=id]")) box.checked = event.target.checked;
});

/** Move the cursor by some rows; it survives updates because rows have ids. */
function move(step) {
  const rows = [...document.querySelectorAll("tr[data-href]")];
  if (!rows.length) return;
  const at = rows.findIndex((row) => "cursor" in row.dataset);
  rows[at]?.removeAttribute("data-cursor");
  const row = rows[Math.min(Math.max(at + step, 0), rows.length - 1)];
  row.dataset.cursor = "";
  row.querySelector("a")?.focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}

// --- keys ---

let isGoing = false;

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input, select, textarea, [contenteditable]");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const key = event.key;
  if (isGoing && PLACES[key]) location.assign(PLACES[key]);
  else if (key === "g") {
    isGoing = true;
    setTimeout(() => (isGoing = false), 1500);
    return;
  } else if (key === "/") {
    const search = document.querySelector("#search");
    if (!search) return;
    event.preventDefault();
    search.focus();
  } else if (key === "?") document.getElementById("keys")?.showModal();
  else if (event.target.closest?.("#graph")) return; // the drawing has keys of its own
  else if (key === "j") move(1);
  else if (key === "k") move(-1);
  else if (key === "p" && root.dataset.live) nextPace();
  isGoing = false;
});
