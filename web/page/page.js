// The page's side of the promise: an EventSource, and what its event IDs say.

const SILENCE = 2000; // ms without an event before the page says so
const MARKS = 200; // in the strip

const $ = (id) => document.getElementById(id);
const events = (n) => `${n.toLocaleString("en")} event${n === 1 ? "" : "s"}`;
const reduced = matchMedia("(prefers-reduced-motion: reduce)");

let source = null; // the EventSource; null while stopped
let state = "connecting"; // live, reconnecting, stopped
let id = null; // of the last event or position
let log = null; // whose numbers the IDs are
let last = 0; // of the latest position: events up to it are replayed
let gap = null; // announced, its position still to come
let time = ""; // data of the last event
let idle = true; // no event since the latest position
let heard = 0; // when the server was last heard, by performance.now()
let silent = false;
let unknown = false; // some gap was of unknown size
const counts = { received: 0, replayed: 0, missed: 0, duplicates: 0 };
const marks = []; // "live", "replayed", or the width of a gap in marks

function connect() {
  source = new EventSource(id === null ? "/sse/time" : `/sse/time?lastEventId=${id}`);
  source.addEventListener("position", onPosition);
  source.addEventListener("time", onTime);
  source.addEventListener("gap", onGap);
  source.addEventListener("end", (e) => stop(`The stream is closed for good, after ID ${JSON.parse(e.data).last}.`));
  source.onerror = onError;
  become(id === null ? "connecting" : "reconnecting");
}

function stop(words) {
  source.close();
  source = null;
  become("stopped", words);
}

function onError() {
  if (source.readyState === EventSource.CLOSED) {
    stop("The browser has given up: the answer was an error, or the stream is closed for good.");
  } else if (state === "live") {
    become("reconnecting", `Cut after ID ${id}. The browser reconnects by itself.`);
  }
}

function onPosition(e) {
  const position = JSON.parse(e.data);
  const at = Number(e.lastEventId);
  const renumbered = log !== null && log !== position.log;
  if (renumbered) note(`This is another log, ${position.log}: its IDs begin anew.`, true);
  if (id === null || gap || renumbered) {
    if (gap?.missed && id !== null) counts.missed += at - id;
    id = at;
  } else {
    skipTo(at);
  }
  const behind = position.last - at;
  become("live", state === "connecting" ? `Connected after ID ${at}. Live.`
    : `Resumed after ID ${at}. ${behind > 0 ? `${events(behind)} to replay, then live.` : "Live."}`);
  ({ log, last } = position);
  gap = null;
  idle = true;
  heard = performance.now();
}

function onTime(e) {
  const now = Number(e.lastEventId);
  heard = performance.now();
  idle = false;
  changed();
  if (now <= id) return counts.duplicates++;
  skipTo(now - 1);
  id = now;
  time = e.data;
  counts.received++;
  if (id <= last) counts.replayed++;
  mark(id <= last ? "replayed" : "live");
}

// skipTo counts the events up to an ID as missed, though no gap announced them.
function skipTo(to) {
  if (to <= id) return;
  counts.missed += to - id;
  mark(width(to - id));
  note(`${events(to - id)} missed after ID ${id}, and no gap said so. That is a fault.`, true);
  id = to;
}

const REASONS = {
  evicted: "evicted before they could be sent",
  ahead: "as this ID is ahead of the server’s last: it is another log’s",
  unknown: "as this ID is not one of the stream’s",
  reset: "as the server has another log now",
  corrupt: "stored, but not whole",
};

function onGap(e) {
  gap = JSON.parse(e.data);
  unknown ||= gap.missed === null;
  mark(width(gap.missed));
  const size = gap.missed === null ? "an unknown number of events" : events(gap.missed);
  note(`Gap after ID ${gap.lastEventId}: ${size}, ${REASONS[gap.reason] ?? gap.reason}.`, true);
}

function become(next, words) {
  state = next;
  silent = false;
  if (words) note(words);
  changed();
}

function note(words, isGap = false) {
  const li = document.createElement("li");
  const at = document.createElement("time");
  at.textContent = new Date().toISOString().slice(11, 19);
  li.append(at, words);
  li.classList.toggle("gap", isGap);
  $("notes").prepend(li);
  if ($("notes").children.length > 5) $("notes").lastChild.remove();
}

function look() {
  const was = silent;
  silent = state === "live" && performance.now() - heard > SILENCE;
  if (silent && !was) {
    note(idle ? `Connected, but last stays ${last}: the time stream seems to be off (--time-every 0).`
      : "Nothing for 2 s: the network is down, or the server stands still.");
  }
  if (silent !== was) changed();
  if (document.querySelector(".line:hover, .line:focus-within")) return; // hold still while in use
  $("curl-live").textContent = `curl -N ${location.origin}/sse/time`;
  $("curl-resume").textContent = `curl -N -H 'Last-Event-ID: ${id ?? 42}' ${location.origin}/sse/time`;
}

async function copy(button) {
  const code = $(button.dataset.copy);
  const copied = await navigator.clipboard?.writeText(code.textContent).then(() => true, () => false);
  if (!copied) getSelection().selectAllChildren(code); // no clipboard over plain HTTP, but on localhost
  button.textContent = copied ? "Copied" : "Selected";
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

let waiting = false; // for paint

// changed paints at most once a frame, and twice a second where motion is unwelcome.
function changed() {
  if (waiting) return;
  waiting = true;
  if (reduced.matches) setTimeout(paint, 500);
  else requestAnimationFrame(paint);
}

function paint() {
  waiting = false;
  $("state").textContent = silent ? "live, but silent" : state;
  $("state").dataset.state = silent ? "silent" : state;
  $("clock").classList.toggle("stale", state !== "live" || silent);
  const [, date, hms, fraction, zone] = /^([\d-]+)T([\d:]+)\.?(\d*)(.*)$/.exec(time) ?? [];
  if (date) {
    $("date").textContent = `The server’s time, ${date}, ${zone === "Z" ? "UTC" : zone}`;
    $("hms").textContent = hms;
    $("ms").textContent = `.${fraction.padEnd(9, "0").slice(0, 3)}`;
    $("ns").textContent = fraction.padEnd(9, "0").slice(3);
  }
  $("id").textContent = id ?? "–";
  for (const [name, n] of Object.entries(counts)) {
    const atLeast = name === "missed" && unknown;
    $(name).textContent = (atLeast ? "≥ " : "") + n.toLocaleString("en");
    $(name).parentElement.classList.toggle("some", n > 0 || atLeast);
  }
  $("duplicates").parentElement.hidden = counts.duplicates === 0;
  $("disconnect").setAttribute("aria-disabled", state === "stopped");
  $("reconnect").setAttribute("aria-disabled", state !== "stopped");
  $("reconnect").textContent = state === "stopped" && id !== null ? `Reconnect after ID ${id}` : "Reconnect";
  strip($("strip"));
}

function mark(what) {
  marks.push(what);
  if (marks.length > MARKS) marks.shift();
}

const width = (missed) => Math.min(16, Math.max(3, missed ?? 8));

function strip(canvas) {
  const { clientWidth: w, clientHeight: h } = canvas;
  canvas.width = w * devicePixelRatio;
  canvas.height = h * devicePixelRatio;
  const c = canvas.getContext("2d");
  c.scale(devicePixelRatio, devicePixelRatio);
  c.setLineDash([3, 3]);
  const style = getComputedStyle(canvas);
  const step = Math.max(3, w / MARKS);
  let x = w;
  for (let i = marks.length - 1; i >= 0 && x > 0; i--) {
    const what = marks[i];
    if (typeof what === "number") {
      x -= what * step;
      c.strokeStyle = style.getPropertyValue("--gap");
      c.strokeRect(x + 1.5, 0.5, what * step - 4, h - 1);
    } else {
      x -= step;
      const high = what === "live" ? h : h * 0.6;
      c.fillStyle = style.getPropertyValue(`--${what}`);
      c.fillRect(x, h - high, step * 0.45, high);
    }
  }
}

$("disconnect").onclick = () => source && stop(`Disconnected after ID ${id ?? "none"}.`);
$("reconnect").onclick = () => source || connect();
for (const button of document.querySelectorAll("[data-copy]")) button.onclick = () => copy(button);
new ResizeObserver(changed).observe($("strip"));
matchMedia("(prefers-color-scheme: dark)").onchange = changed;
setInterval(look, 1000);
look();
connect();
