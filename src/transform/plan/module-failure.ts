/** Why a module was left as it is, with the place in its source. */
import { BeamFile, BeamtraceError, compileInfo, type ErrorCode, moduleName } from "../../erlang";

/** A module that could not be instrumented. */
export interface ModuleFailure {
  readonly module: string;
  /** Source file as the module names it; else the path of the beam. */
  readonly file: string;
  /** From 1; 0 when the failure is about no line. */
  readonly line: number;
  readonly code: ErrorCode | "BT_INTERNAL";
  readonly message: string;
}

const readable = (bytes: Uint8Array): BeamFile | undefined => {
  try {
    return BeamFile.read(bytes);
  } catch {
    return undefined;
  }
};

const attempt = <T>(what: () => T): T | undefined => {
  try {
    return what();
  } catch {
    return undefined;
  }
};

/** The failure that an error of `instrumentByPlan` stands for. `path` is where the bytes are from. */
export function moduleFailure(error: unknown, bytes: Uint8Array, path: string): ModuleFailure {
  const beam = readable(bytes);
  const module = beam === undefined ? undefined : attempt(() => moduleName(beam).name);
  const source = beam === undefined ? undefined : attempt(() => sourceOf(beam));
  const message = error instanceof Error ? error.message : String(error);
  // The compiler's own words start with the place: `/src/cart.erl:12: variable 'X' is unbound`.
  const [, file, line] = /(?:^|: |; )([^\s:;][^:;]*):(\d+): /.exec(message) ?? [];
  const placed = error instanceof BeamtraceError && error.code === "BT_COMPILE_FAILED" && file !== undefined;
  return {
    module: module ?? /([^/\\]+)\.beam$/.exec(path)?.[1] ?? path,
    file: placed ? file : (source ?? path),
    line: placed ? Number(line) : 0,
    code: error instanceof BeamtraceError ? error.code : "BT_INTERNAL",
    message,
  };
}

function sourceOf(beam: BeamFile): string | undefined {
  const source = compileInfo(beam, "source");
  return Array.isArray(source) ? String.fromCodePoint(...(source as number[])) : undefined;
}

/** `lib/cart.ex:12: Shop.Cart: why`. */
export const failureText = ({ file, line, module, message }: ModuleFailure): string =>
  `${file}${line > 0 ? `:${line}` : ""}: ${module.replace(/^Elixir\./, "")}: ${message}`;
