/** Which behaviours a module has. */
export { behavioursOf } from "./behaviours-of";
