/* What bindgen reads, and what of httpd's API is macros or variadic and so needs a line of C. No policy here. */
#ifndef DROVER_SHIM_H
#define DROVER_SHIM_H
#include "ap_socache.h"
#include "ap_provider.h"
#include "httpd.h"
#include "http_config.h"
#include "http_core.h"
#include "http_log.h"
#include "http_protocol.h"
#include "http_request.h"
#include "http_connection.h"
#include "http_main.h"
#include "ap_mpm.h"
#include "mpm_common.h"
#include "ap_regex.h"
#include "unixd.h"
#include "util_script.h"
#include "apr_buckets.h"
#include "apr_lib.h"
#include "apr_strings.h"
#include "apr_tables.h"
#include "apr_thread_proc.h"

/* Logging: `text` is data, never a format. Levels are httpd's 0 (emerg) … 15 (trace8). */
void drover_log_request(request_rec *r, int level, const char *text, int len);
void drover_log_server(server_rec *s, int level, const char *text, int len);
void drover_log_startup(int level, const char *text, int len);
int drover_level_request(const request_rec *r);
int drover_level_server(const server_rec *s);

/* One step of reading the request's body: at most `cap` bytes into `buf`. `bb` keeps what did not fit.
   Returns APR_SUCCESS (*got may be 0), APR_EAGAIN when `block` is 0 and nothing is there, or what the filters said. */
apr_status_t drover_body_read(request_rec *r, apr_bucket_brigade *bb, int block, char *buf, apr_size_t cap, apr_size_t *got, int *eos);
apr_bucket_brigade *drover_brigade(request_rec *r);

/* Adds `len` bytes (which must stay valid until drover_pass) to `bb`. */
void drover_append(request_rec *r, apr_bucket_brigade *bb, const char *data, apr_size_t len);
/* Passes `bb` down the output filters: how 0 with FLUSH, 1 with EOS, 2 cut such that the client sees it is not complete.
   GONE: the client takes no more. ANSWERED: a filter has answered itself. REFUSED: one has failed, and nothing has gone out. SPOILT: something has. */
#define DROVER_PASSED 0
#define DROVER_GONE 1
#define DROVER_ANSWERED 2
#define DROVER_REFUSED 3
#define DROVER_ABORTED_MIDWAY 4
int drover_pass(request_rec *r, apr_bucket_brigade *bb, int how);
/* What mod_http2 has taken over of an HTTP/2 response. Without it, all that can be said is that passing may wait for the client. */
typedef struct drover_ledger drover_ledger;
/* NULL: not a stream of a mod_http2 that is known to report this. Lives as long as the request. */
drover_ledger *drover_ledger_open(request_rec *r);
/* Adds a mark to `bb`: what is in front of it, `len` bytes, counts as taken when mod_http2 has taken the mark. */
void drover_ledger_mark(request_rec *r, drover_ledger *ledger, apr_bucket_brigade *bb, apr_size_t len);
/* Bytes taken so far. Never waits. -1: the stream is broken. `bb` is empty. */
apr_ssize_t drover_ledger_taken(request_rec *r, drover_ledger *ledger, apr_bucket_brigade *bb);
/* Leaves Range to the application: httpd's filter would obey it for every method, and for what it happens to get in one piece only. */
void drover_leave_ranges(request_rec *r);

int drover_is_https(conn_rec *c);
void drover_find_optional(void);
/* Descriptor of the client's socket, or -1 when there is none to wait on (HTTP/2 streams). */
int drover_client_fd(request_rec *r);
int drover_error_log_fd(server_rec *s);
int drover_script_is_aliased(request_rec *r);
int drover_cgi_pass_auth(request_rec *r);
int drover_request_uri_from_current(request_rec *r);
int drover_needs_body_for_head(request_rec *r);
const char *drover_original_uri(request_rec *r);
const char *drover_log_id(request_rec *r);
const char *drover_connection_log_id(request_rec *r);
int drover_expecting_100(const request_rec *r);
void drover_send_continue(request_rec *r);
int drover_is_loaded(const char *module_file, const void *not_this);
extern module AP_MODULE_DECLARE_DATA wsgi_module;
#endif
