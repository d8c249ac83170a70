/* What runs one model: its cache, its rows in their states on the way through a layer, and the jobs
 * that a layer is made of. Who calls them in which order: step.c for the target, head.h for a draft
 * head. */
#ifndef WETINK_RUNNER_H
#define WETINK_RUNNER_H

#include "attention.h"
#include "linear.h"
#include "pool.h"
#include "vec.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#define HUGE_PAGE ((size_t)2 << 20)
#define PIECES_PER_THREAD 6
#define ROWS_PER_UNIT 4 /* of attention: a unit's scores should stay in a core's own cache */
#define FEW_ROWS 2      /* up to here a row's own work is done by the caller: asking costs more */

typedef struct {
    const float *attention_norm, *mlp_norm; /* [hidden] */
    weight_t qkv, out, gate_up, down;       /* gate_up: tiles of gate and up take turns */
} layer_t;

typedef struct {
    int32_t vocab, hidden, intermediate, layers, heads, kv_heads, head_dim, context;
    int32_t block_size, num_blocks, wide_cache, pad;
    float rms_eps, query_scale;
    const float *cosines, *sines; /* [context][head_dim / 2] */
    const float *norm;            /* [hidden] */
    weight_t embedding, head;
    const layer_t *layer; /* [layers] */
} model_t;

typedef struct {
    int32_t first_row, rows, start, pad;
    const int32_t *blocks; /* its block table */
} span_t;

typedef struct {
    int32_t rows, spans, wanted, pad;
    const int32_t *tokens;      /* [rows] */
    const span_t *span;         /* [spans] */
    const int32_t *wanted_rows; /* [wanted], whose logits are asked for */
    float *logits;              /* [wanted][vocab rounded up to 16] */
    int32_t *broken;            /* [rows], set to 1 where a row held no numbers */
    int64_t linear_ns, attention_ns, row_ns, total_ns, stalled_ns;
} step_t;

typedef struct {
    int32_t span, row, rows;
} unit_t;

typedef struct {
    model_t m;
    pool_t *pool;
    attention_t attention;
    char *cache; /* [layers] of num_blocks blocks */
    size_t layer_bytes;
    /* Per row; grown, never shrunk. */
    int capacity, unit_capacity, units;
    int32_t *position, *block, *offset;
    float *x, *qkv, *attended, *activated, *normed;
    rows_t hidden_rows, attended_rows, activated_rows;
    unit_t *unit;
    float **scores; /* by thread */
    size_t scores_size;
    /* What the running job works on. */
    step_t *step;
    const layer_t *layer;
    void *layer_cache;
    const weight_t *weight;
    const rows_t *from;
    const float *norm;
    const int32_t *pick; /* rows to norm, null: all */
    float *to;
    int count, pieces, keys_only;
    size_t to_stride;
} runner_t;

/* ---- memory ---- */

static void *big_alloc(size_t bytes) {
    void *p = NULL;
    bytes = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    if (posix_memalign(&p, HUGE_PAGE, bytes)) return NULL;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    madvise(p, bytes, MADV_HUGEPAGE);
#endif
    return p;
}

/* Zeros that take memory only where they are written to: to fill half a gigabyte of them takes
 * longer than the rest of a start. NULL where memory is refused. */
static void *zeros_alloc(size_t bytes) {
#if defined(__linux__)
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
#if defined(MADV_HUGEPAGE)
    madvise(p, bytes, MADV_HUGEPAGE);
#endif
    return p;
#else
    return calloc(1, bytes);
#endif
}

static void zeros_free(void *p, size_t bytes) {
#if defined(__linux__)
    if (p) munmap(p, bytes);
#else
    (void)bytes;
    free(p);
#endif
}

static int grow(void *pointer, size_t bytes) {
    void **p = pointer;
    free(*p);
    *p = NULL;
    return posix_memalign(p, 64, bytes ? bytes : 64) == 0;
}

static int grow_rows(rows_t *r, int in, int rows, int integer) {
    r->in = in;
    if (!integer) return 1;
    size_t blocks = (size_t)rows * (in / BLOCK);
    return grow(&r->q, (size_t)rows * in) && grow(&r->scale, blocks * 4) &&
           grow(&r->sum, blocks * 4) && grow(&r->whole, blocks * 4);
}

static int any_integer(const model_t *m) {
    int found = is_integer(&m->head);
    for (int n = 0; n < m->layers; n++) {
        const layer_t *l = &m->layer[n];
        found |= is_integer(&l->qkv) | is_integer(&l->out) | is_integer(&l->gate_up) |
                 is_integer(&l->down);
    }
    return found;
}

static int reserve_rows(runner_t *s, int rows) {
    const model_t *m = &s->m;
    if (rows > s->capacity) {
        size_t n = (size_t)rows, attended = (size_t)m->heads * m->head_dim;
        size_t qkv = attended + 2 * (size_t)m->kv_heads * m->head_dim + LANES;
        int integer = any_integer(m);
        s->capacity = 0;
        if (!(grow(&s->position, n * 4) && grow(&s->block, n * 4) && grow(&s->offset, n * 4) &&
              grow(&s->x, n * m->hidden * 4) && grow(&s->qkv, n * qkv * 4) &&
              grow(&s->attended, n * attended * 4) && grow(&s->normed, n * m->hidden * 4) &&
              grow(&s->activated, n * (m->intermediate + LANES) * 4) &&
              grow_rows(&s->hidden_rows, m->hidden, rows, integer) &&
              grow_rows(&s->attended_rows, (int)attended, rows, integer) &&
              grow_rows(&s->activated_rows, m->intermediate, rows, integer)))
            return 0;
        s->hidden_rows.f = s->normed;
        s->attended_rows.f = s->attended;
        s->activated_rows.f = s->activated;
        s->capacity = rows;
    }
    return 1;
}

static int reserve_units(runner_t *s, int units, int tokens) {
    if (units > s->unit_capacity) {
        s->unit_capacity = 0;
        if (!grow(&s->unit, (size_t)units * sizeof *s->unit)) return 0;
        s->unit_capacity = units;
    }
    size_t needed = (size_t)MAX_TOGETHER * ((size_t)tokens + LANES);
    if (needed > s->scores_size) {
        s->scores_size = 0;
        for (int n = 0; n < s->pool->threads; n++)
            if (!grow(&s->scores[n], needed * 4)) return 0;
        s->scores_size = needed;
    }
    return 1;
}

/* ---- jobs over rows ---- */

static void cut(int count, int pieces, int piece, int *from, int *to) {
    *from = (int)((int64_t)count * piece / pieces);
    *to = (int)((int64_t)count * (piece + 1) / pieces);
}

static void over_rows(runner_t *s, piece_fn work, int rows) {
    int64_t begun = now_ns();
    s->count = rows;
    s->pieces = rows <= FEW_ROWS ? 1 : s->pool->threads * PIECES_PER_THREAD;
    if (s->pieces > rows) s->pieces = rows;
    run_job(s->pool, work, s, s->pieces);
    s->step->row_ns += now_ns() - begun;
}

static void embed_rows(void *context, int piece, int thread) {
    runner_t *s = context;
    (void)thread;
    int from, to;
    cut(s->count, s->pieces, piece, &from, &to);
    for (int r = from; r < to; r++)
        weight_row(&s->m.embedding, s->step->tokens[r], s->x + (size_t)r * s->m.hidden);
}

/* x / sqrt(mean(x²) + eps) * weight (Zhang and Sennrich 2019); 0 where x holds no numbers. */
static int norm_row(const float *x, const float *weight, float eps, int hidden, float *y) {
    f32x16 squares = v_zero();
    for (int i = 0; i < hidden; i += LANES) {
        f32x16 v = v_load(x + i);
        squares = v_fma(v, v, squares);
    }
    float mean = v_sum(squares) / (float)hidden;
    f32x16 scale = v_set(1.0f / __builtin_sqrtf(mean + eps));
    for (int i = 0; i < hidden; i += LANES)
        v_store(y + i, v_mul(v_mul(v_load(x + i), scale), v_load(weight + i)));
    return mean < INFINITY;
}

/* Normed, ready to be multiplied. */
static void norm_rows(void *context, int piece, int thread) {
    runner_t *s = context;
    (void)thread;
    int from, to, hidden = s->m.hidden;
    cut(s->count, s->pieces, piece, &from, &to);
    for (int n = from; n < to; n++) {
        int row = s->pick ? s->pick[n] : n;
        const float *x = s->x + (size_t)row * hidden;
        float *y = s->normed + (size_t)n * hidden;
        if (!norm_row(x, s->norm, s->m.rms_eps, hidden, y)) s->step->broken[row] = 1;
        if (is_integer(s->weight)) quantise_row(y, &s->hidden_rows, n);
    }
}

static void quantise_rows(void *context, int piece, int thread) {
    runner_t *s = context;
    (void)thread;
    int from, to;
    cut(s->count, s->pieces, piece, &from, &to);
    rows_t *rows = (rows_t *)s->from;
    for (int r = from; r < to; r++) quantise_row(rows->f + (size_t)r * rows->in, rows, r);
}

/* Rotary position embedding (Su et al. 2021, halves convention) in place. */
static void rotate(float *x, const float *cosines, const float *sines, int half, float scale) {
    for (int i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = __builtin_fmaf(-b, sines[i], a * cosines[i]) * scale;
        x[i + half] = __builtin_fmaf(a, sines[i], b * cosines[i]) * scale;
    }
}

/* Turn queries (unless keys_only) and keys, scale queries, put keys and values into the cache. */
static void place_rows(void *context, int piece, int thread) {
    runner_t *s = context;
    (void)thread;
    const model_t *m = &s->m;
    int from, to, dim = m->head_dim, half = dim / 2;
    cut(s->count, s->pieces, piece, &from, &to);
    for (int r = from; r < to; r++) {
        const float *c = m->cosines + (size_t)s->position[r] * half;
        const float *w = m->sines + (size_t)s->position[r] * half;
        float *q = s->qkv + (size_t)r * s->to_stride;
        float *k = q + (size_t)m->heads * dim, *v = k + (size_t)m->kv_heads * dim;
        for (int h = 0; h < m->heads && !s->keys_only; h++)
            rotate(q + h * dim, c, w, half, m->query_scale);
        for (int h = 0; h < m->kv_heads; h++) {
            rotate(k + h * dim, c, w, half, 1.0f);
            kv_write(&s->attention, s->layer_cache, s->block[r], s->offset[r], h, k + h * dim,
                     v + h * dim);
        }
    }
}

/* ---- jobs over tiles of a weight ---- */

static void over_tiles(runner_t *s, piece_fn work, const weight_t *w, rows_t *from, int rows,
                       int quantised, int tiles) {
    if (is_integer(w) && !quantised) {
        s->from = from;
        over_rows(s, quantise_rows, rows);
    }
    int64_t begun = now_ns();
    s->weight = w;
    s->from = from;
    s->count = rows;
    s->pieces = s->pool->threads * PIECES_PER_THREAD;
    if (s->pieces > tiles) s->pieces = tiles;
    run_job(s->pool, work, s, s->pieces);
    s->step->linear_ns += now_ns() - begun;
}

static inline int tiles_of(int outputs) { return (outputs + LANES - 1) / LANES; }

static void store_tiles(void *context, int piece, int thread) {
    runner_t *s = context;
    (void)thread;
    int from, to, most = rows_at_once(s->weight);
    cut(tiles_of(s->weight->out), s->pieces, piece, &from, &to);
    for (int t = from; t < to; t++)
        for (int r = 0; r < s->count; r += most) {
            int n = s->count - r < most ? s->count - r : most;
            f32x16 y[MAX_TILE_ROWS];
            linear_tile(s->weight, t, s->from, r, n, y);
            for (int i = 0; i < n; i++)
                v_store(s->to + (size_t)(r + i) * s->to_stride + (size_t)t * LANES, y[i]);
        }
}

static void add_tiles(void *context, int piece, int thread) {
    runner_t *s = context;
    (void)thread;
    int from, to, most = rows_at_once(s->weight);
    cut(tiles_of(s->weight->out), s->pieces, piece, &from, &to);
    for (int t = from; t < to; t++)
        for (int r = 0; r < s->count; r += most) {
            int n = s->count - r < most ? s->count - r : most;
            f32x16 y[MAX_TILE_ROWS];
            linear_tile(s->weight, t, s->from, r, n, y);
            for (int i = 0; i < n; i++) {
                float *x = s->x + (size_t)(r + i) * s->m.hidden + (size_t)t * LANES;
                v_store(x, v_add(v_load(x), y[i]));
            }
        }
}

/* silu(gate) * up (Shazeer 2020), from a tile of gates and the tile of ups behind it. */
static void activate_tile(runner_t *s, int t, int row, int rows) {
    f32x16 gate[MAX_TILE_ROWS], up[MAX_TILE_ROWS];
    linear_tile(s->weight, 2 * t, s->from, row, rows, gate);
    linear_tile(s->weight, 2 * t + 1, s->from, row, rows, up);
    for (int i = 0; i < rows; i++) {
        f32x16 e = v_exp(v_sub(v_zero(), gate[i]));
        f32x16 silu = v_div(gate[i], v_add(v_set(1.0f), e));
        v_store(s->activated + (size_t)(row + i) * s->m.intermediate + (size_t)t * LANES,
                v_mul(silu, up[i]));
    }
}

/* A piece is a run of quantisation blocks, so that they are ready for the next product at once. */
static void activate_blocks(void *context, int piece, int thread) {
    runner_t *s = context;
    (void)thread;
    int from, to, most = rows_at_once(s->weight), integer = is_integer(&s->layer->down);
    cut(s->m.intermediate / BLOCK, s->pieces, piece, &from, &to);
    for (int b = from; b < to; b++)
        for (int r = 0; r < s->count; r += most) {
            int n = s->count - r < most ? s->count - r : most;
            for (int t = 0; t < BLOCK / LANES; t++)
                activate_tile(s, b * (BLOCK / LANES) + t, r, n);
            for (int i = r; integer && i < r + n; i++)
                quantise_block(s->activated + (size_t)i * s->m.intermediate + (size_t)b * BLOCK,
                               &s->activated_rows, i, b);
        }
}

/* ---- attention ---- */

/* Whether what one key-value head yields is whole blocks to quantise. */
static int heads_are_blocks(const model_t *m) {
    return m->heads / m->kv_heads * m->head_dim % BLOCK == 0;
}

static void attend_unit(void *context, int piece, int thread) {
    runner_t *s = context;
    const model_t *m = &s->m;
    int kv_head = piece % m->kv_heads, group = m->heads / m->kv_heads;
    unit_t unit = s->unit[piece / m->kv_heads];
    const span_t *span = &s->step->span[unit.span];
    size_t row = (size_t)(span->first_row + unit.row), at = (size_t)kv_head * group * m->head_dim;
    size_t out_stride = (size_t)m->heads * m->head_dim;
    attend(&s->attention, s->layer_cache, span->blocks, kv_head, span->start + unit.row, unit.rows,
           s->qkv + row * s->to_stride + at, s->to_stride, s->attended + row * out_stride + at,
           out_stride, s->scores[thread]);
    if (!is_integer(&s->layer->out) || !heads_are_blocks(m)) return;
    for (int r = (int)row; r < (int)row + unit.rows; r++)
        for (int b = 0; b < group * m->head_dim / BLOCK; b++)
            quantise_block(s->attended + r * out_stride + at + (size_t)b * BLOCK,
                           &s->attended_rows, r, (int)at / BLOCK + b);
}

static int lay_out(runner_t *s, step_t *step) {
    int units = 0, longest = 0;
    for (int n = 0; n < step->spans; n++) {
        units += (step->span[n].rows + ROWS_PER_UNIT - 1) / ROWS_PER_UNIT;
        int end = step->span[n].start + step->span[n].rows;
        longest = end > longest ? end : longest;
    }
    if (!reserve_rows(s, step->rows) || !reserve_units(s, units, longest)) return 0;
    s->units = 0;
    for (int n = 0; n < step->spans; n++) {
        const span_t *span = &step->span[n];
        for (int r = 0; r < span->rows; r++) {
            int row = span->first_row + r, position = span->start + r;
            s->position[row] = position;
            s->block[row] = span->blocks[position / s->m.block_size];
            s->offset[row] = position % s->m.block_size;
        }
        for (int r = 0; r < span->rows; r += ROWS_PER_UNIT) {
            int rows = span->rows - r < ROWS_PER_UNIT ? span->rows - r : ROWS_PER_UNIT;
            s->unit[s->units++] = (unit_t){n, r, rows};
        }
    }
    return 1;
}

/* ---- a layer ---- */

static void norm(runner_t *s, const float *weight, const weight_t *next, const int32_t *pick,
                 int rows) {
    s->norm = weight;
    s->weight = next;
    s->pick = pick;
    over_rows(s, norm_rows, rows);
}

static inline size_t qkv_stride(const model_t *m) {
    return (size_t)tiles_of((m->heads + 2 * m->kv_heads) * m->head_dim) * LANES;
}

/* A layer over rows s->x, whose input is `from`, normed and ready to be multiplied. */
static void run_layer(runner_t *s, const layer_t *layer, void *cache, rows_t *from, int rows) {
    const model_t *m = &s->m;
    s->layer = layer;
    s->layer_cache = cache;
    s->keys_only = 0;
    s->to = s->qkv;
    s->to_stride = qkv_stride(m);
    over_tiles(s, store_tiles, &layer->qkv, from, rows, 1, tiles_of(layer->qkv.out));
    over_rows(s, place_rows, rows);
    int64_t begun = now_ns();
    run_job(s->pool, attend_unit, s, s->units * m->kv_heads);
    s->step->attention_ns += now_ns() - begun;
    over_tiles(s, add_tiles, &layer->out, &s->attended_rows, rows, heads_are_blocks(m),
               tiles_of(m->hidden));

    norm(s, layer->mlp_norm, &layer->gate_up, NULL, rows);
    over_tiles(s, activate_blocks, &layer->gate_up, &s->hidden_rows, rows, 1,
               m->intermediate / BLOCK);
    over_tiles(s, add_tiles, &layer->down, &s->activated_rows, rows, 1, tiles_of(m->hidden));
}

/* ---- beginning and end ---- */

static void free_rows(rows_t *rows) {
    free(rows->q), free(rows->scale), free(rows->sum), free(rows->whole);
}

static void runner_clear(runner_t *s) {
    for (int n = 0; s->scores && n < s->pool->threads; n++) free(s->scores[n]);
    free_rows(&s->hidden_rows), free_rows(&s->attended_rows), free_rows(&s->activated_rows);
    free(s->position), free(s->block), free(s->offset), free(s->x), free(s->qkv);
    free(s->attended), free(s->activated), free(s->normed), free(s->unit), free(s->scores);
    zeros_free(s->cache, s->layer_bytes * s->m.layers);
}

/* `s` is all zeros; 0 where memory is refused, and then runner_clear is due. `m` is copied; what it
 * points to must outlive the runner. */
static int runner_init(runner_t *s, pool_t *pool, const model_t *m) {
    s->m = *m;
    s->pool = pool;
    s->attention = (attention_t){.heads = m->heads,
                                 .kv_heads = m->kv_heads,
                                 .head_dim = m->head_dim,
                                 .block_size = m->block_size,
                                 .wide = m->wide_cache};
    s->layer_bytes = (size_t)m->num_blocks * m->kv_heads * kv_block_elements(&s->attention) *
                     (m->wide_cache ? 4 : 2);
    s->cache = zeros_alloc(s->layer_bytes * m->layers);
    s->scores = calloc((size_t)pool->threads, sizeof *s->scores);
    return s->cache && s->scores;
}

#endif
