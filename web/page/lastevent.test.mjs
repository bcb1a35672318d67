// Tests of lastevent.js against the program, whose path is in PROGRAM, and against
// servers that behave as a script says. Run by TestClientLibrary of cmd/lastevent.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Server, follow, numbers, scripted, storage, subscribe, until } from "./testing.mjs";

const time = (server) => `${server.url}/demo/sse?client=0123456789abcdef`;

// contiguous checks that each ID after the first position came, once and in order.
function contiguous(tab) {
  assert.deepEqual(tab.ids, numbers(Number(tab.positions[0].id) + 1, tab.ids.length));
}

test("hands over what is published", async (t) => {
  const server = await Server.start(t);
  const tab = await follow(t, `${server.url}/sse/x`);
  const data = ["1", "", "two\nlines", "\n", " a space, ü, \u2028 and 💾", "x".repeat(300_000)];
  for (const d of data) await server.publish("x", d);
  await server.publish("x", "typed", "?event=a%3A%20b");
  await until(() => tab.events.length === data.length + 1);
  assert.deepEqual(tab.events.map((e) => e.data), [...data, "typed"]);
  assert.deepEqual(tab.events.map((e) => e.type), [...data.map(() => "message"), "a: b"]);
  assert.deepEqual(tab.ids, numbers(1, 7));
  assert.ok(tab.events.every((e) => e.replayed === false));
  assert.deepEqual(tab.states, ["connecting", "live"]);
  assert.equal(tab.subscription.id, "7");

  const later = await follow(t, `${server.url}/sse/x?from=earliest`);
  await until(() => later.events.length === 7);
  assert.ok(later.events.every((e) => e.replayed));
});

test("resumes after cuts", async (t) => {
  const server = await Server.start(t, "--time-every", "5ms", "--retry", "50ms");
  const tab = await follow(t, time(server));
  for (let cuts = 1; cuts <= 2; cuts++) {
    await until(() => tab.events.some((e) => !e.replayed));
    const cut = await fetch(`${server.url}/demo/cut?client=0123456789abcdef&for=1s`, { method: "POST" });
    assert.equal(cut.status, 204);
    await until(() => tab.positions.length === cuts + 1);
    assert.equal(tab.state, "live");
  }
  const { length } = tab.events;
  await until(() => tab.events.length > length + 10);
  assert.ok(tab.events.filter((e) => e.replayed).length > 20);
  contiguous(tab);
});

test("resumes after kill -9, and after a restart", async (t) => {
  const server = await Server.start(t, "--time-every", "5ms", "--retry", "20ms");
  const tab = await follow(t, time(server));
  for (const signal of ["SIGKILL", "SIGTERM", "SIGKILL"]) {
    const { length } = tab.events;
    await until(() => tab.events.length > length + 20);
    await server.stop(signal);
    await until(() => tab.state === "waiting");
    await server.restart();
    await until(() => tab.state === "live");
  }
  const { length } = tab.events;
  await until(() => tab.events.length > length + 20);
  contiguous(tab);
  assert.deepEqual(tab.gaps, []);
});

test("tells a gap", async (t) => {
  const server = await Server.start(t, "--retain-events", "5", "--retry", "20ms");
  for (let i = 1; i <= 20; i++) await server.publish("x", `${i}`);
  const tab = await follow(t, `${server.url}/sse/x?lastEventId=3`);
  await until(() => tab.events.length === 5);
  assert.deepEqual(tab.gaps, [{ reason: "evicted", lastEventId: "3", first: 16, last: 20, missed: 12 }]);
  assert.deepEqual(tab.ids, numbers(16, 5));

  await server.stop("SIGKILL", { forget: true }); // now its numbers begin anew
  await server.restart();
  await until(() => tab.gaps.length === 2);
  assert.equal(tab.gaps[1].reason, "reset");
  await server.publish("x", "another log's");
  await until(() => tab.events.length === 6);
  assert.equal(tab.events[5].id, "1");
});

test("stops at the end, and at once where there is nothing more", async (t) => {
  const server = await Server.start(t);
  await server.publish("x", "1");
  const tab = await follow(t, `${server.url}/sse/x?from=earliest`);
  await server.publish("x", "2", "?close=true");
  await until(() => tab.state === "ended");
  assert.deepEqual(tab.ids, ["1", "2"]);
  assert.deepEqual(tab.ends, [{ last: 2 }]);
  const again = await follow(t, `${server.url}/sse/x?lastEventId=2`, { first: "ended" });
  assert.deepEqual(again.ends, [{ last: 2 }]);
  assert.deepEqual(again.states, ["connecting", "ended"]);
});

test("has several streams on one connection", async (t) => {
  const server = await Server.start(t, "--retry", "20ms");
  const tab = await follow(t, `${server.url}/sse?stream=a&stream=b`);
  for (const name of ["a", "b", "b", "a"]) await server.publish(name, name);
  await until(() => tab.events.length === 4);
  await server.stop("SIGKILL");
  await server.restart();
  for (const name of ["b", "a"]) await server.publish(name, `${name} again`);
  await until(() => tab.events.length === 6);
  assert.deepEqual(tab.events.map((e) => e.data).sort(), ["a", "a", "a again", "b", "b", "b again"]);
});

test("goes on after a reload where it was", async (t) => {
  storage(t);
  const server = await Server.start(t);
  const before = await follow(t, `${server.url}/sse/x`);
  await server.publish("x", "1");
  await until(() => before.events.length === 1);
  before.subscription.close();
  await server.publish("x", "2");
  const after = await follow(t, `${server.url}/sse/x`);
  await until(() => after.events.length === 1);
  assert.deepEqual(after.ids, ["2"]);
  after.subscription.close();

  const other = await follow(t, `${server.url}/sse/x?lastEventId=0`); // the page's word counts for more
  await until(() => other.events.length === 2);
  other.subscription.close();

  await server.stop("SIGKILL", { forget: true });
  await server.restart();
  const anew = await follow(t, `${server.url}/sse/x`);
  assert.equal(anew.gaps[0].reason, "reset"); // the name of the log was kept too
});

test("sends tokens, asks for them each time, and nothing that needs a preflight", async (t) => {
  const seen = [];
  const server = await scripted(t, (request, response, n) => {
    seen.push([request.headers.authorization, request.headers["last-event-id"], new URL(request.url, "http://x").search]);
    if (n === 3) return response.writeHead(401, { "Content-Type": "application/problem+json" }).end('{"detail":"in words"}');
    response.stream("retry: 1\nevent: position\nid: 7\ndata: {\"log\":\"k\",\"first\":1,\"last\":7}\n\n");
    response.cutOnce(() => tab?.positions.length === n);
  });
  let token = 0;
  const headers = async () => ({ Authorization: `Bearer ${++token}` });
  const tab = await follow(t, `${server.url}/sse/x`, { headers, first: "connecting" });
  await until(() => tab.state === "failed");
  assert.equal(tab.errors.at(-1).response.status, 401);
  assert.equal(tab.errors.at(-1).message, "in words");
  assert.deepEqual(seen, [
    ["Bearer 1", undefined, ""],
    ["Bearer 2", undefined, "?lastEventId=7&log=k"],
    ["Bearer 3", undefined, "?lastEventId=7&log=k"],
  ]);
  const fixed = await scripted(t, (request, response) => response.writeHead(request.headers.a === "b" ? 400 : 500).end());
  await follow(t, `${fixed.url}/sse/x`, { headers: { A: "b" }, first: "failed" });
});

test("tries again after what may pass, and waits longer each time", async (t) => {
  const at = [];
  const server = await scripted(t, (_, response, n) => {
    at.push(performance.now());
    if (n === 1) {
      response.stream("retry: 40\nevent: position\nid: 1\ndata: {\"log\":\"k\",\"first\":1,\"last\":1}\n\n");
      return response.cutOnce(() => tab?.state === "live");
    }
    if (n === 2) return response.destroy();
    if (n === 3) return response.writeHead(503).end();
    if (n === 4) return response.writeHead(200, { "Content-Type": "text/html" }).end("id: 9\ndata: <p>Log in</p>\n\n");
    if (n === 5) return response.writeHead(429).end();
    response.stream("retry: 3600000\nevent: position\nid: 1\ndata: {\"log\":\"k\",\"first\":1,\"last\":2}\n\nid: 2\ndata: x\n\n");
  });
  const tab = await follow(t, `${server.url}/sse/x`, { first: "connecting" });
  await until(() => tab.events.length === 1);
  assert.deepEqual(tab.ids, ["2"]);
  for (let n = 1; n < 6; n++) {
    const waited = at[n] - at[n - 1];
    const most = 40 * 2 ** (n - 1);
    assert.ok(waited >= most / 2 - 2, `attempt ${n} after ${waited} ms, at least ${most / 2}`);
  }
  assert.deepEqual(tab.states, ["connecting", "live", "waiting", "live"]);

  server.drop();
  await until(() => tab.states.length === 5);
  tab.subscription.retry(); // rather than in 15 s or more
  await until(() => at.length === 7);
  assert.ok(at[6] - server.dropped < 10_000, `${at[6] - server.dropped} ms`);
});

test("notices a silent connection", async (t) => {
  let beat;
  const asked = [];
  const server = await scripted(t, (request, response) => {
    asked.push(new URL(request.url, "http://x").search);
    response.stream("retry: 1\nevent: position\nid: 4\ndata: {\"log\":\"k\",\"first\":1,\"last\":4}\n\nid: 5\ndata: x\n\n");
    beat = setInterval(() => response.write(":\n"), 20);
    response.on("close", () => clearInterval(beat));
  });
  const tab = await follow(t, `${server.url}/sse/x`, { silence: 500 });
  await new Promise((resolve) => setTimeout(resolve, 1200));
  assert.equal(asked.length, 1); // heartbeats are enough
  clearInterval(beat);
  await until(() => asked.length === 2);
  assert.equal(asked[1], "?lastEventId=5&log=k");
  assert.deepEqual(tab.ids, ["5"]);
});

test("drops what it had", async (t) => {
  const server = await scripted(t, (_, response, n) => {
    const ids = numbers(n === 1 ? 1 : (n - 1) * 5, 8);
    response.stream("retry: 1\n" + ids.map((id) => `id: ${id}\ndata: x\n\n`).join(""));
    if (n < 4) response.cutOnce(() => tab?.ids.at(-1) === ids.at(-1));
  });
  const tab = await follow(t, `${server.url}/sse/x`, { first: "connecting" });
  await until(() => tab.ids.at(-1) === "22");
  assert.deepEqual(tab.ids, numbers(1, 22));
});

test("goes on when a page's own code fails", async (t) => {
  const thrown = [];
  process.setUncaughtExceptionCaptureCallback((error) => thrown.push(error.message));
  t.after(() => process.setUncaughtExceptionCaptureCallback(null));
  const server = await Server.start(t);
  const tab = await follow(t, `${server.url}/sse/x`, { event: ({ id }) => { throw new Error(id); } });
  for (const data of ["1", "2"]) await server.publish("x", data);
  await until(() => thrown.length === 2);
  assert.deepEqual(thrown, ["1", "2"]);
  assert.equal(tab.state, "live");
});

test("closes", async (t) => {
  const server = await Server.start(t, "--time-every", "1ms");
  const tab = await follow(t, time(server));
  let n = 0;
  const one = subscribe(`${time(server)}&from=-100`, { event: () => (n++, one.close()) });
  tab.subscription.close();
  const { length } = tab.events;
  await until(() => n > 0);
  await until(async () => (await server.clients("time")) === 0);
  assert.equal(tab.events.length, length);
  assert.equal(n, 1);
  tab.subscription.retry();
  tab.subscription.close();
});
