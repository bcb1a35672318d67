// Clients for browsers, to be evaluated in a page of the server's origin. The modules'
// sources are in sources; received[n] takes the events of the subscription n.
window.received = [];

const TYPES = ["message", "tick", "position", "gap", "end"];

// load evaluates a module, as CommonJS or with its export statements off.
function load(name) {
  const module = { exports: {} };
  const text = sources[name].replace(/^export \{ (\w+) \};$/m, "module.exports.$1 = $1;");
  new Function("module", "exports", "require", "define", text).call(window, module, module.exports, (part) => load(name.replace(/[^/]*$/, part.slice(2)) + ".js"));
  return module.exports;
}

function standard(source, got) {
  for (const type of TYPES) source.addEventListener(type, (e) => got(e.lastEventId, e.type, e.data));
  source.onerror = () => {};
}

const clients = {
  "EventSource": (url, got) => standard(new EventSource(url), got),
  "event-source-polyfill": (url, got) => standard(new (load("event-source-polyfill/src/eventsource.js").EventSourcePolyfill)(url), got),
  "sse.js": (url, got) => standard(new (load("sse.js/lib/sse.js").SSE)(url, { autoReconnect: true }), got),
  "fetch-event-source": (url, got) => {
    load("@microsoft/fetch-event-source/lib/cjs/fetch.js").fetchEventSource(url, {
      openWhenHidden: true,
      onmessage: (e) => got(e.id, e.event || "message", e.data),
    });
  },
  "htmx": (url, got) => {
    if (!window.htmx) {
      // The extension finds the global variable htmx.
      (0, eval)(sources["htmx.org/dist/htmx.js"].replace(/^var htmx/m, "window.htmx"));
      (0, eval)(sources["htmx-ext-sse/sse.js"]);
    }
    const div = document.createElement("div");
    div.innerHTML = `<div hx-ext="sse" sse-connect="${url}" sse-swap="${TYPES}" hx-swap="beforeend"></div>`;
    div.addEventListener("htmx:sseMessage", (e) => got(e.detail.lastEventId, e.detail.type, e.detail.data));
    document.documentElement.append(div);
    htmx.process(div);
  },
};

window.subscribe = (n, client, url) => {
  received[n] = [];
  clients[client](url, (id, type, data) => received[n].push({ id, type, data }));
};
