/** RabbitMQ with all modules of its own, of its plugins and of its libraries instrumented: `instrumented-server.ts` says how it is looked at. */
import type { Row } from "../row";
import { rabbitHome } from "../server/rabbitmq-node";
import { rabbitWorkload } from "../server/rabbitmq-workload";
import { instrumentedServer } from "./instrumented-server";

/** Messages a second on each of the two servers. */
const LOAD = { rate: 1500, bytes: 32, queues: 4 };

export async function run(quick: boolean): Promise<Row[]> {
  return instrumentedServer(
    {
      ...{ name: "RabbitMQ", unit: "message", home: await rabbitHome() },
      start: (home) => rabbitWorkload({ ...LOAD, ...(home === undefined ? {} : { home }) }),
    },
    quick,
  );
}
