export { bindView, type BindOptions, CLASSES } from "./view-binding.js";
