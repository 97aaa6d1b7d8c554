/** A node with the examples' shop on it: customers who put things into carts, servers who answer, checkouts that fail now and then. */
import { readFileSync } from "node:fs";
import { startNode, type ErlNode, type ErlNodeOptions } from "./erl-node";

/** Starts a node and opens the shop on it. Its modules are sent there, so that it may live in another file system. */
export async function startShop(customers: number, options: ErlNodeOptions = {}): Promise<ErlNode> {
  const node = await startNode({ args: ["-kernel", "logger_level", "none"], ...options });
  for (const module of ["shop_server", "shop"]) {
    const source = readFileSync(new URL(`../../examples/demo/${module}.erl`, import.meta.url)).toString(
      "base64",
    );
    await node.eval(`
      Folder = filename:join(os:getenv("TMPDIR", "/tmp"), "beamtrace-shop-" ++ os:getpid()),
      File = filename:join(Folder, "${module}.erl"),
      ok = filelib:ensure_dir(File),
      ok = file:write_file(File, base64:decode("${source}")),
      {ok, Module, Beam} = compile:file(File, [binary]),
      {module, Module} = code:load_binary(Module, File, Beam),
      ok = file:delete(File),
      file:del_dir(Folder)`);
  }
  await node.eval(`shop:start(${customers})`);
  return node;
}
