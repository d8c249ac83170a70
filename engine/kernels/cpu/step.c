/* One step of a Llama-family decoder on a CPU: rows in, logits out, and tokens out of logits.
 *
 * forward() is the step, to be read from top to bottom; each line is one job for the pool. The
 * plain C interface at the end is all that others may call. */
#include "head.h"
#include "runner.h"
#include "sample.h"

#define EXPORT __attribute__((visibility("default")))

/* ---- the step ---- */

/* `head`: null, or one that is to have the features of all rows. */
static void forward(runner_t *s, step_t *step, head_t *head) {
    const model_t *m = &s->m;
    int rows = step->rows;
    over_rows(s, embed_rows, rows);
    for (int n = 0; n < m->layers; n++) {
        const layer_t *layer = &m->layer[n];
        if (head) take_features(head, s->x, n, rows);
        norm(s, layer->attention_norm, &layer->qkv, NULL, rows);
        run_layer(s, layer, s->cache + (size_t)n * s->layer_bytes, &s->hidden_rows, rows);
    }
    if (head) take_features(head, s->x, m->layers, rows);
    if (!step->wanted) return;
    norm(s, m->norm, &m->head, step->wanted_rows, step->wanted);
    s->to = step->logits;
    s->to_stride = (size_t)tiles_of(m->vocab) * LANES;
    over_tiles(s, store_tiles, &m->head, &s->hidden_rows, step->wanted, 1, tiles_of(m->vocab));
    for (int n = 0; n < step->wanted; n++)
        if (step->broken[step->wanted_rows[n]])
            for (int t = 0; t < m->vocab; t++) s->to[(size_t)n * s->to_stride + t] = NAN;
}

/* ---- sampling ---- */

typedef struct {
    judgement_t *judgements;
    const float *logits;
    size_t stride;
    int vocab;
    sampler_scratch_t *scratch; /* by thread */
} sampling_t;

static void judge_one(void *context, int piece, int thread) {
    sampling_t *s = context;
    judge(&s->judgements[piece], s->logits, s->stride, s->vocab, &s->scratch[thread]);
}

typedef struct {
    pool_t *pool;
    int vocab;
    sampler_scratch_t *scratch;
} sampler_t;

/* ---- the interface ---- */

EXPORT const char *wetink_isa(void) { return WETINK_ISA; }

EXPORT void *wetink_alloc(size_t bytes) { return big_alloc(bytes); }
EXPORT void wetink_free(void *p) { free(p); }

EXPORT pool_t *wetink_pool_new(int threads) { return pool_new(threads); }
EXPORT void wetink_pool_free(pool_t *p) { pool_free(p); }

typedef struct {
    runner_t target;
    head_t *head; /* or null */
} stepper_t;

EXPORT void wetink_runner_free(stepper_t *s) {
    if (!s) return;
    head_free(s->head);
    runner_clear(&s->target);
    free(s);
}

/* Null where memory is refused. `m` is copied; what it points to must outlive the runner. */
EXPORT stepper_t *wetink_runner_new(pool_t *pool, const model_t *m) {
    stepper_t *s = calloc(1, sizeof *s);
    if (s && runner_init(&s->target, pool, m)) return s;
    wetink_runner_free(s);
    return NULL;
}

/* Give the runner a draft head, before its first step; 0, or -1 where memory is refused. As for
 * the model: what `h` points to must outlive the runner. */
EXPORT int wetink_head_new(stepper_t *s, const head_model_t *h) {
    s->head = head_new(s->target.pool, h);
    return s->head ? 0 : -1;
}

/* 0, or -1 where memory is refused. Writes the cache, step->logits and step->broken. */
EXPORT int wetink_step(stepper_t *s, step_t *step) {
    pool_t *pool = s->target.pool;
    int64_t begun = begin_step(pool);
    step->linear_ns = step->attention_ns = step->row_ns = 0;
    s->target.step = step;
    int laid_out = lay_out(&s->target, step) && (!s->head || head_lay_out(s->head, step));
    if (laid_out) {
        memset(step->broken, 0, (size_t)step->rows * sizeof *step->broken);
        forward(&s->target, step, s->head);
        if (s->head) fill_head(s->head, step->rows);
    }
    step->total_ns = end_step(pool, begun);
    step->stalled_ns = pool->stalled_ns;
    return laid_out ? 0 : -1;
}

/* 0, or -1 where memory is refused. Writes the head's cache and what `d` points to. */
EXPORT int wetink_draft(stepper_t *s, draft_t *d) {
    int64_t begun = begin_step(s->target.pool);
    int status = draft(s->head, d);
    d->total_ns = end_step(s->target.pool, begun);
    return status;
}

EXPORT void wetink_sampler_free(sampler_t *s) {
    if (!s) return;
    scratch_free(s->scratch, s->pool->threads);
    free(s);
}

EXPORT sampler_t *wetink_sampler_new(pool_t *pool, int vocab) {
    sampler_t *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->pool = pool;
    s->vocab = vocab;
    s->scratch = scratch_new(pool->threads, vocab);
    if (s->scratch) return s;
    free(s);
    return NULL;
}

/* Judge `count` sequences over logits [rows][stride]; each judgement holds its own verdict. */
EXPORT void wetink_judge(sampler_t *s, judgement_t *judgements, int count, const float *logits,
                         size_t stride) {
    sampling_t job = {judgements, logits, stride, s->vocab, s->scratch};
    int64_t begun = begin_step(s->pool);
    run_job(s->pool, judge_one, &job, count);
    end_step(s->pool, begun);
}

/* Rows [rows][in] times `w`, for measurements and tests: y [rows][outputs rounded up to 16]. */
EXPORT int wetink_linear(pool_t *pool, const weight_t *w, float *x, int rows, float *y) {
    step_t step = {0};
    runner_t s = {.pool = pool, .step = &step, .to = y};
    rows_t from = {.f = x};
    int good = grow_rows(&from, w->in, rows, is_integer(w));
    if (good) {
        begin_step(pool);
        s.to_stride = (size_t)tiles_of(w->out) * LANES;
        over_tiles(&s, store_tiles, w, &from, rows, 0, tiles_of(w->out));
        atomic_store(&pool->invited, 0);
    }
    free_rows(&from);
    return good ? 0 : -1;
}
