/** `beamtrace/transform`: modules into instrumented modules. */
export { behavioursOf, CALLBACK_TRACE, CallbackReader, callbacks, siteTables } from "./behaviours";
export type {
  CallbackEvent,
  CallbackNext,
  CallbackOutcome,
  CallbackValues,
  ChangedKeys,
  SiteLookup,
} from "./behaviours";
export * from "./forms";
export { builderAt } from "./builder";
export type { Builder } from "./builder";
export { children, walk } from "./children";
export { CompileServer, startCompileServer } from "./compiler/compile-server";
export type { CompileServerOptions } from "./compiler/compile-server";
export { PacketEncoder, PacketReader } from "./compiler/packets";
export { RemoteCompiler } from "./compiler/remote-compiler";
export type { CompileJob, Compiler, CompileWarning, ModuleForms } from "./compiler/remote-compiler";
export { instrumentForms } from "./inject/instrument-forms";
export type { FunctionName, InstrumentedForms, InstrumentOptions, Refusal } from "./inject/instrument-forms";
export { expressionLines } from "./inject/locals";
export type { LocalsRequest, SourceLine } from "./inject/locals";
export { instrumentBeam, recompile } from "./instrument";
export type { InstrumentBeamOptions, InstrumentedBeam } from "./instrument";
export { locals, LOCALS_TRACE, localsEvent } from "./locals-event";
export type { LocalsEvent, LocalVariable } from "./locals-event";
export * from "./plan";
export { printExpr, printForm, printForms, printFunction } from "./print";
export { FreshNames, variableNames } from "./scope";
export { readSiteTable, SITE_CHUNK, withSiteTable } from "../buffer";
export type { CallbackTrigger, Site, SiteCallback, SiteKind, SiteTable } from "../buffer";
export { NodePath, Scope, traverse } from "./traverse";
export type { Visit, Visitor } from "./traverse";
