/**
 * Makes sure that this machine has Erlang (and for the tests Elixir, rebar3 and OpenSSL), installing Debian packages where it may.
 * `node scripts/setup-erlang.mjs demo` never fails: without Erlang the demo replays a recording.
 * `node scripts/setup-erlang.mjs test` fails with instructions, unless BEAMTRACE_WITHOUT_ERLANG=1 asks for the tests without a node;
 * `bench` adds what the benchmarks' servers stand on, `ci` Dialyzer.
 * Plain Node without dependencies; returns at once when nothing is missing.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";

export const OLDEST_OTP = 25;

/** What each purpose needs: Erlang applications, programs, and the Debian packages that bring them. */
const PURPOSES = {
  demo: {
    applications: ["runtime_tools"],
    programs: ["erl", "epmd"],
    packages: ["erlang-base", "erlang-runtime-tools"],
  },
  test: {
    applications: ["compiler", "crypto", "parsetools", "runtime_tools", "ssl", "syntax_tools", "tools"],
    programs: ["erl", "erlc", "epmd", "elixir", "mix", "rebar3", "openssl", "gcc"],
    packages: [
      "erlang-base",
      "erlang-dev",
      "erlang-crypto",
      "erlang-parsetools",
      "erlang-runtime-tools",
      "erlang-ssl",
      "erlang-syntax-tools",
      "erlang-tools",
      "elixir",
      "rebar3",
      "openssl",
      "gcc",
      "libc6-dev",
    ],
  },
};
// RabbitMQ, ejabberd and tsung, the real servers of the benchmarks and their load, are unpacked by them and not installed; this is what they stand on.
PURPOSES.bench = {
  applications: [
    ...PURPOSES.test.applications,
    ...["asn1", "eldap", "erl_interface", "inets", "mnesia", "os_mon", "public_key", "xmerl"],
  ],
  programs: PURPOSES.test.programs,
  packages: [
    ...PURPOSES.test.packages,
    ...["asn1", "eldap", "inets", "mnesia", "os-mon", "public-key", "xmerl"].map((name) => `erlang-${name}`),
  ],
};
PURPOSES.ci = {
  ...PURPOSES.bench,
  programs: [...PURPOSES.bench.programs, "dialyzer"],
  packages: [...PURPOSES.bench.packages, "erlang-dialyzer"],
};

function onPath(program) {
  return (process.env.PATH ?? "").split(":").some((folder) => existsSync(`${folder}/${program}`));
}

/** What keeps the purpose from being met; empty when nothing does. */
function missing({ applications, programs }) {
  const absent = programs.filter((program) => !onPath(program));
  if (absent.includes("erl")) return ["erl", ...absent.filter((p) => p !== "erl")];
  const probe = spawnSync(
    "erl",
    [
      "-noshell",
      "-eval",
      `io:format("~s", [erlang:system_info(otp_release)]),
       [io:format(" ~s", [A]) || A <- [${applications.join(",")}], is_tuple(code:lib_dir(A))], halt().`,
    ],
    { encoding: "utf8", timeout: 60_000, env: { ...process.env, ERL_CRASH_DUMP: "/dev/null" } },
  );
  if (probe.status !== 0)
    return [`erl (it does not start: ${(probe.stderr || String(probe.error ?? "")).trim()})`];
  const [release = "", ...absentApplications] = probe.stdout.trim().split(" ");
  const tooOld =
    Number(release) < OLDEST_OTP ? [`Erlang/OTP ${OLDEST_OTP} or later (this is ${release})`] : [];
  return [...tooOld, ...absent, ...absentApplications.map((a) => `the Erlang application ${a}`)];
}

/** The prefix that makes a command run as root: none, sudo, or undefined when there is no way without asking. */
function asRoot() {
  if (process.getuid?.() === 0) return [];
  return spawnSync("sudo", ["-n", "true"], { stdio: "ignore" }).status === 0 ? ["sudo", "-n"] : undefined;
}

/** Installs by apt; returns why it could not, undefined when it did. */
function install(packages) {
  if (process.platform !== "linux" || !onPath("apt-get")) return "this machine has no apt-get";
  const prefix = asRoot();
  if (prefix === undefined) return "installing packages takes root, or sudo without a password";
  const options = [
    "-o",
    "DPkg::Lock::Timeout=300",
    "-o",
    "Acquire::Retries=3",
    "-o",
    "Acquire::http::Timeout=30",
  ];
  const apt = (...args) => {
    const command = [
      ...prefix,
      "env",
      "DEBIAN_FRONTEND=noninteractive",
      "apt-get",
      "-q",
      ...options,
      ...args,
    ];
    const result = spawnSync(command[0], command.slice(1), {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe"],
      maxBuffer: 1 << 28,
    });
    const said = `${result.stdout}\n${result.stderr}`;
    return result.status === 0
      ? undefined
      : (said
          .match(/^[EW]: .*$/gm)
          ?.slice(-4)
          .join("; ") ?? "apt-get failed");
  };
  console.error(`[setup] apt-get install ${packages.join(" ")}`);
  // A list that cannot be renewed may still do; the install decides.
  const updateProblem = apt("update");
  const installProblem = apt("install", "-y", "--no-install-recommends", ...packages);
  return installProblem === undefined
    ? undefined
    : [installProblem, updateProblem].filter(Boolean).join("; ");
}

function ensure(purpose) {
  const before = missing(purpose);
  if (before.length === 0) return undefined;
  console.error(`[setup] missing: ${before.join(", ")}`);
  const problem = install(purpose.packages);
  const after = missing(purpose);
  if (after.length === 0) return undefined;
  return `missing: ${after.join(", ")}${problem === undefined ? "" : `\n  not installed because: ${problem}`}`;
}

const [name] = process.argv.slice(2);
const purpose = PURPOSES[name];
if (purpose === undefined) {
  console.error(`usage: node scripts/setup-erlang.mjs ${Object.keys(PURPOSES).join("|")}`);
  process.exit(2);
}
if (name !== "demo" && process.env.BEAMTRACE_WITHOUT_ERLANG === "1") {
  console.error("[setup] BEAMTRACE_WITHOUT_ERLANG=1: only the tests that need no Erlang node will run");
} else {
  const problem = ensure(purpose);
  if (problem !== undefined) {
    console.error(`[setup] ${problem}`);
    if (name === "demo") {
      console.error("[setup] no Erlang here: the demo replays a recording");
    } else {
      console.error(
        [
          "The tests talk to real Erlang nodes. Install Erlang/OTP 25 or later, Elixir, rebar3 and OpenSSL, for example",
          `  Debian, Ubuntu:  apt-get install ${purpose.packages.join(" ")}`,
          "  macOS:           brew install erlang elixir rebar3 openssl",
          "or set BEAMTRACE_WITHOUT_ERLANG=1 to run only the tests that need no node.",
        ].join("\n"),
      );
      process.exit(1);
    }
  }
}
