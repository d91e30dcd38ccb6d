// SPDX-License-Identifier: Apache-2.0
// Runs a fuzz harness over files: every argument is a file, or a folder whose files are taken. So each corpus, with
// every input that once broke a parser, is replayed by the ordinary tests, with any compiler and sanitizer.
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/** Runs the harness on one file's bytes, in a block of exactly their size so that an overrun is seen. */
static int replay_file(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) return perror(path), 1;
    struct stat st;
    if (fstat(fileno(f), &st) != 0) return perror(path), fclose(f), 1;
    size_t size = (size_t)st.st_size;
    uint8_t *data = malloc(size ? size : 1);
    int failed = !data || fread(data, 1, size, f) != size;
    fclose(f);
    if (failed) fprintf(stderr, "%s: cannot read\n", path);
    else LLVMFuzzerTestOneInput(data, size);
    free(data);
    return failed;
}

static int replay_folder(const char *path, int *count) {
    DIR *dir = opendir(path);
    if (!dir) return replay_file(path) ? 1 : (++*count, 0);
    int failed = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        char file[4096];
        if (e->d_name[0] == '.') continue;
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        failed |= replay_file(file);
        ++*count;
    }
    closedir(dir);
    return failed;
}

int main(int argc, char **argv) {
    int count = 0, failed = argc < 2;
    for (int i = 1; i < argc; i++) failed |= replay_folder(argv[i], &count);
    printf("%d inputs replayed\n", count);
    return failed || count == 0;
}
