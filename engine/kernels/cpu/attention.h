/* Causal attention of a span's new rows over the keys and values of its sequence.
 *
 * Cache, per layer: [block][kv head] { keys [tokens / 16][head_dim][16], values [tokens][head_dim] }
 * so that scores of 16 tokens, and 16 dimensions of a result, are lanes; no sum crosses lanes but
 * that of the softmax, whose 16 partial sums have a fixed tree. Every sum goes from the first token
 * to the row's own. A token behind the row's own counts with weight exactly zero, so it makes no
 * difference how many of them the rows beside it need. */
#ifndef WETINK_ATTENTION_H
#define WETINK_ATTENTION_H

#include "linear.h"

typedef struct {
    int heads, kv_heads, head_dim, block_size, wide; /* wide: float32 cache, else bfloat16 */
    int unseen; /* places at the start of a sequence that hold nothing and are never looked at */
} attention_t;

static inline size_t kv_block_elements(const attention_t *a) {
    return (size_t)2 * a->block_size * a->head_dim;
}

static inline char *kv_block(const attention_t *a, void *layer, int block, int kv_head) {
    size_t at = ((size_t)block * a->kv_heads + kv_head) * kv_block_elements(a);
    return (char *)layer + at * (a->wide ? 4 : 2);
}

static inline void put(const attention_t *a, char *base, size_t at, float value) {
    if (a->wide)
        ((float *)base)[at] = value;
    else
        ((uint16_t *)base)[at] = float_to_bf16(value);
}

/* Store one token's key and value of one head. */
static void kv_write(const attention_t *a, void *layer, int block, int offset, int kv_head,
                     const float *key, const float *value) {
    char *base = kv_block(a, layer, block, kv_head);
    size_t lane = (size_t)(offset / LANES) * a->head_dim * LANES + offset % LANES;
    size_t values = (size_t)a->block_size * a->head_dim + (size_t)offset * a->head_dim;
    for (int d = 0; d < a->head_dim; d++) put(a, base, lane + (size_t)d * LANES, key[d]);
    if (a->wide)
        memcpy((float *)base + values, value, (size_t)a->head_dim * sizeof *value);
    else
        for (int d = 0; d < a->head_dim; d++)
            ((uint16_t *)base)[values + d] = float_to_bf16(value[d]);
}

#define MAX_TOGETHER ROWS_FLOAT

/* What one call works on: `rows` <= MAX_TOGETHER queries over the blocks of one sequence. */
typedef struct {
    const attention_t *a;
    void *layer;
    const int32_t *table;
    int kv_head, rows, tokens, padded; /* padded: tokens rounded up to 16 */
    const float *query[MAX_TOGETHER];  /* [head_dim] */
    float *scores;                     /* [rows][padded] */
} queries_t;

/* scores[n][t] = query[n] . key[t], from the first dimension to the last. */
ALWAYS_INLINE void scores_of(const queries_t *o, int wide, int R) {
    const attention_t *a = o->a;
    size_t element = wide ? 4 : 2;
    for (int t = 0; t < o->padded; t += LANES) {
        const char *keys = kv_block(a, o->layer, o->table[t / a->block_size], o->kv_head) +
                           (size_t)(t % a->block_size) * a->head_dim * element;
        f32x16 y[MAX_TOGETHER];
        for (int n = 0; n < R; n++) y[n] = v_zero();
        float_sums(keys, LANES, wide, a->head_dim, o->query, R, y);
        for (int n = 0; n < R; n++) v_store(o->scores + (size_t)n * o->padded + t, y[n]);
    }
}

/* y[n] = sum over tokens of scores[n][t] * value[t][d ... d + 15], from the first token on. */
ALWAYS_INLINE void values_of(const queries_t *o, int d, int wide, int R, f32x16 *y) {
    const attention_t *a = o->a;
    size_t element = wide ? 4 : 2, dim = (size_t)a->head_dim;
    f32x16 sums[MAX_TOGETHER];
    for (int n = 0; n < R; n++) sums[n] = v_zero();
    for (int t = 0; t < o->tokens; t += a->block_size) {
        int skip = t ? 0 : a->unseen;
        const char *values = kv_block(a, o->layer, o->table[t / a->block_size], o->kv_head) +
                             ((size_t)(a->block_size + skip) * dim + d) * element;
        int here = o->tokens - t < a->block_size ? o->tokens - t : a->block_size;
        const float *x = o->scores + t + skip;
        for (int k = skip; k < here; k++, values += dim * element, x++) {
            f32x16 v =
                wide ? v_load((const float *)values) : v_load_bf16((const uint16_t *)values);
            for (int n = 0; n < R; n++)
                sums[n] = v_fma(v_set(x[(size_t)n * o->padded]), v, sums[n]);
        }
    }
    for (int n = 0; n < R; n++) y[n] = sums[n];
}

ALWAYS_INLINE void pass(const queries_t *o, int d, int R, f32x16 *y) {
    if (d < 0 && o->a->wide) scores_of(o, 1, R);
    else if (d < 0) scores_of(o, 0, R);
    else if (o->a->wide) values_of(o, d, 1, R, y);
    else values_of(o, d, 0, R, y);
}

/* The scores (d < 0) or sixteen dimensions of the result; each row count is a constant in its own
 * copy, so that sums stay in registers. */
static void attend_pass(const queries_t *o, int d, f32x16 *y) {
    switch (o->rows) {
        case 1: pass(o, d, 1, y); break;
#if !defined(WETINK_AVX2) && !defined(WETINK_AVX512)
        default: __builtin_unreachable();
#else
        case 2: pass(o, d, 2, y); break;
        case 3: pass(o, d, 3, y); break;
#if defined(WETINK_AVX512)
        case 4: pass(o, d, 4, y); break;
        case 5: pass(o, d, 5, y); break;
        case 6: pass(o, d, 6, y); break;
        case 7: pass(o, d, 7, y); break;
        default: pass(o, d, 8, y);
#else
        default: pass(o, d, 4, y);
#endif
#endif
    }
}

/* Scores [tokens rounded up to 16] to softmax numerators, zero from `seen` on; returns 1 / sum. */
static float softmax(float *scores, int seen, int padded) {
    f32x16 largest = v_set(-INFINITY), total = v_zero();
    for (int t = 0; t < seen; t += LANES)
        largest = v_max(largest, v_first(v_load(scores + t), seen - t, -INFINITY));
    f32x16 highest = v_set(v_largest(largest));
    for (int t = 0; t < seen; t += LANES) {
        f32x16 e = v_first(v_exp(v_sub(v_load(scores + t), highest)), seen - t, 0.0f);
        total = v_add(total, e);
        v_store(scores + t, e);
    }
    for (int t = (seen + LANES - 1) / LANES * LANES; t < padded; t += LANES)
        v_store(scores + t, v_zero());
    return 1.0f / v_sum(total);
}

/* `rows` consecutive new tokens, the first at position `start`, for one key-value head.
 *
 * q, out: the first row's heads of this group, `q_stride` and `out_stride` floats a row; queries are
 * scaled already. scores: room for rows * group * (start + rows rounded up to 16) floats. */
static void attend(const attention_t *a, void *layer, const int32_t *table, int kv_head, int start,
                   int rows, const float *q, size_t q_stride, float *out, size_t out_stride,
                   float *scores) {
    int group = a->heads / a->kv_heads, queries = rows * group, dim = a->head_dim;
    int tokens = start + rows, padded = (tokens + LANES - 1) / LANES * LANES;
    queries_t o = {.a = a, .layer = layer, .table = table, .kv_head = kv_head};
    o.tokens = tokens, o.padded = padded, o.scores = scores;
    for (int first = 0; first < queries; first += MAX_TOGETHER) {
        float inverse[MAX_TOGETHER];
        f32x16 y[MAX_TOGETHER];
        o.rows = queries - first < MAX_TOGETHER ? queries - first : MAX_TOGETHER;
        for (int n = 0; n < o.rows; n++)
            o.query[n] =
                q + (size_t)((first + n) / group) * q_stride + (size_t)((first + n) % group) * dim;
        attend_pass(&o, -1, NULL);
        for (int n = 0; n < o.rows; n++) {
            float *s = scores + (size_t)n * padded;
            for (int t = 0; t < a->unseen; t++) s[t] = -INFINITY;
            inverse[n] = softmax(s, start + (first + n) / group + 1, padded);
        }
        for (int d = 0; d < dim; d += LANES) {
            attend_pass(&o, d, y);
            for (int n = 0; n < o.rows; n++) {
                int query = first + n;
                /* A sum that went on over tokens of weight zero may have lost a zero's sign. */
                f32x16 sum = v_add(v_mul(y[n], v_set(inverse[n])), v_zero());
                v_store(out + (size_t)(query / group) * out_stride +
                            (size_t)(query % group) * dim + d, sum);
            }
        }
    }
}

#endif
