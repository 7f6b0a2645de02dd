// ML-DSA-65, verification only (FIPS 204, algorithms 3 and 8), the context string empty: on any Node
// from 18 on, of which few know the algorithm themselves. Products of two numbers below q have 46 bits,
// so doubles hold them exactly.

import { createHash } from 'node:crypto';

export const KEY_BYTES = 1952;
export const SIGNATURE_BYTES = 3309;

const Q = 8380417;
const N = 256;
const K = 6; // rows
const L = 5; // columns
const D = 13; // bits dropped from t
const TAU = 49; // ±1s in the challenge
const GAMMA1 = 1 << 19;
const GAMMA2 = (Q - 1) / 32;
const BETA = 196;
const OMEGA = 55; // hints at most
const CHALLENGE_BYTES = 48;
const SEED_BYTES = 32;
const Z_BYTES = (N * 20) / 8;
const T1_BYTES = (N * 10) / 8;

const shake = (bits, bytes, ...parts) => {
  const hash = createHash(`shake${bits}`, { outputLength: bytes });
  for (const part of parts) hash.update(part);
  return hash.digest();
};

const times = (a, b) => (a * b) % Q;
const mod = (a) => ((a % Q) + Q) % Q;

function power(base, exponent) {
  let result = 1;
  for (; exponent > 0; exponent = Math.floor(exponent / 2), base = times(base, base)) {
    if (exponent % 2) result = times(result, base);
  }
  return result;
}

const reversed = (i) => parseInt(i.toString(2).padStart(8, '0').split('').reverse().join(''), 2);
const ZETAS = Array.from({ length: N }, (_, i) => power(1753, reversed(i)));
const INVERSE = power(N, Q - 2);

/** The number theoretic transform of 256 numbers below q, in place. */
function ntt(w) {
  for (let size = 128, m = 0; size >= 1; size /= 2) {
    for (let start = 0; start < N; start += 2 * size) {
      const zeta = ZETAS[++m];
      for (let j = start; j < start + size; j++) {
        const t = times(zeta, w[j + size]);
        w[j + size] = mod(w[j] - t);
        w[j] = (w[j] + t) % Q;
      }
    }
  }
  return w;
}

function inverseNtt(w) {
  for (let size = 1, m = N; size < N; size *= 2) {
    for (let start = 0; start < N; start += 2 * size) {
      const zeta = Q - ZETAS[--m];
      for (let j = start; j < start + size; j++) {
        const t = w[j];
        w[j] = (t + w[j + size]) % Q;
        w[j + size] = times(zeta, mod(t - w[j + size]));
      }
    }
  }
  return w.map((x) => times(x, INVERSE));
}

/** One polynomial of the matrix, from the key's seed. */
function sampleUniform(seed, row, column) {
  const w = [];
  for (let bytes = 840; w.length < N; bytes *= 2) {
    const stream = shake(128, bytes, seed, Uint8Array.of(column, row));
    w.length = 0;
    for (let i = 0; i < bytes && w.length < N; i += 3) {
      const candidate = stream.readUIntLE(i, 3) & 0x7fffff;
      if (candidate < Q) w.push(candidate);
    }
  }
  return w;
}

/** The challenge polynomial: 49 coefficients are 1 or -1, the others 0. */
function sampleInBall(challenge) {
  const stream = shake(256, 4096, challenge);
  const signs = stream.readBigUInt64LE(0);
  const c = new Array(N).fill(0);
  for (let i = N - TAU, at = 8, sign = 0n; i < N; i++, sign++) {
    while (stream[at] > i) at++;
    const j = stream[at++];
    c[i] = c[j];
    c[j] = (signs >> sign) & 1n ? Q - 1 : 1;
  }
  return c;
}

/** 256 numbers of so many bits each, the lowest bits first. */
function unpack(bytes, bits) {
  const w = [];
  let held = 0;
  let filled = 0;
  for (const byte of bytes) {
    held += byte * 2 ** filled;
    for (filled += 8; filled >= bits; filled -= bits) {
      w.push(held % 2 ** bits);
      held = Math.floor(held / 2 ** bits);
    }
  }
  return w;
}

/** The hints as a set of positions per row; null if they are not in their one spelling. */
function unpackHints(bytes) {
  const rows = [];
  let from = 0;
  for (let row = 0; row < K; row++) {
    const to = bytes[OMEGA + row];
    if (to < from || to > OMEGA) return null;
    for (let i = from + 1; i < to; i++) if (bytes[i - 1] >= bytes[i]) return null;
    rows.push(new Set(bytes.subarray(from, to)));
    from = to;
  }
  return bytes.subarray(from, OMEGA).every((byte) => byte === 0) ? rows : null;
}

/** The high bits of r, corrected by a hint: 0 to 15. */
function useHint(r, hinted) {
  let low = r % (2 * GAMMA2);
  if (low > GAMMA2) low -= 2 * GAMMA2;
  const wraps = r - low === Q - 1;
  const high = wraps ? 0 : (r - low) / (2 * GAMMA2);
  if (wraps) low -= 1;
  if (!hinted) return high;
  return (high + (low > 0 ? 1 : 15)) % 16;
}

/** What the signer committed to in this row: 4 bits a coefficient. */
function commitment(row, seed, t1, z, c, hints) {
  const shifted = ntt(t1.map((x) => (x * 2 ** D) % Q));
  const sum = shifted.map((x, i) => mod(-times(c[i], x)));
  for (let column = 0; column < L; column++) {
    const a = sampleUniform(seed, row, column);
    for (let i = 0; i < N; i++) sum[i] = (sum[i] + times(a[i], z[column][i])) % Q;
  }
  const high = inverseNtt(sum).map((x, i) => useHint(x, hints.has(i)));
  return Uint8Array.from({ length: N / 2 }, (_, i) => high[2 * i] | (high[2 * i + 1] << 4));
}

/** Whether `signature` (3,309 bytes) is by `key` (1,952 bytes) over `message`. */
export function verifyMlDsa65(key, message, signature) {
  if (key.length !== KEY_BYTES || signature.length !== SIGNATURE_BYTES) return false;
  const challenge = signature.subarray(0, CHALLENGE_BYTES);
  const hints = unpackHints(signature.subarray(CHALLENGE_BYTES + L * Z_BYTES));
  const z = Array.from({ length: L }, (_, i) => {
    const from = CHALLENGE_BYTES + i * Z_BYTES;
    return unpack(signature.subarray(from, from + Z_BYTES), 20).map((x) => GAMMA1 - x);
  });
  if (!hints || z.flat().some((x) => Math.abs(x) >= GAMMA1 - BETA)) return false;
  const transformed = z.map((polynomial) => ntt(polynomial.map(mod)));
  const c = ntt(sampleInBall(challenge));
  const seed = key.subarray(0, SEED_BYTES);
  const mu = shake(256, 64, shake(256, 64, key), Uint8Array.of(0, 0), message);
  const rows = hints.map((hint, row) => {
    const from = SEED_BYTES + row * T1_BYTES;
    const t1 = unpack(key.subarray(from, from + T1_BYTES), 10);
    return commitment(row, seed, t1, transformed, c, hint);
  });
  return shake(256, CHALLENGE_BYTES, mu, ...rows).equals(challenge);
}
