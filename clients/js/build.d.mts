/** The gateway's file. */
export const SERVED: string;
/** `entry`, a file or a module's text, with all it imports, as one minified ES module. */
export function bundle(entry: string, options?: { external?: string[] }): string;
/** What `SERVED` is to hold. */
export function servedBundle(): string;
