//! How the value of a WSGIDaemonProcess option is read, and into which field.
//!
//! Responsible for: one way to read each kind of value, and the description of its range. Must
//! never: know a single option. Called by: `set::daemon_process` and `docs`; `options` has the
//! rows.

use super::group::{self, GroupOptions, GroupRef, UserRef};
use super::scalar::{self, MAX_BYTES, MAX_SECONDS, Parsed, range};
use std::borrow::Cow;
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
    /// Whole seconds, or a number with s, min, h or d.
    Seconds(fn(&mut GroupOptions, Duration)),
    /// 0 for the default, or at least `min` bytes, with an optional K, M or G.
    Size {
        min: u64,
        put: fn(&mut GroupOptions, u64),
    },
    /// On or Off.
    Flag(fn(&mut GroupOptions, bool)),
    /// Any text; may be empty.
    Text(fn(&mut GroupOptions, Vec<u8>)),
    /// An absolute path.
    Path(fn(&mut GroupOptions, Vec<u8>)),
    User {
        root: bool,
        put: fn(&mut GroupOptions, UserRef),
    },
    Group(fn(&mut GroupOptions, GroupRef)),
    /// Any other value. `range` describes it.
    Own {
        range: &'static str,
        read: fn(&mut GroupOptions, &[u8]) -> Parsed<()>,
    },
}

/// The largest count.
pub(super) const COUNT: i64 = i32::MAX as i64;

impl Take {
    /// Reads the value into the options, or returns the accepted values.
    pub fn read(&self, options: &mut GroupOptions, value: &[u8]) -> Parsed<()> {
        match self {
            Self::Number { min, max, put } => put(options, number(value, *min, *max)?),
            Self::Signed { min, max, put } => {
                let number = scalar::whole(value, *min, *max)?;
                put(options, i32::try_from(number).map_err(|_| range(*min, *max))?);
            }
            Self::Seconds(put) => put(options, Duration::from_secs(scalar::seconds(value, 0, MAX_SECONDS)?.into())),
            Self::Size { min, put } => {
                let size = scalar::bytes(value, 0, MAX_BYTES).ok().filter(|size| *size == 0 || size >= min);
                put(options, size.ok_or_else(|| self.range())?);
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

    /// The accepted values with their unit, unless the description has it already.
    pub fn in_unit(&self, expected: Cow<'static, str>, unit: &str) -> Cow<'static, str> {
        let says_it = unit.is_empty() || matches!(self, Self::Seconds(_) | Self::Size { .. });
        if says_it { expected } else { format!("{expected}, in {unit}").into() }
    }

    /// Describes the accepted values.
    pub fn range(&self) -> String {
        match self {
            Self::Number { min, max, .. } if *max == COUNT => format!("a whole number, at least {min}"),
            Self::Number { min, max, .. } | Self::Signed { min, max, .. } => range(*min, *max),
            Self::Seconds(_) => scalar::seconds_range(0, MAX_SECONDS),
            Self::Size { min: ..=1, .. } => scalar::bytes_range(0, MAX_BYTES),
            Self::Size { min, .. } => format!("0, or {}", scalar::bytes_range(*min, MAX_BYTES)),
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
