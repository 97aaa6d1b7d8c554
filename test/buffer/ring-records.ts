/**
 * Records whose sixteen words all follow from their number, so that a torn, stale or foreign record can't look right.
 */

/** Word `w` of record `n`: a mix in which every bit depends on both. */
export function recordWord(n: number, w: number): number {
  const high = Math.floor(n / 0x1_0000_0000);
  let x = (n ^ Math.imul(w + 1, 0x9e37_79b1) ^ Math.imul(high + w, 0x85eb_ca6b)) | 0;
  x = Math.imul(x ^ (x >>> 16), 0x7feb_352d);
  x = Math.imul(x ^ (x >>> 15), 0x846c_a68b);
  return (x ^ (x >>> 16)) >>> 0;
}

/** Writes record `n`. */
export function fillRecord(words: Uint32Array, at: number, n: number): void {
  for (let w = 0; w < 16; w++) words[at + w] = recordWord(n, w);
}

/** Throws when the sixteen words aren't those of record `n`. */
export function checkRecord(words: Uint32Array, at: number, n: number): void {
  for (let w = 0; w < 16; w++) {
    if (words[at + w] !== recordWord(n, w)) throw new Error(`word ${w} of record ${n} is wrong`);
  }
}
