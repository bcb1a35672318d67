// One client for Node, named by the argument. For each line of input, {"n":7,"url":…},
// it subscribes; for each event it prints a line, {"n":7,"id":…,"type":…,"data":…}.
import { createInterface } from "node:readline";

const TYPES = ["message", "tick", "position", "gap", "end"];

// standard is for clients with the browser's interface.
const standard = (EventSource) => (url, got) => {
  const source = new EventSource(url);
  for (const type of TYPES) source.addEventListener(type, (e) => got(e.lastEventId, e.type, e.data));
  source.onerror = () => {}; // some throw without one
};

const clients = {
  "eventsource 5": async () => standard((await import("eventsource5")).EventSource),
  "eventsource 3": async () => standard((await import("eventsource3")).EventSource),
  "eventsource 2": async () => standard((await import("eventsource2")).default),
  "launchdarkly-eventsource": async () => standard((await import("launchdarkly-eventsource")).EventSource),
  "undici": async () => standard((await import("undici")).EventSource),
  "eventsource-client": async () => {
    const { createEventSource } = await import("eventsource-client");
    return (url, got) => createEventSource({ url, onMessage: (e) => got(e.id, e.event ?? "message", e.data) });
  },
};

const subscribe = await clients[process.argv[2]]();
for await (const line of createInterface({ input: process.stdin })) {
  const { n, url } = JSON.parse(line);
  subscribe(url, (id, type, data) => console.log(JSON.stringify({ n, id, type, data })));
}
process.exit();
