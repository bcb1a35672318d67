// Tests of what lastevent.js does in several tabs. Each subscription is as one in a tab.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Server, browser, follow, numbers, until } from "./testing.mjs";

// asked counts the requests of a test to streams, and delays those that do not follow.
function asked(t, delay = 0) {
  const { fetch } = globalThis;
  const count = { n: 0 };
  globalThis.fetch = async (url, init) => {
    if (`${url}`.includes("/sse/") && !init.method) count.n++;
    const response = await fetch(url, init);
    if (delay && `${url}`.includes("follow=false")) await new Promise((resolve) => setTimeout(resolve, delay));
    return response;
  };
  t.after(() => (globalThis.fetch = fetch));
  return count;
}

function same(tabs, first, n) {
  for (const tab of tabs) assert.deepEqual(tab.ids, numbers(first, n));
}

test("tabs share a connection, and another takes over", async (t) => {
  browser(t);
  const server = await Server.start(t, "--time-every", "5ms");
  const url = `${server.url}/sse/time?from=earliest`;
  const tabs = [await follow(t, url), await follow(t, url), await follow(t, url)];
  for (let left = tabs.length; left > 0; left--) {
    const { length } = tabs[0].events;
    await until(() => tabs.every((tab) => tab.events.length > length + 20));
    assert.equal(await server.clients("time"), 1);
    for (const tab of tabs) assert.deepEqual(tab.ids, numbers(1, tab.ids.length));
    tabs.shift().subscription.close();
  }
  await until(async () => (await server.clients("time")) === 0);
});

test("all tabs resume", async (t) => {
  browser(t);
  const server = await Server.start(t, "--time-every", "5ms", "--retry", "20ms");
  const url = `${server.url}/sse/time?from=earliest`;
  const tabs = [await follow(t, url), await follow(t, url)];
  for (const signal of ["SIGKILL", "SIGTERM"]) {
    const { length } = tabs[0].events;
    await until(() => tabs.every((tab) => tab.events.length > length + 20));
    await server.stop(signal);
    await until(() => tabs.every((tab) => tab.state === "waiting"));
    await server.restart();
    await until(() => tabs.every((tab) => tab.state === "live"));
  }
  for (const tab of tabs) assert.deepEqual(tab.ids, numbers(1, tab.ids.length));
  assert.equal(await server.clients("time"), 1);
});

test("a tab that is behind reads what the others have had", async (t) => {
  browser(t);
  const server = await Server.start(t, "--retain-events", "5");
  for (let i = 1; i <= 10; i++) await server.publish("x", `${i}`);
  const first = await follow(t, `${server.url}/sse/x`);
  const behind = await follow(t, `${server.url}/sse/x?lastEventId=8`);
  const far = await follow(t, `${server.url}/sse/x?lastEventId=2`);
  await until(() => behind.events.length === 2 && far.events.length === 5);
  await server.publish("x", "11");
  await until(() => [first, behind, far].every((tab) => tab.subscription.id === "11"));
  same([first], 11, 1);
  same([behind], 9, 3);
  same([far], 6, 6);
  assert.equal(far.gaps[0].missed, 3);
  assert.equal(await server.clients("x"), 1);
});

test("what comes while a tab reads is not read again", async (t) => {
  browser(t);
  const server = await Server.start(t, "--time-every", "5ms");
  const url = `${server.url}/sse/time?from=earliest`;
  await follow(t, url);
  const count = asked(t, 200);
  const late = await follow(t, url);
  await until(() => late.events.length > 100);
  assert.equal(count.n, 1);
  assert.deepEqual(late.ids, numbers(1, late.ids.length));
});

test("events of other types make no tab read again and again", async (t) => {
  browser(t);
  const count = asked(t);
  const server = await Server.start(t, "--heartbeat", "20ms");
  const url = `${server.url}/sse/x?event=wanted`;
  const tabs = [await follow(t, url), await follow(t, url)];
  for (let i = 0; i < 20; i++) await server.publish("x", "not this one");
  await until(() => tabs.every((tab) => tab.subscription.id === "20"));
  await server.publish("x", "this one", "?event=wanted");
  await until(() => tabs.every((tab) => tab.events.length === 1));
  assert.ok(count.n <= 3, `${count.n} requests`);

  const other = await follow(t, `${url}&lastEventId=0`);
  await until(() => other.events.length === 1);
  const none = `${server.url}/sse/x?event=none&lastEventId=0`;
  const pair = [await follow(t, none)];
  await until(() => pair[0].subscription.id === "21");
  pair.push(await follow(t, none));
  count.n = 0;
  for (let id = 22; id < 30; id++) {
    await server.publish("x", "not this one");
    await until(() => pair.every((tab) => tab.subscription.id === `${id}`));
  }
  assert.ok(count.n <= 1, `${count.n} requests`);
});

test("a gap is every tab's", async (t) => {
  browser(t);
  const server = await Server.start(t, "--retain-events", "5", "--retry", "1h");
  const tabs = [await follow(t, `${server.url}/sse/x`), await follow(t, `${server.url}/sse/x`)];
  await server.stop("SIGKILL");
  await until(() => tabs.every((tab) => tab.state === "waiting"));
  await server.restart();
  for (let i = 1; i <= 20; i++) await server.publish("x", `${i}`);
  tabs[0].subscription.retry();
  await until(() => tabs.every((tab) => tab.events.length === 5));
  same(tabs, 16, 5);
  for (const tab of tabs) assert.deepEqual(tab.gaps.map((gap) => gap.missed), [15]);
});

test("a tab that has the connection and is silent is robbed of it", async (t) => {
  const locks = browser(t);
  const server = await Server.start(t, "--time-every", "5ms");
  const url = `${server.url}/sse/time?from=earliest`;
  locks.request(`lastevent ${url}`, {}, () => new Promise(() => {})).catch(() => {}); // frozen
  const tabs = [await follow(t, url, { silence: 200 })];
  await until(() => tabs[0].events.length > 100);
  assert.equal(await server.clients("time"), 1);

  const { postMessage } = BroadcastChannel.prototype;
  BroadcastChannel.prototype.postMessage = () => {}; // nobody hears the other
  t.after(() => (BroadcastChannel.prototype.postMessage = postMessage));
  tabs.push(await follow(t, url, { silence: 200 }));
  await until(() => tabs[1].events.length > tabs[0].events.length + 10);
  BroadcastChannel.prototype.postMessage = postMessage;
  const { length } = tabs[1].events;
  await until(() => tabs.every((tab) => tab.events.length > length + 100));
  for (const tab of tabs) assert.deepEqual(tab.ids, numbers(1, tab.ids.length));
  assert.equal(await server.clients("time"), 1);
});

test("the end is every tab's", async (t) => {
  browser(t);
  const server = await Server.start(t);
  await server.publish("x", "1");
  const tabs = [await follow(t, `${server.url}/sse/x`), await follow(t, `${server.url}/sse/x`)];
  await server.publish("x", "2", "?close=true");
  await until(() => tabs.every((tab) => tab.state === "ended"));
  for (const tab of tabs) assert.deepEqual(tab.ends, [{ last: 2 }]);
  same(tabs, 2, 1);
});

test("any tab can have it tried again at once", async (t) => {
  browser(t);
  const server = await Server.start(t, "--retry", "1h");
  const tabs = [await follow(t, `${server.url}/sse/x`), await follow(t, `${server.url}/sse/x`)];
  await server.stop("SIGKILL");
  await until(() => tabs.every((tab) => tab.state === "waiting"));
  await server.restart();
  tabs[1].subscription.retry();
  await until(() => tabs.every((tab) => tab.state === "live"));
});

test("tabs with tokens, or that do not want to, share nothing", async (t) => {
  browser(t);
  const server = await Server.start(t);
  await follow(t, `${server.url}/sse/x`);
  await follow(t, `${server.url}/sse/x`, { headers: { Authorization: "Bearer 1" } });
  await follow(t, `${server.url}/sse/x`, { share: false });
  await server.publish("x", "1");
  assert.equal(await server.clients("x"), 3);
});
