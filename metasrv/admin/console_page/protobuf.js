// Reads protobuf's wire format without a schema: field numbers and what their values may be. Pure.
// https://protobuf.dev/programming-guides/encoding/

const DEPTH_MAX = 24;
const UTF8 = new TextDecoder("utf-8", { fatal: true });

/**
 * The fields of a message: [{number, kind, value}], where kind is varint, fixed32, fixed64, text, bytes or message (its
 * value are fields). Null when the bytes are no message.
 */
export function fieldsOf(data, depth = 0) {
  const fields = [];
  const reader = { data, at: 0 };
  while (reader.at < data.length) {
    const tag = varint(reader);
    if (tag === null) return null;
    const number = Number(tag >> 3n);
    const field = number > 0 && number < 2 ** 29 ? fieldValue(reader, Number(tag & 7n), depth) : null;
    if (field === null) return null;
    fields.push({ number, ...field });
  }
  return fields;
}

function fieldValue(reader, wireType, depth) {
  if (wireType === 0) {
    const value = varint(reader);
    return value === null ? null : { kind: "varint", value };
  }
  if (wireType === 1) return fixed(reader, 8);
  if (wireType === 5) return fixed(reader, 4);
  if (wireType !== 2) return null;
  const length = varint(reader);
  if (length === null || length > BigInt(reader.data.length - reader.at)) return null;
  const part = reader.data.subarray(reader.at, reader.at + Number(length));
  reader.at += Number(length);
  return delimited(part, depth);
}

/** Text where it reads as text, a message where it parses as one, otherwise bytes. */
function delimited(part, depth) {
  const text = textOf(part);
  if (text !== null) return { kind: "text", value: text };
  const inner = depth < DEPTH_MAX ? fieldsOf(part, depth + 1) : null;
  return inner === null ? { kind: "bytes", value: part } : { kind: "message", value: inner };
}

function fixed(reader, size) {
  if (reader.at + size > reader.data.length) return null;
  const view = new DataView(reader.data.buffer, reader.data.byteOffset + reader.at, size);
  reader.at += size;
  return size === 8
    ? { kind: "fixed64", value: view.getBigUint64(0, true), number64: view.getFloat64(0, true) }
    : { kind: "fixed32", value: view.getUint32(0, true), number32: view.getFloat32(0, true) };
}

function varint(reader) {
  let value = 0n;
  for (let shift = 0n; shift < 70n && reader.at < reader.data.length; shift += 7n) {
    const byte = reader.data[reader.at];
    reader.at += 1;
    value |= BigInt(byte & 0x7f) << shift;
    if (byte < 0x80) return value < 1n << 64n ? value : null;
  }
  return null;
}

/** The bytes as text, or null where they are no UTF-8 or have control characters other than tab and line ends. */
export function textOf(data) {
  try {
    const text = UTF8.decode(data);
    return /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/.test(text) ? null : text;
  } catch {
    return null;
  }
}
