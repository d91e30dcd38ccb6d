// SPDX-License-Identifier: Apache-2.0
// Curves drawn by gnuplot, a process that reads a script and writes SVG. Only numbers and the titles in this program get into the script, never
// a text from outside.
#include "cli/report.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

// ---- script --------------------------------------------------------------------------------------------------
static bool known(double v) { return isfinite(v); }

static size_t put_data(FILE *out, size_t number, const mica_cli_curve *c) {
    size_t n = 0;
    fprintf(out, "$data%zu << END\n", number);
    for (size_t i = 0; i < c->count; i++)
        if (known(c->x[i]) && known(c->y[i])) n++, fprintf(out, "%.17g %.17g\n", c->x[i], c->y[i]);
    fputs("END\n", out);
    return n;
}

static void put_axes(FILE *out, const mica_cli_plot *p) {
    fprintf(out, "set terminal svg size %d,%d dynamic noenhanced font 'Inter,Helvetica,Arial,sans-serif,13'\n", p->width, p->height);
    fputs("set border 3 linecolor rgb '#c3cad5'\nset tics nomirror textcolor rgb '#5b6472'\nset tics scale 0.5\n"
          "set grid ytics linecolor rgb '#e8ecf2' linetype 1 linewidth 1\nset key top right textcolor rgb '#2b3340' samplen 2 spacing 1.2\n"
          "set xlabel 'step' textcolor rgb '#5b6472' offset 0,0.4\nset rmargin 2\n", out);
    fprintf(out, "set xrange [0:%.17g]\nset format y '%s'\n", p->last > 0 ? p->last : 1, p->format);
    fputs(p->from_zero ? "set yrange [0:*]\nset offsets 0,0,graph 0.08,0\n" : "set offsets 0,0,graph 0.06,graph 0.06\n", out);
}

static void put_curve(FILE *out, size_t number, size_t points, const mica_cli_curve *c) {
    fprintf(out, "$data%zu using 1:2 with %s linecolor rgb '%s' linewidth %s", number, c->marked || points < 3 ? "linespoints pointtype 7 pointsize 0.5" : "lines",
            c->colour, c->thin ? "1" : "2");
    if (c->title) fprintf(out, " title '%s'", c->title);
    else fputs(" notitle", out);
}

static FILE *script_of(const mica_cli_plot *p) {
    FILE *out = tmpfile();
    if (!out) return NULL;
    size_t drawn = 0, points[8];
    put_axes(out, p);
    for (size_t i = 0; i < p->count && i < 8; i++) points[i] = put_data(out, i, &p->curves[i]);
    for (size_t i = 0; i < p->count && i < 8; i++) {
        if (!points[i]) continue;
        fputs(drawn++ ? ", " : "plot ", out);
        put_curve(out, i, points[i], &p->curves[i]);
    }
    if (!drawn) fputs("unset key\nset yrange [0:1]\nset label 'no data' at graph 0.5,0.5 center textcolor rgb '#5b6472'\nplot -1 notitle", out);
    fputc('\n', out);
    bool ok = fflush(out) == 0 && !ferror(out);
    rewind(out);
    if (!ok) fclose(out), out = NULL;
    return out;
}

// ---- process -------------------------------------------------------------------------------------------------
static bool start(FILE *script, int to, pid_t *pid) {
    posix_spawn_file_actions_t files;
    char *const argv[] = {(char *)(uintptr_t) "gnuplot", NULL};
    if (posix_spawn_file_actions_init(&files) != 0) return false;
    posix_spawn_file_actions_adddup2(&files, fileno(script), STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files, to, STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    errno = posix_spawnp(pid, "gnuplot", &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    return errno == 0;
}

static bool run(FILE *script, mica_cli_text *out) {
    int ends[2], status = 0;
    pid_t pid;
    if (pipe2(ends, O_CLOEXEC) != 0) return false;
    bool ok = start(script, ends[1], &pid);
    close(ends[1]);
    char chunk[1 << 14];
    for (ssize_t n; ok && ((n = read(ends[0], chunk, sizeof chunk)) > 0 || (n < 0 && errno == EINTR));)
        if (n > 0) mica_cli_append(out, chunk, (size_t)n);
    close(ends[0]);
    while (ok && waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    return ok && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool mica_cli_plot_draw(const mica_cli_plot *plot, mica_cli_text *svg) {
    mica_cli_text all = {0};
    FILE *script = script_of(plot);
    if (!script) return mica_cli_fail("report: cannot write a temporary file: %s", strerror(errno)), false;
    bool ran = run(script, &all);
    const char *from = ran && all.data ? strstr(all.data, "<svg") : NULL; // past the XML declaration, which a page does not want
    fclose(script);
    static const char title[] = "<title>Gnuplot</title>"; // which browsers would show as a tooltip
    char *named = from ? strstr(all.data, title) : NULL;
    if (named) memset(named, ' ', sizeof title - 1);
    if (from) mica_cli_append(svg, from, all.size - (size_t)(from - all.data));
    free(all.data);
    return from || (mica_cli_fail("report: gnuplot failed: is `gnuplot` in the PATH and sound?"), false);
}

bool mica_cli_report_possible(void) {
    const char *path = getenv("PATH");
    for (const char *at = path ? path : ""; *at;) {
        char file[4096];
        size_t n = strcspn(at, ":");
        snprintf(file, sizeof file, "%.*s/gnuplot", (int)n, at);
        if (access(file, X_OK) == 0) return true;
        at += n + (at[n] == ':');
    }
    mica_cli_fail("the report needs gnuplot, which is not installed (Debian: apt-get install gnuplot-nox)");
    return false;
}
