//! Man pages and completions, from the same source as `--help`.

use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;

/// Writes a man page for the program and one for each of its commands into a folder, which is made
/// if it is missing.
///
/// # Errors
///
/// A file can't be written.
pub(super) fn write_pages(command: Command, folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command, folder)
}

/// Returns the completions of one shell.
pub(super) fn completions(mut command: Command, shell: Shell) -> Vec<u8> {
    let mut out = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut out);
    out
}
