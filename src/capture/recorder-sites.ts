/**
 * What the sites of a flight recorder's recordings stand for. The node is asked for those that a recording names, when it comes; what is known once is
 * known for all further ones, also when the module has been loaded anew since. Owned by the recorder; recordings get tables of their own.
 */
import { Dictionary, type EventBatch } from "../buffer";
import { forEachSite } from "../buffer/batch-sites";
import { siteVersion } from "../buffer/site-number";
import type { AgentClient } from "./agent-client";
import { withDeadline, type CallOptions } from "./deadline";
import type { InstrumentedOption } from "./trace-options";
import { TraceSites } from "./trace-sites";

/** How long a recording may wait for its sites; it is given without them then. */
const PATIENCE_MS = 2_000;
const SOURCE = 0;

/** Tables of the modules that a recorder has met. */
export class RecorderSites {
  readonly #dictionary = new Dictionary();
  readonly #sites: TraceSites;
  readonly #modules: readonly string[];

  constructor(instrumented: InstrumentedOption | boolean | undefined) {
    const { beams = [], modules = [] } = typeof instrumented === "object" ? instrumented : {};
    this.#sites = new TraceSites(this.#dictionary, beams);
    this.#modules = modules;
  }

  /** The recorder runs on this node, or on it again: of modules that are named the sites are known from now on. */
  async opened(agent: AgentClient, options: CallOptions): Promise<void> {
    this.#sites.opened(agent, SOURCE);
    const unknown = this.#modules.filter((module) => !this.#dictionary.sites.has(module));
    if (unknown.length > 0) await this.#sites.load(unknown, options);
  }

  closed(): void {
    this.#sites.closed();
  }

  /** Gives the tables that a batch needs to its dictionary. */
  async fill(batch: EventBatch): Promise<void> {
    const own = batch.factory.dictionary;
    const { sites } = this.#dictionary;
    const named = new Map<string, readonly [module: number, version: number]>();
    forEachSite(batch, (id, site) => {
      const version = siteVersion(site);
      const name = own.atomName(id) ?? "";
      const key = `${version} ${name}`;
      if (named.has(key)) return;
      const module = this.#dictionary.atomId(name);
      named.set(key, [module, version]);
      sites.at(module, site, SOURCE);
    });
    if (named.size === 0) return;
    await withDeadline(sites.settled(), { timeoutMs: PATIENCE_MS }, "sites").catch(() => undefined);
    for (const [module, version] of named.values()) {
      const table = sites.table(module, version);
      if (table !== undefined) own.sites.add(table);
    }
  }
}
