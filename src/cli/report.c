// SPDX-License-Identifier: Apache-2.0
// The report page: one HTML file without scripts that needs nothing beside it. Figures at the top, curves (gnuplot's SVG), what the model said
// before and after, the configuration. Every text that is not this file's own is escaped.
#include "cli/report.h"
#include "cli/cmd.h"
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char style[] =
    "*{box-sizing:border-box}body{margin:0;background:#f4f6f9;color:#1f2733;font:15px/1.5 Inter,'Segoe UI',Helvetica,Arial,sans-serif}"
    "main{max-width:1120px;margin:0 auto;padding:36px 24px 48px}h1{font-size:26px;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}"
    "h2{font-size:17px;margin:36px 0 12px}.sub{color:#5b6472;margin:0 0 24px}"
    ".card{background:#fff;border:1px solid #e1e6ee;border-radius:10px;padding:16px 18px}"
    ".figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(196px,1fr));gap:12px}.figures .card{padding:12px 16px}"
    ".figures b{display:block;font-size:21px;white-space:nowrap;font-weight:600;line-height:1.3}.figures span{color:#5b6472;font-size:13px}"
    ".plots{display:grid;grid-template-columns:1fr 1fr;gap:12px}.plots .wide{grid-column:1/-1}.plots h3{font-size:14px;font-weight:600;margin:0 0 4px}"
    ".plots svg{display:block;width:100%;height:auto}@media(max-width:760px){.plots{grid-template-columns:1fr}}"
    ".sample{margin-bottom:12px}.sample h3,.answers h4{margin:0 0 4px;font-size:12px;font-weight:600;color:#5b6472;letter-spacing:.02em}"
    ".answers{display:grid;grid-template-columns:repeat(auto-fit,minmax(240px,1fr));gap:16px;margin-top:14px;padding-top:14px;border-top:1px solid #e8ecf2}"
    "pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;font:14px/1.5 inherit;font-family:inherit}.none{color:#8a93a1}"
    ".answers .after{border-left:3px solid #2563c9;padding-left:12px}"
    "table{border-collapse:collapse;width:100%}td{padding:5px 12px 5px 0;border-bottom:1px solid #eef1f6;vertical-align:top;overflow-wrap:anywhere}"
    "tr:last-child td{border-bottom:0}td:first-child{color:#5b6472;width:190px}.columns{columns:2;column-gap:40px}.columns tr{break-inside:avoid}"
    "footer{color:#8a93a1;font-size:13px;margin-top:28px}@media print{body{background:#fff}.card{break-inside:avoid}}";

enum { BLUE_THIN = 40 }; // more reports than this: a smoothed curve is drawn over them

static void put_text(FILE *out, const char *s) {
    for (; s && *s; s++)
        switch (*s) {
        case '&': fputs("&amp;", out); break;
        case '<': fputs("&lt;", out); break;
        case '>': fputs("&gt;", out); break;
        case '"': fputs("&quot;", out); break;
        case '\'': fputs("&#39;", out); break;
        default: if ((unsigned char)*s >= 0x20 || *s == '\n' || *s == '\t') fputc(*s, out);
        }
}

// ---- figures -------------------------------------------------------------------------------------------------
static void put_figure(FILE *out, const char *what, const char *fmt, ...) MICA_PRINTF(3, 4);
static void put_figure(FILE *out, const char *what, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fputs("<div class=card><b>", out);
    vfprintf(out, fmt, args);
    fprintf(out, "</b><span>%s</span></div>\n", what);
    va_end(args);
}

/** "12.3 M" */
static const char *short_number(double v, char *out, size_t size) {
    static const char *const units[] = {"", " K", " M", " G"};
    size_t u = 0;
    while (v >= 1000 && u < 3) v /= 1000, u++;
    snprintf(out, size, u && v < 100 ? "%.1f%s" : "%.0f%s", v, units[u]);
    return out;
}

static double mean_speed(const mica_cli_run_log *log) {
    double sum = 0, n = 0;
    for (size_t i = 0; i < log->step_count; i++)
        if (isfinite(log->steps[i].tokens_per_second)) sum += log->steps[i].tokens_per_second, n++;
    return n > 0 ? sum / n : (double)NAN;
}

static void put_losses(FILE *out, const mica_cli_run_log *log) {
    size_t s = log->step_count, v = log->validation_count;
    if (s) put_figure(out, "training loss, first and last", "%.3f → %.3f", log->steps[0].loss, log->steps[s - 1].loss);
    if (v) put_figure(out, "validation loss, first and last", "%.3f → %.3f", log->validations[0].loss, log->validations[v - 1].loss);
    if (v) put_figure(out, "validation perplexity", "%.2f → %.2f", exp(log->validations[0].loss), exp(log->validations[v - 1].loss));
}

static void put_figures(FILE *out, const mica_cli_run_log *log) {
    char text[32], whole[32];
    const mica_cli_report_step *last = log->step_count ? &log->steps[log->step_count - 1] : NULL;
    fputs("<section class=figures>\n", out);
    put_losses(out, log);
    if (last && isfinite(log->planned) && last->step < log->planned) put_figure(out, "steps", "%.0f of %.0f", last->step, log->planned);
    else if (last) put_figure(out, "steps", "%.0f", last->step);
    if (last && isfinite(last->tokens)) put_figure(out, "scored tokens", "%s", short_number(last->tokens, text, sizeof text));
    if (isfinite(mean_speed(log))) put_figure(out, "tokens per second", "%.0f", mean_speed(log));
    if (last && isfinite(last->peak_memory_bytes)) put_figure(out, "most memory", "%s", mica_cli_bytes((int64_t)last->peak_memory_bytes, text, sizeof text));
    if (isfinite(log->trained) && isfinite(log->parameters))
        put_figure(out, "parameters trained", "%s of %s", short_number(log->trained, text, sizeof text), short_number(log->parameters, whole, sizeof whole));
    if (isfinite(log->seconds)) put_figure(out, "minutes", "%.1f", log->seconds / 60);
    fputs("</section>\n", out);
}

// ---- curves --------------------------------------------------------------------------------------------------
typedef struct columns { // of the log, as curves want them
    double *step, *loss, *smooth, *rate, *norm, *speed, *memory, *at, *validation;
} columns;

static double *column(size_t n) { return mica_cli_realloc(NULL, (n + 1) * sizeof(double)); }

/** The exponential mean of the losses, over about a twentieth of them. */
static void smooth_losses(const columns *c, size_t n) {
    double keep = exp(-20.0 / (double)(n + 1)), mean = (double)NAN;
    for (size_t i = 0; i < n; i++) {
        mean = isfinite(mean) && isfinite(c->loss[i]) ? keep * mean + (1 - keep) * c->loss[i] : isfinite(c->loss[i]) ? c->loss[i] : mean;
        c->smooth[i] = mean;
    }
}

static columns columns_of(const mica_cli_run_log *log) {
    size_t n = log->step_count, v = log->validation_count;
    columns c = {column(n), column(n), column(n), column(n), column(n), column(n), column(n), column(v), column(v)};
    for (size_t i = 0; i < n; i++) {
        const mica_cli_report_step *s = &log->steps[i];
        c.step[i] = s->step, c.loss[i] = s->loss, c.rate[i] = s->learning_rate, c.norm[i] = s->grad_norm;
        c.speed[i] = s->tokens_per_second, c.memory[i] = s->peak_memory_bytes / 1e9;
    }
    for (size_t i = 0; i < v; i++) c.at[i] = log->validations[i].step, c.validation[i] = log->validations[i].loss;
    smooth_losses(&c, n);
    return c;
}

static void free_columns(columns *c) {
    double *all[] = {c->step, c->loss, c->smooth, c->rate, c->norm, c->speed, c->memory, c->at, c->validation};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static bool put_plot(FILE *out, const char *title, bool wide, const mica_cli_plot *plot) {
    mica_cli_text svg = {0};
    bool ok = mica_cli_plot_draw(plot, &svg);
    if (ok) fprintf(out, "<div class=\"card%s\"><h3>%s</h3>%s</div>\n", wide ? " wide" : "", title, svg.data);
    free(svg.data);
    return ok;
}

static bool put_small(FILE *out, const char *title, const char *format, bool from_zero, double last, const mica_cli_curve *curve) {
    return put_plot(out, title, false, &(mica_cli_plot){.format = format, .from_zero = from_zero, .last = last, .width = 540, .height = 220, .curves = curve, .count = 1});
}

/** A curve that comes near zero is drawn down to it. */
static bool near_zero(const columns *c, size_t n, size_t v) {
    double least = (double)INFINITY, most = 0;
    for (size_t i = 0; i < n; i++) least = fmin(least, c->loss[i]), most = fmax(most, c->loss[i]);
    for (size_t i = 0; i < v; i++) least = fmin(least, c->validation[i]), most = fmax(most, c->validation[i]);
    return least < 0.4 * most;
}

static bool put_plots(FILE *out, const mica_cli_run_log *log) {
    static const char blue[] = "#2563c9", pale[] = "#b9cdf0", orange[] = "#e07a1f", grey[] = "#4b5a70";
    columns c = columns_of(log);
    size_t n = log->step_count, v = log->validation_count;
    double last = isfinite(log->planned) ? log->planned : n ? c.step[n - 1] : 0;
    bool many = n > BLUE_THIN;
    const mica_cli_curve losses[] = {{many ? NULL : "training", many ? pale : blue, c.step, c.loss, n, false, many},
                                     {"training, smoothed", blue, c.step, c.smooth, many ? n : 0, false, false},
                                     {"validation", orange, c.at, c.validation, v, true, false}};
    fputs("<section class=plots>\n", out);
    bool ok = put_plot(out, "Loss (nats per token)", true, &(mica_cli_plot){.format = "%g", .from_zero = near_zero(&c, n, v), .last = last, .width = 1080, .height = 340, .curves = losses, .count = 3});
    ok = ok && put_small(out, "Learning rate", "%.1e", true, last, &(mica_cli_curve){NULL, grey, c.step, c.rate, n, false, false});
    ok = ok && put_small(out, "Gradient norm, before clipping", "%g", true, last, &(mica_cli_curve){NULL, grey, c.step, c.norm, n, false, false});
    ok = ok && put_small(out, "Tokens per second", "%g", true, last, &(mica_cli_curve){NULL, grey, c.step, c.speed, n, false, false});
    ok = ok && put_small(out, "Most memory so far (GB)", "%g", true, last, &(mica_cli_curve){NULL, grey, c.step, c.memory, n, false, false});
    fputs("</section>\n", out);
    free_columns(&c);
    return ok;
}

// ---- samples -------------------------------------------------------------------------------------------------
static void put_answer(FILE *out, const char *title, const char *class, const char *text) {
    fprintf(out, "<div class=%s><h4>%s</h4>", class, title);
    if (text && text[strspn(text, " \n\t")]) fputs("<pre>", out), put_text(out, text), fputs("</pre></div>\n", out);
    else fputs("<pre class=none>(nothing)</pre></div>\n", out);
}

/** The sample of this number that was made last, after the beginning. */
static const mica_cli_report_sample *later(const mica_cli_run_log *log, double number) {
    const mica_cli_report_sample *found = NULL;
    for (size_t i = 0; i < log->sample_count; i++) {
        const mica_cli_report_sample *s = &log->samples[i];
        if (s->step > 0 && s->number >= number && s->number <= number) found = s;
    }
    return found;
}

static void put_sample(FILE *out, const mica_cli_report_sample *before, const mica_cli_report_sample *after) {
    fputs("<div class=\"card sample\"><h3>Prompt</h3><pre>", out);
    put_text(out, before->prompt);
    fputs("</pre><div class=answers>", out);
    put_answer(out, "Before training", "before", before->text);
    if (after) {
        char title[60];
        snprintf(title, sizeof title, "After step %.0f", after->step);
        put_answer(out, title, "after", after->text);
    }
    if (before->expected && *before->expected) put_answer(out, "In the data", "wanted", before->expected);
    fputs("</div></div>\n", out);
}

static void put_samples(FILE *out, const mica_cli_run_log *log) {
    bool titled = false;
    for (size_t i = 0; i < log->sample_count; i++) {
        if (log->samples[i].step > 0) continue;
        if (!titled) fputs("<h2>Samples</h2>\n", out), titled = true;
        put_sample(out, &log->samples[i], later(log, log->samples[i].number));
    }
}

// ---- page ----------------------------------------------------------------------------------------------------
static void put_config(FILE *out, const mica_cli_run_log *log) {
    fputs("<h2>Configuration</h2>\n<div class=\"card columns\"><table>\n", out);
    for (size_t i = 0; i < log->config_count; i++) {
        fputs("<tr><td>", out), put_text(out, log->config[i].name);
        fputs("</td><td>", out), put_text(out, log->config[i].value), fputs("</td></tr>\n", out);
    }
    fputs("</table></div>\n", out);
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static bool put_page(FILE *out, const mica_cli_run_log *log) {
    fputs("<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\n<title>Training of ", out);
    put_text(out, base_name(log->model));
    fprintf(out, "</title>\n<style>%s</style></head>\n<body><main>\n<h1>Training of ", style);
    put_text(out, base_name(log->model));
    fputs("</h1>\n<p class=sub>Begun ", out), put_text(out, log->time ? log->time : "");
    fputs(isfinite(log->seconds) ? "</p>\n" : " · not ended</p>\n", out);
    put_figures(out, log);
    fputs("<h2>Curves</h2>\n", out);
    bool ok = put_plots(out, log);
    put_samples(out, log);
    put_config(out, log);
    fputs("<footer>mica ", out), put_text(out, log->mica);
    fputs(", drawn by gnuplot</footer>\n</main></body></html>\n", out);
    return ok;
}

bool mica_cli_report_write(const mica_cli_args *args, const char *log_path, const char *path) {
    mica_cli_run_log log = {0};
    char *temporary = mica_cli_join(path, ".part", "");
    bool ok = mica_cli_report_possible() && mica_cli_run_log_read(log_path, &log);
    FILE *out = ok ? fopen(temporary, "w") : NULL;
    if (out) {
        ok = put_page(out, &log);
        bool lost = ferror(out);
        lost |= fclose(out) != 0;
        if (ok && (lost || rename(temporary, path) != 0)) ok = !mica_cli_fail("%s: cannot write the report: %s", path, strerror(errno));
        if (!ok) unlink(temporary);
        if (ok) mica_cli_note(args, "the report is in %s", path);
    } else if (ok) ok = !mica_cli_fail("%s: cannot write the report: %s", path, strerror(errno));
    mica_cli_run_log_free(&log);
    free(temporary);
    return ok;
}
