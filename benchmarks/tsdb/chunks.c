/* The part of Prometheus' block format that must be fast: XOR chunks, their places in the index, and CRC-32C.
 *
 * Formats: tsdb/docs/format/{chunks,index}.md of Prometheus; the compression is that of Pelkonen and others, "Gorilla"
 * (VLDB 2015), as tsdb/chunkenc/xor.go writes it. Samples of a chunk stand on a grid without gaps, so that every
 * timestamp after the second is one bit. */
#include <stdint.h>
#include <string.h>

static uint32_t table[256];

static void __attribute__((constructor)) make_table(void) {
  for (uint32_t byte = 0; byte < 256; byte++) {
    uint32_t sum = byte;
    for (int bit = 0; bit < 8; bit++) sum = (sum >> 1) ^ (sum & 1 ? 0x82F63B78u : 0);
    table[byte] = sum;
  }
}

uint32_t crc32c(const uint8_t *data, int64_t size) {
  uint32_t sum = ~0u;
  for (int64_t at = 0; at < size; at++) sum = table[(sum ^ data[at]) & 0xff] ^ (sum >> 8);
  return ~sum;
}

static uint8_t *uvarint(uint8_t *out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) *out++ = (uint8_t)(value | 0x80);
  *out++ = (uint8_t)value;
  return out;
}

static uint8_t *varint(uint8_t *out, int64_t value) {
  return uvarint(out, ((uint64_t)value << 1) ^ (uint64_t)(value >> 63));
}

struct bits { uint8_t *out; uint64_t held; int count; };

static void put(struct bits *bits, uint64_t value, int count) {
  if (count > 32) {
    put(bits, value >> 32, count - 32);
    value &= 0xffffffffu;
    count = 32;
  }
  bits->held = bits->held << count | value;
  for (bits->count += count; bits->count >= 8; bits->count -= 8) *bits->out++ = (uint8_t)(bits->held >> (bits->count - 8));
}

static void put_bytes(struct bits *bits, const uint8_t *from, const uint8_t *until) {
  for (; from < until; from++) put(bits, *from, 8);
}

/* The data of one chunk, its number of samples first. */
static uint8_t *chunk(uint8_t *out, const double *values, int count, int64_t first, int64_t step) {
  const uint64_t *raw = (const uint64_t *)values;
  uint8_t small[10];
  struct bits bits = {out, 0, 0};
  int leading = -1, trailing = 0;
  put(&bits, (uint64_t)count, 16);
  put_bytes(&bits, small, varint(small, first));
  put(&bits, raw[0], 64);
  for (int at = 1; at < count; at++) {
    uint64_t changed = raw[at] ^ raw[at - 1];
    if (at == 1) put_bytes(&bits, small, uvarint(small, (uint64_t)step));
    else put(&bits, 0, 1);
    if (!changed) {
      put(&bits, 0, 1);
      continue;
    }
    int zeros = __builtin_clzll(changed), tail = __builtin_ctzll(changed);
    if (zeros > 31) zeros = 31;
    if (leading >= 0 && zeros >= leading && tail >= trailing) {
      put(&bits, 2, 2);
    } else {
      leading = zeros;
      trailing = tail;
      put(&bits, 3, 2);
      put(&bits, (uint64_t)leading, 5);
      put(&bits, (uint64_t)(64 - leading - trailing) & 63, 6);
    }
    put(&bits, changed >> trailing, 64 - leading - trailing);
  }
  if (bits.count) put(&bits, 0, 8 - bits.count);
  return bits.out;
}

/* One chunk a row of `values`, of its columns from[row] to until[row]; sizes[row] is what it takes in `out`, 0 for none.
 * `out` has room for 32 bytes and 11 a sample. Returns what was written. */
int64_t encode(const double *values, int64_t rows, int64_t columns, const int32_t *from, const int32_t *until,
               int64_t first, int64_t step, uint8_t *out, int64_t *sizes) {
  uint8_t *start = out, data[32 + 11 * 256];
  for (int64_t row = 0; row < rows; row++) {
    int count = until[row] - from[row];
    sizes[row] = 0;
    if (count <= 0) continue;
    int64_t size = chunk(data, values + row * columns + from[row], count, first + step * from[row], step) - data;
    uint8_t *begin = out, *body = uvarint(out, (uint64_t)size);
    *body = 1; /* the XOR encoding */
    memcpy(body + 1, data, (size_t)size);
    out = body + 1 + size;
    uint32_t sum = crc32c(body, size + 1);
    for (int shift = 24; shift >= 0; shift -= 8) *out++ = (uint8_t)(sum >> shift);
    sizes[row] = out - begin;
  }
  return out - start;
}

/* For each of `rows` series its chunks as the index lists them: begins, ends and refs are [windows][rows], in order of
 * time, ref 0 for no chunk. `out` has room for 10 bytes and 30 a window each. Returns what was written. */
int64_t places(const int64_t *begins, const int64_t *ends, const int64_t *refs, int64_t windows, int64_t rows,
               uint8_t *out, int64_t *sizes) {
  uint8_t *start = out;
  for (int64_t row = 0; row < rows; row++) {
    uint8_t *begin = out;
    int64_t number = 0, end = 0, ref = 0;
    for (int64_t window = 0; window < windows; window++) number += refs[window * rows + row] != 0;
    out = uvarint(out, (uint64_t)number);
    for (int64_t window = 0, seen = 0; window < windows; window++) {
      int64_t at = window * rows + row;
      if (!refs[at]) continue;
      out = seen ? uvarint(out, (uint64_t)(begins[at] - end)) : varint(out, begins[at]);
      out = uvarint(out, (uint64_t)(ends[at] - begins[at]));
      out = seen++ ? varint(out, refs[at] - ref) : uvarint(out, (uint64_t)refs[at]);
      end = ends[at];
      ref = refs[at];
    }
    sizes[row] = out - begin;
  }
  return out - start;
}
