/** `beamtrace/transform`: modules into instrumented modules. */
export * from "./forms";
export { builderAt } from "./builder";
export type { Builder } from "./builder";
export { children, walk } from "./children";
export { CompileServer, startCompileServer } from "./compiler/compile-server";
export type {
  CompileJob,
  Compiler,
  CompileServerOptions,
  CompileWarning,
  ModuleForms,
} from "./compiler/compile-server";
export { instrumentForms } from "./inject/instrument-forms";
export type { FunctionName, InstrumentedForms, InstrumentOptions, Refusal } from "./inject/instrument-forms";
export { instrumentBeam, recompile } from "./instrument";
export type { InstrumentBeamOptions, InstrumentedBeam } from "./instrument";
export { printExpr, printForm, printForms, printFunction } from "./print";
export { FreshNames, variableNames } from "./scope";
export { readSiteTable, SITE_CHUNK, withSiteTable } from "../buffer";
export type { Site, SiteKind, SiteTable } from "../buffer";
export { NodePath, Scope, traverse } from "./traverse";
export type { Visit, Visitor } from "./traverse";
