/** Recording a source of events into a file until it ends. */
import { AbortedError } from "../erlang/errors";
import type { EventSource } from "./event-source";
import { RecordingWriter, type RecordingOptions, type RecordingSummary } from "./recording-writer";

/** Options of `record`. */
export interface RecordOptions extends RecordingOptions {
  /** Ends the recording; the file is completed and the summary resolves as usual. */
  readonly signal?: AbortSignal;
}

/**
 * Records a live trace, a ring or another recording into a file. Subscribes at once; resolves when the source has completed, the signal has fired or
 * `maxBytes` is reached, and the file is complete.
 * @throws the source's error, or the file system's; what came before is in the file
 * @example const { events } = await record(trace, "shop.btrec", { maxBytes: 1e9 });
 */
export async function record(
  source: EventSource,
  path: string,
  options: RecordOptions = {},
): Promise<RecordingSummary> {
  const { signal, ...rest } = options;
  if (signal?.aborted === true) {
    throw new AbortedError("BT_ABORTED", "Recording was aborted before it began", { cause: signal.reason });
  }
  const writer = new RecordingWriter(path, rest);
  let failure: { readonly error: unknown } | undefined;
  await new Promise<void>((resolve) => {
    const subscription = source.batches$.subscribe({
      next: (batch) => void writer.write(batch),
      error: (error: unknown) => {
        failure = { error };
        resolve();
      },
      complete: resolve,
    });
    const stop = () => {
      subscription.unsubscribe();
      resolve();
    };
    signal?.addEventListener("abort", stop, { once: true });
    void writer.finished.then(() => {
      signal?.removeEventListener("abort", stop);
      stop();
    });
  });
  const summary = await writer.close();
  if (failure !== undefined) throw failure.error;
  if (summary.end.reason === "failed") throw summary.end.error;
  return summary;
}
