//! How the value of a WSGIDaemonProcess option is read, and into which field.
//!
//! Responsible for: each kind of value being read in one way, with what would have been accepted said in words. Must never: know a single option.
//! Called by: `set::daemon_process`, `error` and `docs`; `options` has the rows.

use super::group::{self, GroupOptions, GroupSpec, UserSpec};
use super::scalar::{self, Parsed, range};
use std::time::Duration;

/// How a value is read, and into which field.
pub enum Take {
    /// A whole number.
    Number {
        min: i64,
        max: i64,
        put: fn(&mut GroupOptions, u32),
    },
    /// A whole number that may be negative.
    Signed {
        min: i64,
        max: i64,
        put: fn(&mut GroupOptions, i32),
    },
    /// Whole seconds.
    Seconds(fn(&mut GroupOptions, Duration)),
    /// 0 for the default, or a number of at least `min`.
    Size {
        min: i64,
        put: fn(&mut GroupOptions, u64),
    },
    /// On or Off.
    Flag(fn(&mut GroupOptions, bool)),
    /// Any text, also none.
    Text(fn(&mut GroupOptions, Vec<u8>)),
    /// An absolute path.
    Path(fn(&mut GroupOptions, Vec<u8>)),
    User {
        root: bool,
        put: fn(&mut GroupOptions, UserSpec),
    },
    Group(fn(&mut GroupOptions, GroupSpec)),
    /// What none of the above can read; the text is the range for the documentation.
    Own {
        range: &'static str,
        read: fn(&mut GroupOptions, &[u8]) -> Parsed<()>,
    },
}

const SECONDS: i64 = i32::MAX as i64;
/// The largest number of things.
pub(super) const COUNT: i64 = i32::MAX as i64;
const BYTES: i64 = i64::MAX;

impl Take {
    /// Reads the value into the options, or says what it would have accepted.
    pub fn read(&self, options: &mut GroupOptions, value: &[u8]) -> Parsed<()> {
        match self {
            Self::Number { min, max, put } => put(options, number(value, *min, *max)?),
            Self::Signed { min, max, put } => {
                let number = scalar::whole(value, *min, *max)?;
                put(options, i32::try_from(number).map_err(|_| range(*min, *max))?);
            }
            Self::Seconds(put) => put(options, Duration::from_secs(number(value, 0, SECONDS)?.into())),
            Self::Size { min, put } => {
                let size = scalar::whole(value, 0, BYTES).ok().filter(|size| *size == 0 || size >= min);
                put(options, size.and_then(|size| u64::try_from(size).ok()).ok_or_else(|| self.range())?);
            }
            Self::Flag(put) => put(options, scalar::flag(value)?),
            Self::Text(put) => put(options, value.to_vec()),
            Self::Path(put) => put(options, scalar::absolute_path(value)?),
            Self::User { root: false, put } => put(options, group::run_as(value)?),
            Self::User { root: true, put } => put(options, group::user(value)?),
            Self::Group(put) => put(options, group::group(value)?),
            Self::Own { read, .. } => read(options, value)?,
        }
        Ok(())
    }

    /// The accepted values in words.
    pub fn range(&self) -> String {
        match self {
            Self::Number { min, max, .. } if *max == COUNT => format!("a whole number, at least {min}"),
            Self::Number { min, max, .. } | Self::Signed { min, max, .. } => range(*min, *max),
            Self::Seconds(_) => "a whole number, at least 0".to_owned(),
            Self::Size { min: ..=1, .. } => "a whole number, at least 0".to_owned(),
            Self::Size { min, .. } => format!("0, or a whole number of at least {min}"),
            Self::Flag(_) => "On or Off".to_owned(),
            Self::Text(_) => "any text".to_owned(),
            Self::Path(_) => "an absolute path".to_owned(),
            Self::User { root, .. } => if *root { "user name or #uid" } else { "user name or #uid, not root" }.to_owned(),
            Self::Group(_) => "group name or #gid".to_owned(),
            Self::Own { range, .. } => (*range).to_owned(),
        }
    }
}

fn number(value: &[u8], min: i64, max: i64) -> Parsed<u32> {
    let number = scalar::whole(value, min, max)?;
    u32::try_from(number).map_err(|_| range(min, max).into())
}
