//! The cookie that names a session.
//!
//! Responsible for: finding it in a Cookie header, and writing it as DroverSessionCookie says. Must
//! never: parse by hand (crate `cookie`, RFC 6265). Called by: [`super::answer`].
use crate::config::session::{CookieOptions, SameSite, Secure};
use cookie::time::Duration;
use cookie::{Cookie, SameSite as Site};
use drover_session::Id;

/// The identifier in a Cookie header: the first of that name which mod_drover can have generated.
#[must_use]
pub fn find(header: &[u8], name: &str) -> Option<Id> {
    each(header).filter(|c| c.name() == name).find_map(|c| Id::parse(c.value().as_bytes()))
}

/// The cookies of a Cookie header. Skips one that is not UTF-8, which another application of the
/// host may have set.
fn each(header: &[u8]) -> impl Iterator<Item = Cookie<'_>> {
    header.split(|b| *b == b';').filter_map(|part| Cookie::parse(str::from_utf8(part).ok()?).ok())
}

/// The value of the first cookie for which `is` holds.
#[must_use]
pub fn value(header: &[u8], mut is: impl FnMut(&Cookie<'_>) -> bool) -> Option<String> {
    each(header).find(|cookie| is(cookie)).map(|cookie| cookie.value().to_owned())
}

/// The name of the first cookie with this value.
#[must_use]
pub fn name_of(header: &[u8], value: &str) -> Option<String> {
    each(header).find(|cookie| cookie.value() == value).map(|cookie| cookie.name().to_owned())
}

/// The value of a Set-Cookie header.
#[must_use]
pub fn set(name: &str, id: &str, options: &CookieOptions, https: bool) -> String {
    let mut cookie = build(name, id, options, https);
    if let Some(seconds) = options.max_age {
        cookie.set_max_age(Duration::seconds(seconds.into()));
    }
    cookie.to_string()
}

/// The value of a Set-Cookie header that deletes the cookie.
#[must_use]
pub fn forget(name: &str, options: &CookieOptions, https: bool) -> String {
    let mut cookie = build(name, "", options, https);
    cookie.make_removal();
    cookie.to_string()
}

fn build<'c>(name: &'c str, value: &'c str, options: &'c CookieOptions, https: bool) -> Cookie<'c> {
    let same_site = match options.same_site {
        SameSite::Strict => Site::Strict,
        SameSite::Lax => Site::Lax,
        SameSite::None => Site::None,
    };
    let mut cookie = Cookie::build((name, value)).path(options.path.as_str()).same_site(same_site).build();
    cookie.set_http_only(options.http_only);
    if options.secure == Secure::On || (options.secure == Secure::Auto && https) {
        cookie.set_secure(true);
    }
    if let Some(domain) = &options.domain {
        cookie.set_domain(domain.as_str());
    }
    cookie
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAME: &str = "drover_session";

    #[test]
    fn found_among_others_and_only_if_it_can_be_ours() {
        let (a, b) = (Id::new().unwrap(), Id::new().unwrap());
        let header = format!("x=1; drover_session=nonsense; drover_session={}; drover_session={}; y", a.as_str(), b.as_str());
        assert_eq!(find(header.as_bytes(), NAME), Some(a));
        let foreign = [b"who=Jos\xe9; ", header.as_bytes()].concat();
        assert_eq!(find(&foreign, NAME), Some(a));
        for none in ["", "drover_session", "drover_session=", "drover_session=../../etc/passwd", "Drover_Session=0"] {
            assert_eq!(find(none.as_bytes(), NAME), None, "{none}");
        }
        assert_eq!(find(b"\xff\xfe", NAME), None);
    }

    #[test]
    fn written_as_configured() {
        let options = CookieOptions::default();
        assert_eq!(set(NAME, "abc", &options, false), "drover_session=abc; HttpOnly; SameSite=Lax; Path=/");
        assert!(set(NAME, "abc", &options, true).contains("; Secure"));
        let options = CookieOptions {
            domain: Some("example.org".into()),
            secure: Secure::On,
            http_only: false,
            same_site: SameSite::None,
            max_age: Some(60),
            ..options
        };
        let text = set(NAME, "abc", &options, false);
        for part in ["Secure", "SameSite=None", "Max-Age=60", "Domain=example.org"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("HttpOnly"));
        let text = forget(NAME, &options, false);
        assert!(text.starts_with("drover_session=;") && text.contains("Max-Age=0") && text.contains("Domain=example.org"), "{text}");
    }

    proptest! {
        #[test]
        fn no_header_is_too_odd(header: Vec<u8>) {
            let _ = find(&header, NAME);
        }
    }
}
