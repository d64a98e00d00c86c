// The files of the examples' pages, and one of their modules alone, with given imports.
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import vm from "node:vm";

export const ASSETS = new URL("../../../examples/assets/", import.meta.url);

/** The names of all files of the pages. */
export async function assets() {
  const entries = await readdir(ASSETS, { recursive: true, withFileTypes: true });
  const folder = fileURLToPath(ASSETS);
  return entries.filter((entry) => entry.isFile()).map(({ name, path }) => join(path, name).slice(folder.length));
}

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
