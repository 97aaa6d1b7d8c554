/**
 * Capabilities that two nodes tell each other in the handshake: what we offer, and what a node must offer to us.
 * Follows "Erlang Distribution Protocol", section Distribution Flags; where its text and the VM disagree (MANDATORY_25_DIGEST), the VM.
 */

/** Distribution flags, by the name of the specification without `DFLAG_`. */
export const DistFlag = {
  PUBLISHED: 1n << 0n,
  EXTENDED_REFERENCES: 1n << 2n,
  DIST_MONITOR: 1n << 3n,
  FUN_TAGS: 1n << 4n,
  DIST_MONITOR_NAME: 1n << 5n,
  NEW_FUN_TAGS: 1n << 7n,
  EXTENDED_PIDS_PORTS: 1n << 8n,
  EXPORT_PTR_TAG: 1n << 9n,
  BIT_BINARIES: 1n << 10n,
  NEW_FLOATS: 1n << 11n,
  UNICODE_IO: 1n << 12n,
  DIST_HDR_ATOM_CACHE: 1n << 13n,
  SMALL_ATOM_TAGS: 1n << 14n,
  UTF8_ATOMS: 1n << 16n,
  MAP_TAG: 1n << 17n,
  BIG_CREATION: 1n << 18n,
  SEND_SENDER: 1n << 19n,
  BIG_SEQTRACE_LABELS: 1n << 20n,
  EXIT_PAYLOAD: 1n << 22n,
  FRAGMENTS: 1n << 23n,
  HANDSHAKE_23: 1n << 24n,
  UNLINK_ID: 1n << 25n,
  /** Stands for all flags that OTP 25 made mandatory. The specification says bit 36; every release uses 26. */
  MANDATORY_25_DIGEST: 1n << 26n,
  SPAWN: 1n << 32n,
  NAME_ME: 1n << 33n,
  V4_NC: 1n << 34n,
  ALIAS: 1n << 35n,
  ALTACT_SIG: 1n << 37n,
  NATIVE_RECORDS: 1n << 38n,
} as const;

/** Name of a distribution flag. */
export type DistFlagName = keyof typeof DistFlag;

const OTP_25: readonly DistFlagName[] = [
  "EXTENDED_REFERENCES",
  "FUN_TAGS",
  "NEW_FUN_TAGS",
  "EXTENDED_PIDS_PORTS",
  "EXPORT_PTR_TAG",
  "BIT_BINARIES",
  "NEW_FLOATS",
  "UTF8_ATOMS",
  "MAP_TAG",
  "BIG_CREATION",
  "HANDSHAKE_23",
];

/** What OTP 25 made mandatory and what OTP 26 added to it; every OTP 25 node offers the latter too. */
export const MANDATORY_FLAGS: readonly DistFlagName[] = [...OTP_25, "UNLINK_ID", "V4_NC"];

function union(names: readonly DistFlagName[]): bigint {
  return names.reduce((bits, name) => bits | DistFlag[name], 0n);
}

/**
 * What we offer. DIST_MONITOR and DIST_MONITOR_NAME only work together. Neither DIST_HDR_ATOM_CACHE nor FRAGMENTS: frames then
 * carry plain external terms, which can be handed on without decoding.
 */
export const OFFERED_FLAGS: bigint = union([
  ...MANDATORY_FLAGS,
  "DIST_MONITOR",
  "DIST_MONITOR_NAME",
  "UNICODE_IO",
  "SMALL_ATOM_TAGS",
  "SEND_SENDER",
  "BIG_SEQTRACE_LABELS",
  "EXIT_PAYLOAD",
  "MANDATORY_25_DIGEST",
  "SPAWN",
  "ALIAS",
  "ALTACT_SIG",
  "NATIVE_RECORDS",
]);

/** Flags with those that MANDATORY_25_DIGEST stands for written out. */
export function expandFlags(flags: bigint): bigint {
  return (flags & DistFlag.MANDATORY_25_DIGEST) === 0n ? flags : flags | union(OTP_25);
}

/** Mandatory flags that a peer's offer lacks. */
export function missingFlags(peer: bigint): DistFlagName[] {
  const flags = expandFlags(peer);
  return MANDATORY_FLAGS.filter((name) => (flags & DistFlag[name]) === 0n);
}
