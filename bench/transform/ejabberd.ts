/** ejabberd with all modules of its own and of its libraries instrumented: `instrumented-server.ts` says how it is looked at. */
import type { Row } from "../row";
import { ejabberdRoot } from "../server/ejabberd-node";
import { ejabberdWorkload } from "../server/ejabberd-workload";
import { instrumentedServer } from "./instrumented-server";

/** Messages a second on each of the two servers. */
const LOAD = { rate: 400, users: 50, bytes: 64 };

export async function run(quick: boolean): Promise<Row[]> {
  return instrumentedServer(
    {
      ...{ name: "ejabberd", unit: "message", home: await ejabberdRoot() },
      start: (root) => ejabberdWorkload({ ...LOAD, ...(root === undefined ? {} : { root }) }),
    },
    quick,
  );
}
