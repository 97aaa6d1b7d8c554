/**
 * The modules of the corpus: all beams below usr/lib of a root and of the packages unpacked for it, by application. The groups are whose
 * work they are: Erlang/OTP, Elixir, RabbitMQ with what it brings along, ejabberd with what Debian packages beside it.
 */
import { existsSync, readdirSync, realpathSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { unpackedPackages } from "./packages";

export const GROUPS = ["Erlang/OTP", "Elixir", "RabbitMQ", "ejabberd"] as const;
export type Group = (typeof GROUPS)[number];

/** A release of Erlang/OTP and the root it lies in. */
export interface Release {
  readonly release: string;
  readonly root: string;
}

/** One application's modules. */
export interface Application {
  readonly name: string;
  readonly group: Group;
  readonly ebin: string;
  readonly files: readonly string[];
}

/** This machine's own, and those that scripts/otp-root.sh has made. */
export function releases(): Release[] {
  const cache = join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "beamtrace");
  const others = ["27", "29"].map((release) => ({ release, root: join(cache, `otp-${release}`) }));
  return [{ release: "25", root: "/" }, ...others.filter(({ root }) => existsSync(root))];
}

/** A path as a program inside the root sees it. */
export const seenFrom = (root: string, path: string): string =>
  root === "/" ? path : path.slice(root.length);

const folders = (path: string): string[] =>
  existsSync(path) ? readdirSync(path).map((name) => join(path, name)) : [];

function groupOf(ebin: string): Group {
  if (ebin.includes("/usr/lib/elixir/")) return "Elixir";
  if (ebin.includes("/usr/lib/rabbitmq/")) return "RabbitMQ";
  // A package of Erlang/OTP itself has an epoch in its version.
  return /\/(packages|beamtrace-corpus)\/(?!erlang-[^/]*%3a)/.test(ebin) ? "ejabberd" : "Erlang/OTP";
}

/** All applications of a release; what is in the root itself goes before what was unpacked for it. */
export async function applications({ root }: Release): Promise<Application[]> {
  const found = new Map<string, Application>();
  for (const base of [root, ...(await unpackedPackages(root))]) {
    const lib = join(base, "usr/lib");
    const parents = [
      ...folders(join(lib, "erlang/lib")),
      ...folders(join(lib, "elixir/lib")),
      ...folders(join(lib, "rabbitmq/lib")).flatMap((server) => folders(join(server, "plugins"))),
      ...folders(lib)
        .filter((path) => path.endsWith("-linux-gnu"))
        .flatMap(folders),
    ];
    for (const parent of parents) {
      const ebin = join(parent, "ebin");
      if (!existsSync(ebin)) continue;
      const files = readdirSync(ebin).filter((name) => name.endsWith(".beam"));
      if (files.length === 0) continue;
      const group = groupOf(ebin);
      const title = (parent.split("/").pop() ?? "").replace(/-\d.*$/, "");
      // RabbitMQ brings libraries that Debian has by themselves too, in other versions.
      const key = `${group} ${title}`;
      if (found.has(key) || [...found.values()].some((one) => realpathSync(one.ebin) === realpathSync(ebin)))
        continue;
      found.set(key, { name: title, group, ebin, files: files.sort().map((name) => join(ebin, name)) });
    }
  }
  return [...found.values()];
}
