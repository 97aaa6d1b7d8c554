/** A script of the benchmarks in a Node process of its own, asked over IPC: one question, one answer, in turn. It ends when its parent lets go of it, or dies. */
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";

export interface Child {
  readonly osPid: number;
  /** Sends a question (none at first: the child speaks when it is ready) and waits for the answer. */
  ask<T>(question?: string): Promise<T>;
  /** Ends the process. */
  end(): Promise<void>;
}

/** Starts `./<script>` of this folder. An answer `{ error }` rejects, and so does the end of the process. */
export function startChild(script: string, args: readonly (string | number)[]): Child {
  const child = fork(fileURLToPath(new URL(`./${script}`, import.meta.url)), args.map(String), {
    execArgv: ["--import", "tsx"],
  });
  const waiting: { resolve: (value: unknown) => void; reject: (error: Error) => void }[] = [];
  const early: unknown[] = [];
  let failure: Error | undefined;
  const fail = (error: Error): void => {
    failure ??= error;
    for (const { reject } of waiting.splice(0)) reject(failure);
  };
  child.on("message", (message: unknown) => {
    if (typeof message === "object" && message !== null && "error" in message)
      return fail(new Error(`${script}: ${String(message.error)}`));
    const next = waiting.shift();
    if (next) next.resolve(message);
    else early.push(message);
  });
  const exited = new Promise<void>((resolve) =>
    child.once("exit", () => {
      fail(new Error(`${script} has ended`));
      resolve();
    }),
  );
  child.on("error", fail);
  return {
    osPid: child.pid ?? NaN,
    ask<T>(question?: string) {
      return new Promise<T>((resolve, reject) => {
        if (early.length > 0) return resolve(early.shift() as T);
        if (failure) return reject(failure);
        waiting.push({ resolve: resolve as (value: unknown) => void, reject });
        if (question !== undefined) child.send(question);
      });
    },
    async end() {
      if (child.connected) child.disconnect();
      const timer = setTimeout(() => child.kill("SIGKILL"), 5_000);
      await exited;
      clearTimeout(timer);
    },
  };
}
