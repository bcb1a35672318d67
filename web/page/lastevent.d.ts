/**
 * Subscribes to a stream of a lastevent server, or to several (`/sse?stream=a&stream=b`).
 *
 * Each event is handed over once and in order: over cuts and restarts of the server, and
 * over a reload of the page, as the last ID is kept in sessionStorage. What can no longer
 * be had is a gap. All tabs of the origin that subscribe to the same URL share one
 * connection, where the browser has Web Locks (in secure contexts, and on localhost);
 * when its tab closes or falls silent, another takes over.
 *
 * A connection that breaks is tried again, at random between half and all of the time that
 * the server asks for (`retry:`), doubled with each failure up to 30 seconds. An answer
 * 4xx (but 408, 425 and 429) is final.
 *
 * @param url what to subscribe to, with the parameters that the server knows. Where these
 * say where to begin (`from=`, `lastEventId=`), that counts for more than what was kept.
 */
export function subscribe(url: string | URL, options?: Options): Subscription;

export interface Options {
  /** An event. */
  event?(event: StreamEvent): void;
  /** Events that will never come. They lie before the next event. */
  gap?(gap: Gap): void;
  /** The stream is closed for good, and all of it was handed over. */
  end?(end: End): void;
  /** A response begins. Tabs that use another's connection get this more rarely. */
  position?(position: Position): void;
  /** What became of the connection; the error says why, where there is one. */
  state?(state: State, error?: unknown): void;

  /** Headers of each request, such as a token; a function is asked each time. */
  headers?: Record<string, string> | (() => Record<string, string> | Promise<Record<string, string>>);
  /** As for fetch: whether cookies go to another origin. */
  credentials?: RequestCredentials;
  /**
   * Milliseconds without anything, not even a heartbeat, after which a connection counts
   * as broken: 45000 unless given. More than the server's `--heartbeat`.
   */
  silence?: number;
  /**
   * Whether tabs share a connection. Unless given they do, but not where there are headers,
   * as tabs may have different tokens, and not for several streams.
   */
  share?: boolean;
}

/** `waiting` is between two attempts; `ended` and `failed` are for good. */
export type State = "connecting" | "live" | "waiting" | "ended" | "failed";

export interface StreamEvent {
  type: string;
  /** Unique in the stream, for ever. */
  id: string;
  data: string;
  /** Whether it is older than the connection. */
  replayed: boolean;
}

export interface Gap {
  reason: "evicted" | "ahead" | "unknown" | "reset" | "corrupt";
  lastEventId: string;
  first: number;
  last: number;
  /** How many events; null where that cannot be known. */
  missed: number | null;
  /** Which of several streams. */
  stream?: string;
}

export interface End {
  last: number;
  stream?: string;
}

export interface Position {
  /** The ID after which the response goes on. */
  id: string;
  /** The name of the server's numbering. */
  log: string;
  first?: number;
  last?: number;
  /** Of several streams. */
  streams?: { stream: string; first: number; last: number }[];
}

export interface Subscription {
  /** Of the last event handed over; null before the first position. */
  readonly id: string | null;
  /** Tries at once to connect, where the connection is broken and waits. */
  retry(): void;
  /** Closes it. What was kept stays. */
  close(): void;
}
