//! The file that tells scripts which process to signal.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes the process id as decimal digits without a newline, as twemproxy does.
///
/// The file stays when the process ends: scripts that look for it after a stop find the same as
/// with twemproxy. A symbolic link in its place is refused, so that nobody who may write to the
/// directory can aim the write at another file.
pub(crate) fn write(path: &Path, pid: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    write!(file, "{pid}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_the_digits_and_nothing_else() {
        let path = std::env::temp_dir().join(format!("ringkeeper-pid-{}", std::process::id()));
        std::fs::write(&path, "99999999").unwrap();
        write(&path, 123).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "123");
        std::fs::remove_file(&path).unwrap();
    }
}
