/** Attaching to nodes and tracing them. */
export { attach } from "./attach";
export type { AttachOptions } from "./attach";
export { Session } from "./session";
export type { SessionEvents } from "./session";
export { Trace } from "./trace";
export type { TraceOptions } from "./trace";
export type { TraceSites } from "./trace-sites";
export { FlightRecorder } from "./flight-recorder";
export type { FlightRecorderOptions } from "./recorder-options";
export { FlightRecording } from "./flight-recording";
export type { FlightRecordingFacts, FlightTrigger } from "./flight-recording";
export type {
  AlarmTrigger,
  CallTrigger,
  ExitTrigger,
  MessageTrigger,
  RecorderTrigger,
} from "./recorder-triggers";
export type {
  CallPattern,
  InstrumentedOption,
  PayloadOption,
  PortSelection,
  ProcessSelection,
  SamplingOption,
  TraceEventName,
  TraceSpec,
} from "./trace-options";
export { DEFAULT_REDACTED_KEYS } from "./trace-options";
export { DEFAULT_LIMITS } from "./limits";
export type { EffectiveLimits, TraceLimits } from "./limits";
export type { NodeStats, TraceStats } from "./trace-stats";
export type { SessionInfo } from "./session-info";
export type { SessionCloseReason, SessionStatus, TraceEndReason } from "./session-status";
export type { Monitor, ProcessDown } from "./monitor";
export type { ReattachOptions } from "./reattach";
export type { CallOptions } from "./deadline";
export { NoMatchError, TraceRefusedError } from "./agent-errors";
export * from "./match-spec";
export { nearNames } from "./near-names";
