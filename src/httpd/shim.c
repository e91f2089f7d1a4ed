/* Wrappers for macros and variadic functions of httpd's API. Called from src/httpd/ only; contains no policy. */
#include "shim.h"
#include "mod_core.h"
#include "mod_ssl.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>

APLOG_USE_MODULE(wsgi);

void drover_log_request(request_rec *r, int level, const char *text, int len)
{
    ap_log_rerror(APLOG_MARK, level, 0, r, "%.*s", len, text);
}

void drover_log_server(server_rec *s, int level, const char *text, int len)
{
    ap_log_error(APLOG_MARK, level, 0, s, "%.*s", len, text);
}

void drover_log_startup(int level, const char *text, int len)
{
    ap_log_error(APLOG_MARK, level | APLOG_STARTUP, 0, NULL, "%.*s", len, text);
}

int drover_level_request(const request_rec *r)
{
    return ap_get_request_module_loglevel(r, APLOG_MODULE_INDEX);
}

int drover_level_server(const server_rec *s)
{
    return ap_get_server_module_loglevel(s, APLOG_MODULE_INDEX);
}

apr_bucket_brigade *drover_brigade(request_rec *r)
{
    return apr_brigade_create(r->pool, r->connection->bucket_alloc);
}

/* How often in a row an input filter may return nothing: more often than a body has pieces. */
#define MOST_EMPTY (1 << 20)

apr_status_t drover_body_read(request_rec *r, apr_bucket_brigade *bb, int block, char *buf, apr_size_t cap, apr_size_t *got, int *eos)
{
    apr_read_type_e how = block ? APR_BLOCK_READ : APR_NONBLOCK_READ;
    int empty = 0;
    *got = 0;
    *eos = 0;
again:
    if (APR_BRIGADE_EMPTY(bb)) {
        apr_status_t rv = ap_get_brigade(r->input_filters, bb, AP_MODE_READBYTES, how, (apr_off_t)cap);
        if (rv != APR_SUCCESS) {
            apr_brigade_cleanup(bb);
            return rv;
        }
        if (APR_BRIGADE_EMPTY(bb)) {
            /* A filter such as mod_ext_filter kept the data and returns it later. */
            if (block && ++empty < MOST_EMPTY)
                goto again;
            return block ? APR_EOF : APR_EAGAIN;
        }
    }
    while (*got < cap && !APR_BRIGADE_EMPTY(bb)) {
        apr_bucket *b = APR_BRIGADE_FIRST(bb);
        const char *data;
        apr_size_t len;
        apr_status_t rv;
        if (APR_BUCKET_IS_EOS(b)) {
            *eos = 1;
            apr_brigade_cleanup(bb);
            return APR_SUCCESS;
        }
        if (AP_BUCKET_IS_ERROR(b)) {
            apr_brigade_cleanup(bb);
            return APR_EGENERAL;
        }
        if (APR_BUCKET_IS_METADATA(b)) {
            apr_bucket_delete(b);
            continue;
        }
        rv = apr_bucket_read(b, &data, &len, how);
        if (rv != APR_SUCCESS) {
            if (APR_STATUS_IS_EAGAIN(rv) && *got)
                return APR_SUCCESS;
            if (!APR_STATUS_IS_EAGAIN(rv))
                apr_brigade_cleanup(bb);
            return rv;
        }
        if (len > cap - *got) {
            len = cap - *got;
            rv = apr_bucket_split(b, len);
            if (rv != APR_SUCCESS)
                return rv;
        }
        memcpy(buf + *got, data, len);
        *got += len;
        apr_bucket_delete(b);
    }
    /* A filter may return a brigade without data. Each iteration consumes input, so this ends. */
    if (*got == 0 && block)
        goto again;
    return APR_SUCCESS;
}

void drover_append(request_rec *r, apr_bucket_brigade *bb, const char *data, apr_size_t len)
{
    APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_transient_create(data, len, r->connection->bucket_alloc));
}

/* A plain HTTP/1.0 response ends with the connection, so only a reset shows the client that it was cut. */
static void reset_at_close(request_rec *r)
{
    struct linger now = {1, 0};
    int fd = drover_client_fd(r);
    if (fd >= 0 && !r->chunked && !apr_table_get(r->headers_out, "Content-Length")) {
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        r->connection->aborted = 1;
    }
}

/* Whether the filter that sends the headers (HTTP/1 or HTTP/2) is still installed: it removes itself afterwards. */
static int head_is_due(request_rec *r)
{
    ap_filter_t *f;
    for (f = r->output_filters; f; f = f->next)
        if (f->frec == ap_http_header_filter_handle || !strcmp(f->frec->name, "h2_c2_response_out") || !strcmp(f->frec->name, "h2_response"))
            return 1;
    return 0;
}

void drover_leave_ranges(request_rec *r)
{
    ap_filter_t *f, *next;
    for (f = r->main ? NULL : r->output_filters; f; f = next) {
        next = f->next;
        if (f->frec == ap_byterange_filter_handle)
            ap_remove_output_filter(f);
    }
}

int drover_pass(request_rec *r, apr_bucket_brigade *bb, int how)
{
    apr_bucket_alloc_t *alloc = r->connection->bucket_alloc;
    int due = head_is_due(r);
    apr_status_t rv;
    if (how == 2) {
        request_rec *of;
        /* As in mod_proxy_http: mod_cache discards it, the chunk filter omits the last chunk, HTTP/2 resets the stream. */
        for (of = r; of; of = of->main)
            of->no_cache = 1;
        r->connection->keepalive = AP_CONN_CLOSE;
        APR_BRIGADE_INSERT_TAIL(bb, ap_bucket_error_create(HTTP_BAD_GATEWAY, NULL, r->pool, alloc));
        APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_eos_create(alloc));
    }
    else if (how == 1)
        APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_eos_create(alloc));
    else
        APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_flush_create(alloc));
    rv = ap_pass_brigade(r->output_filters, bb);
    apr_brigade_cleanup(bb);
    if (how == 2)
        reset_at_close(r);
    if (r->connection->aborted || APR_STATUS_IS_ECONNABORTED(rv) || APR_STATUS_IS_ECONNRESET(rv) || APR_STATUS_IS_EPIPE(rv))
        return DROVER_GONE;
    if (rv == APR_SUCCESS)
        return DROVER_PASSED;
    if (due && rv == AP_FILTER_ERROR)
        return DROVER_ANSWERED;
    if (head_is_due(r))
        return DROVER_REFUSED;
    /* A failed filter may withhold the bucket that tells the others about the cut. */
    r->output_filters = r->proto_output_filters;
    return DROVER_ABORTED_MIDWAY;
}

/* Marks can outlive the request, since mod_http2 deletes buckets later. So the ledger is reference-counted and in no pool. */
struct drover_ledger {
    atomic_uint users;
    atomic_size_t taken;
};

typedef struct {
    drover_ledger *ledger;
    apr_size_t len;
} ledger_mark;

static void ledger_leave(drover_ledger *ledger)
{
    if (atomic_fetch_sub(&ledger->users, 1) == 1)
        free(ledger);
}

static apr_status_t ledger_cleanup(void *ledger)
{
    ledger_leave(ledger);
    return APR_SUCCESS;
}

static void mark_destroy(void *data)
{
    ledger_mark *mark = data;
    atomic_fetch_add(&mark->ledger->taken, mark->len);
    ledger_leave(mark->ledger);
    apr_bucket_free(mark);
}

static apr_status_t mark_read(apr_bucket *b, const char **data, apr_size_t *len, apr_read_type_e block)
{
    (void)b;
    (void)block;
    *data = NULL;
    *len = 0;
    return APR_SUCCESS;
}

/* A copy counts nothing. */
static apr_status_t mark_copy(apr_bucket *a, apr_bucket **b)
{
    ledger_mark *mark = apr_bucket_alloc(sizeof *mark, a->list);
    mark->ledger = ((ledger_mark *)a->data)->ledger;
    mark->len = 0;
    atomic_fetch_add(&mark->ledger->users, 1);
    apr_bucket_simple_copy(a, b);
    (*b)->data = mark;
    return APR_SUCCESS;
}

static const apr_bucket_type_t mark_type = {
    "DROVERMARK", 5, APR_BUCKET_METADATA, mark_destroy, mark_read, apr_bucket_setaside_noop, apr_bucket_split_notimpl, mark_copy
};

drover_ledger *drover_ledger_open(request_rec *r)
{
    drover_ledger *ledger;
    ap_filter_t *f;
    if (!r->connection->master)
        return NULL;
    /* mod_http2 2 keeps accepted buckets until the next call of its filter, which deletes them. */
    for (f = r->connection->output_filters; f && strcasecmp(f->frec->name, "h2_c2_net_out"); f = f->next)
        ;
    if (!f || !(ledger = calloc(1, sizeof *ledger)))
        return NULL;
    atomic_init(&ledger->users, 1);
    apr_pool_cleanup_register(r->pool, ledger, ledger_cleanup, apr_pool_cleanup_null);
    return ledger;
}

void drover_ledger_mark(request_rec *r, drover_ledger *ledger, apr_bucket_brigade *bb, apr_size_t len)
{
    apr_bucket_alloc_t *alloc = r->connection->bucket_alloc;
    ledger_mark *mark = apr_bucket_alloc(sizeof *mark, alloc);
    apr_bucket *b = apr_bucket_alloc(sizeof *b, alloc);
    mark->ledger = ledger;
    mark->len = len;
    atomic_fetch_add(&ledger->users, 1);
    APR_BUCKET_INIT(b);
    b->free = apr_bucket_free;
    b->list = alloc;
    b->type = &mark_type;
    b->length = 0;
    b->start = 0;
    b->data = mark;
    APR_BRIGADE_INSERT_TAIL(bb, b);
}

apr_ssize_t drover_ledger_taken(request_rec *r, drover_ledger *ledger, apr_bucket_brigade *bb)
{
    /* An empty brigade: mod_http2 deletes the marks that it accepted, and does not block. */
    apr_status_t rv = ap_pass_brigade(r->connection->output_filters, bb);
    return rv == APR_SUCCESS && !r->connection->aborted ? (apr_ssize_t)atomic_load(&ledger->taken) : -1;
}

static APR_OPTIONAL_FN_TYPE(ssl_is_https) *is_https = NULL;

void drover_find_optional(void)
{
    is_https = APR_RETRIEVE_OPTIONAL_FN(ssl_is_https);
}

int drover_is_https(conn_rec *c)
{
    return is_https && is_https(c);
}

int drover_client_fd(request_rec *r)
{
    apr_socket_t *socket;
    apr_os_sock_t fd = -1;
    if (r->connection->master)
        return -1;
    socket = ap_get_conn_socket(r->connection);
    if (!socket || apr_os_sock_get(&fd, socket) != APR_SUCCESS)
        return -1;
    return (int)fd;
}

int drover_error_log_fd(server_rec *s)
{
    apr_os_file_t fd = -1;
    if (!s->error_log || apr_os_file_get(&fd, s->error_log) != APR_SUCCESS)
        return -1;
    return (int)fd;
}

int drover_script_is_aliased(request_rec *r)
{
    const char *t = apr_table_get(r->notes, "alias-forced-type");
    return t && !strcasecmp(t, "wsgi-script");
}

static core_dir_config *core_dir(request_rec *r)
{
    return (core_dir_config *)ap_get_core_module_config(r->per_dir_config);
}

int drover_cgi_pass_auth(request_rec *r)
{
    return core_dir(r)->cgi_pass_auth == AP_CGI_PASS_AUTH_ON;
}

int drover_request_uri_from_current(request_rec *r)
{
    core_dir_config *conf = core_dir(r);
    const char *rule = conf->cgi_var_rules ? apr_hash_get(conf->cgi_var_rules, "REQUEST_URI", APR_HASH_KEY_STRING) : NULL;
    return rule && !strcmp(rule, "current-uri");
}

int drover_needs_body_for_head(request_rec *r)
{
    return r->output_filters && r->output_filters->frec && r->output_filters->frec->ftype < AP_FTYPE_PROTOCOL;
}

const char *drover_original_uri(request_rec *r)
{
    char *first, *last;
    if (!r->the_request)
        return r->uri;
    first = r->the_request;
    while (*first && !apr_isspace(*first))
        ++first;
    while (apr_isspace(*first))
        ++first;
    last = first;
    while (*last && !apr_isspace(*last))
        ++last;
    return apr_pstrmemdup(r->pool, first, last - first);
}

const char *drover_log_id(request_rec *r)
{
    if (!r->log_id)
        ap_run_generate_log_id(r->connection, r, &r->log_id);
    return r->log_id;
}

const char *drover_connection_log_id(request_rec *r)
{
    return r->connection->log_id;
}

int drover_expecting_100(const request_rec *r)
{
    return r->expecting_100;
}

/* The HTTP filter sends 100 Continue itself only before a blocking read. */
void drover_send_continue(request_rec *r)
{
    int status = r->status;
    const char *line = r->status_line;
    if (!r->expecting_100 || r->proto_num < HTTP_VERSION(1, 1))
        return;
    r->status = HTTP_CONTINUE;
    r->status_line = ap_get_status_line(HTTP_CONTINUE);
    ap_send_interim_response(r, 0);
    r->status = status;
    r->status_line = line;
}

int drover_is_loaded(const char *module_file, const void *not_this)
{
    module *m;
    for (m = ap_top_module; m; m = m->next)
        if (m != not_this && m->name && !strcmp(m->name, module_file))
            return 1;
    return 0;
}
