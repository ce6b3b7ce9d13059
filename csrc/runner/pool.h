/* pool.h - a fixed set of threads that share the units of one job at a time. */
#ifndef QC_POOL_H
#define QC_POOL_H
#include "../runner.h"
#include <stddef.h>

/* One unit of a job. `thread` < threads of the pool; no two units run with the same `thread` at once. */
typedef void (*qc_work)(void *job, int64_t unit, qc_pool *pool, int32_t thread);

/* Run units 0 .. units - 1 and return when all are done. Which thread takes which unit depends on timing, so a unit
 * must write only what belongs to it; then results do not depend on the number of threads. */
void qc_pool_run(qc_pool *pool, qc_work work, void *job, int64_t units);

/* Scratch memory of one thread, 64-byte aligned, at least `bytes` long; kept until the pool is freed. NULL: no memory.
 */
void *qc_pool_scratch(qc_pool *pool, int32_t thread, size_t bytes);

/* The same, for data that all units read; one such buffer per slot. */
enum { QC_SHARED_SLOTS = 1 };
void *qc_pool_shared(qc_pool *pool, int32_t slot, size_t bytes);

/* Callers of one pool take turns. */
void qc_pool_enter(qc_pool *pool);
void qc_pool_leave(qc_pool *pool);
#endif
