// A module of the examples' page alone, with given imports.
import { readFile } from "node:fs/promises";
import vm from "node:vm";

export const ASSETS = new URL("../../../examples/assets/", import.meta.url);

/**
 * @param {string} name
 * @param {{globals?: object, imports?: Record<string, object>}} [given]
 */
export async function load(name, { globals = {}, imports = {} } = {}) {
  const context = vm.createContext(globals);
  const module = new vm.SourceTextModule(await readFile(new URL(name, ASSETS), "utf8"), { context, identifier: name });
  await module.link((specifier) => {
    const given = imports[specifier];
    if (!given) throw new Error(`${name} imports ${specifier}`);
    return new vm.SyntheticModule(
      Object.keys(given),
      function () {
        for (const [key, value] of Object.entries(given)) this.setExport(key, value);
      },
      { context },
    );
  });
  await module.evaluate();
  return module.namespace;
}
