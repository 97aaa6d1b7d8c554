/**
 * Random valid Erlang programs: functions that call those before them and themselves with a smaller number, with every construct
 * that has tail positions, bindings, exceptions or effects. One seed, one program; every variable is bound once, so erl_lint agrees.
 */

/** A stream of pseudo-random numbers below 2^32 (mulberry32). */
function numbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
}

const ARITIES = [1, 2, 3, 2, 1, 4];

class Writer {
  private readonly random: () => number;
  private readonly otp: number;
  private fresh = 0;
  private calls = 0;
  private current = 0;

  constructor(seed: number, otp: number) {
    this.random = numbers(seed);
    this.otp = otp;
  }

  program(functions: number): string {
    const bodies = Array.from({ length: functions }, (_, i) => this.func(i));
    const calls = Array.from({ length: functions * 2 }, (_, i) => {
      const of = i % functions;
      const args = [String(this.below(4)), ...this.times(arity(of) - 1, () => this.literal())];
      return `fun() -> f${of}(${args.join(", ")}) end`;
    });
    return [
      "-module(random_program).",
      "-compile(export_all).",
      "-compile(nowarn_export_all).",
      // Of two equal pieces of code that raise, the compiler keeps one, with the line of either: lines then say nothing.
      "-compile([no_share_opt, no_jopt]).",
      ...(this.otp >= 29 ? ["-record #native{a = 1, b}."] : []),
      "call_it(F, X) -> F(X).",
      // What was come by, and in which order.
      "note(X) -> put(noted, [X | case get(noted) of undefined -> []; L -> L end]), X.",
      `cases() -> [${calls.join(",\n  ")}].`,
      ...bodies,
    ].join("\n");
  }

  private below(limit: number): number {
    return this.random() % limit;
  }

  private one<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)] as T;
  }

  private times<T>(count: number, make: () => T): T[] {
    return Array.from({ length: count }, make);
  }

  private variable(): string {
    return `V${this.fresh++}`;
  }

  private literal(): string {
    return this.one([
      "a",
      "b",
      "true",
      "false",
      "0",
      "1",
      "2",
      "17",
      "[]",
      "{a, 1}",
      "[1, 2]",
      "<<1, 2>>",
      "#{a => 1}",
      '"xy"',
      "1.5",
    ]);
  }

  private func(index: number): string {
    this.current = index;
    this.calls = 0;
    const count = arity(index);
    const clauses = this.times(1 + this.below(3), () => {
      const env: string[] = [];
      const patterns = this.times(count - 1, () => this.pattern(env, 1));
      const guard = env.length > 0 && this.below(3) === 0 ? ` when ${this.guard(env)}` : "";
      return `f${index}(${["N", ...patterns].join(", ")})${guard} -> ${this.body(3, ["N", ...env])}`;
    });
    const rest = this.times(count, () => "_").join(", ");
    const last = this.below(3) > 0 ? [`f${index}(${rest}) -> ${this.body(1, [])}`] : [];
    // A way to return, anything at all: of what never does, or never what is matched, the compiler may make a tail call.
    const returns = `f${index}(${["stop", ...this.times(count - 1, () => "_")].join(", ")}) -> get(stopped)`;
    return `${[returns, ...clauses, ...last].join(";\n")}.`;
  }

  private pattern(env: string[], depth: number): string {
    const bind = (): string => {
      const name = this.variable();
      env.push(name);
      return name;
    };
    switch (this.below(depth > 0 ? 9 : 4)) {
      case 0:
        return "_";
      case 1:
        return this.literal().replace("=>", ":=");
      case 2:
      case 3:
        return bind();
      case 4:
        return `{${this.pattern(env, depth - 1)}, ${this.pattern(env, depth - 1)}}`;
      case 5:
        return `[${this.pattern(env, depth - 1)} | ${this.pattern(env, depth - 1)}]`;
      case 6:
        return `${this.pattern(env, 0)} = ${bind()}`;
      case 7:
        return `<<${bind()}, ${bind()}/binary>>`;
      default:
        return `#{a := ${this.pattern(env, depth - 1)}}`;
    }
  }

  private guard(env: readonly string[]): string {
    const v = this.one(env);
    return this.one([
      `is_integer(${v})`,
      `${v} > 1`,
      `${v} =:= a`,
      `not is_list(${v})`,
      `is_tuple(${v}), element(1, ${v}) =:= a`,
    ]);
  }

  private body(depth: number, given: readonly string[]): string {
    const env = [...given];
    const parts = this.times(this.below(3), () => {
      const value = this.expr(depth - 1, env);
      const inner: string[] = [];
      if (this.below(4) === 0) {
        const pattern = this.pattern(inner, 1);
        env.push(...inner);
        return `${pattern} = ${value}`;
      }
      if (this.below(3) === 0) return `put(${this.one(["k", "l"])}, ${value})`;
      const name = this.variable();
      env.push(name);
      return `${name} = ${value}`;
    });
    return [...parts, this.expr(depth, env)].join(", ");
  }

  private clauses(depth: number, env: readonly string[], patterns: number, guards = true): string {
    return this.times(patterns, () => {
      const bound: string[] = [];
      const pattern = this.pattern(bound, 1);
      const scope = [...env, ...bound];
      const guard = guards && scope.length > 0 && this.below(4) === 0 ? ` when ${this.guard(scope)}` : "";
      return `${pattern}${guard} -> ${this.body(depth - 1, scope)}`;
    }).join("; ");
  }

  private handlers(depth: number, env: readonly string[]): string {
    return this.times(1 + this.below(2), () => {
      const bound: string[] = [];
      const reason = this.pattern(bound, 1);
      const stack = this.below(3) === 0 ? `:${this.variable()}` : "";
      return `${this.one(["error", "throw", "exit", "_"])}:${reason}${stack} -> ${this.body(depth - 1, [...env, ...bound])}`;
    }).join("; ");
  }

  private call(depth: number, env: readonly string[]): string {
    const { current } = this;
    if (++this.calls > 3 || (current === 0 && !env.includes("N"))) return this.simple(env);
    const self = env.includes("N") && (current === 0 || this.below(3) === 0);
    const of = self ? current : this.below(current);
    const args = [
      self ? "N - 1" : String(this.below(3)),
      ...this.times(arity(of) - 1, () => this.argument(depth - 1, env)),
    ].join(", ");
    const call = this.one([
      `f${of}(${args})`,
      `?MODULE:f${of}(${args})`,
      `apply(?MODULE, f${of}, [${args}])`,
      `(fun ?MODULE:f${of}/${arity(of)})(${args})`,
    ]);
    return self ? `case N > 0 of true -> ${call}; false -> ${this.simple(env)} end` : call;
  }

  /** Often one that shows when it is made. */
  private argument(depth: number, env: readonly string[]): string {
    const value = this.expr(depth - 1, env);
    return this.below(2) === 0 ? `note(${value})` : value;
  }

  private simple(env: readonly string[]): string {
    return env.length > 0 && this.below(3) > 0 ? this.one(env) : this.literal();
  }

  /** A fun that is called elsewhere: whether one called on the spot is put in line is the compiler's mood, which a stack trace shows. */
  private fun(depth: number, env: readonly string[]): string {
    if (this.below(2) === 0) {
      const name = this.variable();
      return `fun(${name}) -> ${this.body(depth - 1, [...env, name])} end`;
    }
    const named = this.below(2) === 0 ? this.variable() : "";
    const clauses = this.times(1 + this.below(2), () => {
      const bound: string[] = [];
      const pattern = this.pattern(bound, 1);
      return `${named}(${pattern}) -> ${this.body(depth - 1, [...env, ...bound])}`;
    });
    const rest = this.variable();
    // It goes on by itself, with less.
    if (named !== "") clauses.unshift(`${named}([_ | ${rest}]) -> ${named}(${rest})`);
    return `fun ${clauses.join("; ")} end`;
  }

  /** Something that may be a list, for a generator. */
  private list(depth: number, env: readonly string[]): string {
    return this.one(["[1, a]", "[]", "[{a, 1}, {b, 2}]", this.expr(depth - 1, env)]);
  }

  private comprehension(depth: number, env: readonly string[]): string {
    const name = this.variable();
    const inside = [...env, name];
    const value = (): string => this.expr(depth - 1, inside);
    switch (this.below(this.otp < 27 ? 3 : this.otp < 29 ? 4 : 7)) {
      case 0:
        return `[${value()} || ${name} <- ${this.list(depth, env)}]`;
      case 1:
        return `<< <<(erlang:phash2(${value()})):16>> || ${name} <- ${this.list(depth, env)} >>`;
      case 2: {
        const filter = this.below(2) === 0 ? `, ${this.guard([name])}` : "";
        return `[${value()} || <<${name}>> <= <<1, 2, 3>>${filter}]`;
      }
      case 3:
        return `#{${value()} => ${value()} || ${name} <- ${this.list(depth, env)}}`;
      case 4:
        return `[{${name}, ${value()}} || {${name}, _} <:- ${this.list(depth, env)}]`;
      case 5:
        return `[${value()} || ${name} <- ${this.list(depth, env)} && _ <- ${this.list(depth, env)}]`;
      default:
        return `[${value()}, ${value()} || ${name} <- ${this.list(depth, env)}]`;
    }
  }

  private map(depth: number, env: readonly string[]): string {
    const e = (): string => this.expr(depth - 1, env);
    if (this.otp >= 29 && this.below(3) === 0)
      return this.one([
        `#native{a = ${e()}, b = ${e()}}`,
        `(${e()})#native{b = ${e()}}`,
        `(${e()})#native.a`,
      ]);
    return this.one([`#{a => ${e()}, b => ${e()}}`, `(${e()})#{a := ${e()}}`, `(${e()})#{${e()} => ${e()}}`]);
  }

  private expr(depth: number, env: readonly string[]): string {
    if (depth <= 0) return this.simple(env);
    const e = (): string => this.expr(depth - 1, env);
    switch (this.below(this.otp >= 27 ? 26 : 24)) {
      case 0:
        return `(${e()} ${this.one(["+", "-", "*", "div", "rem", "++", "=:=", "<"])} ${e()})`;
      case 1:
        return `{${e()}, ${e()}}`;
      case 2:
        return `[${e()} | ${e()}]`;
      case 3:
      case 4:
        return `case ${e()} of ${this.clauses(depth, env, 1 + this.below(3))} end`;
      case 5:
        return `if ${env.length > 0 ? `${this.guard(env)} -> ${this.body(depth - 1, env)}; ` : ""}true -> ${this.body(depth - 1, env)} end`;
      case 6:
        return `begin ${this.body(depth - 1, env)} end`;
      case 7:
        return `try ${this.body(depth - 1, env)} catch ${this.handlers(depth, env)} end`;
      case 8:
        return `try ${this.body(depth - 1, env)} of ${this.clauses(depth, env, 2)} catch ${this.handlers(depth, env)} end`;
      case 9:
        return `try ${this.body(depth - 1, env)} after put(after_, ${this.simple(env)}) end`;
      case 10:
        return `(catch ${e()})`;
      case 11:
        return `(${e()} ${this.one(["andalso", "orelse"])} ${e()})`;
      case 12:
        return `call_it(${this.fun(depth, env)}, ${e()})`;
      case 13:
        return this.comprehension(depth, env);
      case 14:
        return `${this.one(["throw", "error", "exit"])}(${e()})`;
      case 15:
        return `begin self() ! ${e()}, receive ${this.clauses(depth, env, 2, false)} after 0 -> ${this.body(depth - 1, env)} end end`;
      case 16:
        return `begin observer ! ${e()}, ${e()} end`;
      case 17:
        // No guard BIFs here: for one that the compiler knows to fail it forgets the line (OTP 25), and the trace shows a neighbour's.
        return `${this.one(["atom_to_list", "list_to_tuple", "tuple_to_list", "list_to_binary"])}(${e()})`;
      case 18:
        return this.map(depth, env);
      case 19: {
        // How another process ends, and what it sends meanwhile.
        const [monitor, reason] = [this.variable(), this.variable()];
        const body = this.body(depth - 1, env);
        return `begin {_, ${monitor}} = spawn_monitor(fun() -> ${body} end), receive {'DOWN', ${monitor}, process, _, ${reason}} -> ${this.body(depth - 1, [...env, reason])} end end`;
      }
      case 24:
      case 25: {
        const bound: string[] = [];
        const pattern = this.pattern(bound, 1);
        const inside = `${pattern} ?= ${e()}, ${this.body(depth - 1, [...env, ...bound])}`;
        return this.below(2) === 0
          ? `maybe ${inside} end`
          : `maybe ${inside} else ${this.clauses(depth, env, 2)} end`;
      }
      default:
        return this.call(depth, env);
    }
  }
}

const arity = (index: number): number => ARITIES[index % ARITIES.length] as number;

/** The text of module `random_program` of this seed, with what the release has: `maybe` and map comprehensions, native records and generators in step. */
export function randomProgram(
  seed: number,
  options: { readonly otp: number; readonly functions?: number },
): string {
  return new Writer(seed, options.otp).program(options.functions ?? 12);
}
