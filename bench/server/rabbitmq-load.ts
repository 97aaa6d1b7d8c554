/**
 * Load on RabbitMQ, as a process of its own: an open loop of publishes at a fixed rate, spread over several queues, each with a consumer
 * that acknowledges every message. What falls due is published, whatever the server does; the parent compares what was consumed with what was due.
 * Arguments: port, messages a second, bytes of a body, queues. Asked over IPC: `count` → `{ due, published, done }`, `rate N` → the same, and from
 * now on N messages a second. Ends when its parent disconnects.
 */
import { connect } from "amqplib";

const [port, firstRate, bytes, queues] = process.argv.slice(2).map(Number) as [
  number,
  number,
  number,
  number,
];
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

const body = Buffer.alloc(bytes, "x");
let rate = firstRate;
let since = performance.now();
let dueBefore = 0;
const due = (): number => Math.floor(dueBefore + ((performance.now() - since) * rate) / 1000);

function setRate(perSecond: number): void {
  dueBefore = due();
  since = performance.now();
  rate = perSecond;
}

function tick(): void {
  const until = due();
  for (; published < until; published += 1) publish[published % queues]?.(body);
  setTimeout(tick, TICK_MS);
}

process.on("message", (question: string) => {
  if (question.startsWith("rate ")) setRate(Number(question.slice(5)));
  process.send?.({ due: due(), published, done });
});
process.on("disconnect", () => process.exit(0));
tick();
process.send?.("started");
