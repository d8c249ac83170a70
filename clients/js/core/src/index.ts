export {
  connect,
  Connection,
  type ConnectionState,
  type ConnectOptions,
  type Socket,
} from "./transports/socket.js";
export { eventSource, type EventSourceOptions } from "./transports/event-source.js";
export { attach, stream } from "./transports/fetch.js";
export type { Finished, Stream } from "./stream.js";
export type { View } from "./view.js";
export type { AttachOptions, HttpOptions, Retry, StreamOptions } from "./options.js";
export type { ChunkUnit, GenerationRequest, Include, Message, Policy, PolicyObject, Shape } from "./requests.js";
export { type ClientCode, type ServerCode, type WetinkCode, WetinkError } from "./protocol/errors.js";
export type {
  Commit,
  Finish,
  Heartbeat,
  Open,
  Part,
  Retract,
  Retraction,
  ServerEvent,
  Stats,
  StreamError,
  Tentative,
  Token,
  Usage,
} from "./protocol/events.js";
export type { PartText } from "./protocol/received.js";
export type { OffsetUnit } from "./protocol/units.js";
