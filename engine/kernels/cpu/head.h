/* An EAGLE-3 draft head (Li et al. 2025): one layer that guesses the target's next tokens from
 * what the target computed for the last one.
 *
 * The head's row for token s of a sequence joins the embedding of token s with the feature of token
 * s - 1 (inputs of some of the target's layers, made one vector by `fc`) and foretells token s + 1.
 * Its keys and values lie at place s of the sequence's own blocks, in a cache that is one more layer
 * of the target's: same blocks, same numbers.
 *
 * Keys and values of that layer depend on token s and feature s - 1 alone, so every step of the
 * target also writes them for all of its rows, whoever drafts (fill_head). Features are kept per
 * place, because the first row of a step needs one from the step before, or, after a prefix hit,
 * from another sequence with the same tokens. Hence, wherever the target's keys of a place are
 * valid, so are the head's, and what lies at a place depends on the tokens up to there and on none
 * behind: blocks can be shared, cut off and computed again as the target's own.
 *
 * A draft starts at the last committed token, the only one whose keys are missing, and writes its
 * own guesses' behind it. A row looks at places 1 … s: committed ones, written by the target's
 * steps, and those that this draft has written. Place 0 has no feature and is never looked at. */
#ifndef WETINK_HEAD_H
#define WETINK_HEAD_H

#include "runner.h"
#include "sample.h"

#define CHANCE_PLACES 16
#define CHANCE_LEVELS 16

typedef struct {
    /* One layer; `attention_norm` is the feature's norm, qkv takes [embedding, feature]. `context`
     * as the target's; `vocab` counts the head's own tokens. */
    model_t m;
    int32_t features, target_vocab;
    const int32_t *feature_layers; /* [features]: the input of that layer; m.layers: the last's
                                      output */
    const float *embedding_norm;   /* [hidden] */
    weight_t fc;                   /* [hidden, features * hidden] */
    names_t names;
    const uint8_t *ends; /* [target_vocab]: tokens that no draft goes on to */
} head_model_t;

typedef struct {
    int32_t token, place; /* the last committed token and its place, at least 1 */
    int32_t limit;        /* most tokens; the blocks reach to place + limit - 1 */
    int32_t count;        /* drafted */
    const int32_t *blocks;
    /* [CHANCE_PLACES][CHANCE_LEVELS]: chance that a token is right once those before it are, by its
     * place in the draft and its probability. */
    const float *chances;
    judgement_t *judgement; /* how the target will choose; its `draft` is `tokens` */
    int32_t *tokens;        /* [limit] */
    float *probability;     /* [limit], by the head's bare logits */
    float *confidence;      /* [limit], that it and all before it are right */
} drafting_t;

typedef struct {
    int32_t count, pad;
    drafting_t *drafts; /* [count] */
    float floor, usual; /* a draft stops where confidence * usual falls below the floor */
    int64_t total_ns;
} draft_t;

typedef struct {
    runner_t r; /* first: jobs get a pointer to it */
    head_model_t h;
    weight_t kv;   /* the part of qkv that gives keys and values */
    char *kept;    /* [num_blocks * block_size][hidden], as wide as the cache */
    size_t kept_bytes;
    int capacity, logits_capacity;
    int own;       /* the running job's features are its rows' own, not kept ones */
    float *features, *pairs; /* [rows][features * hidden], [rows][2 * hidden] */
    rows_t feature_rows, pair_rows;
    int64_t *before; /* by row: the place of the token before, counted through all blocks, or -1 */
    /* While drafting, by row. */
    drafting_t **drafting;
    int32_t *token, *broken;
    span_t *span;
    float *logits;
    const int32_t *step_tokens;
    sampler_scratch_t *scratch; /* by thread */
    step_t guesses;
} head_t;

/* ---- memory ---- */

static void head_free(head_t *h) {
    if (!h) return;
    runner_clear(&h->r);
    free_rows(&h->feature_rows), free_rows(&h->pair_rows);
    zeros_free(h->kept, h->kept_bytes);
    free(h->features), free(h->pairs), free(h->before), free(h->drafting);
    free(h->token), free(h->broken), free(h->span), free(h->logits);
    scratch_free(h->scratch, h->r.pool->threads);
    free(h);
}

static head_t *head_new(pool_t *pool, const head_model_t *model) {
    const model_t *m = &model->m;
    head_t *h = calloc(1, sizeof *h);
    if (!h) return NULL;
    h->h = *model;
    size_t kept = (size_t)m->num_blocks * m->block_size * m->hidden * (m->wide_cache ? 4 : 2);
    int vocab = m->vocab > model->target_vocab ? m->vocab : model->target_vocab;
    int good = runner_init(&h->r, pool, m);
    h->kept = zeros_alloc(kept);
    h->kept_bytes = kept;
    h->scratch = scratch_new(pool->threads, vocab);
    if (!good || !h->kept || !h->scratch) {
        head_free(h);
        return NULL;
    }
    h->r.attention.unseen = 1;
    int queries = m->heads * m->head_dim;
    h->kv = m->layer[0].qkv;
    h->kv.out -= queries;
    h->kv.data = (const char *)h->kv.data + (size_t)(queries / LANES) * tile_bytes(&h->kv);
    if (h->kv.bias) h->kv.bias += queries;
    return h;
}

static int head_reserve(head_t *h, int rows) {
    if (rows <= h->capacity) return 1;
    const model_t *m = &h->r.m;
    size_t n = (size_t)rows, wide = (size_t)h->h.features * m->hidden;
    h->capacity = 0;
    if (!(grow(&h->features, n * wide * 4) && grow(&h->pairs, n * 2 * m->hidden * 4) &&
          grow(&h->before, n * sizeof *h->before) && grow(&h->token, n * 4) &&
          grow(&h->broken, n * 4) && grow(&h->span, n * sizeof *h->span) &&
          grow(&h->drafting, n * sizeof *h->drafting) &&
          grow_rows(&h->feature_rows, (int)wide, rows, is_integer(&h->h.fc)) &&
          grow_rows(&h->pair_rows, 2 * m->hidden, rows, is_integer(&h->kv))))
        return 0;
    h->feature_rows.f = h->features;
    h->pair_rows.f = h->pairs;
    h->capacity = rows;
    return 1;
}

/* Where rows lie, for the head: turned by the place of their feature. */
static int head_lay_out(head_t *h, step_t *step) {
    if (!lay_out(&h->r, step) || !head_reserve(h, step->rows)) return 0;
    h->r.step = step;
    h->step_tokens = step->tokens;
    int size = h->r.m.block_size;
    for (int n = 0; n < step->spans; n++) {
        const span_t *span = &step->span[n];
        for (int r = 0; r < span->rows; r++) {
            int row = span->first_row + r, before = span->start + r - 1;
            h->r.position[row] = before < 0 ? 0 : before;
            h->before[row] =
                before < 0 ? -1 : (int64_t)span->blocks[before / size] * size + before % size;
        }
    }
    return 1;
}

/* ---- jobs over rows ---- */

static void keep_features(void *context, int piece, int thread) {
    head_t *h = context;
    (void)thread;
    runner_t *s = &h->r;
    int from, to, hidden = s->m.hidden;
    cut(s->count, s->pieces, piece, &from, &to);
    for (int row = from; row < to; row++) {
        size_t place = (size_t)s->block[row] * s->m.block_size + (size_t)s->offset[row];
        for (int i = 0; i < hidden; i++)
            put(&s->attention, h->kept, place * hidden + i, s->x[(size_t)row * hidden + i]);
    }
}

static void kept_feature(const head_t *h, int64_t place, float *to) {
    int hidden = h->r.m.hidden;
    if (place < 0) {
        memset(to, 0, (size_t)hidden * 4);
        return;
    }
    size_t at = (size_t)place * hidden;
    if (h->r.attention.wide) {
        memcpy(to, (const float *)h->kept + at, (size_t)hidden * 4);
        return;
    }
    for (int i = 0; i < hidden; i += LANES)
        v_store(to + i, v_load_bf16((const uint16_t *)h->kept + at + i));
}

/* Rows [embedding, feature], both normed, ready to be multiplied; x becomes the feature. */
static void pair_rows(void *context, int piece, int thread) {
    head_t *h = context;
    (void)thread;
    runner_t *s = &h->r;
    int from, to, hidden = s->m.hidden;
    cut(s->count, s->pieces, piece, &from, &to);
    for (int row = from; row < to; row++) {
        float *x = s->x + (size_t)row * hidden, *pair = h->pairs + (size_t)row * 2 * hidden;
        if (!h->own) kept_feature(h, h->before[row], x);
        weight_row(&s->m.embedding, h->step_tokens[row], pair + hidden);
        norm_row(pair + hidden, h->h.embedding_norm, s->m.rms_eps, hidden, pair);
        norm_row(x, s->m.layer[0].attention_norm, s->m.rms_eps, hidden, pair + hidden);
        if (is_integer(&h->kv)) quantise_row(pair, &h->pair_rows, row);
    }
}

/* ---- with the target's step ---- */

/* The target's rows [rows][hidden] as they enter layer `layer`. */
static void take_features(head_t *h, const float *x, int layer, int rows) {
    size_t hidden = (size_t)h->r.m.hidden, wide = hidden * h->h.features;
    for (int f = 0; f < h->h.features; f++) {
        if (h->h.feature_layers[f] != layer) continue;
        for (int row = 0; row < rows; row++)
            memcpy(h->features + row * wide + f * hidden, x + row * hidden, hidden * 4);
    }
}

/* Features, keys and values of the step's rows; features have been taken. */
static void fill_head(head_t *h, int rows) {
    runner_t *s = &h->r;
    s->to = s->x;
    s->to_stride = (size_t)s->m.hidden;
    over_tiles(s, store_tiles, &h->h.fc, &h->feature_rows, rows, 0, tiles_of(s->m.hidden));
    over_rows(s, keep_features, rows);
    h->own = 0;
    over_rows(s, pair_rows, rows);
    s->to = s->qkv + (size_t)s->m.heads * s->m.head_dim;
    s->to_stride = qkv_stride(&s->m);
    over_tiles(s, store_tiles, &h->kv, &h->pair_rows, rows, 1, tiles_of(h->kv.out));
    s->layer_cache = s->cache;
    s->keys_only = 1;
    over_rows(s, place_rows, rows);
}

/* ---- drafting ---- */

/* Probability of logit `at` among [vocab]. */
static float probability(const float *x, int vocab, int at) {
    f32x16 own = v_set(x[at]), total = v_zero();
    for (int t = 0; t < vocab; t += LANES)
        total = v_add(total, v_first(v_exp(v_sub(v_load(x + t), own)), vocab - t, 0.0f));
    return 1.0f / v_sum(total);
}

/* One more token for each row, from its logits. */
static void guess_rows(void *context, int piece, int thread) {
    head_t *h = context;
    const model_t *m = &h->r.m;
    drafting_t *d = h->drafting[piece];
    const float *x = h->logits + (size_t)piece * tiles_of(m->vocab) * LANES;
    int n = d->count;
    int place = h->broken[piece]
                    ? -1
                    : choose(d->judgement, n, x, m->vocab, &h->h.names, &h->scratch[thread]);
    int32_t token = place < 0 ? -1 : h->h.names.token_of[place];
    if (token < 0 || h->h.ends[token]) {
        d->limit = n;
        return;
    }
    float p = probability(x, m->vocab, place);
    int level = (int)(p * CHANCE_LEVELS);
    level = level < CHANCE_LEVELS ? level : CHANCE_LEVELS - 1;
    float before = n ? d->confidence[n - 1] : 1.0f;
    d->tokens[n] = token;
    d->probability[n] = p;
    d->confidence[n] = before * d->chances[n * CHANCE_LEVELS + level];
    d->count = n + 1;
}

/* Lay out a row for every draft that goes on, moving their features up; returns how many. */
static int next_rows(head_t *h, draft_t *d, int drafted, int rows) {
    size_t hidden = (size_t)h->r.m.hidden;
    int next = 0;
    for (int row = 0; row < rows; row++) {
        drafting_t *one = drafted ? h->drafting[row] : &d->drafts[row];
        if (one->count >= one->limit) continue;
        if (drafted && one->confidence[drafted - 1] * d->usual < d->floor) continue;
        h->drafting[next] = one;
        h->token[next] = drafted ? one->tokens[drafted - 1] : one->token;
        h->span[next] = (span_t){next, 1, one->place + drafted, 0, one->blocks};
        if (drafted && next != row)
            memcpy(h->r.x + next * hidden, h->r.x + row * hidden, hidden * 4);
        next++;
    }
    return next;
}

static int draft(head_t *h, draft_t *d) {
    runner_t *s = &h->r;
    const model_t *m = &s->m;
    size_t stride = (size_t)tiles_of(m->vocab) * LANES;
    if (!head_reserve(h, d->count)) return -1;
    if (d->count > h->logits_capacity) {
        h->logits_capacity = 0;
        if (!grow(&h->logits, (size_t)d->count * stride * 4)) return -1;
        h->logits_capacity = d->count;
    }
    int rows = d->count;
    for (int drafted = 0; (rows = next_rows(h, d, drafted, rows)); drafted++) {
        h->guesses = (step_t){.rows = rows, .spans = rows, .tokens = h->token, .span = h->span,
                              .broken = h->broken};
        if (!head_lay_out(h, &h->guesses)) return -1;
        memset(h->broken, 0, (size_t)rows * sizeof *h->broken);
        h->own = drafted > 0;
        over_rows(s, pair_rows, rows);
        run_layer(s, &m->layer[0], s->cache, &h->pair_rows, rows);
        norm(s, m->norm, &m->head, NULL, rows);
        s->to = h->logits;
        s->to_stride = stride;
        over_tiles(s, store_tiles, &m->head, &s->hidden_rows, rows, 1, tiles_of(m->vocab));
        run_job(s->pool, guess_rows, h, rows);
    }
    return 0;
}

#endif
