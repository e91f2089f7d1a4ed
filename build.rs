//! Finds httpd by apxs, generates its bindings with bindgen, compiles the C shim.
//!
//! Responsible for: the same preprocessor flags reaching bindgen and the C compiler (the width of off_t depends on them).
//! `APXS=/path/to/apxs` chooses another httpd.
use std::env;
use std::path::PathBuf;
use std::process::{Command, exit};

fn fail(text: &str) -> ! {
    println!("cargo::error={text}");
    exit(1)
}

fn ask(program: &str, arguments: &[&str]) -> Option<String> {
    let out = Command::new(program).args(arguments).output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

fn main() {
    for name in ["APXS", "APR_CONFIG", "PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed=src/httpd/shim.c");
    println!("cargo::rerun-if-changed=src/httpd/shim.h");
    // The library is pinned: httpd unloads and loads modules at each restart, and Rust's thread-locals do not survive that.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");

    let named = env::var("APXS").ok();
    let candidates = named.as_deref().map_or_else(|| vec!["apxs", "apxs2", "/usr/bin/apxs", "/usr/local/apache2/bin/apxs"], |n| vec![n]);
    let Some((apxs, include)) = candidates.iter().find_map(|c| ask(c, &["-q", "INCLUDEDIR"]).map(|dir| (*c, dir))) else {
        fail("cannot find httpd's apxs: install apache2-dev (Debian) or httpd-devel, or set APXS=/path/to/apxs")
    };
    let apr_include = ask(apxs, &["-q", "APR_INCLUDEDIR"]).unwrap_or_else(|| include.clone());
    let apu_include = ask(apxs, &["-q", "APU_INCLUDEDIR"]).unwrap_or_else(|| apr_include.clone());
    let apr_config = env::var("APR_CONFIG").ok().or_else(|| ask(apxs, &["-q", "APR_CONFIG"])).unwrap_or_else(|| "apr-1-config".into());
    let Some(flags) = ask(&apr_config, &["--cppflags"]).or_else(|| ask("apr-1-config", &["--cppflags"])) else {
        fail("cannot find apr-1-config: install libapr1-dev, or set APR_CONFIG=/path/to/apr-1-config")
    };
    let flags: Vec<&str> = flags.split_whitespace().collect();

    let mut shim = cc::Build::new();
    shim.file("src/httpd/shim.c").include(&include).include(&apr_include).include(&apu_include).warnings(true).extra_warnings(false);
    for flag in &flags {
        shim.flag(flag);
    }
    shim.compile("drover_shim");

    let bindings = bindgen::Builder::default()
        .header("src/httpd/shim.h")
        .clang_args([&include, &apr_include, &apu_include].map(|d| format!("-I{d}")))
        .clang_args(&flags)
        .allowlist_function("drover_.*")
        .allowlist_function("ap_(show_mpm|runtime_dir_relative|get_module_config|hook_(pre_config|check_config|post_config|child_init|child_stopping|translate_name|open_logs|handler|monitor)|add_common_vars|mpm_query|state_query|get_remote_host|document_root|get_server_port|find_path_info|no2slash|regexec|pregsub|pregcomp|allow_options|discard_request_body|set_content_type|set_content_length|set_last_modified|meets_conditions|get_limit_req_body|get_server_banner|custom_response|server_root_relative|run_generate_log_id|log_rid|retained_data_create|retained_data_get|pass_brigade|setup_client_block|get_basic_auth_pw|walk_config|find_linked_module|http_scheme|get_server_version|get_server_description|map_http_request_error|check_cmd_context|walk_config|internal_redirect|get_server_name|get_useragent_host|lookup_provider)")
        .allowlist_function("apr_(pcalloc|pool_userdata_get|pool_userdata_setn|palloc|pstrdup|pstrmemdup|pool_cleanup_register|pool_cleanup_null|pool_cleanup_kill|table_(get|set|setn|addn|add|unset|do|clear|elts|merge)|proc_other_child_(register|unregister)|brigade_(create|cleanup|destroy)|array_push|strerror|hash_get|escape_path|pool_create_unmanaged_ex|pool_destroy)")
        .allowlist_type("(module|module_struct|command_rec|request_rec|conn_rec|server_rec|process_rec|server_addr_rec|core_dir_config|unixd_config_rec|apr_proc_t|apr_table_entry_t|ap_regmatch_t|cmd_parms|core_server_config|ap_socache_provider_t|ap_socache_hints)")
        .allowlist_var("(DROVER_.*|ap_unixd_config|ap_server_root|ap_exists_config_define|MODULE_MAGIC_NUMBER_.*|MODULE_MAGIC_COOKIE|OK|DECLINED|DONE|AP_FILTER_ERROR|HTTP_.*|AP_MPMQ_.*|AP_SQ_.*|OR_.*|RSRC_CONF|ACCESS_CONF|NOT_IN_.*|GLOBAL_ONLY|EXEC_ON_READ|APR_HOOK_.*|APR_OC_REASON_.*|OPT_EXECCGI|AP_REQ_.*|M_GET|AP_MAX_REG_MATCH|APR_(NOTFOUND|EAGAIN|TIMEUP|EOF|SUCCESS|EGENERAL|ENOSPC)|AP_SERVER_.*_NUMBER|APLOG_.*|AP_SOCACHE_FLAG_.*)")
        .derive_default(false)
        .layout_tests(true)
        .default_macro_constant_type(bindgen::MacroTypeVariation::Signed)
        .wrap_unsafe_ops(true)
        .generate_cstr(true)
        .generate_comments(false)
        .use_core()
        .rust_edition(bindgen::RustEdition::Edition2024)
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()))
        .generate();
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("httpd.rs");
    match bindings {
        Ok(b) => {
            if let Err(e) = b.write_to_file(&out) {
                fail(&format!("cannot write {}: {e}", out.display()));
            }
        }
        Err(e) => fail(&format!("bindgen could not read httpd's headers (is libclang installed?): {e}")),
    }
}
