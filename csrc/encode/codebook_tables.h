/* codebook_tables.h - lookup structures of the codebook encoders, built at first use (2 to 12 ms each). */
#ifndef QC_CODEBOOK_TABLES_H
#define QC_CODEBOOK_TABLES_H
#include <stdint.h>

enum { QC_GRID_IQ2_XXS, QC_GRID_IQ2_XS, QC_GRID_IQ2_S, QC_GRID_IQ1, QC_GRID_IQ3_XXS, QC_GRID_IQ3_S, QC_GRIDS };
enum { QC_NEIGHBOURS = 16 };

/* An integer point is the vector of ranks (0..2 in 8 dimensions, 0..7 in 4). Its number has one digit per element, the
 * first the lowest, in base 3 (6561 points) or 8 (4096). A packed point has 2 or 3 bits per element. */
typedef struct {
    /* Packed grid points nearest to a point, by distance, then grid index; the same in low bytes and high bytes. */
    _Alignas(64) uint16_t neighbours[6561][QC_NEIGHBOURS];
    uint8_t planes[6561][2][QC_NEIGHBOURS];
    uint16_t index[6561]; /* grid index of a point that is on the grid */
} qc_codebook;

/* NULL when memory ran out. Thread-safe; the table lives as long as the process. */
const qc_codebook *qc_codebook_of(int grid);

/* Base-3 numbers: of a byte of bits (digit i = bit i), and of a byte of packed ranks (4 digits). */
extern uint16_t qc_base3_bits[256], qc_base3_packed[256];
#endif
