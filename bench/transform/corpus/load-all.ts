/** Loads instrumented modules into a fresh node, over those that it runs on, once with the idle and once with the tracing runtime. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { RUNTIME_OFF, RUNTIME_ON } from "../../../src/transform/beam-code.generated";
import { type Release, seenFrom } from "./modules";
import { inRoot } from "./packages";

const run = promisify(execFile);

const LOAD = `
  {ok, [[Dir]]} = init:get_argument(corpus),
  Runtime = base64:decode(os:getenv("BEAMTRACE_RUNTIME")),
  {module, _} = code:load_binary(beamtrace_rt, "beamtrace_rt.erl", Runtime),
  Beams = [begin {ok, B} = file:read_file(F), {F, B} end || F <- lists:sort(filelib:wildcard(filename:join(Dir, "*.beam")))],
  %% The preloaded ones are the VM itself: the loader is asked, but they are not put in place.
  Preloaded = erlang:pre_loaded(),
  Results = [begin
    Name = filename:basename(F, ".beam"),
    M = list_to_atom(Name),
    code:unstick_mod(M),
    Result = case lists:member(M, Preloaded) of
      true -> case erlang:prepare_loading(M, B) of {error, W} -> {error, W}; _ -> {module, M} end;
      false -> code:load_binary(M, Name ++ ".beam", B)
    end,
    case Result of
      {module, M} -> {Name, loaded};
      {error, Why} ->
        %% A module whose on_load fails here fails so from its own file too.
        Plain = case code:which(M) of P when is_list(P) -> code:load_file(M); _ -> none end,
        case Plain of {error, Why} -> {Name, as_plain}; _ -> {Name, Why} end
    end
  end || {F, B} <- Beams],
  Text = [[N, " ", io_lib:format("~0tp", [R]), "\\n"] || {N, R} <- Results],
  io:format("~nRESULTS~n~ts~nEND~n", [Text]),
  halt(0).`;

/** What loading came to. */
export interface Loaded {
  loaded: number;
  /** Modules whose on_load function fails here, instrumented and plain alike. */
  failsAsPlain: number;
  failed: string[];
}

/** Loads all beams of a folder; `loaded`, `as_plain` or what is wrong, by module, in both modes. */
export async function loadAll(
  { root }: Release,
  folder: string,
  codePaths: readonly string[],
): Promise<Map<string, string>> {
  const results = new Map<string, string>();
  const [program, ...leading] = inRoot(root, "erl");
  const args = [
    "-noshell",
    "-noinput",
    "-pa",
    ...codePaths,
    "-corpus",
    seenFrom(root, folder),
    "-eval",
    LOAD,
  ];
  for (const [mode, runtime] of [
    ["idle", RUNTIME_OFF],
    ["tracing", RUNTIME_ON],
  ] as const) {
    const { stdout } = await run(program, [...leading, ...args], {
      env: { ...process.env, LANG: "C.UTF-8", BEAMTRACE_RUNTIME: runtime, ERL_CRASH_DUMP_BYTES: "0" },
      maxBuffer: 1 << 26,
      timeout: 240_000,
    }).catch((error: Error & { stdout?: string }) => ({
      stdout: `${error.stdout ?? ""} ${error.message.slice(-300)}`,
    }));
    const [, lines] = /\nRESULTS\n(.*)\nEND\n/s.exec(stdout) ?? [];
    if (lines === undefined) throw new Error(`with the ${mode} runtime the node died: ${stdout.slice(-600)}`);
    for (const line of lines.split("\n")) {
      const at = line.indexOf(" ");
      if (at < 0) continue;
      const [module, result] = [line.slice(0, at), line.slice(at + 1)];
      const before = results.get(module);
      if (before === undefined || before === "loaded" || before === "as_plain") results.set(module, result);
    }
  }
  return results;
}
