/** What a decoder accepts. */
import type { Atom } from "../term";

/** Options of `decode` and its kin. */
export interface DecodeOptions {
  /** Deepest nesting of containers; default 100,000. Nothing in beamtrace recurses over terms, so this guards only your own code. */
  readonly maxDepth?: number;
  /** Largest inflated size of a compressed term, in bytes; default 64 MiB. */
  readonly maxInflatedBytes?: number;
  /** Largest integer, in bytes of magnitude; default 1 MiB. */
  readonly maxIntegerBytes?: number;
  /**
   * `copy` (default): decoded binaries own their bytes. `view`: they are windows into the input, valid while it is left unchanged,
   * and any one of them keeps all of the input in memory.
   */
  readonly binaries?: "copy" | "view";
  /** Atoms that cache references (tag 82) point into, for frames with a distribution header. Without it that tag is an error. */
  readonly atoms?: readonly Atom[];
}

/** `DecodeOptions` with the defaults filled in. */
export interface DecodeSettings {
  readonly maxDepth: number;
  readonly maxInflatedBytes: number;
  readonly maxIntegerBytes: number;
  readonly copyBinaries: boolean;
  readonly atoms: readonly Atom[];
}

export function decodeSettings(options: DecodeOptions): DecodeSettings {
  return {
    maxDepth: options.maxDepth ?? 100_000,
    maxInflatedBytes: options.maxInflatedBytes ?? 64 * 1024 * 1024,
    maxIntegerBytes: options.maxIntegerBytes ?? 1024 * 1024,
    copyBinaries: options.binaries !== "view",
    atoms: options.atoms ?? [],
  };
}
