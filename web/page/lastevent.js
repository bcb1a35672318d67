// @ts-check
// What this promises is in lastevent.d.ts.

const MAX_DELAY = 30_000; // ms between two attempts

// Whether an ID has what another has not. Of several streams it is like 41.17~1.
const newer = (id, than) => {
  const [a, b] = [id, than ?? ""].map((s) => s.split("~")[0].split("."));
  return than === null || a.some((n, i) => BigInt(n) > BigInt(b[i] ?? 0));
};

/** @type {typeof import("./lastevent.js").subscribe} */
export function subscribe(url, options = {}) {
  const { headers, credentials, silence = 45_000 } = options;
  const base = new URL(url, globalThis.location?.href);
  const query = base.searchParams;
  let id = query.get("lastEventId"); // of the last event handed over
  let log = query.get("log");
  query.delete("lastEventId");
  query.delete("log");
  const key = `lastevent ${base}`; // of what is kept, and of the tabs' lock and channel
  const { locks } = globalThis.navigator ?? {};
  const shared = locks && (options.share ?? !(headers || query.has("stream")));
  const channel = shared && new BroadcastChannel(key);

  let last = 0; // of the latest position: events up to it are replayed
  let retry = 1000; // ms, as the server says
  let failures = 0; // in a row
  let heard = Date.now();
  let leading = !shared; // this tab has the connection
  let over = false;
  let state = "";
  let waiting = null; // what the leader says meanwhile
  let reading, queued, running, wake;

  const keep = () => {
    try {
      if (id && log) sessionStorage.setItem(key, `${id} ${log}`);
    } catch {} // full, blocked, or not a browser
  };

  const call = (name, ...args) => {
    try {
      if (!over) options[name]?.(...args);
    } catch (error) {
      setTimeout(() => { throw error; }); // the page's own, and no reason to stop
    }
  };

  const become = (now, error) => {
    if (leading && channel) channel.postMessage({ state: now });
    if (now !== state) call("state", (state = now), error);
  };

  const take = (event) => {
    if (over || !newer(event.id, id)) return;
    id = event.id;
    call("event", event);
  };

  // One response, to its end. What a live one brings goes to the other tabs.
  const read = async (live) => {
    const to = new URL(base);
    const set = (name, value) => to.searchParams.set(name, value);
    if (id !== null) set("lastEventId", id);
    if (id !== null && log) set("log", log);
    if (!live) set("follow", "false");
    if (!live && !query.has("from")) set("from", "latest"); // counts for less than an ID
    const { signal } = (reading = new AbortController());
    heard = Date.now();
    const response = await fetch(to, {
      headers: { ...(typeof headers === "function" ? await headers() : headers), Accept: "text/event-stream" },
      credentials, signal, cache: "no-store",
    });
    if (response.status === 204) return live && call("end", { last: Number(id) });
    const type = response.headers.get("Content-Type");
    if (response.status !== 200 || !type?.startsWith("text/event-stream")) {
      const problem = type?.startsWith("application/problem+json") && await response.json(); // RFC 9457
      throw Object.assign(new Error(problem?.detail ?? `${response.status} ${type}`), { response });
    }
    const body = response.body.getReader();
    const decoder = new TextDecoder();
    let rest = "", gap = false, complete = query.has("limit"), event = /** @type {any} */ ({});
    for (;;) {
      const { done, value } = await body.read();
      signal.throwIfAborted();
      if (done) break;
      heard = Date.now();
      let from = id, events = [];
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const [, field, text] = /^(\w+): ?(.*)/s.exec(line) ?? [];
        if (field === "data") event.data = "data" in event ? `${event.data}\n${text}` : text;
        else if (field === "retry") retry = Number(text);
        else if (field) event[field] = text;
        if (line) continue;
        const { event: type = "message", data } = event;
        if (type === "gap") {
          gap = true;
          call("gap", JSON.parse(data));
        } else if (type === "end") {
          complete = true;
          if (live) call("end", JSON.parse(data));
        } else if (type === "position") {
          const position = JSON.parse(data);
          ({ log, last } = position);
          if (gap || newer(event.id, id)) id = event.id;
          if (gap || from === null) [from, events] = [id, []];
          gap = false;
          failures = 0;
          call("position", { id, ...position });
          become("live");
        } else {
          events.push({ type, id: event.id, data, replayed: +event.id <= last });
          take(events.at(-1));
        }
        event = {};
      }
      keep();
      if (live && from && channel) channel.postMessage({ from, id, log, events });
      if (over) return;
    }
    if (live && !complete) throw new Error("cut"); // though it looks like an end, to some
  };

  // Reads until a response is complete, or something else runs.
  const run = async (live) => {
    const me = (running = {});
    reading?.abort();
    wake?.();
    if (!state) become("connecting");
    for (;;) {
      waiting = live ? null : [];
      try {
        await read(live);
        if (running !== me || over) return;
        if (live) return stop("ended");
        const messages = waiting;
        waiting = null;
        return messages.forEach(hear);
      } catch (error) {
        if (running !== me || over) return;
        const status = error.response?.status;
        if (status >= 400 && status < 500 && ![408, 425, 429].includes(status)) return stop("failed", error);
        become("waiting", error);
      }
      const delay = Math.min(MAX_DELAY, retry * 2 ** failures++) * (0.5 + Math.random() / 2);
      let timer;
      await new Promise((resolve) => (timer = setTimeout((wake = resolve), delay)));
      clearTimeout(timer);
      if (running !== me || over) return;
    }
  };

  // What the tab with the connection says. What it does not say is read from the server.
  const hear = (message) => {
    heard = Date.now();
    if (message.again) return leading && wake?.();
    if (leading) return;
    if (message.state) become(message.state);
    else if (waiting) waiting.push(message);
    else if (message.log !== log || newer(message.from, id)) run(false);
    else {
      message.events.forEach(take);
      if (newer(message.id, id)) id = message.id;
      keep();
    }
  };

  // Who has the lock has the connection; the others wait for both.
  const elect = (how) => {
    queued?.abort();
    const { signal } = (queued = new AbortController());
    locks.request(key, how ?? { signal }, (lock) => {
      if (!lock) elect();
      leading = !!lock;
      return over || run(leading);
      // Stolen, as this tab was silent. Not at once: in a page that is left each request fails.
    }).catch(() => signal.aborted || setTimeout(elect, 0, { ifAvailable: true }));
  };

  const again = () => over || (leading ? wake?.() : channel.postMessage({ again: true }));

  const stop = (last, error) => {
    if (last) become(last, error);
    over = true;
    clearInterval(watch);
    globalThis.removeEventListener?.("online", again);
    if (channel) channel.close();
    queued?.abort();
    reading?.abort();
    wake?.();
  };

  const watch = setInterval(() => {
    if (Date.now() - heard < silence) return;
    heard = Date.now();
    if (leading) reading?.abort();
    else elect({ steal: true });
  }, silence / 4);
  globalThis.addEventListener?.("online", again);
  try {
    const kept = sessionStorage.getItem(key)?.split(" ");
    if (kept && id === null && !query.has("from")) [id, log] = kept;
  } catch {}
  if (channel) {
    channel.onmessage = ({ data }) => hear(data);
    elect({ ifAvailable: true });
  } else {
    run(true);
  }
  return { close: () => stop(), retry: again, get id() { return id; } };
}
