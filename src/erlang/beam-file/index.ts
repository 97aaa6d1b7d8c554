/** `.beam` files. */
export { BeamFile } from "./beam-file";
export type { BeamChunk, BeamReadOptions } from "./beam-file";
export { chunkTerm, compileInfo, moduleName, withChunkTerm } from "./chunk-terms";
export { debugInfo, isAbstractCode } from "./debug-info";
export type { AbstractCode, BackendDebugInfo, DebugInfo } from "./debug-info";
