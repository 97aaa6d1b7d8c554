/**
 * TLS distribution (`-proto_dist inet_tls`): a plain TLS client, no ALPN, no StartTLS; epmd stays in clear text.
 * Follows "Using TLS for Erlang Distribution" (ssl User's Guide). Over TLS every packet has a u32 length, in the handshake too.
 */
import { isIP } from "node:net";
import type { Duplex } from "node:stream";
import { connect, type ConnectionOptions, type TLSSocket } from "node:tls";
import { ConnectionError } from "../errors";
import type { Deadline } from "./deadline";

/** How to speak TLS with the node; the values are those of `tls.connect`. */
export interface TlsOptions {
  /** Certificate authorities that the node's certificate must come from; default: those of Node. */
  readonly ca?: string | Buffer | readonly (string | Buffer)[];
  /** Our certificate and key, where the node demands one. */
  readonly cert?: string | Buffer;
  readonly key?: string | Buffer;
  readonly passphrase?: string;
  /** Name that the certificate must have, also sent as SNI; default: the host. */
  readonly servername?: string;
  /** Default true. With false anyone can claim to be the node; the cookie still proves both sides, but traffic may be read. */
  readonly rejectUnauthorized?: boolean;
}

/**
 * Speaks TLS over a connected stream.
 * @throws ConnectionError BT_TLS_FAILED
 */
export function secure(
  duplex: Duplex,
  host: string,
  options: TlsOptions,
  deadline: Deadline,
): Promise<TLSSocket> {
  deadline.stage = `setting up TLS with ${host} (a node without TLS distribution just waits)`;
  return deadline.race((resolve, reject) => {
    const servername = options.servername ?? (isIP(host) === 0 ? host : undefined);
    const tlsOptions: ConnectionOptions = {
      ...(options as ConnectionOptions),
      socket: duplex,
      // Checked against the certificate where there's no server name: an address can't be one.
      host,
      ...(servername === undefined ? {} : { servername }),
    };
    const fail = (cause: unknown): void => reject(tlsError(host, cause));
    let socket: TLSSocket;
    try {
      socket = connect(tlsOptions);
    } catch (cause) {
      // Malformed certificates and keys.
      queueMicrotask(() => fail(cause));
      return () => duplex.destroy();
    }
    // `tls` neither closes the stream beneath that it was given nor listens to all its errors.
    socket.once("close", () => duplex.destroy());
    duplex.on("error", (cause: Error) => socket.destroy(cause));
    const onClose = (): void => fail(new Error("the node closed the connection; does it speak TLS?"));
    socket.on("error", fail);
    socket.once("close", onClose);
    socket.once("secureConnect", () => {
      socket.off("error", fail);
      socket.off("close", onClose);
      // Between this and the listeners of `Connection` no turn passes in which it could fail.
      resolve(socket);
    });
    return () => socket.destroy();
  });
}

/** Whether the error of an established connection is TLS's: with TLS 1.3 the node judges our certificate after we are through. */
export function isTlsAlert(error: unknown): boolean {
  return error instanceof Error && "code" in error && String(error.code).startsWith("ERR_SSL_");
}

/** What TLS failed of, with its message. */
export function tlsError(host: string, cause: unknown): ConnectionError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new ConnectionError("BT_TLS_FAILED", `TLS with ${host} failed: ${why.trim()}`, { cause });
}
