#!/usr/bin/env node
// A second verifier of Ivor's evidence files, written from SPEC.md 5.10 and the sections it names, on
// nothing but Node's own crypto. Read it from top to bottom: bytes, signatures, entries, identities,
// checkpoints, the rules in their order, the command line.
//
//   node verifiers/evidence.mjs FILE [--fingerprint AGENCY=F]… [--json]
//   node verifiers/evidence.mjs --index INDEX.json       one line of JSON for each case of an index
//
// Exit 0: the file holds, and what it shows is printed. Exit 7: it does not; the offset of the element
// and the rule are printed. Exit 1: the file cannot be read. Exit 2: wrong usage.

import { createHash, createHmac, createPublicKey, timingSafeEqual, verify } from 'node:crypto';
import { readFileSync, realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { KEY_BYTES as ARCHIVE_KEY_BYTES, SIGNATURE_BYTES as ARCHIVE_SIGNATURE_BYTES, verifyMlDsa65 } from './mldsa.mjs';

const MAGIC = Buffer.from('ivor evidence 1\n');
const FRAME_BYTES = 5;
const BODY_BYTES_MAX = 200704;
const PAYLOAD_BYTES_MAX = 65536;
const OPERATION_BYTES_MAX = 196608;
const HEADER_BYTES_MAX = 2048;
const CHARTER_BYTES_MAX = 512;
const CERTIFICATE_BYTES_MAX = 1024;
const DEPTH_MAX = 16;
const ELEMENTS_MAX = 16384;
const STEPS_MAX = 63;
const LINKS_MAX = 8;
const HEADS_MAX = 512;
const MANY_MAX = 32; // grants, devices of a credential, decisions
const UINT32_MAX = 2 ** 32 - 1;
const TIME_MAX = 2 ** 53 - 1;

const [END, CONTROL, CONTENT, MESSAGE] = [0, 1, 2, 3];
const FOLLOWS = { [CONTROL]: [CONTROL, CONTENT, END], [CONTENT]: [CONTENT, MESSAGE, END], [MESSAGE]: [CONTENT, END] };
const [GENESIS, GRANT, ENROLL, EPOCH, REDACT, QUORUM, CHECKPOINT, NACK, HOLD] = [0, 1, 4, 7, 8, 10, 11, 12, 13];
const KIND_MAX = HOLD;
const [SEALED, ATTACHED] = [0, 1]; // kinds of content entries
const MAY_BE_LEFT_OUT = new Set([EPOCH, REDACT, CHECKPOINT, NACK, HOLD]);

/** The file is refused: the first rule that does not hold, and the element in which it does not. */
export class Refused extends Error {
  constructor(rule, offset) {
    super(`refused at byte ${offset}: ${rule}`);
    this.rule = rule;
    this.offset = offset;
  }
}

// ── Encoding (SPEC 1) ──────────────────────────────────────────────────────────────────────────

class NotCanonical extends Error {}

function must(holds) {
  if (!holds) throw new NotCanonical();
}

/** A canonical array as [fields, where each field ends]. Integers of 2⁵³ and more are BigInt. */
function decode(bytes) {
  let at = 0;
  let elements = 0;

  const take = (count) => {
    must(at + count <= bytes.length);
    at += count;
    return bytes.subarray(at - count, at);
  };
  const unsigned = (width, least) => {
    const value = take(width).readUIntBE(0, width);
    must(value >= least);
    return value;
  };
  const unsigned64 = () => {
    const value = take(8).readBigUInt64BE();
    must(value > 0xffffffffn);
    return value <= TIME_MAX ? Number(value) : value;
  };
  const array = (count, depth, ends) => {
    elements += count;
    must(depth <= DEPTH_MAX && elements <= ELEMENTS_MAX);
    const items = [];
    for (let i = 0; i < count; i++) {
      items.push(item(depth + 1));
      ends?.push(at);
    }
    return items;
  };
  const arrayLength = (first) => {
    if (first >= 0x90 && first <= 0x9f) return first & 0x0f;
    if (first === 0xdc) return unsigned(2, 16);
    if (first === 0xdd) return unsigned(4, 0x10000);
    return null;
  };
  const item = (depth) => {
    const first = take(1)[0];
    if (first <= 0x7f) return first;
    const count = arrayLength(first);
    if (count !== null) return array(count, depth);
    switch (first) {
      case 0xc0: return null;
      case 0xc4: return take(unsigned(1, 0));
      case 0xc5: return take(unsigned(2, 0x100));
      case 0xc6: return take(unsigned(4, 0x10000));
      case 0xcc: return unsigned(1, 0x80);
      case 0xcd: return unsigned(2, 0x100);
      case 0xce: return unsigned(4, 0x10000);
      case 0xcf: return unsigned64();
      default: throw new NotCanonical();
    }
  };

  const count = arrayLength(take(1)[0]);
  must(count !== null);
  const ends = [];
  const fields = array(count, 0, ends);
  must(at === bytes.length);
  return [fields, ends];
}

const isBytes = (value, size) => Buffer.isBuffer(value) && (size === undefined || value.length === size);
const isBytesUpTo = (value, most) => isBytes(value) && value.length <= most;
const isUint = (value, most) => typeof value === 'number' && value <= most;
const isArray = (value, least, most = least) => Array.isArray(value) && value.length >= least && value.length <= most;

/** The fields of a canonical array of so many. */
function decodeFields(bytes, count) {
  const [fields] = decode(bytes);
  must(fields.length === count);
  return fields;
}

function decodeText(bytes) {
  must(isBytes(bytes));
  const text = bytes.toString('utf8');
  must(Buffer.from(text, 'utf8').equals(bytes));
  return text;
}

/** The shortest form of a number that follows one of these marks, by its width. */
function encodeNumber(value, marks) {
  const width = value < 2 ** 8 && marks[1] ? 1 : value < 2 ** 16 ? 2 : value < 2 ** 32 ? 4 : 8;
  const bytes = Buffer.alloc(9);
  bytes[0] = marks[width];
  bytes.writeBigUInt64BE(BigInt(value) << BigInt(64 - 8 * width), 1);
  return bytes.subarray(0, 1 + width);
}

function encode(value) {
  if (value === null) return Buffer.of(0xc0);
  if (typeof value === 'number') {
    return value < 0x80 ? Buffer.of(value) : encodeNumber(value, { 1: 0xcc, 2: 0xcd, 4: 0xce, 8: 0xcf });
  }
  if (isBytes(value)) return Buffer.concat([encodeNumber(value.length, { 1: 0xc4, 2: 0xc5, 4: 0xc6 }), value]);
  const head = value.length < 16 ? Buffer.of(0x90 | value.length) : encodeNumber(value.length, { 2: 0xdc, 4: 0xdd });
  return Buffer.concat([head, ...value.map(encode)]);
}

// ── Hashes and signatures (SPEC 2.1, 2.7, 4.1) ─────────────────────────────────────────────────

const labelled = (label, ...parts) => Buffer.concat([Buffer.from(`ivor/1 ${label}`), ...parts]);
const sha256 = (bytes) => createHash('sha256').update(bytes).digest();
const digest = (label, ...parts) => sha256(labelled(label, ...parts));
const mac = (key, label, ...parts) => createHmac('sha256', key).update(labelled(label, ...parts)).digest();
const hex = (bytes) => bytes.toString('hex');
const fromLittleEndian = (bytes) => BigInt(`0x${hex(Buffer.from(bytes).reverse())}`);

const P = 2n ** 255n - 19n;
const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;
const ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022n;
// The y of the eight points whose order divides 8: of (0, 1), (0, -1), order 4 and order 8.
const SMALL_ORDER = new Set([0n, 1n, P - 1n, ORDER_8, P - ORDER_8]);
const SPKI_ED25519 = Buffer.from('302a300506032b6570032100', 'hex');
const keys = new Map();

function keyObject(key) {
  const name = hex(key);
  if (!keys.has(name)) {
    keys.set(name, createPublicKey({ key: Buffer.concat([SPKI_ED25519, key]), format: 'der', type: 'spki' }));
  }
  return keys.get(name);
}

/**
 * Ed25519 as SPEC 2.1 has it. OpenSSL checks S < L and compares the bytes of [S]B - [h]A with R, without
 * a cofactor, so a non-canonical R never passes; but it takes keys that are not canonical, and keys and R
 * of small order. These are refused here first.
 */
export function verifyEd25519(key, message, signature) {
  const y = (bytes) => fromLittleEndian(bytes) & (2n ** 255n - 1n);
  const keyY = y(key);
  if (keyY >= P || SMALL_ORDER.has(keyY)) return false;
  if (SMALL_ORDER.has(y(signature.subarray(0, 32)) % P)) return false;
  if (fromLittleEndian(signature.subarray(32)) >= ORDER) return false;
  return verify(null, message, keyObject(key), signature);
}

// ── Headers (SPEC 2.2) ─────────────────────────────────────────────────────────────────────────

function compare(a, b) {
  return Buffer.compare(a.device, b.device) || a.seq - b.seq || Buffer.compare(a.id, b.id);
}

/** References that ascend, none twice. */
function references(value, most) {
  must(isArray(value, 0, most));
  const found = value.map((one) => {
    must(isArray(one, 3) && isBytes(one[0], 32) && isUint(one[1], UINT32_MAX) && isBytes(one[2], 32));
    return { device: one[0], seq: one[1], id: one[2] };
  });
  must(found.every((one, i) => i === 0 || compare(found[i - 1], one) < 0));
  return found;
}

const plain = (refs) => refs.map(({ device, seq, id }) => [device, seq, id]);
const placeKey = (device, seq, id) => `${hex(device)} ${seq} ${hex(id)}`;

/** The fields that both lanes have in the same places. */
function commonHeader(raw, fields, lane) {
  const [version, chat, device, itsLane, seq, prev] = fields;
  must(version === 1 && (chat === null || isBytes(chat, 32)) && isBytes(device, 32) && itsLane === lane);
  must(isUint(seq, UINT32_MAX) && (seq === 0 ? prev === null : isBytes(prev, 32)));
  const links = references(fields[6], LINKS_MAX);
  must(links.every((link) => !link.device.equals(device)));
  return { raw, id: digest('entry', raw), chat, device, seq, prev, links };
}

function controlHeader(raw) {
  must(raw.length <= HEADER_BYTES_MAX);
  const fields = decodeFields(raw, 11);
  const header = commonHeader(raw, fields, 0);
  const [time, kind, payloadHash, payloadSize] = fields.slice(7);
  must(isUint(time, TIME_MAX) && isUint(kind, KIND_MAX));
  must(isBytes(payloadHash, 32) && isUint(payloadSize, OPERATION_BYTES_MAX));
  const isGenesis = header.chat === null;
  must(isGenesis === (kind === GENESIS && header.seq === 0));
  return { ...header, chat: header.chat ?? header.id, isGenesis, kind, payloadHash, payloadSize };
}

function contentHeader(raw) {
  must(raw.length <= HEADER_BYTES_MAX);
  const [fields, ends] = decode(raw);
  must(fields.length === 15);
  const header = commonHeader(raw, fields, 1);
  const control = references(fields[7], LINKS_MAX);
  const [time, kind, epoch, generation, pc, payloadSize, payloadHash] = fields.slice(8);
  must(header.chat !== null && control.length > 0 && isUint(time, TIME_MAX) && (kind === SEALED || kind === ATTACHED));
  must(isBytes(epoch, 32) && isUint(generation, UINT32_MAX) && isBytes(pc, 32));
  must(isUint(payloadSize, PAYLOAD_BYTES_MAX) && isBytes(payloadHash, 32));
  return { ...header, control, pc, beforeCommitment: raw.subarray(0, ends[11]) };
}

const precedes = (older, newer) =>
  newer.prev?.equals(older.id) && newer.device.equals(older.device) && newer.seq === older.seq + 1;

// ── Identities (SPEC 5.1, 5.2) ─────────────────────────────────────────────────────────────────

const NAME = /^(?:[a-z](?:[.-]?[a-z0-9])*|[а-яёӝӟӥӧӵ](?:[.-]?[а-яёӝӟӥӧӵ0-9])*)$/u;
const ZONE = /^[A-Z0-9]+(?:-[A-Z0-9]+)*$/;

function named(bytes, pattern) {
  const name = decodeText(bytes);
  must(name.length <= 32 && pattern.test(name));
  return name;
}

/** The fields of a record's body, every signature verified. */
function openRecord(raw, most, label, count, signers) {
  must(isBytesUpTo(raw, most));
  const [[body, ...signatures]] = decode(raw);
  must(isBytes(body));
  const fields = decodeFields(body, count);
  must(fields[0] === 1);
  const keysOf = signers(fields);
  must(signatures.length === keysOf.length && keysOf.every((key) => isBytes(key, 32)));
  must(signatures.every((one) => isBytes(one, 64)));
  must(keysOf.every((key, i) => verifyEd25519(key, labelled(label, body), signatures[i])));
  return fields;
}

function openCharter(raw) {
  const [, root, serial, name, zone, registrar, archive] = openRecord(raw, CHARTER_BYTES_MAX, 'charter', 7, (f) => [f[1]]);
  must(isUint(serial, UINT32_MAX) && isBytes(registrar, 32) && isBytes(archive, 32));
  named(zone, ZONE);
  return { agency: root, serial, name: named(name, NAME), registrar, archive };
}

function openDevice(raw, charter, user) {
  const signers = (f) => [charter.registrar, f[2], f[3]];
  const [, agency, owner, device, label, issued] = openRecord(raw, CERTIFICATE_BYTES_MAX, 'device', 6, signers);
  must(isBytes(agency, 32) && agency.equals(charter.agency) && owner.equals(user));
  must(isUint(issued, TIME_MAX) && isBytesUpTo(label, 64));
  decodeText(label);
  return device;
}

/** Charter, user certificate and device certificates, all verified. */
function openCredential(charterRaw, userRaw, deviceRaws) {
  const charter = openCharter(charterRaw);
  const signers = (f) => [charter.registrar, f[2]];
  const [, agency, user, name, issued] = openRecord(userRaw, CERTIFICATE_BYTES_MAX, 'user', 5, signers);
  must(isBytes(agency, 32) && agency.equals(charter.agency) && isUint(issued, TIME_MAX));
  must(isArray(deviceRaws, 0, MANY_MAX));
  const devices = deviceRaws.map((raw) => openDevice(raw, charter, user));
  must(new Set(devices.map(hex)).size === devices.length);
  return { charter, user, name: `${named(name, NAME)}@${charter.name}`, devices };
}

function openGrants(grants) {
  must(isArray(grants, 0, MANY_MAX));
  return grants.map((grant) => {
    must(isArray(grant, 4));
    return openCredential(grant[1], grant[2], grant[3]);
  });
}

function openDecisions(decisions) {
  must(isArray(decisions, 0, MANY_MAX));
  return decisions.flatMap((decision) => {
    must(isArray(decision, 2));
    const [kind, payload] = decision;
    if (kind !== GRANT) return [];
    must(isBytes(payload));
    return openGrants(decodeFields(payload, 1)[0]);
  });
}

/** The credentials that a payload of this kind brings. */
function openCredentials(kind, payload) {
  switch (kind) {
    case GENESIS: return openGrants(decodeFields(payload, 4)[3]);
    case GRANT: return openGrants(decodeFields(payload, 1)[0]);
    case ENROLL: {
      const [charter, user, device] = decodeFields(payload, 3);
      return [openCredential(charter, user, [device])];
    }
    case QUORUM: return openDecisions(decodeFields(payload, 4)[2]);
    default: return [];
  }
}

const BASE32 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';

/** How an agency's fingerprint is shown: 8 groups of 4. */
function fingerprint({ agency, archive }) {
  const bytes = digest('agency fingerprint', agency, archive).subarray(0, 20);
  const bits = [...bytes].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  const letters = bits.match(/.{5}/g).map((five) => BASE32[parseInt(five, 2)]).join('');
  return letters.match(/.{4}/g).join(' ');
}

const withoutSpaces = (text) => text.replace(/\s/gu, '').toUpperCase();

// ── Checkpoints (SPEC 2.7) ─────────────────────────────────────────────────────────────────────

function openArchiveCertificate(raw) {
  must(isBytes(raw));
  const [body, archiveKey, signature] = decodeFields(raw, 3);
  must(isBytes(body) && isBytes(archiveKey, ARCHIVE_KEY_BYTES) && isBytes(signature, ARCHIVE_SIGNATURE_BYTES));
  const [version, agency, user, device, key] = decodeFields(body, 5);
  must(version === 1 && [agency, user, device, key].every((one) => isBytes(one, 32)));
  must(verifyMlDsa65(archiveKey, labelled('archive certificate', body), signature));
  return { agency, user, device, key, archive: digest('archive key', archiveKey) };
}

/** The heads and the certificate of an anchored checkpoint; null for one that is not anchored. */
function openCheckpoint(header, payload) {
  const [headFields, certificateRaw, key, signature] = decodeFields(payload, 4);
  const heads = references(headFields, HEADS_MAX);
  if (certificateRaw === null && key === null && signature === null) return null;
  must(isBytes(key, ARCHIVE_KEY_BYTES) && isBytes(signature, ARCHIVE_SIGNATURE_BYTES));
  const certificate = openArchiveCertificate(certificateRaw);
  must(certificate.key.equals(digest('archive key', key)) && certificate.device.equals(header.device));
  const { chat, device, seq, prev, links } = header;
  const place = encode([chat, device, seq, prev, plain(links), plain(heads)]);
  must(verifyMlDsa65(key, labelled('checkpoint', place), signature));
  return { id: header.id, heads, certificate };
}

// ── The rules (SPEC 5.10) ──────────────────────────────────────────────────────────────────────

/** Tag, body and offset of each element. Each is asked for after the one before it was checked. */
function* elements(file) {
  if (!file.subarray(0, MAGIC.length).equals(MAGIC)) throw new Refused('magic', 0);
  let allowed = [CONTROL];
  for (let offset = MAGIC.length; ; ) {
    if (file.length < offset + FRAME_BYTES) throw new Refused('truncated', offset);
    const tag = file[offset];
    const length = file.readUInt32BE(offset + 1);
    const fits = length <= (tag === END ? 0 : BODY_BYTES_MAX);
    if (!allowed.includes(tag) || !fits) throw new Refused('element', offset);
    const next = offset + FRAME_BYTES + length;
    if (file.length < next) throw new Refused('truncated', offset);
    yield { tag, offset, body: file.subarray(offset + FRAME_BYTES, next) };
    if (tag === END) {
      if (file.length > next) throw new Refused('trailing', next);
      return;
    }
    allowed = FOLLOWS[tag];
    offset = next;
  }
}

/** Checks one file, element by element. */
class Checker {
  constructor(anchors) {
    this.anchors = new Map([...anchors].map(([name, shown]) => [name, withoutSpaces(shown)]));
    this.chat = null;
    this.lane = new Map(); // control entries by id, newest first
    this.named = new Set(); // ids of all entries
    this.unsigned = new Map(); // place of a control entry → steps to a signature
    this.isClosed = false;
    this.charters = [];
    this.brought = new Map(); // device → its credentials, each with the bit of its entry
    this.bits = 0n;
    this.checkpoints = []; // anchored, newest first
    this.heads = new Map(); // place of a content entry → checkpoints that name it
    this.last = null; // the content entry that stood last, its steps, its run's checkpoints
    this.statements = [];
  }

  take({ tag, offset, body }) {
    this.offset = offset;
    if (tag !== CONTROL && !this.isClosed) this.closeLane();
    this.offset = offset;
    if (tag === CONTROL) this.takeControl(body);
    if (tag === CONTENT) this.takeContent(body);
    if (tag === MESSAGE) this.takeMessage(body);
  }

  demand(rule, holds) {
    if (!holds) throw new Refused(rule, this.offset);
  }

  /** What `make` returns; the rule does not hold if that is against SPEC. */
  open(rule, make) {
    try {
      return make();
    } catch (error) {
      if (error instanceof NotCanonical) throw new Refused(rule, this.offset);
      throw error;
    }
  }

  /** Rules 6 to 9: the header of an entry, and its other fields. */
  openEntry(body, count, openHeader) {
    const [raw, signature, payload = null] = this.open('encoding', () => {
      const fields = decodeFields(body, count);
      must(isBytes(fields[0]) && (fields[1] === null || isBytes(fields[1], 64)));
      must(count < 3 || fields[2] === null || isBytesUpTo(fields[2], OPERATION_BYTES_MAX));
      return fields;
    });
    const header = this.open('header', () => openHeader(raw));
    this.chat ??= header.chat;
    this.demand('chat', header.chat.equals(this.chat));
    this.demand('twice', !this.named.has(hex(header.id)));
    return { header, signature, payload };
  }

  /** Rule 11. steps: from this entry to the next that is signed, if it is not signed itself. */
  stepsToSignature({ device, id }, signature, steps) {
    if (signature === null) {
      this.demand('cover', steps <= STEPS_MAX);
      return steps;
    }
    this.demand('signature', verifyEd25519(device, labelled('sig', id), signature));
    return 0;
  }

  takeControl(body) {
    const { header, signature, payload } = this.openEntry(body, 3, controlHeader);
    const { id, device, seq, prev, links, kind } = header;
    const parents = [...(prev ? [prev] : []), ...links.map((link) => link.id)];
    this.demand('order', !parents.some((parent) => this.lane.has(hex(parent))));
    const waiting = this.unsigned.get(placeKey(device, seq, id)) ?? Infinity;
    const steps = this.stepsToSignature(header, signature, waiting);
    if (prev) {
      const before = placeKey(device, seq - 1, prev);
      this.unsigned.set(before, Math.min(steps + 1, this.unsigned.get(before) ?? Infinity));
    }
    this.demand('payload', this.isPayload(header, payload));
    const credentials = payload === null ? [] : this.open('credential', () => openCredentials(kind, payload));
    this.takeCharters(credentials);
    const anchored = kind === CHECKPOINT && payload !== null;
    const checkpoint = anchored ? this.open('checkpoint', () => openCheckpoint(header, payload)) : null;
    this.named.add(hex(id));
    this.lane.set(hex(id), { header, parents, credentials, checkpoint, offset: this.offset, past: 0n });
  }

  isPayload({ kind, payloadHash, payloadSize }, payload) {
    if (payload === null) return MAY_BE_LEFT_OUT.has(kind);
    return payload.length === payloadSize && sha256(payload).equals(payloadHash);
  }

  takeCharters(credentials) {
    for (const { charter } of credentials) {
      const wanted = this.anchors.get(charter.name);
      this.demand('fingerprint', wanted === undefined || withoutSpaces(fingerprint(charter)) === wanted);
      this.charters.push(charter);
    }
  }

  /** Rules 16 to 18, the oldest entry first: what an entry names was judged before it. */
  closeLane() {
    this.isClosed = true;
    for (const entry of [...this.lane.values()].reverse()) {
      this.offset = entry.offset;
      const { header, checkpoint } = entry;
      this.demand('closed', this.isClosedAt(header));
      entry.past = this.pastOf(entry.parents);
      if (entry.credentials.length) this.bring(entry);
      const authors = this.authors(header.device, entry.past);
      this.demand('author', authors.length > 0);
      if (checkpoint) this.closeCheckpoint(checkpoint, authors);
    }
  }

  isClosedAt({ device, seq, prev, links, isGenesis }) {
    if (isGenesis) return links.length === 0;
    if (prev === null && links.length === 0) return false;
    const own = prev === null ? [] : [{ device, seq: seq - 1, id: prev }];
    return this.holds([...own, ...links]);
  }

  /** Whether all these are control entries of the file, at their true place. */
  holds(refs) {
    return refs.every(({ device, seq, id }) => {
      const found = this.lane.get(hex(id))?.header;
      return found !== undefined && found.device.equals(device) && found.seq === seq;
    });
  }

  /** The entries with credentials in the past of these, themselves included: a bit each. */
  pastOf(ids) {
    return ids.reduce((past, id) => past | this.lane.get(hex(id)).past, 0n);
  }

  bring(entry) {
    const bit = 1n << this.bits++;
    entry.past |= bit;
    for (const credential of entry.credentials) {
      for (const device of credential.devices) {
        const known = this.brought.get(hex(device)) ?? [];
        this.brought.set(hex(device), [...known, { bit, credential }]);
      }
    }
  }

  /** The credentials in this past that name the device. */
  authors(device, past) {
    const known = this.brought.get(hex(device)) ?? [];
    return known.filter(({ bit }) => past & bit).map(({ credential }) => credential);
  }

  closeCheckpoint(checkpoint, authors) {
    const { user, agency, archive } = checkpoint.certificate;
    const isVouchedFor = authors.some((author) =>
      author.user.equals(user) && author.charter.agency.equals(agency) && author.charter.archive.equals(archive));
    this.demand('checkpoint', isVouchedFor);
    for (const { device, seq, id } of checkpoint.heads) {
      const key = placeKey(device, seq, id);
      this.heads.set(key, [...(this.heads.get(key) ?? []), checkpoint]);
    }
    this.checkpoints.push(checkpoint);
  }

  takeContent(body) {
    const { header, signature } = this.openEntry(body, 2, contentHeader);
    const inRun = this.last !== null && precedes(header, this.last.header);
    const steps = this.stepsToSignature(header, signature, inRun ? this.last.steps + 1 : Infinity);
    this.demand('closed', this.holds(header.control));
    const authors = this.authors(header.device, this.pastOf(header.control.map((head) => head.id)));
    this.demand('author', authors.length > 0);
    const here = this.heads.get(placeKey(header.device, header.seq, header.id)) ?? [];
    const covers = new Set([...(inRun ? this.last.covers : []), ...here]);
    this.named.add(hex(header.id));
    this.last = { header, steps, covers, author: authors.reduce(lesser) };
  }

  takeMessage(body) {
    const [kf, plaintext] = this.open('encoding', () => {
      const fields = decodeFields(body, 2);
      must(isBytes(fields[0], 32) && isBytesUpTo(fields[1], PAYLOAD_BYTES_MAX));
      return fields;
    });
    const { header, author, covers } = this.last;
    const commitment = mac(kf, 'pc', sha256(header.beforeCommitment), plaintext);
    this.demand('message', timingSafeEqual(commitment, header.pc));
    this.demand('anchor', this.anchors.size === 0 || [...covers].some((one) => this.isAnchored(one)));
    const checkpoints = this.checkpoints.filter((one) => covers.has(one)).map((one) => one.id);
    this.statements.push({ header, author, plaintext, checkpoints });
  }

  /** Whether an agency whose fingerprint was compared vouches for the checkpoint's certificate. */
  isAnchored({ certificate: { agency, archive } }) {
    return this.charters.some((charter) =>
      this.anchors.has(charter.name) && charter.agency.equals(agency) && charter.archive.equals(archive));
  }
}

/** Of two credentials the one with the smaller user, then the smaller agency. */
function lesser(a, b) {
  const order = Buffer.compare(a.user, b.user) || Buffer.compare(a.charter.agency, b.charter.agency);
  return order <= 0 ? a : b;
}

/** One line for each agency and archive key: what whoever reads this has to compare. */
function agenciesOf(charters) {
  const newest = new Map();
  for (const charter of charters) {
    const key = hex(charter.agency) + hex(charter.archive);
    if (!(newest.get(key)?.serial >= charter.serial)) newest.set(key, charter);
  }
  return [...newest.keys()].sort().map((key) => {
    const charter = newest.get(key);
    return { id: hex(charter.agency), name: charter.name, fingerprint: fingerprint(charter) };
  });
}

/** What a file (a Buffer) shows, as plain values; throws Refused. anchors: fingerprint by agency name. */
export function check(file, anchors = new Map()) {
  const checker = new Checker(anchors);
  for (const element of elements(file)) checker.take(element);
  return {
    v: 1,
    chat: hex(checker.chat),
    agencies: agenciesOf(checker.charters),
    statements: checker.statements.map(({ header, author, plaintext, checkpoints }) => ({
      id: hex(header.id),
      device: hex(header.device),
      seq: header.seq,
      user: hex(author.user),
      agency: hex(author.charter.agency),
      name: author.name,
      m: hex(plaintext),
      checkpoints: checkpoints.map(hex),
    })),
  };
}

// ── The command line ───────────────────────────────────────────────────────────────────────────

/** Text that others wrote, with nothing in it that a terminal would obey. */
function inert(text) {
  return decodeText(text).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

const short = ([, , id]) => hex(id).slice(0, 8);
const filed = (name, size, digest, text) => `(file ${inert(name)}, ${size} bytes, SHA-256 ${hex(digest)}) ${inert(text)}`;

/** What proves which file went with a message, or is to be signed, by kind of message. */
const FILES = {
  6: ([, name, , data, text]) => filed(name, data.length, sha256(data), text),
  7: ([, [digest, , name], , note]) => `(asks for signatures on ${inert(name)}, SHA-256 ${hex(digest)}) ${inert(note)}`,
  8: ([, request, digest]) => `(signature on ${short(request)}, SHA-256 ${hex(digest)})`,
  9: ([, request, digest, reason]) => `(will not sign ${short(request)}, SHA-256 ${hex(digest)}) ${inert(reason)}`,
  11: ([, name, , size, digest, , text]) => filed(name, size, digest, text),
};

/** What a message says, with nothing in it that a terminal would obey. */
function readable(plaintext) {
  try {
    const [fields] = decode(plaintext);
    if (FILES[fields[0]]) return FILES[fields[0]](fields).trimEnd();
    const at = { 0: 1, 1: 1, 2: 2, 3: 2 }[fields[0]];
    if (at === undefined) return `(kind ${fields[0]}: ${hex(plaintext)})`;
    return ['', '(title) ', '(reaction) ', '(edit) '][fields[0]] + inert(fields[at]);
  } catch {
    return `(unreadable: ${hex(plaintext)})`;
  }
}

function outcome(file, anchors) {
  try {
    return check(file, anchors);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return { v: 1, offset: error.offset, rule: error.rule };
  }
}

function printFindings(found) {
  console.log(`chat ${found.chat}`);
  for (const { name, fingerprint: shown } of found.agencies) console.log(`agency ${name}  ${shown}`);
  for (const one of found.statements) {
    const covered = one.checkpoints.length ? `, under ${one.checkpoints.length} checkpoint(s)` : '';
    console.log(`\n${one.name}, device ${one.device.slice(0, 8)}, entry ${one.seq} ${one.id.slice(0, 8)}${covered}`);
    console.log(`  ${readable(Buffer.from(one.m, 'hex'))}`);
  }
}

function runIndex(path) {
  for (const { file, anchors } of JSON.parse(readFileSync(path, 'utf8')).cases) {
    const raw = readFileSync(join(dirname(path), file));
    console.log(JSON.stringify(outcome(raw, new Map(Object.entries(anchors)))));
  }
  return 0;
}

function runFile(path, fingerprints, asJson) {
  const anchors = new Map(fingerprints.map((one) => one.normalize('NFC').split('=')));
  const found = outcome(readFileSync(path), anchors);
  if (asJson) console.log(JSON.stringify(found));
  else if (found.rule) console.error(`${path}: byte ${found.offset}: ${found.rule} (SPEC 5.10)`);
  else printFindings(found);
  return found.rule ? 7 : 0;
}

const OPTIONS = { fingerprint: { type: 'string', multiple: true, default: [] }, json: { type: 'boolean' }, index: { type: 'string' } };
const USAGE = 'usage: evidence.mjs FILE [--fingerprint AGENCY=F]… [--json], or --index INDEX.json';

function main() {
  let parsed;
  try {
    parsed = parseArgs({ options: OPTIONS, allowPositionals: true });
  } catch (error) {
    console.error(`${error.message}\n${USAGE}`);
    return 2;
  }
  const { values, positionals } = parsed;
  const isUsed = values.index ? positionals.length === 0 : positionals.length === 1;
  if (!isUsed || !values.fingerprint.every((one) => /^[^=]+=[^=]+$/u.test(one))) {
    console.error(USAGE);
    return 2;
  }
  try {
    return values.index ? runIndex(values.index) : runFile(positionals[0], values.fingerprint, values.json);
  } catch (error) {
    if (!error.syscall) throw error;
    console.error(error.message);
    return 1;
  }
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) process.exitCode = main();
