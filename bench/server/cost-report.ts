/** Table and rows of a comparison of tracers on one load: CPU a unit, what each tracer adds, and how ours compares. */
import type { Row } from "../row";
import { formatTable } from "./command-line";
import { addedCpu, addedRatio, type Comparison, cpuPerUnit, figure } from "./comparison";
import { formatEstimate, median } from "./statistics";
import type { Workload } from "./variant";

const BASE = "untraced";
const OURS = "beamtrace";

/** Upper bounds of ours ÷ peer. */
const TARGETS: readonly (readonly [peer: string, bound: number, target: string])[] = [
  ["discard", 1.3, "≤ 1.3"],
  ["file", 1, "< 1"],
  ["ip", 1, "< 1"],
];

const names = ({ blocks }: Comparison): string[] => [...new Set(blocks.map((block) => block.variant))].sort();

/** One line a variant, each held against one of them. */
export function costTable(
  title: string,
  { unit }: Workload,
  comparison: Comparison,
  against = "discard",
): string {
  const number = (value: number | undefined, digits: number): string => value?.toFixed(digits) ?? "–";
  const rows = names(comparison)
    .map((name) => ({ name, added: addedCpu(comparison, name, BASE) }))
    .sort((a, b) => a.added.value - b.added.value)
    .map(({ name, added }) => [
      name,
      formatEstimate(cpuPerUnit(comparison, name), 1),
      name === BASE ? "–" : formatEstimate(added, 1),
      name === BASE ? "–" : formatEstimate(addedRatio(comparison, name, against, BASE)),
      number(figure(comparison, name, "eventsPerUnit"), 1),
      number(figure(comparison, name, "lostPerUnit"), 2),
      number(figure(comparison, name, "unitsPerSecond"), 0),
      number(figure(comparison, name, "cpus"), 2),
    ]);
  const rounds = new Set(comparison.blocks.map((block) => block.round)).size;
  const foreign = median(comparison.blocks.map((block) => block.foreign));
  return [
    `${title}; ${rounds} rounds, ${comparison.voided} void blocks, other processes on ${foreign.toFixed(2)} CPUs; medians with 95 % intervals`,
    formatTable([
      [
        "variant",
        `VM CPU µs/${unit}`,
        "added µs",
        `added ÷ ${against}`,
        `events/${unit}`,
        `lost/${unit}`,
        `${unit}s/s`,
        "CPUs",
      ],
      ...rows,
    ]),
  ].join("\n");
}

/** What each tracer adds, and ours against its targets. */
export function costRows(title: string, { unit }: Workload, comparison: Comparison): Row[] {
  const present = names(comparison);
  const rows: Row[] = present
    .filter((name) => name !== BASE)
    .map((name) => {
      const added = addedCpu(comparison, name, BASE);
      return {
        what: `${title}: VM CPU added by ${name}`,
        target: "",
        measured: `${formatEstimate(added, 1)} µs a ${unit}`,
        value: added.value,
        ok: true,
      };
    });
  if (!present.includes(OURS)) return rows;
  for (const [peer, bound, target] of TARGETS) {
    if (!present.includes(peer)) continue;
    const ratio = addedRatio(comparison, OURS, peer, BASE);
    rows.push({
      what: `${title}: added CPU, beamtrace ÷ ${peer}`,
      target,
      measured: formatEstimate(ratio),
      value: ratio.value,
      ok: ratio.value <= bound,
    });
  }
  const lost = figure(comparison, OURS, "lostPerUnit") ?? NaN;
  rows.push({
    what: `${title}: events lost by beamtrace`,
    target: "0",
    measured: `${lost.toFixed(3)} a ${unit}`,
    value: lost,
    ok: lost === 0,
  });
  return rows;
}
