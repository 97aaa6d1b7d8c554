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
      {module, M} -> loaded;
      {error, Why} ->
        %% A module whose on_load fails here fails so from its own file too.
        Plain = case code:which(M) of P when is_list(P) -> code:load_file(M); _ -> none end,
        case Plain of {error, Why} -> as_plain; _ -> {M, Why} end
    end
  end || {F, B} <- Beams],
  io:format("~nBAD ~0tp LOADED ~w AS_PLAIN ~w~n",
    [[R || R = {_, _} <- Results], length([R || loaded = R <- Results]), length([R || as_plain = R <- Results])]),
  halt(0).`;

/** What loading came to. */
export interface Loaded {
  loaded: number;
  /** Modules whose on_load function fails here, instrumented and plain alike. */
  failsAsPlain: number;
  failed: string[];
}

/** Loads all beams of a folder. */
export async function loadAll(
  { root }: Release,
  folder: string,
  codePaths: readonly string[],
): Promise<Loaded> {
  const result: Loaded = { loaded: 0, failsAsPlain: 0, failed: [] };
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
      env: { ...process.env, BEAMTRACE_RUNTIME: runtime, ERL_CRASH_DUMP_BYTES: "0" },
      maxBuffer: 1 << 26,
      timeout: 240_000,
    }).catch((error: Error & { stdout?: string }) => ({
      stdout: `${error.stdout ?? ""} ${error.message.slice(-300)}`,
    }));
    const [, bad, count, asPlain] = /BAD (.*) LOADED (\d+) AS_PLAIN (\d+)\n/.exec(stdout) ?? [];
    if (bad === undefined) result.failed.push(`${mode} runtime: the node died: ${stdout.slice(-600)}`);
    else if (bad !== "[]") result.failed.push(`${mode} runtime: ${bad.slice(0, 600)}`);
    if (mode === "tracing") {
      result.loaded = Number(count ?? 0);
      result.failsAsPlain = Number(asPlain ?? 0);
    }
  }
  return result;
}
