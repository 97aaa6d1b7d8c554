/**
 * Results by application in a file, so that a long run can be done in pieces. They hold for the sources of the transformer as they were:
 * when those change, all is done again.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Tally } from "./instrument-all";
import type { Loaded } from "./load-all";
import type { Group } from "./modules";

const PROJECT = fileURLToPath(new URL("../../..", import.meta.url));
const SOURCES = ["src/transform", "src/erlang", "beam/transform/src", "beam/runtime/src"];

export interface ApplicationResult {
  readonly release: string;
  readonly group: Group;
  readonly application: string;
  readonly tally: Tally;
  readonly loaded: Loaded;
}

interface State {
  readonly sources: string;
  readonly results: Record<string, ApplicationResult>;
}

/** One number for what the transformer is made of. */
export function sourceHash(): string {
  const hash = createHash("sha256");
  for (const folder of SOURCES)
    for (const name of (readdirSync(join(PROJECT, folder), { recursive: true }) as string[]).sort())
      if (/\.(ts|erl)$/.test(name)) hash.update(name).update(readFileSync(join(PROJECT, folder, name)));
  return hash.digest("hex").slice(0, 16);
}

/** The results so far; kept in memory alone without a file. */
export class Progress {
  private readonly file: string | undefined;
  private state: State;

  constructor(file: string | undefined) {
    this.file = file;
    const sources = sourceHash();
    const known =
      file !== undefined && existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as State) : undefined;
    this.state = known?.sources === sources ? known : { sources, results: {} };
  }

  get(release: string, group: Group, application: string): ApplicationResult | undefined {
    return this.state.results[`${release} ${group} ${application}`];
  }

  put(result: ApplicationResult): void {
    this.state.results[`${result.release} ${result.group} ${result.application}`] = result;
    if (this.file === undefined) return;
    mkdirSync(dirname(this.file), { recursive: true });
    writeFileSync(`${this.file}.new`, JSON.stringify(this.state, null, 1));
    renameSync(`${this.file}.new`, this.file);
  }

  all(): ApplicationResult[] {
    return Object.values(this.state.results);
  }
}
