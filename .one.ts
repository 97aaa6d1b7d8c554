import { readFileSync } from "node:fs";
const { instrumentBeam, startCompileServer, recompile } = await import("./src/transform/index.ts");
const { BeamFile } = await import("./src/erlang/index.ts");
const cpu = (pid: number): number => { const f = readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\) /, "").split(" "); return (Number(f[11]) + Number(f[12])) / 100; };
const server = await startCompileServer({ codePaths: ["/usr/lib/elixir/lib/elixir/ebin"] });
for (const f of process.argv.slice(2)) {
  const b = readFileSync(f); const size = (x: Uint8Array) => BeamFile.read(x).chunk("Code")!.length;
  let t = cpu(server.pid); await recompile(BeamFile.read(b), server); const p = cpu(server.pid) - t;
  t = cpu(server.pid); const r = await instrumentBeam(b, server, { runtime: "present" }); const i = cpu(server.pid) - t;
  const big = new Map<string, number>(); for (const s of r.table.sites) if (s.kind === "entry") big.set(`${s.function}/${s.arity}`, (big.get(`${s.function}/${s.arity}`) ?? 0) + 1);
  console.log(f.split("/").pop(), `plain ${p.toFixed(2)} instr ${i.toFixed(2)} x${(i / p).toFixed(1)} code ${size(b)} -> ${size(r.bytes)}`, [...big].sort((a, b) => b[1] - a[1]).slice(0, 4).join(" "));
}
await server.close(); process.exit(0);
