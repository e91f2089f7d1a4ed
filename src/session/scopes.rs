//! The directories of the scopes' stores, below the session directory.
//!
//! Responsible for: the number of scopes being limited, also counting those of former configurations, which take space on the
//! disk as well. Must never: open a store. Called by: [`super::stores`].
use super::plan::{MEMORY, StorePlan};
use drover_session::{Error, Kept, Limits, id};
use std::fs::{DirBuilder, DirEntry};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The largest number of scopes below one directory.
pub(super) const MAX_SCOPES: usize = 256;

/// The directories in which scopes can lie, with the limits of their stores. Includes those of a former configuration that
/// kept other sessions in memory.
pub(super) fn roots(plans: &[StorePlan]) -> Vec<(PathBuf, Limits)> {
    let mut roots: Vec<(PathBuf, Limits)> = Vec::new();
    for plan in plans.iter().filter(|plan| matches!(plan.kept, Kept::Memory | Kept::Disk)) {
        for root in [plan.directory.clone(), plan.directory.join(MEMORY)] {
            if !roots.iter().any(|(other, _)| *other == root) {
                roots.push((root, plan.limits));
            }
        }
    }
    roots
}

/// The directories of the scopes below `root`.
pub(super) fn all(root: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(root).into_iter().flatten().flatten().filter(is_scope).take(MAX_SCOPES).map(|entry| entry.path())
}

fn is_scope(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(id::DIRECTORY.as_bytes())
}

/// Creates the directory of a scope's store if it does not exist.
pub(super) fn create(root: &Path, path: &Path) -> Result<(), Error> {
    let refused = |e: std::io::Error| Error::Unavailable(format!("{}: {e}", path.display()));
    if path.is_dir() {
        return Ok(());
    }
    if std::fs::read_dir(root).map_err(refused)?.flatten().filter(is_scope).count() >= MAX_SCOPES {
        return Err(Error::Unavailable(format!(
            "{} has reached the limit of {MAX_SCOPES} scopes: let several share one by DroverSessionScope NAME, or stop httpd and remove \
             the directories of unused scopes",
            root.display()
        )));
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(refused(e)),
        _ => Ok(()),
    }
}
