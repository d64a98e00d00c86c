// The visitor's page. Each module adds its own listeners.
import "./daily-form.js";
import "./log.js";
import { open } from "./browser-card.js";
import { watch } from "./server.js";

watch();
await open();
