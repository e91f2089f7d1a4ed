//! Keys of the environ that belong to the server.
//!
//! Responsible for: no variable of the configuration, of `.htaccess` or of a rewrite rule taking the place of what PEP 3333, mod_wsgi and
//! mod_drover promise the application. Called by: `main.rs`.

const KEYS: [&str; 12] = [
    "wsgi.input",
    "wsgi.errors",
    "wsgi.version",
    "wsgi.url_scheme",
    "wsgi.multithread",
    "wsgi.file_wrapper",
    "mod_wsgi.version",
    "mod_wsgi.process_group",
    "mod_wsgi.application_group",
    "mod_wsgi.script_name",
    "mod_drover.session",
    "mod_drover.version",
];

const APP: &str = r#"
def application(environ, start_response):
    keys = sorted(k for k in environ if k.lower().startswith(("wsgi.", "mod_wsgi.", "mod_drover.")))
    replaced = [k for k in keys if environ[k] == "replaced" or k != k.lower()]
    assert environ["wsgi.version"] == (1, 0) and environ["wsgi.url_scheme"] == "http"
    environ["wsgi.errors"].write("")
    body = environ["wsgi.input"].read().decode()
    start_response("200 OK", [])
    return [repr((replaced, environ.get("OTHER"), body)).encode()]
"#;

mpm_test!(no_variable_replaces_a_key_of_the_server, |site| {
    let lines = |make: &dyn Fn(&str) -> String| KEYS.iter().map(|key| make(key)).collect::<Vec<_>>().join("\n");
    let site = site.script("a.wsgi", APP).app("/", "a.wsgi").modules("env rewrite setenvif");
    let set = lines(&|key| format!("SetEnv {key} replaced\nSetEnv {} replaced", key.to_uppercase()));
    let set_if = lines(&|key| format!("SetEnvIf Request_URI ^/if {key}=replaced"));
    let rewrite = lines(&|key| format!("RewriteRule ^/rewrite - [E={key}:replaced]"));
    let site = site.config(&format!("RewriteEngine On\n{rewrite}\n{set_if}\n<Location /set>\n{set}\n</Location>\nSetEnv OTHER kept"));
    let httpd = site.start();
    for path in ["/set", "/if", "/rewrite", "/"] {
        let answer = httpd.request("POST", path).body("body").send();
        assert_eq!((answer.status, answer.text().as_str()), (200, "([], 'kept', 'body')"), "{path}");
    }
});
