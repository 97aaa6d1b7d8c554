/**
 * What the sites of instrumented modules stand for, by module and number, for those who make event objects. Tables come from beams
 * (`readSiteTable`), from the modules on a node, or from recordings; each holds for the events of its version of the module.
 * Belongs to a dictionary, whose ids of atoms it uses, and to its thread.
 */
import type { AtomId } from "./ids";
import { SITES_MAX, siteVersion } from "./site-number";
import type { Site, SiteTable } from "./site-table";

/** More than there are versions: a key is the module's id times this, and the version. */
const KEYS = 1 << 15;
/** Versions of a module that are kept; of more the oldest goes. */
const VERSIONS_KEPT = 64;

/** Has a module's table asked for; resolves when it is there, or will not be. */
export type SiteAsker = (module: number, version: number) => Promise<unknown> | undefined;

/** Site tables by module and version. */
export class SiteTables {
  readonly #atomId: (name: string) => AtomId;
  readonly #tables = new Map<number, SiteTable>();
  /** Versions by module, oldest first. */
  readonly #versions = new Map<string, number[]>();
  readonly #askers = new Map<number, SiteAsker>();
  readonly #asking = new Set<Promise<unknown>>();
  #last = -1;
  #lastSource = -1;
  #sites: readonly Site[] | undefined;

  /** @param atomId - the id of a module's name */
  constructor(atomId: (name: string) => AtomId) {
    this.#atomId = atomId;
  }

  /** Modules that have a table. */
  get modules(): readonly string[] {
    return [...this.#versions.keys()];
  }

  /** All tables. */
  get tables(): readonly SiteTable[] {
    return [...this.#tables.values()];
  }

  /** Adds a table, beside those of other versions of the same module. */
  add(table: SiteTable): void {
    const { module, version } = table;
    const versions = this.#versions.get(module) ?? [];
    this.#versions.set(module, versions);
    if (!versions.includes(version)) versions.push(version);
    const key = this.#atomId(module) * KEYS;
    if (versions.length > VERSIONS_KEPT) this.#tables.delete(key + versions.shift()!);
    this.#tables.set(key + version, table);
    this.#last = -1;
  }

  /** Whether there is a table for the module, of any version. */
  has(module: string): boolean {
    return this.#versions.has(module);
  }

  /** The table of a version of a module. */
  table(module: number, version: number): SiteTable | undefined {
    return this.#tables.get(module * KEYS + version);
  }

  /** What the number of a site of a module stands for; undefined when nobody has told, also where only other versions of the module are known. */
  find(module: string, site: number): Site | undefined {
    return this.table(this.#atomId(module), siteVersion(site))?.sites[site % SITES_MAX];
  }

  /** The same by the id of the module's atom, for an event of this source: what is missing is asked for. */
  at(module: number, site: number, source: number): Site | undefined {
    const version = siteVersion(site);
    const key = module * KEYS + version;
    if (key !== this.#last || (this.#sites === undefined && source !== this.#lastSource)) {
      this.#sites = this.#tables.get(key)?.sites;
      this.#last = key;
      this.#lastSource = source;
      if (this.#sites === undefined) this.#ask(module, version, source);
    }
    return this.#sites?.[site - version * SITES_MAX];
  }

  /** Who asks for the tables that events of this source miss. It is told once for each run of such events. */
  onMissing(source: number, asker: SiteAsker | undefined): void {
    if (asker === undefined) this.#askers.delete(source);
    else this.#askers.set(source, asker);
    this.#last = -1;
  }

  /** Resolves when all that has been asked for is there, or will not be. */
  async settled(): Promise<void> {
    while (this.#asking.size > 0) await Promise.all(this.#asking);
  }

  #ask(module: number, version: number, source: number): void {
    const asking = this.#askers.get(source)?.(module, version);
    if (asking === undefined) return;
    const done = asking
      .catch(() => undefined)
      .finally(() => {
        this.#asking.delete(done);
      });
    this.#asking.add(done);
  }
}
