/**
 * The digest of a finished stream (SPEC section 4, `finish`), checked with the platform's WebCrypto.
 */

/** What must hold for a finished stream: SHA-256 over `text` as UTF-8, in lower-case hex. */
export interface DigestClaim {
  readonly text: string;
  readonly digest: string;
}

/** True if the claim holds. Rejects where the platform has no WebCrypto (an insecure page). */
export async function digestMatches(claim: DigestClaim): Promise<boolean> {
  return (await sha256Hex(claim.text)) === claim.digest;
}

/** SHA-256 over `text` as UTF-8, in lower-case hex. */
export async function sha256Hex(text: string): Promise<string> {
  const hash = await globalThis.crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
