/** How long things take, by name: what begins in a process is joined with what ends in the same process, innermost first. */
export class Timings {
  readonly #open = new Map<object, { readonly name: string; readonly at: number }[]>();
  /** Names in the order of their first appearance, so that rows keep their place. */
  readonly #micros = new Map<string, number[]>();

  begin(process: object, name: string, at: number): void {
    const open = this.#open.get(process);
    if (open === undefined) this.#open.set(process, [{ name, at }]);
    else open.push({ name, at });
  }

  end(process: object, at: number): void {
    const begun = this.#open.get(process)?.pop();
    if (begun === undefined) return;
    const micros = (at - begun.at) / 1000;
    const all = this.#micros.get(begun.name);
    if (all === undefined) this.#micros.set(begun.name, [micros]);
    else all.push(micros);
  }

  /** The process has ended. */
  forget(process: object): void {
    this.#open.delete(process);
  }

  /** Lines of the most frequent ones, with count, median and 99th percentile; the durations are then forgotten. */
  take(lines: number): string[] {
    const shown = [...this.#micros].sort((a, b) => b[1].length - a[1].length).slice(0, lines);
    const rows = [...this.#micros].flatMap(([name, micros]) => {
      if (!shown.some(([each]) => each === name)) return [];
      micros.sort((a, b) => a - b);
      const at = (share: number): string => {
        const value = micros[Math.min(micros.length - 1, Math.floor(micros.length * share))];
        return (value === undefined ? "–" : `${grouped(Math.round(value))} µs`).padStart(9);
      };
      return `${tail(name).padEnd(WIDTH)} ${grouped(micros.length).padStart(6)} × median ${at(0.5)} p99 ${at(0.99)}`;
    });
    for (const micros of this.#micros.values()) micros.length = 0;
    return rows;
  }
}

const WIDTH = 24;

/** The end of a name tells more than its beginning. */
function tail(name: string): string {
  return name.length > WIDTH ? `…${name.slice(1 - WIDTH)}` : name;
}

/** 12345 as `12,345`. */
export function grouped(n: number): string {
  return n.toLocaleString("en-US");
}
