/**
 * The site tables that a recording has to hold: of the versions of modules that its events name, each once, as soon as somebody knows it. Their
 * chunks are external terms, as in a beam (`site-table.ts`). Owned by a writer.
 */
import { decode, encode } from "../erlang/etf";
import { forEachSite } from "./batch-sites";
import type { Dictionary } from "./dictionary";
import type { EventBatch } from "./event-batch";
import { siteVersion } from "./site-number";
import { siteTableFromTerm, siteTerm, type SiteTable } from "./site-table";

interface Wanted {
  readonly dictionary: Dictionary;
  readonly module: number;
  readonly version: number;
}

/** Which tables have been written, and which are still wanted. */
export class RecordedSites {
  /** By `version module`. */
  readonly #wanted = new Map<string, Wanted>();
  readonly #written = new Set<string>();
  /** What was just seen: most events are of few modules. */
  #lastDictionary: Dictionary | undefined;
  #lastModule = 0;
  #lastVersion = -1;

  /** Notes what the events of a batch name; what nobody knows yet is asked for. */
  note(batch: EventBatch): void {
    const { dictionary } = batch.factory;
    forEachSite(batch, (module, site, source) => {
      const version = siteVersion(site);
      if (dictionary === this.#lastDictionary && module === this.#lastModule && version === this.#lastVersion)
        return;
      this.#lastDictionary = dictionary;
      this.#lastModule = module;
      this.#lastVersion = version;
      const key = `${version} ${dictionary.atomName(module)}`;
      if (this.#written.has(key)) return;
      this.#wanted.set(key, { dictionary, module, version });
      dictionary.sites.at(module, site, source);
    });
  }

  /** Tables that are wanted and known by now; they count as written. */
  take(): SiteTable[] {
    const tables: SiteTable[] = [];
    for (const [key, { dictionary, module, version }] of this.#wanted) {
      const table = dictionary.sites.table(module, version);
      if (table === undefined) continue;
      this.#wanted.delete(key);
      this.#written.add(key);
      tables.push(table);
    }
    return tables;
  }

  /** Resolves when those who were asked have answered. */
  async settled(): Promise<void> {
    const dictionaries = new Set([...this.#wanted.values()].map(({ dictionary }) => dictionary));
    for (const { sites } of dictionaries) await sites.settled();
  }
}

/** The body of a chunk that holds a table. */
export function encodeSites(table: SiteTable): Uint8Array {
  return encode(siteTerm(table));
}

/**
 * The table of a chunk.
 * @throws BadTermError, CorruptBeamError for anything else
 */
export function decodeSites(body: Uint8Array): SiteTable {
  return siteTableFromTerm(decode(body));
}
