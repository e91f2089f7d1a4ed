//! "Did you mean": the valid name nearest to a wrong one.
//!
//! Responsible for a guess that is either helpful or absent. Must never decide anything: the wrong name stays an error. Called where an option
//! or a group name is refused.

/// The nearest of `names` to `wrong`, if it is near enough to be a slip: at most a third of its letters changed, at least one allowed, and not all.
pub fn nearest<'n, T: AsRef<[u8]> + ?Sized>(wrong: &[u8], names: impl IntoIterator<Item = &'n T>) -> Option<&'n T> {
    names
        .into_iter()
        .map(|name| (distance(wrong, name.as_ref()), name))
        .filter(|(distance, name)| *distance <= (name.as_ref().len() / 3).max(1) && *distance < wrong.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Edit distance over bytes, capital and small letters and `_` and `-` being equal; a swap of two neighbours counts as two changes.
///
/// Only one row of the matrix is kept. Words longer than 64 bytes are too far from any name to be compared.
pub fn distance(a: &[u8], b: &[u8]) -> usize {
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let fold = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b) {
            let substituted = diagonal + usize::from(fold(x) != fold(y));
            diagonal = *cell;
            left = substituted.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, want) in
            [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("threads", "thread", 1), ("Python_Home", "python-home", 0)]
        {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), want, "{a} {b}");
            assert_eq!(distance(b.as_bytes(), a.as_bytes()), want, "{b} {a}");
        }
        assert_eq!(distance(&[b'a'; 65], b"a"), usize::MAX);
    }

    #[test]
    fn only_slips_are_corrected() {
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
