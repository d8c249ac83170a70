/* From logits to tokens by the agreement rule; engine/sampling/sampler.py says what each step means
 * and is the reference that tests hold this against. Restrictions sort by logit, then index; noise
 * is numpy's Philox stream keyed by (seed, position). */
#ifndef WETINK_SAMPLE_H
#define WETINK_SAMPLE_H

#include <float.h>
#include <stdlib.h>

#include "vec.h"

typedef struct {
    /* What a request asks for. */
    uint64_t seed;
    double top_p;      /* 1 and above: no restriction */
    double presence, frequency;
    float temperature; /* 0: greedy */
    float min_p_log;   /* log(min_p); above 0: no restriction */
    float repetition;
    int32_t penalised, top_k, biased;
    const int32_t *bias_tokens;
    const float *bias_values;
    /* Where the sequence stands. */
    const int32_t *history; /* prompt and completion, only where penalised */
    const int32_t *draft;
    /* Which tokens may stand in a row, bit t of mask_words words: token t; null: any. */
    const uint32_t *masks;
    int32_t history_length, prompt_length, position, first_row, rows, mask_words;
    /* The verdict: tokens[0 … count - 1], the last one recovered or bonus. */
    int32_t *tokens;
    double *logprobs; /* null where nobody asks */
    int32_t count;
    int32_t failed; /* a row's logits were no numbers */
} judgement_t;

typedef struct {
    float *x;          /* [vocab rounded up to 16] */
    int32_t *counts;   /* [vocab], zero between uses */
    int32_t *kept;     /* [vocab] */
    int32_t *order;    /* [vocab] */
} sampler_scratch_t;

/* Logits of a head that knows only some tokens: logit n is token token_of[n]'s; place_of[token] is
 * -1 where it has none. Null: token n. */
typedef struct {
    const int32_t *token_of, *place_of;
} names_t;

/* Tokens further below the largest logit than this are left out of a head's draw: together they
 * win once in some hundred draws, and a draft may be wrong. */
#define DRAFT_REACH 9.0

/* ---- noise ---- */

static void philox_block(uint64_t seed, uint64_t position, uint64_t block, uint64_t out[4]) {
    /* Philox4x64-10 (Salmon et al. 2011); numpy counts blocks from 1. */
    uint64_t c0 = block + 1, c1 = 0, c2 = 0, c3 = 0, k0 = seed, k1 = position;
    for (int round = 0; round < 10; round++) {
        unsigned __int128 a = (unsigned __int128)0xD2E7470EE14C6C93ull * c0;
        unsigned __int128 b = (unsigned __int128)0xCA5A826395121157ull * c2;
        uint64_t n0 = (uint64_t)(b >> 64) ^ c1 ^ k0, n2 = (uint64_t)(a >> 64) ^ c3 ^ k1;
        c1 = (uint64_t)b, c3 = (uint64_t)a, c0 = n0, c2 = n2;
        k0 += 0x9E3779B97F4A7C15ull, k1 += 0xBB67AE8584CAA73Bull;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

#define WORDS_PER_BLOCK 8

static void philox_words(uint64_t seed, uint64_t position, uint64_t block, uint32_t words[8]) {
    uint64_t raw[4];
    philox_block(seed, position, block, raw);
    for (int n = 0; n < 4; n++) words[2 * n] = (uint32_t)raw[n], words[2 * n + 1] = raw[n] >> 32;
}

static double gumbel(uint32_t word) {
    return -exact_log(-exact_log(((double)word + 0.5) * 2.3283064365386963e-10));
}

/* No word with so many leading ones has more noise than this: -log(-log(1 - 2^-(n + 1))). */
static double gumbel_bound(uint32_t word) {
    int ones = word == 0xffffffffu ? 32 : __builtin_clz(~word);
    return 0.6931471805599453 * (ones + 1) + 1e-9;
}

/* ---- restrictions ---- */

static _Thread_local const float *sort_by;

static int by_logit(const void *left, const void *right) {
    int32_t a = *(const int32_t *)left, b = *(const int32_t *)right;
    if (sort_by[a] != sort_by[b]) return sort_by[a] > sort_by[b] ? -1 : 1;
    return a < b ? -1 : a > b;
}

static int by_index(const void *left, const void *right) {
    int32_t a = *(const int32_t *)left, b = *(const int32_t *)right;
    return a < b ? -1 : a > b;
}

/* Tokens of the pool (kept[0 … count), or the whole vocabulary where count < 0) whose logit is
 * above `floor`, sorted, largest first, into order. */
static int sorted_above(const float *x, int vocab, const int32_t *kept, int count, float floor,
                        int32_t *order) {
    int n = 0;
    if (count < 0) {
        for (int t = 0; t < vocab; t++)
            if (x[t] > floor) order[n++] = t;
    } else {
        for (int i = 0; i < count; i++)
            if (x[kept[i]] > floor) order[n++] = kept[i];
    }
    sort_by = x;
    qsort(order, (size_t)n, sizeof *order, by_logit);
    return n;
}

static const float DEPTHS[] = {8.0f, 16.0f, 32.0f, INFINITY};
#define NUM_DEPTHS 4

static int keep_first(int32_t *kept, const int32_t *order, int count) {
    memcpy(kept, order, (size_t)count * sizeof *kept);
    qsort(kept, (size_t)count, sizeof *kept, by_index);
    return count;
}

static int restrict_top_k(const float *x, int vocab, float highest, int k, sampler_scratch_t *s) {
    for (int d = 0;; d++) {
        float floor = d + 1 < NUM_DEPTHS ? highest - DEPTHS[d] : -INFINITY;
        int n = sorted_above(x, vocab, NULL, -1, floor, s->order);
        if (n >= k || d + 1 == NUM_DEPTHS) return keep_first(s->kept, s->order, n < k ? n : k);
    }
}

static double exp_of(float x) {
    float lanes[LANES];
    v_store(lanes, v_exp(v_set(x)));
    return lanes[0];
}

static int restrict_top_p(const float *x, int vocab, float highest, double mass, int count,
                          sampler_scratch_t *s) {
    double lanes[LANES] = {0}, total = 0.0;
    if (count < 0) {
        for (int t = 0; t < vocab; t += LANES) {
            float e[LANES];
            f32x16 v = v_exp(v_sub(v_load(x + t), v_set(highest)));
            v_store(e, v_first(v, vocab - t, 0.0f));
            for (int i = 0; i < LANES; i++) lanes[i] += e[i];
        }
        for (int i = 0; i < LANES; i++) total += lanes[i];
    } else {
        for (int i = 0; i < count; i++) total += exp_of(x[s->kept[i]] - highest);
    }
    double need = mass * total;
    for (int d = 0; d < NUM_DEPTHS; d++) {
        float floor = d + 1 < NUM_DEPTHS ? highest - DEPTHS[d] : -INFINITY;
        int n = sorted_above(x, vocab, s->kept, count, floor, s->order);
        double reached = 0.0;
        for (int i = 0; i < n; i++) {
            reached += exp_of(x[s->order[i]] - highest);
            if (reached >= need) return keep_first(s->kept, s->order, i + 1);
        }
    }
    return count; /* only rounding keeps a pool under its own mass */
}

/* ---- one token ---- */

static inline int place_of(const names_t *names, int32_t token) {
    return names ? names->place_of[token] : token;
}

static void penalise(const judgement_t *j, int row, float *x, const names_t *names,
                     sampler_scratch_t *s) {
    int length = j->history_length + row;
#define TOKEN(i) ((i) < j->history_length ? j->history[i] : j->draft[(i) - j->history_length])
    if (j->repetition != 1.0f) {
        for (int i = 0; i < length; i++) {
            int32_t token = TOKEN(i), t = place_of(names, token);
            if (t < 0 || s->counts[token]) continue;
            s->counts[token] = 1;
            x[t] = x[t] > 0 ? x[t] / j->repetition : x[t] * j->repetition;
        }
        for (int i = 0; i < length; i++) s->counts[TOKEN(i)] = 0;
    }
    if (j->presence != 0.0 || j->frequency != 0.0) {
        for (int i = j->prompt_length; i < length; i++) s->counts[TOKEN(i)]++;
        for (int i = j->prompt_length; i < length; i++) {
            int32_t token = TOKEN(i), t = place_of(names, token);
            int32_t times = s->counts[token];
            s->counts[token] = 0;
            if (t < 0 || !times) continue;
            x[t] -= (float)(j->presence + j->frequency * times);
        }
    }
#undef TOKEN
}

/* The first of the largest logits. -1 where that means nothing: one is NaN or plus infinity, or all
 * are minus infinity. */
static int largest_of(const float *x, int vocab) {
    f32x16 best = v_set(-INFINITY), odd = v_zero();
    for (int t = 0; t < vocab; t += LANES) {
        f32x16 v = v_first(v_load(x + t), vocab - t, -INFINITY);
        best = v_max(best, v);
        /* v_max gives its second argument for NaN; a finite number less itself is zero. */
        f32x16 above = v_max(v_set(-FLT_MAX), v);
        odd = v_add(odd, v_sub(above, above));
    }
    float highest = v_largest(best);
    if (v_sum(odd) != 0.0f || highest == -INFINITY) return -1;
    for (int t = 0; t < vocab; t++)
        if (x[t] == highest) return t;
    return -1;
}

/* The noisy arg-max of the kept tokens (count < 0: of all). Most tokens cannot win, which a bound
 * on their noise shows without a logarithm. */
static int draw(const judgement_t *j, int row, const float *x, int vocab, int count, int highest,
                const int32_t *kept, const names_t *names) {
    uint64_t position = (uint64_t)(j->position + row), block = UINT64_MAX;
    uint32_t words[WORDS_PER_BLOCK];
    int32_t named = names ? names->token_of[highest] : highest;
    philox_words(j->seed, position, (uint64_t)named / WORDS_PER_BLOCK, words);
    int best = highest, n = count < 0 ? vocab : count;
    double best_value = (double)x[highest] + gumbel(words[named % WORDS_PER_BLOCK]);
    float least = names ? x[highest] - (float)DRAFT_REACH : -INFINITY;
    for (int i = 0; i < n; i++) {
        int t = count < 0 ? i : kept[i];
        if ((double)x[t] + 23.6 < best_value) continue; /* more noise than any word has */
        if (x[t] < least) continue;
        named = names ? names->token_of[t] : t;
        if ((uint64_t)named / WORDS_PER_BLOCK != block) {
            block = (uint64_t)named / WORDS_PER_BLOCK;
            philox_words(j->seed, position, block, words);
        }
        uint32_t word = words[named % WORDS_PER_BLOCK];
        if ((double)x[t] + gumbel_bound(word) < best_value) continue;
        double value = (double)x[t] + gumbel(word);
        if (value > best_value || (value == best_value && t < best)) best = t, best_value = value;
    }
    return best;
}

/* Rules out what the row's mask does not allow. */
static void apply_mask(const judgement_t *j, int row, float *x, int vocab) {
    const uint32_t *mask = j->masks + (size_t)row * j->mask_words;
    for (int word = 0; word * 32 < vocab; word++) {
        uint32_t bits = word < j->mask_words ? mask[word] : 0;
        int last = vocab - word * 32 < 32 ? vocab - word * 32 : 32;
        if (bits == 0xffffffffu) continue;
        for (int bit = 0; bit < last; bit++)
            if (!(bits >> bit & 1)) x[word * 32 + bit] = -INFINITY;
    }
}

/* Token `row` after the sequence's own, as the place of its logit; -1 where the logits are no
 * numbers. */
static int choose(const judgement_t *j, int row, const float *logits, int vocab,
                  const names_t *names, sampler_scratch_t *s) {
    const float *x = logits;
    int padded = (vocab + LANES - 1) / LANES * LANES;
    if (j->penalised || j->biased || j->masks || j->temperature > 0.0f) {
        memcpy(s->x, logits, (size_t)padded * sizeof *s->x);
        x = s->x;
    }
    if (j->penalised) penalise(j, row, s->x, names, s);
    for (int i = 0; i < j->biased; i++) {
        int t = place_of(names, j->bias_tokens[i]);
        if (t >= 0) s->x[t] += j->bias_values[i];
    }
    if (j->masks) {
        if (largest_of(logits, vocab) < 0) return -1; /* whatever the mask would hide */
        apply_mask(j, row, s->x, vocab);
    }
    if (j->temperature > 0.0f)
        for (int t = 0; t < padded; t += LANES)
            v_store(s->x + t, v_div(v_load(s->x + t), v_set(j->temperature)));
    int highest = largest_of(x, vocab), count = -1;
    if (highest < 0) return -1;
    if (j->temperature <= 0.0f) return highest;
    if (j->top_k > 0 && j->top_k < vocab) count = restrict_top_k(x, vocab, x[highest], j->top_k, s);
    if (j->top_p < 1.0) count = restrict_top_p(x, vocab, x[highest], j->top_p, count, s);
    if (j->min_p_log <= 0.0f) {
        float edge = x[highest] + j->min_p_log;
        int n = 0;
        for (int i = 0; i < (count < 0 ? vocab : count); i++) {
            int t = count < 0 ? i : s->kept[i];
            if (x[t] >= edge) s->kept[n++] = t;
        }
        count = n;
    }
    return draw(j, row, x, vocab, count, highest, s->kept, names);
}

/* Log of the model's own probability: before temperature, penalties and restrictions. */
static double logprob(const float *x, int vocab, int token) {
    float highest = x[largest_of(x, vocab)];
    double lanes[LANES] = {0}, total = 0.0;
    for (int t = 0; t < vocab; t += LANES) {
        float e[LANES];
        f32x16 v = v_exp(v_sub(v_load(x + t), v_set(highest)));
        v_store(e, v_first(v, vocab - t, 0.0f));
        for (int i = 0; i < LANES; i++) lanes[i] += e[i];
    }
    for (int i = 0; i < LANES; i++) total += lanes[i];
    return (double)(x[token] - highest) - exact_log(total);
}

/* Judge one sequence's draft: rows of logits up to the first that disagrees. */
static void judge(judgement_t *j, const float *logits, size_t stride, int vocab,
                  sampler_scratch_t *s) {
    j->count = 0;
    j->failed = 0;
    for (int row = 0; row < j->rows; row++) {
        const float *x = logits + (size_t)(j->first_row + row) * stride;
        int token = choose(j, row, x, vocab, NULL, s);
        if (token < 0) {
            j->failed = 1;
            return;
        }
        j->tokens[j->count] = token;
        if (j->logprobs) j->logprobs[j->count] = logprob(x, vocab, token);
        j->count++;
        if (row + 1 < j->rows && token != j->draft[row]) return;
    }
}

/* ---- scratch ---- */

static void scratch_free(sampler_scratch_t *s, int threads) {
    for (int n = 0; s && n < threads; n++)
        free(s[n].x), free(s[n].counts), free(s[n].kept), free(s[n].order);
    free(s);
}

/* For a vocabulary of `vocab` tokens, one per thread; null where memory is refused. */
static sampler_scratch_t *scratch_new(int threads, int vocab) {
    sampler_scratch_t *s = calloc((size_t)threads, sizeof *s);
    size_t bytes = ((size_t)vocab + LANES - 1) / LANES * LANES * 4;
    int good = s != NULL;
    for (int n = 0; good && n < threads; n++) {
        s[n].counts = calloc(1, bytes);
        s[n].x = aligned_alloc(64, bytes);
        s[n].kept = malloc(bytes);
        s[n].order = malloc(bytes);
        good = s[n].counts && s[n].x && s[n].kept && s[n].order;
    }
    if (good) return s;
    scratch_free(s, threads);
    return NULL;
}

#endif
