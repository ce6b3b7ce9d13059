/* backends.h - which backend serves an instruction set of quantcli.h (or number QC_RUNNER_BACKEND + i) on this CPU. */
#ifndef QC_RUNNER_BACKENDS_H
#define QC_RUNNER_BACKENDS_H
#include "backend.h"

const runner_backend *qc_runner_of(int32_t isa); /* NULL: not supported by this CPU */
#endif
