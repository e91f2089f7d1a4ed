//! What a client's URL and variables are matched with: prefixes of aliases, the script's name,
//! `%{…}` names.
#![no_main]
use libfuzzer_sys::fuzz_target;
use drover_config::expr::{application_group, callable_object, fold_slashes, process_group, script_name};
use drover_config::{Expr, RequestNames, match_prefix, prefix_filename};

struct Names<'a> {
    host: &'a [u8],
    port: u16,
    uri: &'a [u8],
    end: usize,
    value: &'a [u8],
}

impl RequestNames for Names<'_> {
    fn server_name(&self) -> &[u8] {
        b"server.example"
    }
    fn host_name(&self) -> Option<&[u8]> {
        Some(self.host)
    }
    fn port(&self) -> u16 {
        self.port
    }
    fn script_name(&self) -> Vec<u8> {
        script_name(self.uri, self.end)
    }
    fn env(&self, name: &[u8]) -> Option<Vec<u8>> {
        name.ends_with(b"E").then(|| self.value.to_vec())
    }
}

fuzz_target!(|input: (&[u8], &[u8], u8, &[u8], u16, &[u8])| {
    let (text, uri, end, host, port, value) = input;
    let end = usize::from(end);
    if let Some(n) = match_prefix(uri, text) {
        assert!(n > 0 && n <= uri.len());
        assert!(prefix_filename(b"/srv/app.wsgi", text, uri, n).starts_with(b"/srv/app.wsgi"));
    }
    let name = script_name(uri, end);
    assert!(name.len() <= uri.len().min(end) && !name.windows(2).any(|pair| pair == b"//"));
    assert_eq!(fold_slashes(&name), name, "folded once is folded");

    let expr = Expr::parse(text);
    assert_eq!(expr.source(), text);
    let names = Names { host, port, uri, end, value };
    let evaluated = expr.evaluate(&names);
    if let Some(fixed) = expr.fixed() {
        assert_eq!(fixed, evaluated);
    }
    let _ = (process_group(Some(&expr), &names), application_group(Some(&expr), &names));
    let _ = callable_object(Some(&expr), &names);
});
