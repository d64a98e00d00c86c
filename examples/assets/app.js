// The page: each part wires itself; here they meet.
import "./daily-form.js";
import "./log.js";
import "./compose.js";
import "./operator.js";
import { visit } from "./browser.js";
import { watch } from "./server.js";

watch();
await visit();
