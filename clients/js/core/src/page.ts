/** What the gateway serves as `/wetink.js`: everything a page without a build needs. */

export * from "./index.js";
export * from "./dom/index.js";
