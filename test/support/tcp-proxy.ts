/**
 * A TCP relay in front of a node, to break the network in chosen ways.
 */
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import type { ErlNode } from "./erl-node";

export interface TcpProxy {
  readonly port: number;
  /** From now on bytes are swallowed in both directions, connections stay open: a silent network. */
  stall(): void;
  /** Lets the client have so many more bytes, then cuts both connections. */
  cutAfter(bytesToClient: number): void;
  close(): Promise<void>;
}

/** The port that a node listens on for other nodes. */
export async function distributionPort(node: ErlNode): Promise<number> {
  const text = await node.eval(
    `[N, H] = string:lexemes(atom_to_list(node()), "@"), {port, P, _} = erl_epmd:port_please(N, H), P`,
  );
  return Number(text);
}

export async function startProxy(node: ErlNode): Promise<TcpProxy> {
  const target = await distributionPort(node);
  const sockets = new Set<Socket>();
  let stalled = false;
  let remaining = Infinity;
  const server = createServer((client) => {
    const upstream = connect(target, "127.0.0.1");
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => {
        sockets.delete(socket);
        if (!stalled) (socket === client ? upstream : client).destroy();
      });
    }
    client.on("data", (chunk) => void (stalled || upstream.write(chunk)));
    upstream.on("data", (chunk) => {
      if (stalled) return;
      client.write(chunk.subarray(0, Math.min(chunk.length, remaining)));
      remaining -= chunk.length;
      if (remaining <= 0) {
        remaining = Infinity; // a later connection is whole again
        client.end();
        upstream.destroy();
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    stall: () => void (stalled = true),
    cutAfter: (bytes) => void (remaining = bytes),
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
