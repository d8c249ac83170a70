export * from "./cursor.js";
export * from "./digest.js";
export * from "./errors.js";
export * from "./events.js";
export * from "./sse.js";
export * from "./states.js";
export * from "./units.js";
export * from "./view.js";
