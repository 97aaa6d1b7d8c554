/** The behaviours of a module, their callbacks, and what these did. */
export { behavioursOf } from "./behaviours-of";
export { siteTables } from "./callback-event";
export type {
  CallbackEvent,
  CallbackException,
  CallbackNext,
  CallbackOutcome,
  CallbackValues,
  ChangedKeys,
  SiteLookup,
} from "./callback-event";
export type { ExceptionEvidence } from "./open-callbacks";
export { CALLBACK_TRACE, CallbackReader, callbacks } from "./callback-reader";
