/* What tests need to see of the kernels beyond their interface. */
#include "step.c"

EXPORT void probe_exp(const float *x, float *y, int count) {
    for (int i = 0; i < count; i += LANES) v_store(y + i, v_exp(v_load(x + i)));
}

EXPORT void probe_log(const double *x, double *y, int count) {
    for (int i = 0; i < count; i++) y[i] = exact_log(x[i]);
}

EXPORT void probe_round(const float *x, float *y, int count) {
    for (int i = 0; i < count; i += LANES) v_store(y + i, v_round(v_load(x + i)));
}

EXPORT void probe_largest(const float *x, const float *y, float *largest, float *least, int count) {
    for (int i = 0; i < count; i += LANES) {
        v_store(largest + i, v_max(v_load(x + i), v_load(y + i)));
        v_store(least + i, v_min(v_load(x + i), v_load(y + i)));
    }
}

EXPORT void probe_sums(const float *x, float *y, int rows) {
    for (int r = 0; r < rows; r++) y[r] = v_sum(v_load(x + r * LANES));
}

EXPORT void probe_first(const float *x, int count, float other, float *y) {
    v_store(y, v_first(v_load(x), count, other));
}

EXPORT void probe_halves(const uint16_t *x, float *y, int count) {
    for (int i = 0; i < count; i += LANES) v_store(y + i, v_load_f16(x + i));
}

EXPORT void probe_widen(const uint16_t *x, float *y, int count) {
    for (int i = 0; i < count; i += LANES) v_store(y + i, v_load_bf16(x + i));
}

EXPORT void probe_narrow(const float *x, uint16_t *y, int count) {
    for (int i = 0; i < count; i++) y[i] = float_to_bf16(x[i]);
}

EXPORT void probe_words(uint64_t seed, uint64_t position, uint32_t *words, int blocks) {
    for (int b = 0; b < blocks; b++)
        philox_words(seed, position, (uint64_t)b, words + b * WORDS_PER_BLOCK);
}

EXPORT void probe_gumbel(const uint32_t *words, double *noise, double *bound, int count) {
    for (int i = 0; i < count; i++) noise[i] = gumbel(words[i]), bound[i] = gumbel_bound(words[i]);
}

EXPORT void probe_quantise(float *x, int in, int8_t *q, float *scale, float *sum, int32_t *whole) {
    rows_t to = {.in = in, .q = q, .scale = scale, .sum = sum, .whole = whole};
    quantise_row(x, &to, 0);
}

EXPORT void probe_weight_row(const weight_t *w, int index, float *to) { weight_row(w, index, to); }

/* keys, values [tokens][kv heads][head_dim] */
EXPORT void probe_kv_write(const attention_t *a, void *layer, const int32_t *table, int from, int to,
                           const float *keys, const float *values) {
    for (int t = from; t < to; t++)
        for (int h = 0; h < a->kv_heads; h++) {
            size_t at = ((size_t)t * a->kv_heads + h) * a->head_dim;
            kv_write(a, layer, table[t / a->block_size], t % a->block_size, h, keys + at,
                     values + at);
        }
}

/* q, out [rows][heads][head_dim] */
EXPORT void probe_attend(const attention_t *a, void *layer, const int32_t *table, int start,
                         int rows, const float *q, float *out, float *scores) {
    size_t stride = (size_t)a->heads * a->head_dim;
    for (int h = 0; h < a->kv_heads; h++) {
        size_t at = (size_t)h * (a->heads / a->kv_heads) * a->head_dim;
        attend(a, layer, table, h, start, rows, q + at, stride, out + at, stride, scores);
    }
}

typedef struct {
    int number;
    int *taken;              /* [pieces]: number of the job, once each piece is done */
    unsigned char *by;       /* [threads] */
    _Atomic int faults;
    int work;
} job_t;

static void mark(void *context, int piece, int thread) {
    job_t *job = context;
    volatile unsigned sum = 0;
    for (int i = 0; i < job->work; i++) sum += (unsigned)i;
    if (job->taken[piece] == job->number) atomic_fetch_add(&job->faults, 1);
    job->taken[piece] = job->number;
    job->by[thread] = 1;
}

/* Runs jobs of random sizes in steps of up to ten jobs; between some steps everyone falls asleep.
 * Returns how many pieces were done twice or not at all; `by` [threads] says who helped. */
EXPORT int probe_jobs(pool_t *pool, int jobs, int most_pieces, int work, int naps, uint32_t seed,
                      unsigned char *by) {
    job_t job = {.taken = calloc((size_t)most_pieces, sizeof(int)), .by = by, .work = work};
    int in_step = 0, faults = 0;
    int64_t begun = 0;
    for (job.number = 1; job.number <= jobs; job.number++) {
        if (!in_step) {
            seed = seed * 1664525u + 1013904223u;
            in_step = 1 + (int)((seed >> 8) % 10);
            if (naps && job.number % (jobs / naps + 1) == 0)
                nanosleep(&(struct timespec){0, 2000000}, NULL);
            begun = begin_step(pool);
        }
        seed = seed * 1664525u + 1013904223u;
        int pieces = 1 + (int)((seed >> 8) % (uint32_t)most_pieces);
        run_job(pool, mark, &job, pieces);
        for (int n = 0; n < pieces; n++) faults += job.taken[n] != job.number;
        if (!--in_step) end_step(pool, begun);
    }
    free(job.taken);
    return faults + job.faults;
}
