/**
 * What the sites of a trace's instrumented modules stand for. Tables come from beams that the user gives or from the node, which is asked for a
 * module when the first event object of a version of it is made: the module answers itself, or its file does if that is of the code that runs.
 * Owned by its trace or recorder; the tables belong to a dictionary, where the objects' `site` comes from.
 */
import {
  readSiteTable,
  siteTableFromTerm,
  siteTableOf,
  type Dictionary,
  type Site,
  type SiteTable,
} from "../buffer";
import { BeamFile, BeamtraceError, decode } from "../erlang";
import { atom, Atom, Tuple, type Term } from "../erlang/term";
import type { AgentClient } from "./agent-client";
import type { CallOptions } from "./deadline";

/** How long the node may take to say what the sites of a module are that events name. */
const ANSWER_MS = 10_000;

/** Sites by module and number. */
export class TraceSites {
  readonly #dictionary: Dictionary;
  readonly #asked = new Set<string>();
  #source = 0;
  #agent: AgentClient | undefined;
  #wanted: string[] = [];
  #asking: Promise<unknown> | undefined;

  /** @internal */
  constructor(dictionary: Dictionary, beams: readonly Uint8Array[]) {
    this.#dictionary = dictionary;
    for (const bytes of beams) {
      const table = readSiteTable(BeamFile.read(bytes));
      if (table === undefined)
        throw new BeamtraceError(
          "BT_CORRUPT_BEAM",
          "instrumented.beams: one has no sites; it is not instrumented",
        );
      this.add(table);
    }
  }

  /** Modules whose sites are known. */
  get modules(): readonly string[] {
    return this.#dictionary.sites.modules;
  }

  /** All tables that are known, of whatever version. */
  get tables(): readonly SiteTable[] {
    return this.#dictionary.sites.tables;
  }

  /** The site of an event's module and number, when it is known. */
  find(module: string, siteNumber: number): Site | undefined {
    return this.#dictionary.sites.find(module, siteNumber);
  }

  /** Adds the sites of a module: `instrumentBeam` gives them as `table`. */
  add(table: SiteTable): void {
    this.#dictionary.sites.add(table);
  }

  /**
   * Asks the node for the sites of these modules, or of all instrumented ones that are loaded, as they are now.
   * Resolves with the modules whose sites it can't tell: those that were loaded from memory, or whose file is not that of their code.
   */
  async load(modules?: readonly string[], options: CallOptions = {}): Promise<readonly string[]> {
    if (this.#agent === undefined) throw new BeamtraceError("BT_CLOSED", "the trace has ended");
    return this.#load(this.#agent, modules, options);
  }

  async #load(
    agent: AgentClient,
    modules: readonly string[] | undefined,
    options: CallOptions,
  ): Promise<readonly string[]> {
    const which = modules === undefined ? atom("all") : modules.map((name) => atom(name));
    const answer = await agent.call("beamtrace_agent", "runtime_sites", [which], options);
    const unknown: string[] = [];
    for (const entry of Array.isArray(answer) ? (answer as readonly Term[]) : []) {
      const [module, told] = entry instanceof Tuple ? entry.elements : [];
      if (!(module instanceof Atom)) continue;
      const table = tableOf(told);
      if (table === undefined) unknown.push(module.name);
      else this.#dictionary.sites.add(table);
    }
    return unknown;
  }

  /** @internal The trace has begun, or begun again. */
  opened(agent: AgentClient, source: number): void {
    this.#agent = agent;
    this.#source = source;
    this.#asked.clear();
    this.#dictionary.sites.onMissing(source, (module, version) => this.#want(module, version));
  }

  /** @internal */
  closed(): void {
    this.#agent = undefined;
    this.#dictionary.sites.onMissing(this.#source, undefined);
  }

  /** Modules that are met in one go are asked for in one; each version of them once: what the node can't tell now it could not later. */
  #want(id: number, version: number): Promise<unknown> | undefined {
    const module = this.#dictionary.atomName(id);
    const agent = this.#agent;
    const key = `${version} ${module}`;
    if (module === undefined || agent === undefined || this.#asked.has(key)) return undefined;
    this.#asked.add(key);
    this.#wanted.push(module);
    this.#asking ??= Promise.resolve().then(() => {
      const modules = [...new Set(this.#wanted)];
      this.#wanted = [];
      this.#asking = undefined;
      // Without an answer events keep their numbers.
      return this.#load(agent, modules, { timeoutMs: ANSWER_MS }).catch(() => undefined);
    });
    return this.#asking;
  }
}

function tableOf(told: Term | undefined): SiteTable | undefined {
  const [how, bytes] = told instanceof Tuple ? told.elements : [];
  if (!(how instanceof Atom) || !(bytes instanceof Uint8Array)) return undefined;
  try {
    return how.name === "code" ? siteTableOf(bytes) : siteTableFromTerm(decode(bytes));
  } catch {
    // A table of another version: the numbers stay.
    return undefined;
  }
}
