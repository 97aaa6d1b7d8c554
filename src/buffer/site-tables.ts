/**
 * What the sites of instrumented modules stand for, by module and number, for those who make event objects. Tables come from beams
 * (`readSiteTable`) or from the modules on a node; one that holds for one source only (a node, a trace) goes before one that holds for all.
 * Belongs to a dictionary, whose ids of atoms it uses, and to its thread.
 */
import type { AtomId } from "./ids";
import type { Site, SiteTable } from "./site-table";

/** A source index is one byte: a table for all sources has this instead. */
const ALL = 256;

/** Site tables by module, and by source where they differ. */
export class SiteTables {
  readonly #atomId: (name: string) => AtomId;
  readonly #tables = new Map<number, SiteTable>();
  readonly #missing = new Map<number, (module: number) => void>();
  #last = -1;
  #sites: readonly Site[] | undefined;

  /** @param atomId - the id of a module's name */
  constructor(atomId: (name: string) => AtomId) {
    this.#atomId = atomId;
  }

  /** Modules that have a table. */
  get modules(): readonly string[] {
    return [...new Set([...this.#tables.values()].map(({ module }) => module))];
  }

  /** Adds a table, in place of the one of the same module; `source`: only for events of this source. */
  add(table: SiteTable, source?: number): void {
    this.#tables.set(this.#atomId(table.module) * 512 + (source ?? ALL), table);
    this.#last = -1;
  }

  /** Whether there is a table for the module. */
  has(module: string, source?: number): boolean {
    const id = this.#atomId(module) * 512;
    return this.#tables.has(id + ALL) || (source !== undefined && this.#tables.has(id + source));
  }

  /** What the number of a site of a module stands for; undefined when nobody has told. */
  find(module: string, site: number, source = ALL): Site | undefined {
    return this.at(this.#atomId(module), site, source);
  }

  /** Has a callback told of a module, by the id of its atom, when an event of this source has one that is not known. Once for each run of such events. */
  onMissing(source: number, callback: ((module: number) => void) | undefined): void {
    if (callback === undefined) this.#missing.delete(source);
    else this.#missing.set(source, callback);
    this.#last = -1;
  }

  /** The same by the id of the module's atom. */
  at(module: number, site: number, source: number): Site | undefined {
    const key = module * 512 + source;
    if (key !== this.#last) {
      this.#sites = (this.#tables.get(key) ?? this.#tables.get(module * 512 + ALL))?.sites;
      this.#last = key;
      if (this.#sites === undefined) this.#missing.get(source)?.(module);
    }
    return this.#sites?.[site];
  }
}
