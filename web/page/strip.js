// A strip of time: each event a mark where it happened, the newest on the right.

export const LIVE = 0;
export const REPLAYED = 1;
const MARKS = 1 << 14; // remembered, which is more than fit
const SPANS = 32;
const SAMPLE = 50; // marks that tell how many there are in a second
const MARK_WIDTH = 7; // px of the strip for a mark, shared by the rows

export class Strip {
  #canvas;
  #context;
  #times = new Float64Array(MARKS);
  #ids = new Float64Array(MARKS);
  #kinds = new Uint8Array(MARKS);
  #count = 0; // of all marks there ever were
  #spans = []; // { from, to, kind, text }: where there are no marks, and why
  #rows = 1;
  #markWidth = 2;
  #drawn = 0; // the time that was drawn last
  #width = 0;
  #height = 0;
  #colours = {};

  constructor(canvas) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
  }

  mark(time, id, kind) {
    const i = this.#count++ % MARKS;
    this.#times[i] = time;
    this.#ids[i] = id;
    this.#kinds[i] = kind;
    if (this.#count === SAMPLE) this.fit();
  }

  // span says why there are no marks between two times: "missed" or "pause".
  span(from, to, kind, text) {
    const span = { from, to, kind, text };
    this.#spans.push(span);
    if (this.#spans.length > SPANS) this.#spans.shift();
    return span;
  }

  // last returns the newest span of a kind.
  last(kind) {
    return this.#spans.findLast((span) => span.kind === kind);
  }

  clear() {
    this.#count = 0;
    this.#spans = [];
  }

  // seconds is how much time fits.
  get seconds() {
    return this.#width < 600 ? 12 : 16;
  }

  // fit takes over the size and the colours that the style gives the canvas.
  fit() {
    const { clientWidth, clientHeight } = this.#canvas;
    const style = getComputedStyle(this.#canvas);
    this.#width = clientWidth;
    this.#height = clientHeight;
    this.#canvas.width = Math.round(clientWidth * devicePixelRatio);
    this.#canvas.height = Math.round(clientHeight * devicePixelRatio);
    for (const name of ["live", "replayed", "missed", "dim", "rule", "ink", "mono"]) {
      this.#colours[name] = style.getPropertyValue(`--${name}`).trim();
    }
    // Marks of events that follow each other are in rows of their own, so that each can be seen.
    const n = Math.min(this.#count, SAMPLE);
    const time = (back) => this.#times[(this.#count - back) % MARKS];
    const every = n > 1 ? (time(1) - time(n)) / (n - 1) : 15;
    const step = (every / 1000) * (clientWidth / this.seconds);
    this.#rows = Math.max(1, Math.min(14, Math.ceil(MARK_WIDTH / Math.max(step, 0.1))));
    this.#markWidth = Math.max(1.5, Math.min(MARK_WIDTH - 2, this.#rows * step * 0.7));
    this.#drawn = 0;
  }

  // draw draws the strip as it is at a time. A cut that lasts began at since.
  draw(now, since, text) {
    const c = this.#context;
    const scale = this.#width / (this.seconds * 1000);
    const pixel = 1 / (scale * devicePixelRatio); // ms; less is no movement
    now = Math.floor(now / pixel) * pixel;
    if (now === this.#drawn) return;
    this.#drawn = now;
    const x = (time) => this.#width - (now - time) * scale;
    c.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    c.clearRect(0, 0, this.#width, this.#height);
    this.#drawSeconds(x, now);
    for (const { from, to, kind, text } of this.#spans) {
      if (x(to) > 0) this.#drawSpan(x(from), x(to), kind, text);
    }
    this.#drawMarks(x);
    if (since && text) this.#drawSpan(x(since), this.#width, "pause", text);
  }

  #drawSeconds(x, now) {
    const c = this.#context;
    c.fillStyle = this.#colours.rule;
    for (let s = Math.floor(now / 1000); x(s * 1000) > 0; s--) {
      c.fillRect(Math.round(x(s * 1000)), 0, 1, this.#height);
    }
  }

  #drawMarks(x) {
    const c = this.#context;
    const row = this.#height / this.#rows;
    const size = this.#markWidth;
    const high = this.#rows === 1 ? row : row * 0.72;
    let kind = -1;
    for (let n = 1; n <= Math.min(this.#count, MARKS); n++) {
      const i = (this.#count - n) % MARKS;
      const at = x(this.#times[i]);
      if (at < -size) break;
      if (this.#kinds[i] !== kind) {
        kind = this.#kinds[i];
        c.fillStyle = kind === LIVE ? this.#colours.live : this.#colours.replayed;
      }
      c.fillRect(at - size, (this.#ids[i] % this.#rows) * row + (row - high) / 2, size, high);
    }
  }

  #drawSpan(from, to, kind, text) {
    const c = this.#context;
    const left = Math.max(from + 2, -4);
    const width = to - left - 2 - MARK_WIDTH;
    if (width < 3) return;
    const colour = kind === "missed" ? this.#colours.missed : this.#colours.dim;
    c.strokeStyle = colour;
    c.lineWidth = 1.5;
    c.setLineDash([4, 4]);
    c.strokeRect(left, 1, width, this.#height - 2);
    if (kind === "missed") {
      c.globalAlpha = 0.1;
      c.fillStyle = colour;
      c.fillRect(left, 1, width, this.#height - 2);
      c.globalAlpha = 1;
    }
    this.#drawText(text, Math.max(left, 0), Math.min(left + width, this.#width), colour, kind === "missed");
  }

  #drawText(text, from, to, colour, large) {
    const c = this.#context;
    const room = to - from - 10;
    let size = large ? Math.min(this.#height * 0.42, 44) : Math.min(this.#height * 0.2, 17);
    size = Math.max(size, 12);
    c.font = `600 ${size}px ${this.#colours.mono}`;
    const wanted = c.measureText(text).width;
    if (wanted > room) size *= room / wanted;
    if (size < 9) return;
    c.font = `600 ${size}px ${this.#colours.mono}`;
    c.fillStyle = colour;
    c.textAlign = "center";
    c.textBaseline = "middle";
    c.fillText(text, (from + to) / 2, this.#height / 2 + 1);
  }

  // describe says in words what is to be seen.
  describe(now) {
    const begin = now - this.seconds * 1000;
    let live = 0;
    let replayed = 0;
    for (let n = 1; n <= Math.min(this.#count, MARKS); n++) {
      const i = (this.#count - n) % MARKS;
      if (this.#times[i] < begin) break;
      if (this.#kinds[i] === LIVE) live++;
      else replayed++;
    }
    const spans = this.#spans.filter(({ to }) => to > begin).map(({ text, kind }) => (kind === "missed" ? `${text} missed` : text));
    return `The last ${this.seconds} seconds: ${live} live events, ${replayed} replayed, ${spans.join(", ") || "no hole"}.`;
  }
}

// A curve of the greatest of the values of each step of time.
export class Curve {
  #canvas;
  #context;
  #colour = "";
  #values = new Float64Array(80);
  #step = 0;

  constructor(canvas) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
  }

  // add adds a value in a step, of which there may be many.
  add(value, step) {
    const n = this.#values.length;
    for (let s = Math.max(this.#step, step - n); s < step; s++) this.#values[(s + 1) % n] = 0;
    this.#step = step;
    this.#values[step % n] = Math.max(this.#values[step % n], value);
  }

  // fit takes over the size and the colour that the style gives the canvas.
  fit() {
    this.#canvas.width = Math.round(this.#canvas.clientWidth * devicePixelRatio);
    this.#canvas.height = Math.round(this.#canvas.clientHeight * devicePixelRatio);
    this.#colour = getComputedStyle(this.#canvas).color;
  }

  draw() {
    const { width: w, height: h } = this.#canvas;
    const c = this.#context;
    const n = this.#values.length;
    const line = 1.5 * devicePixelRatio;
    const top = Math.max(4, ...this.#values);
    c.clearRect(0, 0, w, h);
    c.strokeStyle = this.#colour;
    c.lineWidth = line;
    c.lineJoin = "round";
    c.beginPath();
    for (let i = 1; i <= n; i++) {
      const value = this.#values[(this.#step + i) % n];
      c.lineTo(((i - 1) / (n - 1)) * w, h - line - (value / top) * (h - 2 * line));
    }
    c.stroke();
  }
}
