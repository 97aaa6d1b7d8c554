/** Erlang's abstract format as typed nodes. */
export * from "./nodes";
export { columnOf, fileOf, generatedAnno, isAnno, isGenerated, lineOf, placeOf } from "./anno";
export { exprFromTerm, formFromTerm, formsFromTerm } from "./from-term";
export { exprToTerm, formsToTerm, formToTerm } from "./to-term";
