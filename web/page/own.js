// A stream of the visitor's own, to publish to and to watch in a second tab.
import { subscribe } from "./lastevent.js";

const SHOWN = 6;

export function own({ name, data, form, tab, list }) {
  let stream = null;
  let watched = "";
  let live = null; // a promise

  const path = () => `/sse/${name.value.split("/").map(encodeURIComponent).join("/")}`;

  function watch() {
    if (watched === name.value) return;
    watched = name.value;
    stream?.close();
    list.replaceChildren();
    live = new Promise((resolve) => {
      stream = subscribe(`${path()}?from=-${SHOWN}`, {
        event: show,
        gap: (gap) => say(`gap of ${gap.missed ?? "unknown size"}: ${gap.reason}`),
        end: () => say("The stream is closed for good."),
        state(state, error) {
          if (state !== "connecting") resolve();
          if (state === "failed") say(`The server refused: ${error.message}.`);
        },
      });
    });
  }

  function show({ id, data, replayed }) {
    const li = document.createElement("li");
    const number = document.createElement("b");
    number.textContent = id;
    li.dataset.id = id;
    if (replayed) li.dataset.replayed = "";
    li.append(number, data);
    put(li);
  }

  function say(words) {
    const li = document.createElement("li");
    li.append(words);
    put(li);
  }

  function put(li) {
    list.prepend(li);
    if (list.children.length > SHOWN) list.lastChild.remove();
  }

  async function publish() {
    watch();
    await live; // to be seen as it comes
    const response = await fetch(path(), { method: "POST", body: data.value }).catch(() => null);
    if (!response?.ok) say(response ? (await response.json()).detail : "The server does not answer.");
    data.select();
  }

  const drawn = () => `yours/${Math.random().toString(36).slice(2, 8)}`;
  const given = new URLSearchParams(location.search).get("stream");
  try {
    name.value = given ?? (localStorage["demo-own"] ??= drawn());
  } catch {
    name.value = drawn();
  }
  const link = () => (tab.href = `/?stream=${encodeURIComponent(name.value)}#own`);
  link();
  name.oninput = link;
  form.onsubmit = (e) => {
    e.preventDefault();
    publish();
  };
  tab.onclick = watch;
  if (given) watch();
}
