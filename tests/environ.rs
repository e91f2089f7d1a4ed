//! What an application finds in its environ.
//!
//! Responsible for: names, values and types of CGI, wsgi and mod_wsgi keys, the split into SCRIPT_NAME and PATH_INFO, header rules. Called by:
//! `main.rs`.
use crate::harness::{Response, Site};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

#[track_caller]
fn expect(environ: &Value, wanted: Value) {
    let wanted = wanted.as_object().expect("object").clone();
    let found: serde_json::Map<_, _> = wanted.keys().map(|k| (k.clone(), environ.get(k).cloned().unwrap_or(Value::Null))).collect();
    assert_eq!(found, wanted);
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(*b)).collect()
}

both_test!(variables, |site| {
    let httpd = site.app("/app", "environ.wsgi").start();
    let environ = httpd.request("POST", "/app/x%20y?q=1&r=%41").header("Content-Type", "text/x-test").body("12345").send().json();
    let root = httpd.site.dir().display().to_string();
    expect(
        &environ,
        json!({
            "REQUEST_METHOD": "POST", "SCRIPT_NAME": "/app", "PATH_INFO": "/x y", "QUERY_STRING": "q=1&r=%41",
            "REQUEST_URI": "/app/x%20y?q=1&r=%41", "CONTENT_TYPE": "text/x-test", "CONTENT_LENGTH": "5",
            "SERVER_NAME": "localhost", "SERVER_PORT": httpd.site.port.to_string(), "SERVER_PROTOCOL": "HTTP/1.1", "SERVER_ADDR": "127.0.0.1",
            "REMOTE_ADDR": "127.0.0.1", "REQUEST_SCHEME": "http", "DOCUMENT_ROOT": format!("{root}/htdocs"),
            "SCRIPT_FILENAME": format!("{root}/apps/environ.wsgi"), "HTTP_HOST": format!("localhost:{}", httpd.site.port),
            "HTTP_CONNECTION": "close", "CONTEXT_PREFIX": "", "CONTEXT_DOCUMENT_ROOT": format!("{root}/htdocs"),
            "wsgi.version": [1, 0], "wsgi.url_scheme": "http", "wsgi.multithread": true, "wsgi.multiprocess": true, "wsgi.run_once": false,
            "wsgi.input_terminated": true, "mod_wsgi.process_group": "app", "mod_wsgi.application_group": "",
            "mod_wsgi.callable_object": "application", "mod_wsgi.request_handler": "wsgi-script", "mod_wsgi.script_name": "/app",
            "mod_wsgi.path_info": "/x y", "mod_wsgi.listener_host": "127.0.0.1", "mod_wsgi.listener_port": httpd.site.port.to_string(),
        }),
    );
    assert!(environ["REMOTE_PORT"].as_str().and_then(|p| p.parse::<u16>().ok()).is_some_and(|p| p > 0));
    assert!(environ["SERVER_SOFTWARE"].as_str().is_some_and(|s| s.starts_with("Apache/2.4")));
    for key in ["wsgi.input", "wsgi.errors", "wsgi.file_wrapper", "apache.version", "mod_wsgi.version"] {
        assert!(environ.get(key).is_some_and(|v| !v.is_null()), "{key} is missing");
    }
    assert_eq!(environ["apache.version"].as_array().map(Vec::len), Some(3));
    for key in ["HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH", "HTTPS", "HTTP_AUTHORIZATION"] {
        assert!(environ.get(key).is_none(), "{key} must not be there");
    }
});

both_test!(processes_and_threads_are_told, |site| {
    let site = site.bare().app("/a", "environ.wsgi").app("/b", "environ.wsgi").app("/c", "environ.wsgi");
    let group = |name: &str, options: &str| {
        format!(
            "WSGIDaemonProcess {name} {options}\n<Location /{name}>\nWSGIProcessGroup {name}\nWSGIApplicationGroup %{{GLOBAL}}\n</Location>\n"
        )
    };
    let httpd = site.config(&(group("a", "threads=1") + &group("b", "processes=2 threads=3") + &group("c", "processes=1"))).start();
    for (path, threads, processes) in [("/a", false, false), ("/b", true, true), ("/c", true, true)] {
        expect(
            &httpd.get(path).json(),
            json!({"wsgi.multithread": threads, "wsgi.multiprocess": processes, "mod_wsgi.process_group": path[1..]}),
        );
    }
});

mpm_test!(cgi_variables_that_mod_wsgi_6_dropped, |site| {
    let httpd = site.app("/app", "environ.wsgi").start();
    let environ = httpd.get("/app/tail").json();
    expect(&environ, json!({"GATEWAY_INTERFACE": "CGI/1.1", "SERVER_SIGNATURE": ""}));
    for key in ["PATH", "PATH_TRANSLATED"] {
        assert!(environ[key].is_string(), "{key}: {environ:#}");
    }
});

both_test!(headers, |site| {
    let httpd = site.app("/", "environ.wsgi").start();
    let request =
        httpd.request("GET", "/").header("X-Fine", "1").header("x-LOWER-case", "2").header("X_Under", "spoof").header("X.Dot", "3");
    let request = request.header("Proxy", "http://evil/").header("X-Two", "a").header("X-Two", "b").header("X-Empty", "");
    let environ = request.header("Cookie", "a=1").header("X-Latin", b"caf\xe9 \x80\xff".as_slice()).send().json();
    expect(
        &environ,
        json!({"HTTP_X_FINE": "1", "HTTP_X_LOWER_CASE": "2", "HTTP_X_TWO": "a, b", "HTTP_X_EMPTY": "", "HTTP_COOKIE": "a=1",
               "HTTP_X_LATIN": latin1(b"caf\xe9 \x80\xff")}),
    );
    for key in ["HTTP_X_UNDER", "HTTP_X_DOT", "HTTP_PROXY"] {
        assert!(environ.get(key).is_none(), "{key} must be dropped");
    }
});

both_test!(bytes_of_the_path_are_latin1, |site| {
    let httpd = site.app("/", "environ.wsgi").start();
    let environ = httpd.get("/caf%C3%A9/%FF%80%20?q=%C3%A9").json();
    expect(&environ, json!({"PATH_INFO": latin1(b"/caf\xc3\xa9/\xff\x80 "), "QUERY_STRING": "q=%C3%A9", "SCRIPT_NAME": ""}));
});

/// Every form of alias, with the URL and the split it must give.
const SPLITS: &[(&str, &str, &str)] = &[
    ("/", "", "/"),
    ("/tail", "", "/tail"),
    ("/tail/", "", "/tail/"),
    ("/a//b", "", "/a/b"),
    ("/sub", "/sub", ""),
    ("/sub/", "/sub", "/"),
    ("/sub/x/y", "/sub", "/x/y"),
    ("/subx", "", "/subx"),
    ("//sub//x//y/", "/sub", "/x/y/"),
    ("/sub/sub2", "/sub", "/sub2"),
    ("/deep/er", "/deep/er", ""),
    ("/deep/er/x", "/deep/er", "/x"),
    ("/slash/", "/slash", "/"),
    ("/slash/x", "/slash", "/x"),
    ("/dir/environ.wsgi", "/dir/environ.wsgi", ""),
    ("/dir/environ.wsgi/", "/dir/environ.wsgi", "/"),
    ("/dir/environ.wsgi/x/y", "/dir/environ.wsgi", "/x/y"),
    ("/match/7/x", "/match/7", "/x"),
    ("/files/environ.wsgi/x", "/files/environ.wsgi", "/x"),
    ("/sub/a%2Fb%20c", "/sub", "/a%2Fb c"),
    ("/sub/%41", "/sub", "/A"),
    ("/sub/./x/../y", "/sub", "/y"),
];

both_test!(script_name_and_path_info, |site| {
    let site = site.modules("alias mime").head("TypesConfig /dev/null\nAllowEncodedSlashes NoDecode");
    let site = site.config("Alias /files @apps@\n<Directory @apps@>\nOptions +ExecCGI\nAddHandler wsgi-script .wsgi\n</Directory>");
    let site = site.app("/sub", "environ.wsgi").app("/deep/er", "environ.wsgi").app("/slash/", "environ.wsgi/").app("/dir/", "");
    let site = site.config("WSGIScriptAliasMatch ^/match/([0-9]+) @apps@/environ.wsgi").app("/", "environ.wsgi");
    let httpd = site.start();
    let split = |url: &str| {
        let environ = httpd.get(url);
        if environ.status != 200 {
            return (environ.status.to_string(), String::new());
        }
        let environ = environ.json();
        (environ["SCRIPT_NAME"].as_str().unwrap_or("?").to_string(), environ["PATH_INFO"].as_str().unwrap_or("?").to_string())
    };
    let found: Vec<_> = SPLITS.iter().map(|(url, ..)| (*url, split(url))).collect();
    let wanted: Vec<_> = SPLITS.iter().map(|(url, name, info)| (*url, (name.to_string(), info.to_string()))).collect();
    assert_eq!(found, wanted);
});

both_test!(variables_of_the_configuration, |site| {
    let site = site.modules("env setenvif rewrite");
    let site = site.config("SetEnv shop.debug yes\nSetEnv EMPTY\nSetEnvIf Request_URI ^/marked MARK=1\nPassEnv FROM_OUTSIDE");
    let site = site.config("RewriteEngine On\nRewriteRule ^/rule - [E=RULE:%{REQUEST_METHOD}]");
    let httpd = site.environment("FROM_OUTSIDE", "outer").app("/", "environ.wsgi").start();
    expect(&httpd.get("/marked").json(), json!({"shop.debug": "yes", "EMPTY": "", "MARK": "1", "FROM_OUTSIDE": "outer", "RULE": null}));
    expect(&httpd.get("/rule").json(), json!({"MARK": null, "RULE": "GET"}));
});

both_test!(remote_user, |site| {
    let site = site.modules("auth_basic authn_core authn_file authz_user").script("users", "ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n");
    let site = site.config("<Location />\nAuthType Basic\nAuthName test\nAuthUserFile @apps@/users\nRequire valid-user\n</Location>");
    let site = site.config("<Location /passed>\nWSGIPassAuthorization On\n</Location>").app("/", "environ.wsgi");
    let httpd = site.expect_log("AH01617|AH01618|user * not found").start();
    let get = |path: &str| httpd.request("GET", path).header("Authorization", "Basic YW5uOnNlY3JldA==").send();
    expect(&get("/").json(), json!({"REMOTE_USER": "ann", "AUTH_TYPE": "Basic", "HTTP_AUTHORIZATION": null}));
    expect(&get("/passed").json(), json!({"REMOTE_USER": "ann", "HTTP_AUTHORIZATION": "Basic YW5uOnNlY3JldA=="}));
    let wrong = httpd.request("GET", "/").header("Authorization", "Basic Ym9iOng=").send();
    assert_eq!((wrong.status, httpd.get("/").status), (401, 401));
});

both_test!(any_method_reaches_the_application, |site| {
    let httpd = site.app("/", "environ.wsgi").start();
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "FROB"] {
        assert_eq!(httpd.request(method, "/").send().json()["REQUEST_METHOD"], method);
    }
});

both_test!(validator_is_content, |site| {
    let httpd = site.config("WSGICallableObject checked").app("/", "environ.wsgi").start();
    for path in ["/", "/caf%C3%A9?q", "/a/b/"] {
        httpd.ok(path);
    }
    assert_eq!(httpd.get("/").json()["mod_wsgi.callable_object"], "checked");
});

both_test!(trusted_proxies, |site| {
    let site = site.config("WSGITrustedProxyHeaders X-Forwarded-For X-Forwarded-Proto X-Forwarded-Host X-Forwarded-Port X-Script-Name");
    let site = site.config("<Location /stranger>\nWSGITrustedProxies 10.0.0.0/8\n</Location>").app("/", "environ.wsgi");
    let httpd = site.start();
    let ask = |path: &str| {
        let request = httpd.request("GET", path).header("X-Forwarded-For", "192.0.2.9").header("X-Forwarded-Proto", "https");
        let request =
            request.header("X-Forwarded-Host", "shop.example").header("X-Forwarded-Port", "8443").header("X-Script-Name", "/mount");
        request.header("X-Real-IP", "192.0.2.66").send().json()
    };
    expect(
        &ask("/mount/x"),
        json!({"REMOTE_ADDR": "192.0.2.9", "wsgi.url_scheme": "https", "HTTP_HOST": "shop.example", "SERVER_PORT": "8443", "SCRIPT_NAME": "/mount",
               "PATH_INFO": "/mount/x", "HTTP_X_REAL_IP": null}),
    );
    expect(&ask("/stranger"), json!({"REMOTE_ADDR": "127.0.0.1", "wsgi.url_scheme": "http", "HTTP_X_FORWARDED_FOR": null}));
});

fn one(httpd: &crate::harness::Httpd, path: &[u8], value: &[u8]) -> Response {
    let encoded: String = path.iter().map(|b| format!("%{b:02X}")).collect();
    httpd.request("GET", &format!("/p{encoded}")).header("X-Value", value).send()
}

both_test!(any_bytes_arrive_as_they_are, |site| {
    let site: Site = site.head("AllowEncodedSlashes On");
    let httpd = site.app("/", "environ.wsgi").start();
    let path = prop::collection::vec(prop_oneof![b'!'..=b'-', b'0'..=b'~', 0x80..=0xffu8], 0..40);
    let value = prop::collection::vec(prop_oneof![b'!'..=b'~', Just(b' '), Just(b'\t'), 0x80..=0xffu8], 0..60);
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let result = runner.run(&(path, value), |(path, value)| {
        let response = one(&httpd, &path, &value);
        prop_assert_eq!(response.status, 200);
        let environ = response.json();
        prop_assert_eq!(environ["PATH_INFO"].as_str().unwrap_or("?"), format!("/p{}", latin1(&path)));
        let trimmed = latin1(&value).trim_matches([' ', '\t']).to_string();
        prop_assert_eq!(environ["HTTP_X_VALUE"].as_str().unwrap_or("?"), trimmed);
        Ok(())
    });
    result.unwrap_or_else(|e| panic!("{e}"));
});
