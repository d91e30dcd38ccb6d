// SPDX-License-Identifier: Apache-2.0
// What this machine can do at most, as CSV: bytes read from memory a second on one thread and on all, and f32, bf16 and
// int8 multiplications and additions a second at every level, on all threads.
//   bench_limits [--read] [threads]     --read: the bandwidth of these threads only, quickly; threads 0 = all
#include "device/cpu/isa.h"
#include "limits.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    bool read_only = argc > 1 && !strcmp(argv[1], "--read");
    if (read_only) argc--, argv++;
    size_t threads = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
    (void)mica_cpu_isa_best(); // asks the system for AMX before the threads start
    mica_pool *one = mica_pool_new(1), *all = mica_pool_new(threads);
    if (!one || !all) return 1;
    printf("limit,level,threads,value,unit\n");
    if (!read_only) printf("read,,1,%.1f,GB/s\n", bench_limit_read(one) * 1e-9);
    if (read_only || mica_pool_threads(all) > 1) printf("read,,%zu,%.1f,GB/s\n", mica_pool_threads(all), bench_limit_read(all) * 1e-9);
    for (size_t i = 0; !read_only && mica_cpu_isa_at(i); i++)
        for (int type = 0; type < BENCH_TYPES; type++) {
            double peak = bench_limit_peak(all, mica_cpu_isa_at(i)->name, type);
            if (peak > 0)
                printf("%s,%s,%zu,%.1f,G%s/s\n", bench_limit_types[type], mica_cpu_isa_at(i)->name, mica_pool_threads(all), peak * 1e-9,
                       type == BENCH_INT8 ? "OP" : "FLOP");
        }
    mica_pool_free(one), mica_pool_free(all);
    return 0;
}
