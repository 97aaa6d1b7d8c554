/** The checks of each sub-layer, in the order in which `npm run checkpoint -- SUBLAYER` runs them. */
export interface Check {
  readonly name: string;
  /** What it measures, for `npm run bench`. */
  readonly what: string;
  /** Module that exports `run(quick): Promise<Row[]>`; from the project's folder, without extension. */
  readonly module: string;
  /** Time limit; 30 when not given. */
  readonly minutes?: number;
  /** Time limit with --quick; 5 when not given. 0: left out of a quick run. */
  readonly quickMinutes?: number;
}

export const CHECKS: Readonly<Record<string, readonly Check[]>> = {
  "1.1": [
    {
      name: "releases",
      what: "the tests that talk to nodes, on OTP 25, 27 and 29",
      module: "bench/acceptance/releases",
      quickMinutes: 0,
    },
    { name: "ring", what: "the ring against ringbuf.js, on one thread and on two", module: "bench/ring" },
    {
      name: "ring-two-threads",
      what: "a billion records between two threads, every word checked",
      module: "stress/ring-two-threads",
    },
    {
      name: "native-decoder",
      what: "damaged batches of the native tracer: events or typed errors",
      module: "stress/native-decoder",
    },
    {
      name: "native-c",
      what: "the native tracer's C code under sanitizers and threads, outside of a VM",
      module: "stress/native-c",
    },
    {
      name: "native-vm",
      what: "the native tracer under ASan and UBSan in a real VM",
      module: "stress/native-vm",
    },
    {
      name: "native-torture",
      what: "a million spawns and exits at a time, traced natively by several traces, every one accounted for",
      module: "stress/native-torture",
    },
    {
      name: "trace-tuples",
      what: "batches of the tracer into slots, against erlang_js and etf.js on the same bytes",
      module: "bench/trace-tuples",
    },
    {
      name: "streams",
      what: "slots to columns and objects, batches$ and events$ through RxJS",
      module: "bench/streams",
    },
    {
      name: "codec",
      what: "EventCodec's size and speed, against JSON and plain msgpackr",
      module: "bench/codec",
    },
    {
      name: "attach-latency",
      what: "from attach() to the first event at the subscriber",
      module: "bench/server/attach-latency",
    },
    {
      name: "idle",
      what: "what a trace costs a node that has nothing to do",
      module: "bench/server/idle",
    },
    {
      name: "burst",
      what: "a million events in a second: produced = delivered + counted as lost",
      module: "bench/server/burst",
    },
    {
      name: "start-stop",
      what: "a thousand traces and a thousand sessions, without growth on either side",
      module: "bench/server/start-stop",
      quickMinutes: 8,
    },
    {
      name: "rabbitmq",
      what: "added VM CPU on RabbitMQ under an open loop, against other tracers",
      module: "bench/server/rabbitmq",
    },
    {
      name: "contents",
      what: "what contents cost beside shapes, by both tracers, on a ping-pong",
      module: "bench/server/contents",
      quickMinutes: 3,
    },
    {
      name: "pingpong",
      what: "added VM CPU on GenServer calls back and forth, against other tracers",
      module: "bench/server/pingpong",
    },
    {
      name: "soak",
      what: "half an hour at 50,000 events a second: nothing lost, no memory slope",
      module: "bench/server/soak",
      minutes: 45,
    },
    {
      name: "native",
      what: "added VM CPU of the native tracer on RabbitMQ, against the VM's floor and other tracers",
      module: "bench/server/native",
      minutes: 60,
      quickMinutes: 10,
    },
    {
      name: "http",
      what: "everything of all processes of an Elixir HTTP server, native and portable",
      module: "bench/server/http",
      quickMinutes: 8,
    },
    {
      name: "ejabberd",
      what: "the same on ejabberd, under tsung's chat",
      module: "bench/server/ejabberd",
      quickMinutes: 0,
    },
    {
      name: "budget",
      what: "RabbitMQ, ejabberd and an HTTP server with limits.overhead: 0.02, at three loads and across jumps between them",
      module: "bench/server/budget",
      minutes: 90,
      quickMinutes: 20,
    },
    {
      name: "budget-recorder",
      what: "a flight recorder that is always on, with limits.overhead: 0.005, on the same servers",
      module: "bench/server/budget-recorder",
      minutes: 90,
      quickMinutes: 0,
    },
    {
      name: "births",
      what: "what a process that is born outside of the sample costs an HTTP server, native and portable",
      module: "bench/server/births",
      quickMinutes: 0,
    },
    {
      name: "recorder",
      what: "a flight recorder that is always on, on RabbitMQ",
      module: "bench/server/recorder",
      quickMinutes: 8,
    },
    {
      name: "sustained",
      what: "a million events a second for a minute, native; and more than can be taken",
      module: "bench/server/sustained",
      quickMinutes: 8,
    },
    {
      name: "soak-native",
      what: "an hour at 100,000 events a second on RabbitMQ, native: nothing lost, no memory slope",
      module: "bench/server/soak-native",
      minutes: 90,
      quickMinutes: 8,
    },
  ],
  "1.2": [
    {
      name: "transform-same",
      what: "programs, constructs and random ones, behave the same plain and instrumented; builds; on OTP 25, 27 and 29",
      module: "bench/acceptance/transform-same",
      minutes: 45,
      quickMinutes: 15,
    },
    {
      name: "transform-corpus",
      what: "every module of OTP, Elixir, RabbitMQ and ejabberd instrumented, compiled and loaded, on OTP 25, 27 and 29",
      module: "bench/transform/corpus",
      minutes: 120,
      quickMinutes: 20,
    },
    {
      name: "transform-build",
      what: "what instrumenting everything adds to mix compile --force of a hundred modules, and to builds with little to do",
      module: "bench/transform/build-time",
      quickMinutes: 8,
    },
    {
      name: "transform-rabbitmq",
      what: "RabbitMQ with every module instrumented, under load beside the plain one",
      module: "bench/transform/rabbitmq",
      minutes: 45,
      quickMinutes: 10,
    },
    {
      name: "transform-ejabberd",
      what: "ejabberd with every module instrumented, under tsung's chat beside the plain one",
      module: "bench/transform/ejabberd",
      minutes: 45,
      quickMinutes: 10,
    },
    {
      name: "elixir-suite",
      what: "Elixir's own tests on an instrumented Elixir, against the same on the plain one",
      module: "stress/elixir-suite",
      minutes: 90,
      quickMinutes: 0,
    },
    {
      name: "transform-call",
      what: "an instrumented call, tracing off and on, and the memory of a loop of 100 million",
      module: "bench/transform/call-cost",
    },
  ],
  "1.3": [
    {
      name: "transform-smart",
      what: "callbacks of behaviours, locals at a line, plans of rules, on OTP 25, 27 and 29",
      module: "bench/acceptance/transform-smart",
      quickMinutes: 15,
    },
    {
      name: "transform-callback",
      what: "a callback that tells what it did, tracing off and on, with small states and with large ones",
      module: "bench/transform/callback-cost",
    },
  ],
  "1.4": [],
  "1.5": [],
};
