/** The checks of each sub-layer, in the order in which `npm run checkpoint -- SUBLAYER` runs them. */
export interface Check {
  readonly name: string;
  /** What it measures, for `npm run bench`. */
  readonly what: string;
  /** Module below bench/ that exports `run(quick): Promise<Row[]>`, without extension. */
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
      module: "acceptance/releases",
      quickMinutes: 0,
    },
    {
      name: "rabbitmq",
      what: "added VM CPU on RabbitMQ under an open loop, against other tracers",
      module: "server/rabbitmq",
    },
    { name: "pingpong", what: "the same for GenServer calls back and forth", module: "server/pingpong" },
  ],
  "1.2": [],
  "1.3": [],
  "1.4": [],
  "1.5": [],
};
