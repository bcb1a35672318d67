import { LIVE, REPLAYED, Strip } from "./strip.js";

const PAUSE = 500; // ms between events after which a strip says why there are none

export const counted = (n, what = "event") => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;

// timeOf reads a time to the microsecond, in ms.
export const timeOf = (text) => Date.parse(text) + Number(`0.${/\.\d{3}(\d*)/.exec(text)?.[1] || 0}`);

// A lane is one way to follow the stream: it counts what comes, by the IDs alone, and
// marks it on a strip.
export class Lane {
  id = null; // of the last event or position
  log = null; // whose numbers the IDs are
  last = 0; // of the latest position
  time = 0; // of the last event
  counts = { received: 0, replayed: 0, duplicates: 0, missed: 0 };
  unknown = false; // some gap was of unknown size
  #gap = null; // announced, its position still to come
  #hole = ""; // what the next event comes after
  #pause = "no events"; // why there are none before the next, if long none came

  constructor(canvas) {
    this.strip = new Strip(canvas);
  }

  // position takes in where a response begins, and returns how many events it skips
  // though no gap says so.
  position({ id, log, last }) {
    const at = Number(id);
    let skipped = 0;
    if (this.id === null || this.#gap || (this.log && log !== this.log)) this.id = at;
    else skipped = this.#skip(at);
    this.#gap = null;
    this.log = log;
    this.last = last;
    return skipped;
  }

  gap(gap) {
    this.#gap = gap;
    this.unknown ||= gap.missed === null;
    this.counts.missed += gap.missed ?? 0;
    this.#hole = gap.missed === null ? "gap" : gap.missed.toLocaleString("en");
  }

  // event takes in an event, and returns how many are skipped before it.
  event({ id, data, replayed }) {
    const now = Number(id);
    if (this.id !== null && now <= this.id) {
      this.counts.duplicates++;
      return 0;
    }
    const skipped = this.id === null ? 0 : this.#skip(now - 1);
    const time = timeOf(data);
    this.id = now;
    this.counts.received++;
    if (replayed) this.counts.replayed++;
    if (this.time && this.#hole) this.strip.span(this.time, time, "missed", this.#hole);
    else if (this.time && time - this.time > PAUSE) this.strip.span(this.time, time, "pause", this.#pause);
    this.#hole = "";
    this.#pause = "no events";
    this.strip.mark(time, now, replayed ? REPLAYED : LIVE);
    this.time = time;
    return skipped;
  }

  #skip(to) {
    const n = to - this.id;
    if (n <= 0) return 0;
    this.counts.missed += n;
    this.#hole = n.toLocaleString("en");
    this.id = to;
    return n;
  }

  // restarted is told that the server was restarted after the event of a time, be it
  // before the next one comes or after.
  restarted(after) {
    const words = "server restarted";
    const pause = this.strip.last("pause");
    if (this.time < after + PAUSE) this.#pause = words;
    else if (pause?.to > after) pause.text = words;
  }

  // leave forgets where it is, without counting what comes meanwhile.
  leave() {
    this.id = null;
    this.time = 0;
    this.#hole = "";
    this.strip.clear();
  }
}
