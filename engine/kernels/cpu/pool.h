/* Threads that help with one job at a time, and are never waited for unless they hold a piece.
 *
 * A job is cut into pieces that any thread may take. The caller works too; when no piece is left
 * it waits only for pieces that others have taken. A helper that the system has put aside between
 * two pieces costs nothing, so a step goes on at the speed of the cores it really gets. Helpers
 * spin briefly between jobs and sleep between steps. When the caller keeps waiting for helpers
 * that were interrupted inside a piece, it does without them for a while.
 *
 * Pieces write disjoint results and read nothing that other pieces of the job write: who does which
 * never shows in them. */
#ifndef WETINK_POOL_H
#define WETINK_POOL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#if defined(__linux__)
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__x86_64__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() ((void)0)
#endif

#define SPINS_BETWEEN_JOBS 4000 /* about 50 microseconds */
#define SPINS_FOR_PIECES 2000
#define STALL_NS 150000       /* waiting longer than this for one piece: it was interrupted */
#define STALL_SHARE 0.15      /* of a step; above it helpers do more harm than good */
#define FIRST_PAUSE 16        /* steps without helpers after that, doubled while it goes on */
#define LONGEST_PAUSE 256

typedef void (*piece_fn)(void *context, int piece, int thread);

typedef struct pool pool_t;

typedef struct {
    pool_t *pool;
    int number;
    pthread_t handle;
} helper_t;

struct pool {
    /* Job number (24 bits), pieces (20 bits), next piece (20 bits), in one word: whoever takes a
     * piece knows from that word alone whether there was one. */
    _Alignas(64) _Atomic uint64_t ticket;
    _Alignas(64) _Atomic uint32_t done;
    _Alignas(64) _Atomic uint32_t caller_sleeps;
    _Alignas(64) _Atomic uint32_t wake;
    _Atomic uint32_t sleepers, invited, leaving;
    piece_fn work;
    void *context;
    int threads; /* the caller included */
    int pause, pause_length;
    int64_t stalled_ns;
    helper_t *helpers;
};

static inline int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void sleep_while(_Atomic uint32_t *word, uint32_t value) {
#if defined(__linux__)
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
#else
    struct timespec brief = {0, 50000};
    if (atomic_load(word) == value) nanosleep(&brief, NULL);
#endif
}

static inline void wake_all(_Atomic uint32_t *word) {
#if defined(__linux__)
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
#else
    (void)word;
#endif
}

#define PIECE_BITS 20
#define PIECE_MASK ((1u << PIECE_BITS) - 1u)
/* Every thread may count one piece too many before it sees that none was left; this leaves room for
 * half a million of them. */
#define MOST_PIECES (1 << (PIECE_BITS - 1))

/* Take and do one piece; 0 where none is left. */
static inline int do_piece(pool_t *p, int thread) {
    uint64_t seen = atomic_load_explicit(&p->ticket, memory_order_relaxed);
    if ((seen & PIECE_MASK) >= (seen >> PIECE_BITS & PIECE_MASK)) return 0;
    seen = atomic_fetch_add_explicit(&p->ticket, 1, memory_order_acq_rel);
    uint32_t piece = seen & PIECE_MASK, pieces = seen >> PIECE_BITS & PIECE_MASK;
    if (piece >= pieces) return 0;
    p->work(p->context, (int)piece, thread);
    uint32_t done = atomic_fetch_add(&p->done, 1) + 1;
    if (thread && done == pieces && atomic_load(&p->caller_sleeps)) wake_all(&p->done);
    return 1;
}

static void *helper_main(void *argument) {
    helper_t *self = argument;
    pool_t *p = self->pool;
    int idle = 0;
    while (!atomic_load_explicit(&p->leaving, memory_order_relaxed)) {
        if (atomic_load_explicit(&p->invited, memory_order_relaxed) && do_piece(p, self->number)) {
            idle = 0;
            continue;
        }
        if (++idle < SPINS_BETWEEN_JOBS) {
            RELAX();
            continue;
        }
        uint32_t value = atomic_load(&p->wake);
        atomic_fetch_add(&p->sleepers, 1);
        uint64_t seen = atomic_load(&p->ticket);
        int work = atomic_load(&p->invited) &&
                   (seen & PIECE_MASK) < (seen >> PIECE_BITS & PIECE_MASK);
        if (!work && !atomic_load(&p->leaving)) sleep_while(&p->wake, value);
        atomic_fetch_sub(&p->sleepers, 1);
        idle = 0;
    }
    return NULL;
}

/* A helper that is just about to fall asleep may be missed; it then misses this job alone, as the
 * next call finds it among the sleepers. */
static void call_helpers(pool_t *p) {
    if (atomic_load_explicit(&p->sleepers, memory_order_relaxed)) {
        atomic_fetch_add(&p->wake, 1);
        wake_all(&p->wake);
    }
}

static void wait_for_pieces(pool_t *p, uint32_t pieces) {
    if (atomic_load_explicit(&p->done, memory_order_acquire) == pieces) return;
    for (int n = 0; n < SPINS_FOR_PIECES; n++) {
        RELAX();
        if (atomic_load_explicit(&p->done, memory_order_acquire) == pieces) return;
    }
    int64_t from = now_ns();
    atomic_store(&p->caller_sleeps, 1);
    uint32_t done;
    while ((done = atomic_load(&p->done)) != pieces) sleep_while(&p->done, done);
    atomic_store(&p->caller_sleeps, 0);
    int64_t waited = now_ns() - from;
    if (waited > STALL_NS) p->stalled_ns += waited;
}

/* Do pieces 0 … pieces - 1 of `work`; returns when all are done. */
static void run_job(pool_t *p, piece_fn work, void *context, int pieces) {
    if (p->threads == 1 || p->pause || pieces == 1 || pieces > MOST_PIECES) {
        for (int n = 0; n < pieces; n++) work(context, n, 0);
        return;
    }
    p->work = work;
    p->context = context;
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    uint64_t job = (atomic_load_explicit(&p->ticket, memory_order_relaxed) >> (2 * PIECE_BITS)) + 1;
    atomic_store_explicit(&p->ticket, job << (2 * PIECE_BITS) | (uint64_t)pieces << PIECE_BITS,
                          memory_order_release);
    call_helpers(p);
    while (do_piece(p, 0)) {}
    wait_for_pieces(p, (uint32_t)pieces);
}

/* Around the jobs of one step. */
static int64_t begin_step(pool_t *p) {
    p->stalled_ns = 0;
    if (p->pause) p->pause--;
    atomic_store(&p->invited, p->threads > 1 && !p->pause);
    return now_ns();
}

static int64_t end_step(pool_t *p, int64_t begun) {
    int64_t took = now_ns() - begun;
    atomic_store(&p->invited, 0);
    if (p->stalled_ns > (int64_t)(STALL_SHARE * (double)took)) {
        p->pause = p->pause_length;
        p->pause_length = p->pause_length * 2 > LONGEST_PAUSE ? LONGEST_PAUSE : p->pause_length * 2;
    } else if (!p->pause) {
        p->pause_length = p->pause_length > FIRST_PAUSE ? p->pause_length - 1 : FIRST_PAUSE;
    }
    return took;
}

static void pool_free(pool_t *p) {
    atomic_store(&p->leaving, 1);
    atomic_fetch_add(&p->wake, 1);
    wake_all(&p->wake);
    for (int n = 1; n < p->threads; n++) pthread_join(p->helpers[n].handle, NULL);
    free(p->helpers);
    free(p);
}

/* Null where memory or threads are refused. */
static pool_t *pool_new(int threads) {
    pool_t *p = NULL;
    if (posix_memalign((void **)&p, 64, sizeof *p)) return NULL;
    memset(p, 0, sizeof *p);
    p->pause_length = FIRST_PAUSE;
    p->helpers = calloc((size_t)threads, sizeof *p->helpers);
    p->threads = 1;
    for (int n = 1; p->helpers && n < threads; n++) {
        p->helpers[n].pool = p;
        p->helpers[n].number = n;
        if (pthread_create(&p->helpers[n].handle, NULL, helper_main, &p->helpers[n])) break;
        p->threads++;
    }
    if (p->helpers && p->threads == threads) return p;
    pool_free(p);
    return NULL;
}

#endif
