//! "Did you mean": the valid name that is nearest to a wrong one.
//!
//! Responsible for: a suggestion only if the wrong name looks like a typo. Must never: accept the
//! wrong name. Called by: every part that refuses the name of an option, a group or a provider.

/// Longer names are not compared. All names of directives and options are shorter.
const MAX_COMPARED_BYTES: usize = 64;

/// The nearest of `names` to `wrong`, if `wrong` looks like a typo: at most a third of the letters
/// (at least one) differ, and not all.
///
/// Letter case is ignored, and `_` equals `-`.
pub fn nearest<'n, T: AsRef<[u8]> + ?Sized>(wrong: &[u8], names: impl IntoIterator<Item = &'n T>) -> Option<&'n T> {
    if wrong.len() > MAX_COMPARED_BYTES {
        return None;
    }
    let folded = fold(wrong);
    names
        .into_iter()
        .map(|name| (strsim::generic_levenshtein(&folded, &fold(name.as_ref())), name))
        .filter(|(distance, name)| *distance <= (name.as_ref().len() / 3).max(1) && *distance < wrong.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

fn fold(name: &[u8]) -> Vec<u8> {
    name.iter().map(|byte| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_underscores_do_not_count() {
        assert_eq!(nearest(b"Python_Homes", ["python-home"]), Some("python-home"));
        assert_eq!(nearest(b"USER", ["user"]), Some("user"));
    }

    #[test]
    fn long_names_are_not_compared() {
        assert_eq!(nearest(&[b'a'; 65], ["a"]), None);
        let name = "a".repeat(64);
        assert_eq!(nearest(&[b'a'; 64], [name.as_str()]), Some(name.as_str()));
        assert_eq!(nearest(&[b'a'; 65], [name.as_str()]), None);
    }

    #[test]
    fn only_typos_are_corrected() {
        let names = ["threads", "processes", "user", "umask"];
        let guess = |wrong: &str| nearest(wrong.as_bytes(), names).map(|s: &str| s.to_owned());
        assert_eq!(guess("thread").as_deref(), Some("threads"));
        assert_eq!(guess("proceses").as_deref(), Some("processes"));
        assert_eq!(guess("users").as_deref(), Some("user"));
        assert_eq!(guess("workers"), None);
        assert_eq!(guess(""), None);
        assert_eq!((nearest(b"b", ["a"]), nearest(b"a2", ["a1"])), (None::<&str>, Some("a1")));
    }
}
