/** The error of everything that has to do with match specifications. */
import { BeamtraceError, type BeamtraceErrorOptions } from "../../erlang/errors";

/** Where in a text form an error is. Lines and columns count from 1. */
export interface TextPosition {
  readonly line: number;
  readonly column?: number | undefined;
}

/** A match specification that no node would take, or a text that can't be made into one. */
export class MatchSpecError extends BeamtraceError {
  static override readonly brand: string = "MatchSpecError";
  /** Position in the text form; undefined for built specifications. */
  readonly position: TextPosition | undefined;

  constructor(
    message: string,
    options: BeamtraceErrorOptions & { readonly position?: TextPosition | undefined } = {},
  ) {
    const { position } = options;
    const at =
      position === undefined
        ? ""
        : position.column === undefined
          ? `line ${position.line}: `
          : `line ${position.line}, column ${position.column}: `;
    super("BT_MATCH_SPEC_INVALID", `${at}${message}`, options);
    this.position = position;
  }
}
