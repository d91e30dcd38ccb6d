// SPDX-License-Identifier: Apache-2.0
// Describes the CPU for people: its name from /proc/cpuinfo, the CPUs this process may use, and which of our levels
// of kernels it has. The level in use follows the same rule as the device itself: $MICA_CPU, else the best.
#include "base/base.h"
#include "base/thread.h"
#include "device/cpu/isa.h"
#include "mica/machine.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/** The value of /proc/cpuinfo's first line called `name`, in `out`; false if there is none. */
static bool read_value(FILE *f, const char *name, char *out, size_t size) {
    char line[256];
    rewind(f);
    while (fgets(line, sizeof line, f)) {
        const char *value = strncmp(line, name, strlen(name)) == 0 ? strchr(line, ':') : NULL;
        if (!value) continue;
        snprintf(out, size, "%s", value + 1 + strspn(value + 1, " \t"));
        out[strcspn(out, "\n")] = 0;
        return true;
    }
    return false;
}

/** x86 has a name for people; ARM the numbers of its maker and core. */
static void read_model(char *out, size_t size) {
    char maker[32], core[32];
    snprintf(out, size, "unknown");
    FILE *f = fopen("/proc/cpuinfo", "re");
    if (!f) return;
    if (!read_value(f, "model name", out, size) && read_value(f, "CPU implementer", maker, sizeof maker) &&
        read_value(f, "CPU part", core, sizeof core))
        snprintf(out, size, "ARM implementer %s, part %s", maker, core);
    fclose(f);
}

bool mica_machine_read(const char *name, mica_machine *machine, mica_error *err) {
    if (name && strcmp(name, "cpu") != 0) return mica_fail(err, MICA_ERR_ARGUMENT, "device \"%s\": there is no such device (known: cpu)", name);
    const char *wanted = getenv("MICA_CPU");
    const mica_cpu_isa *used = wanted && *wanted ? mica_cpu_isa_find(wanted) : mica_cpu_isa_best();
    if (!used) return mica_fail(err, MICA_ERR_ARGUMENT, "MICA_CPU: this CPU has no level \"%s\"", wanted);
    *machine = (mica_machine){.name = "cpu", .threads = (int32_t)mica_cpu_count(), .level = used->name};
    read_model(machine->model, sizeof machine->model);
    machine->memory_bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    for (const mica_cpu_isa *isa; machine->level_count < MICA_MACHINE_LEVELS; machine->level_count++) {
        if (!(isa = mica_cpu_isa_at((size_t)machine->level_count))) break;
        machine->levels[machine->level_count] = isa->name;
    }
    return true;
}
