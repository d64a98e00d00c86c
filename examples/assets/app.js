// The page. Each module adds its own listeners.
import "./daily-form.js";
import "./log.js";
import "./compose.js";
import "./operator.js";
import { visit } from "./browser.js";
import { watch } from "./server.js";

watch();
await visit();
