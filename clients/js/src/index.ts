export {
  type Change,
  ClientStream,
  type ClientStreamOptions,
  type DigestClaim,
  type Failure,
} from "./client.js";
export { type Cursor, formatCursor, parseCursor } from "./cursor.js";
export { checkDigest, type DigestVerdict } from "./digest.js";
export {
  LocalProtocolError,
  type ReaderCode,
  RemoteProtocolError,
  RequestError,
  WetinkError,
} from "./errors.js";
export * from "./events.js";
export { MAX_EVENT_BYTES, type SseEvent, SseParser, type SseParserOptions } from "./sse.js";
export { type State } from "./states.js";
export { indexAt, isWellFormed, lengthIn, OFFSET_UNITS, type OffsetUnit } from "./units.js";
export { type PartText } from "./view.js";
