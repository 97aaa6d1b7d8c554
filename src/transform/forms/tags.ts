/** Tags of forms that have no place in the node table. */
import { atom } from "../../erlang";

export const CLAUSE = atom("clause");
export const ELSE = atom("else");
export const FUN = atom("fun");
export const CLAUSES = atom("clauses");
export const FUNCTION = atom("function");
export const ATTRIBUTE = atom("attribute");
export const EOF = atom("eof");
export const RECORD_FIELD = atom("record_field");
export const TYPED_RECORD_FIELD = atom("typed_record_field");
