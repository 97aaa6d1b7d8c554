/**
 * Load on RabbitMQ, as a process of its own: an open loop of publishes at a fixed rate, spread over several queues, each with a consumer
 * that acknowledges every message. What falls due is published, whatever the server does; the parent compares what was consumed with what was due.
 * Arguments: port, messages a second, bytes of a body, queues. Asked over IPC: `count`, `rate N`, `bytes N` (from now on)
 * → `{ due, published, done }`. Ends when its parent disconnects.
 */
import { connect } from "amqplib";
import { DueCount } from "./due-count";

const [port, rate, bytes, queues] = process.argv.slice(2).map(Number) as [number, number, number, number];
const PREFETCH = 100;
const TICK_MS = 1;

let published = 0;
let done = 0;

async function channel(): Promise<Awaited<ReturnType<Awaited<ReturnType<typeof connect>>["createChannel"]>>> {
  const connection = await connect(`amqp://guest:guest@127.0.0.1:${port}?heartbeat=0`);
  connection.on("error", (error) => {
    process.send?.({ error: error?.message ?? "connection error" });
    process.exit(1);
  });
  return connection.createChannel();
}

const publish: ((content: Buffer) => void)[] = [];
for (let i = 0; i < queues; i += 1) {
  const queue = `bench-${i}`;
  const producer = await channel();
  const consumer = await channel();
  await consumer.assertQueue(queue, { durable: false, autoDelete: true });
  await consumer.prefetch(PREFETCH);
  await consumer.consume(queue, (message) => {
    if (message === null) return;
    consumer.ack(message);
    done += 1;
  });
  publish.push((content) => void producer.sendToQueue(queue, content));
}

let body = Buffer.alloc(bytes, "x");
const due = new DueCount(rate);

function tick(): void {
  const until = due.count();
  for (; published < until; published += 1) publish[published % queues]?.(body);
  setTimeout(tick, TICK_MS);
}

process.on("message", (question: string) => {
  const [what, value] = question.split(" ");
  if (what === "rate") due.setRate(Number(value));
  if (what === "bytes") body = Buffer.alloc(Number(value), "x");
  process.send?.({ due: due.count(), published, done });
});
process.on("disconnect", () => process.exit(0));
tick();
process.send?.("started");
