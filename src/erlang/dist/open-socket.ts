/**
 * Opens the TCP connection to a node's distribution port. The caller owns the socket it gets.
 */
import { connect, type Socket } from "node:net";
import { ConnectionError } from "../errors";
import type { Deadline } from "./deadline";

/**
 * A connected TCP socket, without Nagle's delay.
 * @throws ConnectionError BT_NODE_UNREACHABLE
 */
export function openSocket(host: string, port: number, deadline: Deadline): Promise<Socket> {
  deadline.stage = `connecting to ${host}:${port}`;
  return deadline.race((resolve, reject) => {
    const socket = connect({ host, port, noDelay: true });
    const fail = (cause: Error): void => {
      const why = "code" in cause ? String(cause.code) : cause.message;
      reject(
        new ConnectionError("BT_NODE_UNREACHABLE", `can't connect to ${host}:${port} (${why})`, { cause }),
      );
    };
    socket.once("error", fail);
    socket.once("connect", () => {
      socket.off("error", fail);
      resolve(socket);
    });
    return () => socket.on("error", () => undefined).destroy();
  });
}
