/* levels.h - which level serves an instruction set of quantcli.h on this CPU. */
#ifndef QC_LEVELS_H
#define QC_LEVELS_H
#include "level.h"

enum { QC_PRODUCTS = 64 }; /* products that one dispatch takes */

const level *qc_level_of(int32_t isa); /* NULL: not supported by this CPU */
int qc_has_pairs(const level *l);      /* whether its bf16_pairs may be used on this CPU */
#endif
