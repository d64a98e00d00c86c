// Where the page finds the client once both are served.
export * from "../../../../src/api/assets/client.js";
