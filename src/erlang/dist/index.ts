/** The Erlang distribution protocol, as a hidden node. */
export { connect } from "./connect";
export type { ConnectOptions, ConnectTarget } from "./connect";
export { DistFlag } from "./flags";
export type { DistFlagName } from "./flags";
export { epmdLookup, epmdNames } from "./epmd";
export type { EpmdEntry, EpmdNode, EpmdOptions } from "./epmd";
export { FrameTooLongError } from "./frame-parser";
export type {
  CallOptions,
  Destination,
  LinkCloseReason,
  Mailbox,
  NodeLink,
  PeerInfo,
  SelfInfo,
  SpawnFunction,
} from "./node-link";
export { parseNodeName } from "./node-name";
export type { NodeName } from "./node-name";
export { RemoteError } from "./remote-error";
export type { ErrorClass } from "./remote-error";
export type { TlsOptions } from "./tls";
