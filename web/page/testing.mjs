// What the tests of lastevent.js share.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFile, mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const PATIENCE = 20_000; // ms that a test waits for something

// Node takes it for a module by its name alone.
const dir = await mkdtemp(join(tmpdir(), "lastevent-"));
await copyFile(new URL("lastevent.js", import.meta.url), join(dir, "lastevent.mjs"));
export const { subscribe } = await import(pathToFileURL(join(dir, "lastevent.mjs")));
await rm(dir, { recursive: true });

export const numbers = (first, n) => Array.from({ length: n }, (_, i) => `${first + i}`);

// until waits for a condition.
export async function until(condition) {
  const deadline = Date.now() + PATIENCE;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`waited in vain until ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

// follow subscribes, waits for a first state, and notes down what it is told.
export async function follow(t, url, { first = "live", ...options } = {}) {
  const tab = {
    events: [], gaps: [], ends: [], positions: [], states: [], errors: [],
    get ids() { return this.events.map((e) => e.id); },
    get state() { return this.states.at(-1); },
  };
  tab.subscription = subscribe(url, {
    event: (e) => tab.events.push(e),
    gap: (gap) => tab.gaps.push(gap),
    end: (end) => tab.ends.push(end),
    position: (position) => tab.positions.push(position),
    state: (state, error) => {
      tab.states.push(state);
      if (error) tab.errors.push(error);
    },
    ...options,
  });
  t.after(() => tab.subscription.close());
  await until(() => tab.states.includes(first));
  return tab;
}

// A Server is a process of the program, and those that follow it on the same port.
export class Server {
  static async start(t, ...flags) {
    const server = new Server();
    server.dir = await mkdtemp(join(tmpdir(), "lastevent-"));
    server.flags = flags;
    server.port = 0;
    t.after(async () => {
      await server.stop("SIGKILL");
      await rm(server.dir, { recursive: true });
    });
    await server.restart();
    return server;
  }

  async restart() {
    const args = ["serve", "--listen", `127.0.0.1:${this.port}`, "--db", join(this.dir, "x.db"), "--time-every", "0", ...this.flags];
    this.process = spawn(process.env.PROGRAM, args, { stdio: ["ignore", "ignore", "pipe"] });
    this.process.stderr.setEncoding("utf8");
    const [line] = await Promise.race([once(this.process.stderr, "data"), once(this.process, "exit").then(() => ["{}"])]);
    this.url = JSON.parse(line.split("\n")[0]).url;
    if (!this.url) throw new Error(`the server does not start: ${line}`);
    this.port = new URL(this.url).port;
  }

  async stop(signal, { forget = false } = {}) {
    if (this.process.exitCode === null && this.process.signalCode === null) {
      this.process.kill(signal);
      await once(this.process, "exit");
    }
    if (forget) await rm(join(this.dir, "x.db"));
  }

  async publish(stream, data, query = "") {
    const response = await fetch(`${this.url}/sse/${stream}${query}`, { method: "POST", body: data });
    if (response.status !== 201) throw new Error(`publishing: ${response.status} ${await response.text()}`);
  }

  // clients is how many subscribe to a stream.
  async clients(stream) {
    const streams = await (await fetch(`${this.url}/sse`)).json();
    return streams.find(({ name }) => name === stream)?.clients ?? 0;
  }
}

// scripted starts a server that answers the nth request as the script says.
export async function scripted(t, script) {
  const server = createServer((request, response) => {
    response.stream = (text) => {
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      response.write(text);
    };
    response.cutOnce = (condition) => until(condition).then(() => response.destroy());
    script(request, response, ++here.requests);
  });
  const here = {
    requests: 0,
    drop() {
      here.dropped = performance.now();
      server.closeAllConnections();
    },
  };
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  here.url = `http://127.0.0.1:${server.address().port}`;
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return here;
}

// storage gives a test a sessionStorage.
export function storage(t) {
  const kept = new Map();
  globalThis.sessionStorage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, `${value}`) };
  t.after(() => delete globalThis.sessionStorage);
}

// browser gives a test the locks that tabs share; Node has the channels.
export function browser(t) {
  const locks = new Locks();
  Object.defineProperty(globalThis, "navigator", { value: { locks }, configurable: true });
  t.after(alone);
  return locks;
}

// alone takes the locks away, so that each subscription has a connection.
export function alone() {
  Object.defineProperty(globalThis, "navigator", { value: {}, configurable: true });
}
alone();

// Locks are Web Locks, as far as they are used.
class Locks {
  #held = new Map(); // by name, what robs the holder
  #queues = new Map();

  async request(name, { ifAvailable, steal, signal }, callback) {
    if (steal) this.#held.get(name)?.(new DOMException("stolen", "AbortError"));
    else if (this.#held.has(name) && ifAvailable) return callback(null);
    else if (this.#held.has(name)) await this.#turn(name, signal);
    let rob;
    const robbed = new Promise((_, reject) => (rob = reject));
    this.#held.set(name, rob);
    try {
      return await Promise.race([callback({ name }), robbed]);
    } finally {
      if (this.#held.get(name) === rob) {
        this.#held.delete(name);
        this.#queues.get(name)?.shift()?.();
      }
    }
  }

  #turn(name, signal) {
    const queue = this.#queues.get(name) ?? [];
    this.#queues.set(name, queue);
    return new Promise((resolve, reject) => {
      queue.push(resolve);
      signal.addEventListener("abort", () => {
        const at = queue.indexOf(resolve);
        if (at >= 0) queue.splice(at, 1);
        reject(signal.reason);
      });
    });
  }
}
