export {
  type Change,
  isResumable,
  Receiver,
  type ReceiverOptions,
  type DigestClaim,
  type Failure,
} from "./receiver.js";
export { type Cursor, formatCursor, type Mark, parseCursor } from "./cursor.js";
export { checkDigest, type DigestVerdict } from "./digest.js";
export {
  LocalProtocolError,
  RemoteProtocolError,
  RequestError,
  WetinkError,
} from "./errors.js";
export * from "./events.js";
export { MAX_EVENT_BYTES, type SseEvent, SseParser, type SseParserOptions } from "./sse.js";
export { type State } from "./transitions.js";
export { indexAt, isWellFormed, lengthIn, OFFSET_UNITS, type OffsetUnit } from "./units.js";
export { type PartText } from "./received.js";
