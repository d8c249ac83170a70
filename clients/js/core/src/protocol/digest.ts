/**
 * The digest of a finished stream (SPEC section 4.7), checked with the platform's WebCrypto.
 */

import type { Receiver } from "./receiver.js";

/**
 * `unknown`: nothing to check (`digestClaim` is null), or nothing to check it with: browsers have
 * no WebCrypto on insecure pages.
 */
export type DigestVerdict = "match" | "mismatch" | "unknown";

/** Check the digest of a finished stream. On a mismatch the stream has failed. */
export async function checkDigest(receiver: Receiver): Promise<DigestVerdict> {
  const claim = receiver.digestClaim;
  const subtle: SubtleCrypto | undefined = globalThis.crypto?.subtle;
  if (claim === null || subtle === undefined) return "unknown";
  const hash = await subtle.digest("SHA-256", new TextEncoder().encode(claim.text));
  const hex = Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, "0"));
  if (hex.join("") === claim.digest) return "match";
  receiver.refuteDigest();
  return "mismatch";
}
