/**
 * The numbers by which events name sites: 100,000 times a version of the module's table, and the site's place in it. A module that is loaded anew
 * with other code has another version, so that no table is ever taken for that of other code, whichever is loaded, lingers as old code, or runs
 * on another node. Decimal, so that printed forms can be read; below 2^31, so that it is one word on its way.
 */
import type { Site, SiteTable } from "./site-table";

/** Most sites that a module can have. */
export const SITES_MAX = 100_000;
/** Versions are 1 to this. 0: the table of a module whose events carry bare places. */
const VERSIONS = 21_473;

/** The number of a site in events. */
export function siteNumber(version: number, id: number): number {
  return version * SITES_MAX + id;
}

/** The version that a number belongs to. */
export function siteVersion(number: number): number {
  return Math.floor(number / SITES_MAX);
}

/** The site that a number stands for; undefined when it is of another version of the module. */
export function siteIn(table: SiteTable, number: number): Site | undefined {
  return siteVersion(number) === table.version ? table.sites[number % SITES_MAX] : undefined;
}

/** What tells the sites of one version of a module from those of another: a hash of all that a site says. */
export function tableVersion(sites: readonly Site[]): number {
  let hash = 0x811c9dc5;
  const add = (value: number): void => void (hash = Math.imul(hash ^ value, 0x01000193));
  const addText = (text: string): void => {
    for (let i = 0; i < text.length; i++) add(text.charCodeAt(i));
    add(text.length);
  };
  let last: Site | undefined;
  for (const site of sites) {
    if (site.function !== last?.function) addText(site.function);
    if (site.file !== last?.file) addText(site.file);
    addText(site.kind);
    for (const value of [site.arity, site.clause, site.line, site.column]) add(value);
    for (const position of site.arguments) add(position);
    for (const name of site.variables ?? []) addText(name);
    if (site.callee !== undefined) addText(site.callee);
    if (site.callback !== undefined) {
      addText(site.callback.behaviour);
      addText(site.callback.trigger);
    }
    last = site;
  }
  // The last bits of the last value have not reached the others yet.
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (((hash ^ (hash >>> 16)) >>> 0) % VERSIONS) + 1;
}
