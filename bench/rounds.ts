/**
 * Compares pieces of code in one run: they take turns, round by round, so that what else the machine does hits all of them alike. What counts is
 * the CPU time of this process, not the clock on the wall: other programs may run beside it.
 */

/** A piece of code to measure. */
export interface Subject {
  readonly name: string;
  /** Operations of one call of `run`. */
  readonly operations: number;
  run(): void;
}

/** What was measured. */
export interface Measured {
  /** Median over the rounds. */
  readonly nsPerOperation: number;
  readonly perSecond: number;
  /** Text with unit and quartiles. */
  readonly text: string;
}

/** Runs the subjects in turn and gives each one's figures. */
export function measure(subjects: readonly Subject[], quick: boolean): Map<string, Measured> {
  const roundMs = quick ? 30 : 120;
  const rounds = quick ? 9 : 25;
  const repeats = subjects.map((subject) => {
    // Warm up until the optimizer has settled, and find how often a round has to call it.
    let calls = 0;
    const begin = cpuMs();
    while (cpuMs() - begin < roundMs * 4) {
      subject.run();
      calls++;
    }
    return Math.max(1, Math.round(calls / 4));
  });
  const samples = subjects.map(() => [] as number[]);
  for (let round = 0; round < rounds; round++) {
    subjects.forEach((subject, i) => {
      const begin = cpuMs();
      for (let k = repeats[i] ?? 1; k > 0; k--) subject.run();
      samples[i]?.push(((cpuMs() - begin) * 1e6) / ((repeats[i] ?? 1) * subject.operations));
    });
  }
  return new Map(
    subjects.map((subject, i) => {
      const sorted = (samples[i] ?? []).sort((a, b) => a - b);
      const at = (share: number) => sorted[Math.floor((sorted.length - 1) * share)] ?? NaN;
      const text = `${format(1e9 / at(0.5))}/s (${format(1e9 / at(0.75))} – ${format(1e9 / at(0.25))})`;
      return [subject.name, { nsPerOperation: at(0.5), perSecond: 1e9 / at(0.5), text }];
    }),
  );
}

/** 8200000 → "8.2 M". */
export function format(value: number): string {
  if (value >= 1e6) return `${(value / 1e6).toPrecision(3)} M`;
  return value >= 1e3 ? `${(value / 1e3).toPrecision(3)} k` : value.toPrecision(3);
}

function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
