/* pool.c - threads that spin briefly, then sleep; a job's units are claimed from one atomic word, several at a time
 * while many are left, so that each thread reads long stretches of memory. */
#define _POSIX_C_SOURCE 200112L
#include "backend.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { MOST_THREADS = 256, SPINS = 4000 };

typedef struct {
    void *data;
    size_t bytes;
} buffer;
typedef struct {
    qc_pool *pool;
    int32_t number;
} member;

struct qc_pool {
    int32_t threads;
    pthread_t ids[MOST_THREADS];
    member members[MOST_THREADS];
    buffer scratch[MOST_THREADS], shared[QC_SHARED_SLOTS];
    pthread_mutex_t callers, sleep;
    pthread_cond_t wake, done;
    int sleepers, stop;
    qc_work work;
    void *job;
    int64_t units;
    _Atomic uint64_t ticket; /* number of the job << 32 | units that nobody has claimed */
    _Atomic int64_t pending; /* units that are not done */
};

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Units that a thread claims at once: half of an equal part of those that are left, so that the last ones are single.
 */
static inline uint32_t share_of(const qc_pool *pool, uint32_t left) {
    const uint32_t share = left / (2 * (uint32_t)pool->threads);
    return share ? share : 1;
}

/* Claim units until none is left. A stale thread sees 0 unclaimed units, or fails the exchange because the job number
 * in the same word has changed; so work, job and units are those of the claimed unit. */
static void take_part(qc_pool *pool, int32_t thread) {
    uint64_t ticket = atomic_load(&pool->ticket);
    while ((uint32_t)ticket) {
        const uint32_t left = (uint32_t)ticket, count = share_of(pool, left);
        if (!atomic_compare_exchange_weak(&pool->ticket, &ticket, ticket - count)) continue;
        const int64_t first = pool->units - (int64_t)left;
        for (int64_t unit = first; unit < first + count; ++unit) pool->work(pool->job, unit, pool, thread);
        if (atomic_fetch_sub(&pool->pending, count) == count) {
            pthread_mutex_lock(&pool->sleep);
            pthread_cond_signal(&pool->done);
            pthread_mutex_unlock(&pool->sleep);
        }
        ticket = atomic_load(&pool->ticket);
    }
}

static void *worker(void *argument) {
    qc_pool *pool = ((member *)argument)->pool;
    int32_t number = ((member *)argument)->number;
    for (;;) {
        int spins = 0;
        while (!(uint32_t)atomic_load(&pool->ticket) && ++spins < SPINS) relax();
        if (spins >= SPINS) {
            pthread_mutex_lock(&pool->sleep);
            ++pool->sleepers;
            while (!pool->stop && !(uint32_t)atomic_load(&pool->ticket)) pthread_cond_wait(&pool->wake, &pool->sleep);
            --pool->sleepers;
            int stop = pool->stop;
            pthread_mutex_unlock(&pool->sleep);
            if (stop) return 0;
        }
        take_part(pool, number);
    }
}

void qc_pool_run(qc_pool *pool, qc_work work, void *job, int64_t units) {
    enum { MOST = 1 << 30 };
    if (units <= 0) return;
    if (pool->threads == 1 || units == 1 || units > MOST) {
        for (int64_t unit = 0; unit < units; ++unit) work(job, unit, pool, 0);
        return;
    }
    pool->work = work;
    pool->job = job;
    pool->units = units;
    atomic_store(&pool->pending, units);
    pthread_mutex_lock(&pool->sleep); /* a worker checks the ticket with this lock before it sleeps */
    atomic_store(&pool->ticket, ((atomic_load(&pool->ticket) >> 32) + 1) << 32 | (uint64_t)units);
    if (pool->sleepers) pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->sleep);
    take_part(pool, 0);
    for (int spins = 0; atomic_load(&pool->pending) && spins < SPINS; ++spins) relax();
    if (!atomic_load(&pool->pending)) return;
    pthread_mutex_lock(&pool->sleep);
    while (atomic_load(&pool->pending)) pthread_cond_wait(&pool->done, &pool->sleep);
    pthread_mutex_unlock(&pool->sleep);
}

qc_pool *qc_pool_new(int32_t threads) {
    if (threads < 1 || threads > MOST_THREADS) return 0;
    qc_pool *pool = calloc(1, sizeof *pool);
    if (!pool) return 0;
    pthread_mutex_init(&pool->callers, 0);
    pthread_mutex_init(&pool->sleep, 0);
    pthread_cond_init(&pool->wake, 0);
    pthread_cond_init(&pool->done, 0);
    qc_make_points();
    pool->threads = 1;
    for (int32_t i = 1; i < threads; ++i) {
        pool->members[i] = (member){pool, i};
        if (pthread_create(&pool->ids[i], 0, worker, &pool->members[i])) break;
        pool->threads = i + 1;
    }
    return pool;
}

void qc_pool_free(qc_pool *pool) {
    if (!pool) return;
    pthread_mutex_lock(&pool->sleep);
    pool->stop = 1;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->sleep);
    for (int32_t i = 1; i < pool->threads; ++i) pthread_join(pool->ids[i], 0);
    for (int32_t i = 0; i < pool->threads; ++i) free(pool->scratch[i].data);
    for (int32_t i = 0; i < QC_SHARED_SLOTS; ++i) free(pool->shared[i].data);
    pthread_mutex_destroy(&pool->callers);
    pthread_mutex_destroy(&pool->sleep);
    pthread_cond_destroy(&pool->wake);
    pthread_cond_destroy(&pool->done);
    free(pool);
}

int32_t qc_pool_threads(const qc_pool *pool) { return pool->threads; }
void qc_pool_enter(qc_pool *pool) { pthread_mutex_lock(&pool->callers); }
void qc_pool_leave(qc_pool *pool) { pthread_mutex_unlock(&pool->callers); }

static void *grown(buffer *b, size_t bytes) {
    if (b->bytes >= bytes && b->data) return b->data;
    free(b->data);
    b->data = 0;
    b->bytes = (bytes + bytes / 4 + 4095) / 4096 * 4096;
    if (posix_memalign(&b->data, 4096, b->bytes)) {
        b->data = 0;
        b->bytes = 0;
    }
    return b->data;
}

void *qc_pool_scratch(qc_pool *pool, int32_t thread, size_t bytes) { return grown(&pool->scratch[thread], bytes); }
void *qc_pool_shared(qc_pool *pool, int32_t slot, size_t bytes) { return grown(&pool->shared[slot], bytes); }
