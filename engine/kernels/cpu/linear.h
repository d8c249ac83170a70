/* Products of rows with a weight matrix, sixteen outputs (one tile) at a time.
 *
 * A weight [out, in] is packed in tiles of 16 outputs (the last one padded with zeros):
 *   FLOAT32, BFLOAT16   per tile [in][16]
 *   INT8   per tile and block of 32 inputs 512 bytes, byte (g * 16 + o) * 4 + j is the weight of
 *          output o and input 4 g + j, then 16 scales as halves
 *   INT4   per tile and block of 32 inputs 256 bytes, byte (g * 16 + o) * 4 + j holds output o's
 *          weights of input 4 g + j (low nibble) and 16 + 4 g + j (high nibble), then 16 scales and
 *          16 minima as halves; a weight is scale * nibble + minimum (GGUF's Q4_1)
 *
 * For the integer kinds a row is given as int8 per block of 32 with a scale (`quantise_row`). Sums
 * of a block are integers, hence exact; blocks are added from left to right. For the float kinds
 * products are fused into one sum from left to right. So a row's result never depends on which
 * rows, tiles or threads stand beside it. */
#ifndef WETINK_LINEAR_H
#define WETINK_LINEAR_H

#include <stddef.h>

#include "vec.h"

#define BLOCK 32

enum weight_kind { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2, INT4 = 3 };

typedef struct {
    int32_t kind, out, in, pad;
    const void *data;
    const float *bias; /* [out rounded up to 16] or null */
} weight_t;

/* Rows to multiply. `q`, `scale`, `sum`, `whole` only for the integer kinds, `f` for the others. */
typedef struct {
    int in;
    float *f;       /* [rows][in] */
    int8_t *q;      /* [rows][in] */
    float *scale;   /* [rows][in / 32] */
    float *sum;     /* [rows][in / 32], scale * sum of q */
    int32_t *whole; /* [rows][in / 32], sum of q */
} rows_t;

#define INT8_BLOCK_BYTES (512 + 32)
#define INT4_BLOCK_BYTES (256 + 64)

static inline size_t tile_bytes(const weight_t *w) {
    switch (w->kind) {
        case FLOAT32: return (size_t)w->in * LANES * 4;
        case BFLOAT16: return (size_t)w->in * LANES * 2;
        case INT8: return (size_t)(w->in / BLOCK) * INT8_BLOCK_BYTES;
        default: return (size_t)(w->in / BLOCK) * INT4_BLOCK_BYTES;
    }
}

static inline int is_integer(const weight_t *w) { return w->kind >= INT8; }

/* Smaller than this, 127 / largest has no finite value; such a block counts as zeros. */
#define SMALLEST_LARGEST 1e-36f

/* Largest magnitude of a block, NaN where it holds one: without their sign, floats sort as whole
 * numbers do, and NaN above infinity. */
static inline float block_largest(const float *x) {
    int32_t most = 0;
    for (int i = 0; i < BLOCK; i++) {
        int32_t bits = (int32_t)(float_to_bits(x[i]) & 0x7fffffffu);
        most = bits > most ? bits : most;
    }
    return bits_to_float((uint32_t)most);
}

/* Block `block` of row `row` as int8: q = round(x / scale), scale = largest |x| / 127. What is no
 * number shows in the scale or the sum, and so in every product. x: the block's 32 inputs. */
static inline void quantise_block(const float *x, rows_t *to, int row, int block) {
    float largest = block_largest(x), scale = largest / 127.0f;
    float inverse = largest >= SMALLEST_LARGEST ? 127.0f / largest : 0.0f;
    f32x16 low = v_round(v_mul(v_load(x), v_set(inverse)));
    f32x16 high = v_round(v_mul(v_load(x + LANES), v_set(inverse)));
    size_t at = (size_t)row * (to->in / BLOCK) + block;
    int32_t total = v_store_int8(to->q + at * BLOCK, low, high);
    to->scale[at] = scale;
    to->sum[at] = scale * (float)total;
    to->whole[at] = total;
}

static inline void quantise_row(const float *x, rows_t *to, int row) {
    for (int b = 0; b < to->in / BLOCK; b++) quantise_block(x + b * BLOCK, to, row, b);
}

/* ---- one block of 32 inputs, 16 outputs, R rows: exact integer sums, as floats ---- */

ALWAYS_INLINE int32_t four(const int8_t *q) {
    int32_t bits;
    memcpy(&bits, q, 4);
    return bits;
}

#if defined(WETINK_AVX512)

#define ROWS_INT4 8
#define ROWS_INT8 8
#define ROWS_FLOAT 8

ALWAYS_INLINE void int4_sums(const uint8_t *w, const int8_t *q, size_t stride, int R, f32x16 *sums) {
    __m512i acc[ROWS_INT4], mask = _mm512_set1_epi8(15);
    for (int r = 0; r < R; r++) acc[r] = _mm512_setzero_si512();
    for (int g = 0; g < 4; g++) {
        __m512i both = _mm512_loadu_si512(w + g * 64);
        __m512i low = _mm512_and_si512(both, mask);
        __m512i high = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
        for (int r = 0; r < R; r++) {
            const int8_t *a = q + r * stride + g * 4;
            acc[r] = _mm512_dpbusd_epi32(acc[r], low, _mm512_set1_epi32(four(a)));
            acc[r] = _mm512_dpbusd_epi32(acc[r], high, _mm512_set1_epi32(four(a + 16)));
        }
    }
    for (int r = 0; r < R; r++) sums[r] = _mm512_cvtepi32_ps(acc[r]);
}

ALWAYS_INLINE void int8_sums(const uint8_t *w, const int8_t *q, size_t stride,
                             const int32_t *whole, size_t whole_stride, int R, f32x16 *sums) {
    /* The instruction takes one factor unsigned: weights are moved up by 128, which adds 128 times
     * the sum of the row's block. */
    __m512i acc[ROWS_INT8], flip = _mm512_set1_epi8((char)0x80);
    for (int r = 0; r < R; r++) acc[r] = _mm512_set1_epi32(-128 * whole[r * whole_stride]);
    for (int g = 0; g < 8; g++) {
        __m512i up = _mm512_xor_si512(_mm512_loadu_si512(w + g * 64), flip);
        for (int r = 0; r < R; r++)
            acc[r] = _mm512_dpbusd_epi32(acc[r], up, _mm512_set1_epi32(four(q + r * stride + g * 4)));
    }
    for (int r = 0; r < R; r++) sums[r] = _mm512_cvtepi32_ps(acc[r]);
}

#elif defined(WETINK_AVX2)

#define ROWS_INT4 4
#define ROWS_INT8 4
#define ROWS_FLOAT 4

ALWAYS_INLINE void int4_sums(const uint8_t *w, const int8_t *q, size_t stride, int R, f32x16 *sums) {
    /* A nibble is at most 15 and |q| at most 127, so that all 16 products that meet in one 16-bit
     * lane sum to at most 30,480: nothing saturates. */
    __m256i mask = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    __m256i a[ROWS_INT4], b[ROWS_INT4];
    for (int r = 0; r < R; r++) a[r] = b[r] = _mm256_setzero_si256();
    for (int g = 0; g < 4; g++) {
        __m256i both_a = _mm256_loadu_si256((const __m256i *)(w + g * 64));
        __m256i both_b = _mm256_loadu_si256((const __m256i *)(w + g * 64 + 32));
        __m256i low_a = _mm256_and_si256(both_a, mask), low_b = _mm256_and_si256(both_b, mask);
        __m256i high_a = _mm256_and_si256(_mm256_srli_epi16(both_a, 4), mask);
        __m256i high_b = _mm256_and_si256(_mm256_srli_epi16(both_b, 4), mask);
        for (int r = 0; r < R; r++) {
            const int8_t *at = q + r * stride + g * 4;
            __m256i first = _mm256_set1_epi32(four(at)), second = _mm256_set1_epi32(four(at + 16));
            a[r] = _mm256_add_epi16(a[r], _mm256_maddubs_epi16(low_a, first));
            b[r] = _mm256_add_epi16(b[r], _mm256_maddubs_epi16(low_b, first));
            a[r] = _mm256_add_epi16(a[r], _mm256_maddubs_epi16(high_a, second));
            b[r] = _mm256_add_epi16(b[r], _mm256_maddubs_epi16(high_b, second));
            V_HERE(a[r]);
            V_HERE(b[r]);
        }
    }
    for (int r = 0; r < R; r++) {
        sums[r].a = _mm256_cvtepi32_ps(_mm256_madd_epi16(a[r], ones));
        sums[r].b = _mm256_cvtepi32_ps(_mm256_madd_epi16(b[r], ones));
    }
}

ALWAYS_INLINE void int8_sums(const uint8_t *w, const int8_t *q, size_t stride,
                             const int32_t *whole, size_t whole_stride, int R, f32x16 *sums) {
    /* The instruction takes one factor unsigned: the weight's sign moves to the other one. Two
     * products are at most 2 * 128 * 127 = 32,512: nothing saturates. */
    (void)whole, (void)whole_stride;
    __m256i ones = _mm256_set1_epi16(1), a[ROWS_INT8], b[ROWS_INT8];
    for (int r = 0; r < R; r++) a[r] = b[r] = _mm256_setzero_si256();
    for (int g = 0; g < 8; g++) {
        __m256i w_a = _mm256_loadu_si256((const __m256i *)(w + g * 64));
        __m256i w_b = _mm256_loadu_si256((const __m256i *)(w + g * 64 + 32));
        __m256i size_a = _mm256_abs_epi8(w_a), size_b = _mm256_abs_epi8(w_b);
        for (int r = 0; r < R; r++) {
            __m256i x = _mm256_set1_epi32(four(q + r * stride + g * 4));
            __m256i pairs_a = _mm256_maddubs_epi16(size_a, _mm256_sign_epi8(x, w_a));
            __m256i pairs_b = _mm256_maddubs_epi16(size_b, _mm256_sign_epi8(x, w_b));
            a[r] = _mm256_add_epi32(a[r], _mm256_madd_epi16(pairs_a, ones));
            b[r] = _mm256_add_epi32(b[r], _mm256_madd_epi16(pairs_b, ones));
            V_HERE(a[r]);
            V_HERE(b[r]);
        }
    }
    for (int r = 0; r < R; r++) {
        sums[r].a = _mm256_cvtepi32_ps(a[r]);
        sums[r].b = _mm256_cvtepi32_ps(b[r]);
    }
}

#else

#define ROWS_INT4 1
#define ROWS_INT8 1
#define ROWS_FLOAT 1

ALWAYS_INLINE void int4_sums(const uint8_t *w, const int8_t *q, size_t stride, int R, f32x16 *sums) {
    (void)stride, (void)R;
    int32_t acc[LANES] = {0};
    for (int g = 0; g < 4; g++)
        for (int o = 0; o < LANES; o++)
            for (int j = 0; j < 4; j++) {
                uint8_t both = w[(g * LANES + o) * 4 + j];
                acc[o] += (both & 15) * q[g * 4 + j] + (both >> 4) * q[16 + g * 4 + j];
            }
    for (int o = 0; o < LANES; o++) sums[0].v[o] = (float)acc[o];
}

ALWAYS_INLINE void int8_sums(const uint8_t *w, const int8_t *q, size_t stride,
                             const int32_t *whole, size_t whole_stride, int R, f32x16 *sums) {
    (void)stride, (void)whole, (void)whole_stride, (void)R;
    int32_t acc[LANES] = {0};
    for (int g = 0; g < 8; g++)
        for (int o = 0; o < LANES; o++)
            for (int j = 0; j < 4; j++)
                acc[o] += (int8_t)w[(g * LANES + o) * 4 + j] * q[g * 4 + j];
    for (int o = 0; o < LANES; o++) sums[0].v[o] = (float)acc[o];
}

#endif

/* ---- one tile, R rows from `row` on ---- */

ALWAYS_INLINE void int4_tile(const uint8_t *w, const rows_t *x, int row, int R, f32x16 *y) {
    int blocks = x->in / BLOCK;
    const int8_t *q = x->q + (size_t)row * x->in;
    const float *scale = x->scale + (size_t)row * blocks, *sum = x->sum + (size_t)row * blocks;
    for (int r = 0; r < R; r++) y[r] = v_zero();
    for (int b = 0; b < blocks; b++, w += INT4_BLOCK_BYTES, q += BLOCK) {
        f32x16 sums[ROWS_INT4];
        int4_sums(w, q, (size_t)x->in, R, sums);
        f32x16 d = v_load_f16((const uint16_t *)(w + 256));
        f32x16 m = v_load_f16((const uint16_t *)(w + 288));
        for (int r = 0; r < R; r++) {
            y[r] = v_fma(sums[r], v_mul(d, v_set(scale[r * blocks + b])), y[r]);
            y[r] = v_fma(m, v_set(sum[r * blocks + b]), y[r]);
        }
    }
}

ALWAYS_INLINE void int8_tile(const uint8_t *w, const rows_t *x, int row, int R, f32x16 *y) {
    int blocks = x->in / BLOCK;
    const int8_t *q = x->q + (size_t)row * x->in;
    const float *scale = x->scale + (size_t)row * blocks;
    const int32_t *whole = x->whole + (size_t)row * blocks;
    for (int r = 0; r < R; r++) y[r] = v_zero();
    for (int b = 0; b < blocks; b++, w += INT8_BLOCK_BYTES, q += BLOCK) {
        f32x16 sums[ROWS_INT8];
        int8_sums(w, q, (size_t)x->in, whole + b, (size_t)blocks, R, sums);
        f32x16 d = v_load_f16((const uint16_t *)(w + 512));
        for (int r = 0; r < R; r++)
            y[r] = v_fma(sums[r], v_mul(d, v_set(scale[r * blocks + b])), y[r]);
    }
}

/* y[r] += sum over k of a[r][k] * b[k], from left to right. b: [count][stride] floats or bfloat16;
 * shared by products with float weights and by attention. */
ALWAYS_INLINE void float_sums(const void *b, size_t stride, int wide, int count,
                              const float *const *a, int R, f32x16 *y) {
    f32x16 sums[ROWS_FLOAT];
    for (int r = 0; r < R; r++) sums[r] = y[r];
    for (int k = 0; k < count; k++) {
        f32x16 v = wide ? v_load((const float *)b + k * stride)
                        : v_load_bf16((const uint16_t *)b + k * stride);
        for (int r = 0; r < R; r++) sums[r] = v_fma(v_set(a[r][k]), v, sums[r]);
    }
    for (int r = 0; r < R; r++) y[r] = sums[r];
}

ALWAYS_INLINE void float_tile(const void *w, int wide, const rows_t *x, int row, int R, f32x16 *y) {
    const float *a[ROWS_FLOAT];
    for (int r = 0; r < R; r++) {
        a[r] = x->f + (size_t)(row + r) * x->in;
        y[r] = v_zero();
    }
    float_sums(w, LANES, wide, x->in, a, R, y);
}

#define MAX_TILE_ROWS 8

ALWAYS_INLINE void tile_of(const weight_t *w, const uint8_t *tile, const rows_t *x, int row, int R,
                           f32x16 *y) {
    switch (w->kind) {
        case INT4: int4_tile(tile, x, row, R, y); break;
        case INT8: int8_tile(tile, x, row, R, y); break;
        default: float_tile(tile, w->kind == FLOAT32, x, row, R, y);
    }
}

static inline int rows_at_once(const weight_t *w) {
    return w->kind == INT4 ? ROWS_INT4 : w->kind == INT8 ? ROWS_INT8 : ROWS_FLOAT;
}

/* Tile number `tile` for `count` rows from `row` on, count <= rows_at_once: y[count]. */
static void linear_tile(const weight_t *w, int tile, const rows_t *x, int row, int count,
                        f32x16 *y) {
    const uint8_t *data = (const uint8_t *)w->data + (size_t)tile * tile_bytes(w);
    switch (count) {
        /* Each R is a constant in its own copy, so that sums stay in registers. */
        case 1: tile_of(w, data, x, row, 1, y); break;
#if !defined(WETINK_AVX2) && !defined(WETINK_AVX512)
        default: __builtin_unreachable();
#else
        case 2: tile_of(w, data, x, row, 2, y); break;
        case 3: tile_of(w, data, x, row, 3, y); break;
#if defined(WETINK_AVX512)
        case 4: tile_of(w, data, x, row, 4, y); break;
        case 5: tile_of(w, data, x, row, 5, y); break;
        case 6: tile_of(w, data, x, row, 6, y); break;
        case 7: tile_of(w, data, x, row, 7, y); break;
        default: tile_of(w, data, x, row, 8, y);
#else
        default: tile_of(w, data, x, row, 4, y);
#endif
#endif
    }
    if (w->bias) {
        f32x16 bias = v_load(w->bias + tile * LANES);
        for (int r = 0; r < count; r++) y[r] = v_add(y[r], bias);
    }
}

/* One weight row as floats, for embeddings. */
static void weight_row(const weight_t *w, int index, float *to) {
    const uint8_t *tile = (const uint8_t *)w->data + (size_t)(index / LANES) * tile_bytes(w);
    int o = index % LANES;
    if (w->kind == FLOAT32) {
        for (int k = 0; k < w->in; k++) to[k] = ((const float *)tile)[k * LANES + o];
        return;
    }
    if (w->kind == BFLOAT16) {
        for (int k = 0; k < w->in; k++)
            to[k] = bf16_to_float(((const uint16_t *)tile)[k * LANES + o]);
        return;
    }
    int bytes = w->kind == INT8 ? INT8_BLOCK_BYTES : INT4_BLOCK_BYTES;
    for (int b = 0; b < w->in / BLOCK; b++, tile += bytes, to += BLOCK) {
        float scales[LANES], minima[LANES];
        v_store(scales, v_load_f16((const uint16_t *)(tile + (w->kind == INT8 ? 512 : 256))));
        if (w->kind == INT4) v_store(minima, v_load_f16((const uint16_t *)(tile + 288)));
        for (int g = 0; g < (w->kind == INT8 ? 8 : 4); g++)
            for (int j = 0; j < 4; j++) {
                uint8_t byte = tile[(g * LANES + o) * 4 + j];
                if (w->kind == INT8) {
                    to[g * 4 + j] = scales[o] * (float)(int8_t)byte;
                } else {
                    to[g * 4 + j] = __builtin_fmaf(scales[o], (float)(byte & 15), minima[o]);
                    to[16 + g * 4 + j] = __builtin_fmaf(scales[o], (float)(byte >> 4), minima[o]);
                }
            }
    }
}

#endif
