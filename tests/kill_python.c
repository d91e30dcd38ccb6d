// SPDX-License-Identifier: Apache-2.0
// Kills the Python process of the backend mlx_lm at random moments while threads use the model, on the public headers only: each call must come back
// with an answer or an error, and at the end no process and no descriptor may be left.
//   kill_python MODEL KILLS
#include "mica/backend.h"
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 3 };
static mica_model *model;
static atomic_bool stopping;
static atomic_int answers, errors, odd;

static void *use(void *number) {
    for (unsigned i = 0; !atomic_load(&stopping); i++) {
        mica_error err = {0};
        mica_stream *s = mica_generate(model, "One, two,", 9, &(mica_generate_options){.max_tokens = 30, .seed = i, .temperature = 1}, &err);
        int tokens = 0;
        for (mica_token t; s && mica_stream_next(s, &t); tokens++)
            if (number && tokens == 10) mica_stream_cancel(s);
        mica_finish f = s ? mica_stream_finish(s) : MICA_FINISH_ERROR;
        if (s && f == MICA_FINISH_ERROR) mica_stream_error(s, &err);
        if (f == MICA_FINISH_NONE || (f == MICA_FINISH_ERROR) != (err.msg[0] != 0)) atomic_fetch_add(&odd, 1);
        atomic_fetch_add(f == MICA_FINISH_ERROR ? &errors : &answers, 1);
        mica_stream_free(s);
    }
    return NULL;
}

// The child process of this one, by the list that the kernel keeps for each thread; 0 if there is none.
static pid_t find_child(void) {
    pid_t pid = 0;
    DIR *d = opendir("/proc/self/task");
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[300], text[32] = "";
        snprintf(path, sizeof path, "/proc/self/task/%s/children", e->d_name);
        FILE *f = e->d_name[0] != '.' ? fopen(path, "r") : NULL;
        if (f && fgets(text, sizeof text, f)) pid = (pid_t)atoi(text);
        if (f) fclose(f);
    }
    if (d) closedir(d);
    return pid;
}

static int count_fds(void) {
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (d && readdir(d)) n++;
    if (d) closedir(d);
    return n;
}

int main(int argc, char **argv) {
    mica_error err = {0};
    int fds = count_fds(), kills = argc > 2 ? atoi(argv[2]) : 10, done = 0;
    pthread_t threads[THREADS];
    model = argc > 1 ? mica_model_load(argv[1], &(mica_load_options){.backend = "mlx_lm"}, &err) : NULL;
    if (!model) return fprintf(stderr, "%s\n", err.msg), 1;
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, use, i ? &threads[i] : NULL)) return 1;
    for (unsigned random = 99; done < kills;) {
        random = random * 1103515245u + 12345u;
        long ms = (random >> 16) % 4000;
        nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
        pid_t pid = find_child();
        done += pid && kill(pid, SIGKILL) == 0;
    }
    atomic_store(&stopping, true);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    mica_stream *s = mica_generate(model, "One", 3, &(mica_generate_options){.max_tokens = 3}, &err);
    for (mica_token t; s && mica_stream_next(s, &t);) {}
    bool works = s && mica_stream_finish(s) != MICA_FINISH_ERROR;
    mica_stream_free(s);
    mica_model_free(model);
    bool orphans = waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD, leak = count_fds() != fds;
    printf("%d kills: %d answers, %d errors; works afterwards: %s; processes left: %s; descriptors left: %s\n", done, atomic_load(&answers),
           atomic_load(&errors), works ? "yes" : "no", orphans ? "yes" : "no", leak ? "yes" : "no");
    return !works || orphans || leak || atomic_load(&odd) || !atomic_load(&errors);
}
