/** Events: schema, ring, batches, codec, recordings, sources. */
export {
  EVENT_KINDS,
  EXCEPTION_CLASSES,
  FLAG,
  GAP_HOPS,
  GC_FIELDS,
  IDENTITY,
  KIND_NAMES,
  SCHEMA_VERSION,
  SHAPE_TYPES,
  SLOT,
  SLOT_ALIAS,
  SLOT_BYTES,
  SLOT_FRAME,
  SLOT_GAP,
  SLOT_MARKER,
  SLOT_WORDS,
} from "./event-schema";
export type { EventKind, EventKindCode, ExceptionClass, GapHop, ShapeType } from "./event-schema";
export { RingBuffer } from "./ring-buffer";
export type { RingBufferOptions, RingReaderOptions } from "./ring-buffer";
export type { RingHandle } from "./ring/handle";
export type { RingProducer } from "./ring/producer";
export type { RingReader } from "./ring/reader";
export type { RingReaderStats, RingStats } from "./ring/ring-stats";
export type { Overflow } from "./ring/layout";
export type { WaitGate, WaitResult, WaitStrategy } from "./ring/wait-strategy";
export { ParkWait } from "./ring/wait-park";
export { PollWait } from "./ring/wait-poll";
export { SpinWait } from "./ring/wait-spin";
export { ringSource } from "./ring-source";
export type { RingSource, RingSourceOptions } from "./ring-source";
export type { EventSource } from "./event-source";
export { Dictionary, DICTIONARY_FULL } from "./dictionary";
export type { DictionaryHandle, DictionaryOptions, Mfa, NodeIdentity } from "./dictionary";
export type { AtomId, MfaId, NodeId, ProcessKey, Timestamp } from "./ids";
export { SourceTable } from "./source-table";
export { wallClockMs } from "./source-info";
export type { SourceInfo } from "./source-info";
export { EventBatch } from "./event-batch";
export type { EventFilter } from "./event-batch";
export { EventCursor } from "./event-cursor";
export { EventFactory } from "./event-factory";
export { SlotBlock } from "./slot-block";
export type { SlotSink } from "./slot-sink";
export { TraceBatchDecoder } from "./trace-batch-decoder";
export type { DecodedMessage, TraceBatchDecoderOptions } from "./trace-batch-decoder";
export {
  embeddedSites,
  readSiteTable,
  SITE_CHUNK,
  SITES_FUNCTION,
  siteTableFromTerm,
  siteTableOf,
  withSiteTable,
} from "./site-table";
export type { CallbackTrigger, Site, SiteCallback, SiteKind, SiteTable } from "./site-table";
export { siteIn, siteNumber, SITES_MAX, tableVersion, siteVersion } from "./site-number";
export { SiteTables } from "./site-tables";
export type { SiteAsker } from "./site-tables";
export type * from "./trace-event";
export { RawTraceDecoder } from "./raw-trace-decoder";
export type { LayoutFlag, RawTraceDecoderOptions } from "./raw-trace-decoder";
export { EventWriter } from "./event-writer";
export { CODEC_VERSION, EventCodec } from "./event-codec";
export { pairCalls } from "./pair-calls";
export type { CallEnd, FunctionCall, PairCallsOptions } from "./pair-calls";
export { byProcess, flatten, ofKind, rate, select } from "./operators";
export type { ProcessEvents, RateOptions, RateWindow } from "./operators";
export { Weights, weighted } from "./weights";
export type { WeightedEvent } from "./weights";
export { RecordingWriter } from "./recording-writer";
export type { RecordingEnd, RecordingOptions, RecordingSummary } from "./recording-writer";
export { openRecording } from "./recording";
export type { Recording, ReplayOptions } from "./recording";
export type { RecordingDamage } from "./recording-index";
export { record } from "./record";
export type { RecordOptions } from "./record";
