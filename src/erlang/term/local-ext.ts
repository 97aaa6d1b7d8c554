/** Terms of `term_to_binary(T, [local])` (OTP 26+, LOCAL_EXT, tag 121): only the node that made one can read it. */

/** An opaque local term. It can only be a whole term by itself, never part of another. */
export class LocalExt {
  /** What followed the tag. */
  readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  get kind(): "local-ext" {
    return "local-ext";
  }
}
