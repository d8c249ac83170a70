export { bindView, type BindOptions } from "./view-binding.js";
export { bindMarkdown, type Markdown } from "./markdown-binding.js";
export { CLASSES } from "./classes.js";
