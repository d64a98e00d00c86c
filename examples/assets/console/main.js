// The operator's console. Each module adds its own listeners, and each view registers itself.
import "../log.js";
import "./unlock.js";
import "./overview.js";
import "./broadcasts.js";
import "./compose.js";
import "./audience.js";
import "./health.js";
import "./keys.js";
import { watch } from "../server.js";
import { start } from "./views.js";

start();
await watch();
