// The demo: one stream followed in two ways, both cut at the same moments.
import { counted, Lane, timeOf } from "./lane.js";
import { subscribe } from "./lastevent.js";
import { own } from "./own.js";
import { Curve } from "./strip.js";

const SILENCE = 2000; // ms without an event before the page says so
const LOOK = 400; // ms between looks at the server while it is not heard

const $ = (id) => document.getElementById(id);
const reduced = matchMedia("(prefers-reduced-motion: reduce)");

const resuming = new Lane($("strip"));
const forgetful = new Lane($("forgetful-strip"));
const curve = new Curve($("curve"));

let demo = null; // what the server says of it
let stream = null; // the subscription that resumes
let source = null; // the EventSource that does not
let state = "connecting"; // of the subscription
let cutUntil = 0; // by performance.now()
let brokenAt = 0; // since when nothing comes, in the server's time
let away = false; // the server does not answer
let brokenAfter = null; // the ID after which nothing came
let before = { ...resuming.counts }; // when that began
let heard = 0; // by performance.now()
let serverLast = 0;
let clock = performance.timeOrigin; // the server's time at performance.now() === 0
let latency = 0; // ms, smoothed

const now = () => performance.now() + clock;

// secret is by which the server knows the connections of this browser, to cut them.
const secret = (() => {
  const drawn = Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
  try {
    localStorage["demo-client"] ??= drawn;
    return localStorage["demo-client"];
  } catch {
    return drawn;
  }
})();
const url = `/demo/sse?client=${secret}`;
const tabs = new BroadcastChannel("demo"); // the others are cut too

// look asks the server for its demo: what process it is, and its clock. The quickest of
// several answers tells the time best.
async function look(times = 1) {
  let quickest = Infinity;
  for (; times > 0; times--) {
    const sent = performance.now();
    const response = await fetch("/demo", { cache: "no-store" });
    const took = performance.now() - sent;
    if (!response.ok) return null;
    const found = await response.json();
    if (demo && found.started !== demo.started) restarted();
    demo = found;
    if (took >= quickest) continue;
    quickest = took;
    clock = timeOf(found.now) - (sent + took / 2);
  }
  return demo;
}

function restarted() {
  note("restart", "The server was restarted. While it was down no events were made; the IDs go on where they were.");
  for (const lane of [resuming, forgetful]) lane.restarted(brokenAt);
}

function follow() {
  stream = subscribe(url, {
    position(position) {
      if (resuming.log && position.log !== resuming.log) note("gap", `This is another log, ${position.log}: its IDs begin anew.`);
      const skipped = resuming.position(position);
      if (skipped) fault(skipped);
      serverLast = position.last;
    },
    event(event) {
      heard = performance.now();
      const skipped = resuming.event(event);
      if (skipped) fault(skipped);
      if (!event.replayed) time(now() - resuming.time);
    },
    gap(gap) {
      resuming.gap(gap);
      const size = gap.missed === null ? "an unknown number of events" : counted(gap.missed);
      note("gap", `Gap after ID ${gap.lastEventId}: ${size}, ${REASONS[gap.reason] ?? gap.reason}.`);
    },
    state(next, error) {
      state = next;
      if (next === "waiting") broken();
      if (next === "live") resumed();
      if (next === "failed") note("other", `The server refused: ${error.message}.`);
      if (next === "ended") note("other", "The stream is closed for good.");
    },
  });
  brokenAfter = resuming.id = stream.id === null ? null : Number(stream.id); // kept over a reload
}

function fault(skipped) {
  note("missed", `${counted(skipped)} missed before ID ${resuming.id}, and no gap said so. That is a fault.`);
}

function broken() {
  before = { ...resuming.counts };
  brokenAfter = resuming.id;
  brokenAt = resuming.time;
  if (!cutLeft()) note("cut", `The connection broke after ID ${brokenAfter}.`);
  watch();
}

// resumed tells what came of it, once that has come.
function resumed() {
  look(3).catch(() => {});
  if (brokenAfter === null) return;
  const after = brokenAfter;
  brokenAfter = null;
  setTimeout(() => {
    const { replayed, missed } = resuming.counts;
    note("resumed", `Resumed after ID ${after}: ${counted(replayed - before.replayed)} replayed, ${missed - before.missed} missed.`);
  }, 500);
}

const REASONS = {
  evicted: "evicted before they could be sent",
  ahead: "as this ID is ahead of the server’s last: it is another log’s",
  unknown: "as this ID is not one of the stream’s",
  reset: "as the server has another log now",
  corrupt: "stored, but not whole",
};

function time(ms) {
  const took = Math.max(0, ms);
  latency += (took - latency) * 0.05;
  curve.add(took, Math.floor(performance.now() / 250));
}

// watch looks, while the connection is broken, how far the stream is by now.
async function watch() {
  while (state === "waiting") {
    try {
      const head = await fetch(`/sse/${demo.stream}`, { method: "HEAD", cache: "no-store" });
      serverLast = Number(head.headers.get("Stream-Last-Id"));
      if (away) {
        stream.retry();
        source ?? forget();
      }
      away = false;
    } catch {
      away = true;
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK));
  }
  away = false;
}

// forget follows the stream as one that keeps no ID does: each time from now on.
function forget() {
  source?.close();
  source = null;
  if (document.hidden) return; // connections are few
  source = new EventSource(url);
  source.addEventListener("position", (e) => {
    const skipped = forgetful.position({ id: e.lastEventId, ...JSON.parse(e.data) });
    if (skipped) note("missed", `Without its last ID: ${counted(skipped)} missed.`);
  });
  source.addEventListener("time", (e) => {
    const replayed = Number(e.lastEventId) <= forgetful.last;
    forgetful.event({ id: e.lastEventId, data: e.data, replayed });
  });
  source.onerror = () => {
    source?.close();
    source = null;
    if (!cutLeft() && state !== "failed") setTimeout(() => source ?? forget(), 1000);
  };
}

const cutLeft = () => Math.max(0, cutUntil - performance.now());

async function cut(seconds) {
  if (cutLeft() || state !== "live") return;
  cutUntil = performance.now() + seconds * 1000; // now, as the connections may break before the answer comes
  const response = await fetch(`/demo/cut?client=${secret}&for=${seconds}s`, { method: "POST" }).catch(() => null);
  if (response?.ok) {
    tabs.postMessage(seconds);
    return isCut(seconds);
  }
  cutUntil = 0;
  note("other", response ? (await response.json()).detail : "The server does not answer.");
}

function isCut(seconds) {
  note("cut", `Cut for ${seconds} s after ID ${resuming.id}.`);
  cutUntil = performance.now() + seconds * 1000;
  setTimeout(() => {
    cutUntil = 0;
    stream.retry();
    source ?? forget();
  }, seconds * 1000 + 20);
}

function note(kind, words) {
  const li = document.createElement("li");
  const at = document.createElement("time");
  at.textContent = new Date(now()).toISOString().slice(11, 19);
  li.dataset.kind = kind;
  li.append(at, words);
  $("notes").prepend(li);
  if ($("notes").children.length > 4) $("notes").lastChild.remove();
}

function condition() {
  const left = cutLeft();
  if (left) return ["cut", "cut"];
  if (away) return ["away", "the server is away"];
  if (state === "waiting") return ["reconnecting", "reconnecting"];
  if (state === "ended" || state === "failed") return ["stopped", "stopped"];
  if (state === "live" && heard && performance.now() - heard > SILENCE) return ["silent", "live, but silent"];
  return [state, state];
}

function put(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

// write writes the figures; often enough to be read, not more.
function write() {
  const [name, words] = condition();
  $("state").dataset.state = name;
  put("state", words);
  put("left", name === "cut" ? `${(cutLeft() / 1000).toFixed(1)} s left` : "");
  for (const button of document.querySelectorAll("[data-cut]")) button.setAttribute("aria-disabled", name !== "live" && name !== "silent");
  put("last-id", resuming.id === null ? "–" : `${resuming.id}`);
  for (const [prefix, lane] of [["", resuming], ["forgetful-", forgetful]]) {
    for (const [what, n] of Object.entries(lane.counts)) {
      const cell = $(prefix + what);
      if (!cell) continue;
      const atLeast = what === "missed" && lane.unknown;
      put(prefix + what, (atLeast ? "≥ " : "") + n.toLocaleString("en"));
      cell.parentElement.classList.toggle("some", n > 0 || atLeast);
    }
  }
  const lag = state === "live" && !resuming.id ? 0 : Math.max(0, serverLast - (resuming.id ?? 0));
  put("lag", away ? "–" : lag.toLocaleString("en"));
  put("latency", latency ? `${latency.toFixed(1)} ms` : "–");
  curve.draw();
}

// copyable lines hold still while they are in use.
function lines() {
  if (document.querySelector(".line:hover, .line:focus-within")) return;
  const own = $("own-name").value;
  const url = `${location.origin}/sse/${demo?.stream ?? own}`;
  put("curl-live", `curl -N ${url}`);
  put("curl-resume", `curl -N -H 'Last-Event-ID: ${resuming.id ?? 0}' ${url}`);
  put("curl-publish", `curl -d 'hello' '${location.origin}/sse/${own}'`);
}

async function copy(button) {
  const code = $(button.dataset.copy);
  const copied = await navigator.clipboard?.writeText(code.textContent).then(() => true, () => false);
  if (!copied) getSelection().selectAllChildren(code); // no clipboard over plain HTTP, but on localhost
  button.textContent = copied ? "Copied" : "Selected";
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

function draw() {
  const broken = state === "waiting" || cutLeft();
  const since = broken ? brokenAt : 0;
  const text = !broken ? "" : away ? "server away" : "cut";
  resuming.strip.draw(now(), since, text);
  forgetful.strip.draw(now(), source?.readyState === EventSource.OPEN ? 0 : since, text);
}

function animate() {
  if (reduced.matches) setTimeout(animate, 1000);
  else requestAnimationFrame(animate);
  draw();
}

function fit() {
  for (const fitted of [resuming.strip, forgetful.strip, curve]) fitted.fit();
  draw();
}

async function begin() {
  for (const button of document.querySelectorAll("[data-copy]")) button.onclick = () => copy(button);
  own({ name: $("own-name"), data: $("own-data"), form: $("own-form"), tab: $("own-tab"), list: $("own-events") });
  setInterval(lines, 500);
  let found;
  while ((found = await look(3).catch(() => undefined)) === undefined) {
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  $("demo").hidden = !found;
  $("no-demo").hidden = !!found;
  lines();
  if (!demo) return;
  follow();
  forget();
  for (const button of document.querySelectorAll("[data-cut]")) button.onclick = () => cut(Number(button.dataset.cut));
  tabs.onmessage = ({ data }) => isCut(data);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) forgetful.leave();
    forget();
  });
  new ResizeObserver(fit).observe($("strip"));
  matchMedia("(prefers-color-scheme: dark)").onchange = fit;
  setInterval(() => reduced.matches || write(), 120);
  setInterval(() => reduced.matches && write(), 1000);
  setInterval(() => look().catch(() => {}), 30_000);
  setInterval(() => {
    $("strip").ariaLabel = resuming.strip.describe(now());
    $("forgetful-strip").ariaLabel = forgetful.strip.describe(now());
  }, 2000);
  animate();
}

begin();
