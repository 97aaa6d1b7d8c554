/** Callback events as lines of text, for tests. */
import type { TraceEvent } from "../../src/buffer";
import { inspect, type Term } from "../../src/erlang";
import {
  type CallbackEvent,
  CallbackReader,
  type ChangedKeys,
  type SiteTable,
  siteTables,
} from "../../src/transform";

const text = (term: Term | undefined): string => (term === undefined ? "-" : inspect(term));
const shape = (of: CallbackEvent["before"]): string =>
  of === undefined ? "-" : [of.type, ...(of.size > 0 ? [of.size] : []), ...of.tags].join(" ");

function keysOf(what: string, keys: ChangedKeys | undefined): string[] {
  if (keys === undefined) return [];
  return [
    [what, ...keys.changed.map(text).sort()].join(" "),
    ...(keys.rebuilt.length === 0 ? [] : [`rebuilt ${keys.rebuilt.map(text).join(" ")}`]),
    ...(keys.complete ? [] : ["and more"]),
  ];
}

/** How an exception shows, and its class where that is known. */
const exceptionOf = ({ exception }: CallbackEvent): string =>
  exception === undefined
    ? ""
    : ` by ${exception.evidence}${exception.class === undefined ? "" : ` ${exception.class}`}`;

/** All that an event says, but for who and when. */
export function callbackLine(event: CallbackEvent): string {
  const { eventType, stateName } = event;
  return [
    `${event.callback} ${event.outcome}${exceptionOf(event)}`,
    `asked ${shape(event.trigger)}`,
    ...(eventType === undefined ? [] : [`as ${typeof eventType === "string" ? eventType : text(eventType)}`]),
    ...(event.caller === undefined ? [] : ["called"]),
    ...(event.reply === undefined ? [] : [`answers ${shape(event.reply)}`]),
    ...(event.reason === undefined ? [] : [`because ${shape(event.reason)}`]),
    ...event.next.map(({ what, value }) => `then ${what} ${text(value)}`),
    ...(stateName === undefined ? [] : [`${text(stateName.before)} -> ${text(stateName.after)}`]),
    `${shape(event.before)} -> ${shape(event.after)}`,
    ...keysOf("changed", event.changes),
    ...keysOf("assigns", event.assigns),
  ].join("; ");
}

/** The callbacks that events tell of, by the sites of the modules. */
export function callbacksIn(events: readonly TraceEvent[], tables: readonly SiteTable[]): CallbackEvent[] {
  const reader = new CallbackReader(siteTables(tables));
  return [...events.flatMap((event) => reader.push(event)), ...reader.end()];
}
