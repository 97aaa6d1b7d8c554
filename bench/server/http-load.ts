/**
 * Load on the HTTP server, as a process of its own: an open loop of requests at a fixed rate over connections that stay open. What falls due waits for
 * a free connection if it must, and is sent whatever the server does; the parent compares what was answered with what was due.
 * Of ten requests, seven ask for a page, two for JSON, one puts something into a basket.
 * Arguments: port, requests a second, connections. Asked over IPC: `count`, `rate N` (from now on) → `{ due, sent, done }`.
 * Ends when its parent disconnects.
 */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { DueCount } from "./due-count";

const [port, rate, connections] = process.argv.slice(2).map(Number) as [number, number, number];
const TICK_MS = 1;
const PRODUCTS = 2000;
const END_OF_HEADERS = Buffer.from("\r\n\r\n");

let sent = 0;
let done = 0;
let asked = 0;
const idle: Connection[] = [];

function fail(error: string): never {
  process.send?.({ error });
  process.exit(1);
}

/** The n-th request. */
function request(n: number): string {
  const product = (n * 7919) % PRODUCTS;
  const step = n % 10;
  if (step < 7) return get(`/products/${product}`);
  if (step < 9) return get(`/api/products/${product}`);
  const items = [product, (product + 1) % PRODUCTS].map((id) => ({ id, count: 2 }));
  const body = JSON.stringify({ items });
  const headers = `host: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: ${body.length}`;
  return `POST /api/basket/${n % 100} HTTP/1.1\r\n${headers}\r\n\r\n${body}`;
}

const get = (path: string): string =>
  `GET ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: bench\r\naccept: */*\r\n\r\n`;

/** A connection that has at most one request on its way. */
class Connection {
  readonly #socket: Socket;
  /** What came of the headers so far. */
  #head: Buffer = Buffer.alloc(0);
  /** Bytes of the body that are still to come; -1: the headers have not ended. */
  #missing = -1;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on("data", (chunk) => this.#read(chunk));
    socket.on("error", (error) => fail(error.message));
    socket.on("close", () => fail("the server closed a connection"));
  }

  send(text: string): void {
    this.#socket.write(text);
    sent += 1;
  }

  #read(chunk: Buffer): void {
    if (this.#missing >= 0) this.#missing -= chunk.length;
    else {
      this.#head = this.#head.length === 0 ? chunk : Buffer.concat([this.#head, chunk]);
      const end = this.#head.indexOf(END_OF_HEADERS);
      if (end < 0) return;
      const headers = this.#head.toString("latin1", 0, end);
      const length = /\r\ncontent-length: (\d+)/i.exec(headers)?.[1];
      if (!headers.startsWith("HTTP/1.1 200 ") || length === undefined)
        fail(`an answer begins with: ${headers}`);
      this.#missing = Number(length) - (this.#head.length - end - END_OF_HEADERS.length);
    }
    if (this.#missing < 0) fail("an answer is longer than it says");
    if (this.#missing > 0) return;
    this.#head = Buffer.alloc(0);
    this.#missing = -1;
    done += 1;
    idle.push(this);
    dispatch();
  }
}

const due = new DueCount(rate);

function dispatch(): void {
  for (const until = due.count(); asked < until; asked += 1) {
    const free = idle.shift();
    if (!free) return;
    free.send(request(asked));
  }
}

for (let i = 0; i < connections; i += 1) {
  const socket = connect(port, "127.0.0.1");
  await once(socket, "connect");
  idle.push(new Connection(socket));
}

function tick(): void {
  dispatch();
  setTimeout(tick, TICK_MS);
}

process.on("message", (question: string) => {
  const [what, value] = question.split(" ");
  if (what === "rate") due.setRate(Number(value));
  process.send?.({ due: due.count(), sent, done });
});
process.on("disconnect", () => process.exit(0));
due.setRate(rate);
tick();
process.send?.("started");
