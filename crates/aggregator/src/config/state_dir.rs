//! Where state goes when nobody says.

use std::path::{Path, PathBuf};

/// For messages, when neither place can be had.
pub const NONE_WRITABLE: &str =
    "neither /var/lib/tollmesh nor a home directory is writable; set it or give --state-dir";

/// `/var/lib/tollmesh` where it is or can be made writable, else the user's own state directory
/// (XDG base directories: `$XDG_STATE_HOME`, by default `~/.local/state`).
pub fn default() -> Option<PathBuf> {
    let system = Path::new("/var/lib/tollmesh");
    if is_writable(system) {
        return Some(system.to_owned());
    }
    let from_env = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    from_env("XDG_STATE_HOME")
        .or_else(|| from_env("HOME").map(|home| home.join(".local/state")))
        .map(|dir| dir.join("tollmesh"))
}

/// Whether files can be made in it, or where it is missing, in its parent.
fn is_writable(dir: &Path) -> bool {
    let existing = if dir.exists() {
        Some(dir)
    } else {
        dir.parent()
    };
    existing.is_some_and(|dir| {
        rustix::fs::access(
            dir,
            rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
        )
        .is_ok()
    })
}
