//! TLS and HTTP/2 in front of us.
//!
//! Responsible for: variables of mod_ssl, and bodies that come without a length. Called by: `main.rs`.
use crate::harness::{Httpd, Site, site::free_port};
use std::io::Write;
use std::process::{Command, Stdio};

/// A site that listens for TLS on a second port, with a certificate of its own making.
pub fn tls(site: Site, more: &str) -> (Site, u16) {
    let port = free_port();
    let dir = site.dir().to_path_buf();
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]);
    let made = openssl.arg("-keyout").arg(dir.join("key.pem")).arg("-out").arg(dir.join("cert.pem")).output().expect("openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let host = format!(
        "Listen 127.0.0.1:{port}\nSSLRandomSeed startup builtin\n<VirtualHost *:{port}>\nServerName localhost\nSSLEngine On\nSSLCertificateFile @dir@/cert.pem\n\
         SSLCertificateKeyFile @dir@/key.pem\n{more}\nWSGIScriptAlias /env @apps@/environ.wsgi\nWSGIScriptAlias /body @apps@/body.wsgi\n\
         WSGIScriptAlias /stream @apps@/response.wsgi\n</VirtualHost>"
    );
    (site.modules("ssl socache_shmcb").config(&host).allow_log("AH01882|AH01906|AH01909|AH01873"), port)
}

pub fn curl(httpd: &Httpd, port: u16, path: &str, arguments: &[&str], body: &[u8]) -> Vec<u8> {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--fail-with-body", "--max-time", "60", "--cacert"]).arg(httpd.site.dir().join("cert.pem")).args(arguments);
    curl.arg(format!("https://localhost:{port}{path}")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = curl.args(["--resolve", &format!("localhost:{port}:127.0.0.1")]).spawn().expect("curl");
    let mut stdin = child.stdin.take().expect("stdin");
    let body = body.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&body)));
    let output = child.wait_with_output().expect("curl");
    writer.join().expect("writer");
    assert!(output.status.success(), "curl: {}\n{}\n{}", output.status, String::from_utf8_lossy(&output.stderr), httpd.log());
    output.stdout
}

both_test!(tls_variables, |site| {
    let (site, port) = tls(site, "SSLOptions +StdEnvVars");
    let httpd = site.start();
    let environ: serde_json::Value = serde_json::from_slice(&curl(&httpd, port, "/env", &[], b"")).expect("JSON");
    assert_eq!((environ["wsgi.url_scheme"].as_str(), environ["REQUEST_SCHEME"].as_str()), (Some("https"), Some("https")));
    assert!(environ["SSL_PROTOCOL"].as_str().is_some_and(|p| p.starts_with("TLSv1")), "{environ:#}");
    assert!(environ.get("HTTPS").is_none());
    let body = vec![7u8; 300_000];
    let told: serde_json::Value =
        serde_json::from_slice(&curl(&httpd, port, "/body/read_all", &["--data-binary", "@-"], &body)).expect("JSON");
    assert_eq!(told["size"], 300_000);
});

event_test!(http2_bodies_without_a_length_arrive_whole, |site| {
    let (site, port) = tls(site.modules("http2"), "Protocols h2 http/1.1");
    let httpd = site.start();
    let body: Vec<u8> = (0..2_000_000u32).map(|i| (i / 7) as u8).collect();
    for way in ["read_all", "blocks", "lines"] {
        let path = format!("/body/{way}");
        let told: serde_json::Value = serde_json::from_slice(&curl(&httpd, port, &path, &["--http2", "-T", "-"], &body)).expect("JSON");
        assert_eq!((told["size"].as_u64(), &told["length"]), (Some(2_000_000), &serde_json::Value::Null), "{way}");
    }
    let environ: serde_json::Value = serde_json::from_slice(&curl(&httpd, port, "/env", &["--http2"], b"")).expect("JSON");
    assert_eq!(environ["SERVER_PROTOCOL"], "HTTP/2.0");
    let large = curl(&httpd, port, "/stream/large?64", &["--http2"], b"");
    assert_eq!(large.len(), 64 << 16);
});

event_test!(http2_shows_a_cut_answer, |site| {
    let (site, port) = tls(site.modules("http2"), "Protocols h2 http/1.1");
    let httpd = site.expect_log("RuntimeError: broken in the middle").allow_log("DROVER0066*DROVER0060").allow_output().start();
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--http2", "--max-time", "60", "-k"]).arg(format!("https://127.0.0.1:{port}/stream/fail_mid_stream"));
    let output = curl.output().expect("curl");
    assert!(!output.status.success(), "curl must see the reset stream: {}", String::from_utf8_lossy(&output.stdout));
    drop(httpd);
});
